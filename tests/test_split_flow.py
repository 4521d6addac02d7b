"""The flow on folds that do not hold every row out, or do not train on all others: time, hold-out, column, purged."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import batteries as bt
from batteries.cli.app import main
from batteries.errors import PredictionsError
from batteries.improve.significance import corrected_t
from batteries.prepare.folds import Folds
from batteries.prepare.strategies import KFold, repeats

STRATEGIES = {
    "expanding": 'TimeOrdered("day", n=3, gap=1)',
    "sliding": 'TimeOrdered("day", n=3, window=15, size=10)',
    "last": 'TimeOrdered("day", n=1, size=12)',
    "purged": 'Purged("day", "end", n=3, embargo=1)',
    "hold-out": 'HoldOut(0.25, column="label")',
    "column": 'Predefined("part")',
}


@pytest.fixture
def of(toy_folder: Path) -> Callable[[str], Path]:
    """The toy with days, in another order than theirs, and held out by a strategy; it notes what it trains on."""

    def write(strategy: str) -> Path:
        path = toy_folder / "experiment.py"
        text = path.read_text()
        for old, new in (
            ('bt.Stratified("label", n=2)', strategy),
            ("        return rows(60)\n", '        return DAYS.join(rows(60), on="id", maintain_order="left")\n'),
            ("        points = torch", "        note(rows, training)\n        points = torch"),
            ("epochs=4", "epochs=1"),
            ("epochs=2", "epochs=1"),
            ("@dataclass(kw_only=True)", NOTED + "@dataclass(kw_only=True)"),
        ):
            assert old in text
            text = text.replace(old, new, 1)
        path.write_text(text)
        return toy_folder

    return write


NOTED = """import json
from batteries.prepare.made_elsewhere import Predefined
from batteries.prepare.strategies import HoldOut
from batteries.prepare.time_folds import Purged, TimeOrdered

ORDER = np.random.default_rng(1).permutation(60)
DAYS = pl.DataFrame({"id": ORDER, "day": ORDER, "end": ORDER + 2, "part": ORDER % 4 - 1})


def note(rows: pl.DataFrame, training: bool) -> None:
    if "day" in rows.columns:
        with open("seen.jsonl", "a") as file:
            file.write(json.dumps([training, rows["id"].to_list()]) + "\\n")


"""


def says(capfd: pytest.CaptureFixture[str], *lines: str) -> str:
    for line in lines:
        capfd.readouterr()
        assert main(line.split()) == 0, capfd.readouterr().err
    return capfd.readouterr().out


@pytest.mark.parametrize("name", STRATEGIES)
def test_training_reads_the_rows_that_train_and_the_board_has_those_held_out(
    name: str, of: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    of(STRATEGIES[name])
    board = says(capfd, "split", "train --device cpu", "scores")
    folds = Folds.load("runs/folds.parquet")
    seen = [json.loads(line) for line in Path("seen.jsonl").read_text().splitlines()]
    trained = {tuple(ids) for training, ids in seen if training}
    assert trained == {tuple(folds.ids.gather(folds.training(fold)).to_list()) for fold in range(folds.n)}
    entry = bt.open_entry("runs", "toy-001")
    oof = entry.oof(complete=True)
    assert oof.ids.to_list() == folds.covered.to_list()
    assert entry.rows == len(oof) == (folds.fold >= 0).sum()
    assert oof.folds is not None
    assert oof.folds.tolist() == folds.fold[folds.fold >= 0].tolist()
    assert "toy-001" in board
    (row,) = bt.scores("runs")
    assert (row.folds, row.missing_folds) == (f"{folds.n}/{folds.n}", False)
    assert "is already complete" in says(capfd, "train --device cpu")


def test_all_that_comes_after_works_on_rows_held_out_in_time(
    of: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    of(STRATEGIES["expanding"])
    assert main(["train", "--device", "cpu", "--fold", "0"]) == 0
    (row,) = bt.scores("runs")
    assert (row.folds, row.missing_folds) == ("1/3", True)
    with pytest.raises(PredictionsError, match="toy-001 predicts 15 of 45 training rows, 30 are missing"):
        bt.open_entry("runs", "toy-001").oof(complete=True)
    says(
        capfd,
        "train --device cpu",
        "train --device cpu --set width=12",
        "average toy-001 --best 1",
        "blend toy-001 toy-002 average-001",
    )
    for line in (
        "blend toy-001 toy-002 --fit greedy",
        "stack toy-001 toy-002 --model logistic",
        "calibrate toy-001",
        "decide toy-001",
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            assert main(line.split()) == 0
        assert "warning: toy-001: folds are in the order of 'day', and what is fitted" in capfd.readouterr().err, line
    says(
        capfd,
        "submit blend-001",
        "test toy-001",
        "report",
    )
    assert len(bt.open_entry("runs", "average-001").oof(complete=True)) == 45
    found = json.loads(says(capfd, "compare toy-001 toy-002 --draws 200 --json"))
    folds = Folds.load("runs/folds.parquet")
    share = np.mean([len(folds.held_out(fold)) / len(folds.training(fold)) for fold in range(3)])
    assert folds.test_share == share
    parts = [bt.open_entry("runs", name).oof() for name in ("toy-001", "toy-002")]
    accuracy = bt.Metric.accuracy()
    scores = [[accuracy(p.targets[p.folds == f], p.values[p.folds == f]) for p in parts] for f in range(3)]
    expected = corrected_t([b - a for a, b in scores], test_share=share)
    assert expected is not None
    assert found["comparisons"][0]["p_folds"] == expected.p


@pytest.mark.parametrize("all_rows", [False, True], ids=["the rows held out", "every row"])
def test_predictions_of_another_tool_count_where_they_are_held_out(
    all_rows: bool, of: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    of(STRATEGIES["expanding"])
    says(capfd, "train --device cpu")
    toy = bt.open_entry("runs", "toy-001")
    ours, tested = toy.oof(), toy.test()
    assert tested is not None
    theirs, of_test = (
        pl.DataFrame({"id": each.ids, **{f"class{c}": each.values[:, c] for c in range(3)}}) for each in (ours, tested)
    )
    if all_rows:  # those that no fold holds out are told right, as a model that trained on them would
        table = bt.load_experiment(".").table().join(theirs, on="id", how="anti")
        right = {f"class{c}": (table["label"] == c).cast(theirs.schema["class0"]) for c in range(3)}
        theirs = pl.concat([theirs, pl.DataFrame({"id": table["id"], **right})])
    Path("theirs").mkdir()
    theirs.sample(fraction=1, shuffle=True, seed=1).write_parquet("theirs/same_oof.parquet")
    of_test.write_parquet("theirs/same_test.parquet")
    says(capfd, "ledger import theirs")
    same = bt.open_entry("runs", "same")
    assert same.oof(complete=True).ids.equals(ours.ids)
    np.testing.assert_array_equal(same.oof().folds, ours.folds)
    assert same.config["folds"] == toy.config["folds"]
    rows = {row.name: row for row in bt.scores("runs")}
    assert (rows["same"].valid, rows["same"].folds) == (rows["toy-001"].valid, "3/3")
    says(capfd, "train --device cpu --set width=12", "blend same toy-002")
    found = json.loads(says(capfd, "compare same toy-001 --draws 200 --json"))
    assert found["comparisons"][0]["gain"] == 0


def test_one_held_out_part_is_not_enough_to_fit_on_and_the_error_says_so(
    of: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    of(STRATEGIES["hold-out"])
    says(capfd, "train --device cpu", "train --device cpu --set width=12", "blend toy-001 toy-002")
    for line in ("calibrate toy-001", "stack toy-001 toy-002 --model logistic", "blend toy-001 toy-002 --fit greedy"):
        assert main(line.split()) == 3, line
        err = capfd.readouterr().err
        assert "fold" in err
        assert "Traceback" not in err


def test_a_rehearsal_takes_the_rows_that_train_in_the_first_block(
    of: Callable[[str], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    of(STRATEGIES["expanding"])
    told = json.loads(says(capfd, "train --device cpu --dry-run --json"))
    rows = (14 + 29 + 44) / 3  # that train, of which the first fold has fewest
    assert [(stage["name"], stage["updates"]) for stage in told["stages"]] == [("head", 4), ("all", 4)]
    assert told["estimate"] > 3 * sum(rows * stage["seconds"] / 8 for stage in told["stages"])
    seen = [json.loads(line) for line in Path("seen.jsonl").read_text().splitlines()]
    assert all(row < 14 for training, ids in seen for row in ids if training)


def test_a_run_goes_on_only_with_the_rows_that_trained_before(of: Callable[[str], Path]) -> None:
    of(STRATEGIES["expanding"])
    assert main(["train", "--device", "cpu", "--fold", "0"]) == 0
    folds = Folds.load("runs/folds.parquet")
    assert folds.trains is not None
    changed = folds.trains.copy()
    changed[folds.training(0)[0], 0] = False
    Folds(folds.ids, folds.fold, folds.about, changed).save("runs/folds.parquet")
    assert main(["train", "--device", "cpu", "--resume", "toy-001"]) == 5


def test_each_repeat_is_trained_in_a_folder_of_runs_of_its_own(toy_folder: Path) -> None:
    experiment = bt.load_experiment(toy_folder)
    digests = []
    for number, strategy in enumerate(repeats(KFold(n=2), 2)):
        type(experiment).folds = strategy
        run = bt.train_run(experiment, f"repeat{number}", device="cpu", progress=False)
        entry = bt.open_entry(f"repeat{number}", run.name)
        bt.record(entry, experiment, f"repeat{number}")
        digests.append(entry.config["folds"]["digest"])
        assert entry.oof(complete=True).ids.to_list() == list(range(60))
    assert digests[0] != digests[1]
    assert pl.read_parquet("repeat0/folds.parquet")["fold"].to_list() != digests
