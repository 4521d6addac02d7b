"""Reproduce: the same bytes from what was recorded, or the name of what differs; and the preview beside another."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

import batteries as bt
from batteries.cli.app import main
from batteries.combine.blend import Blend
from batteries.combine.preview import difference, distribution, previous
from batteries.combine.reproduce import reproduce
from batteries.combine.submission import Submission
from batteries.errors import CorruptError, ExperimentError, SubmissionError, UsageError
from batteries.experiment.predictions import Predictions
from batteries.files import read_sealed, write_sealed
from batteries.score.entry import Entry, open_entry
from batteries.score.ledger import Ledger
from entries import FIRST_TEST_ID, entry_of
from killing import HEAVY, _counted

ROWS, TESTS = 120, 40


@dataclass(kw_only=True)
class Binary(bt.Experiment):
    metric = bt.Metric.log_loss()

    def sample_submission(self) -> pl.DataFrame | None:
        return pl.DataFrame({"id": np.arange(TESTS)[::-1] + FIRST_TEST_ID, "target": [0.5] * TESTS})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three runs of one split."""
    random = np.random.default_rng(0)
    targets, folds = random.integers(0, 2, ROWS), np.arange(ROWS) % 3
    for number in (1, 2, 3):
        values = random.uniform(0.01, 0.99, ROWS)
        entry_of(tmp_path / "runs", f"toy-00{number}", values, targets, folds, test=random.uniform(0.01, 0.99, TESTS))
    return tmp_path / "runs"


def blended(root: Path, *names: str, **how: object) -> Entry:
    return bt.blend_entries([open_entry(root, name) for name in names], root, **how)  # type: ignore[arg-type]


def sent(root: Path, name: str, **how: object) -> Submission:
    return bt.submit(open_entry(root, name), Binary(), root, **how)  # type: ignore[arg-type]


BLENDS: dict[str, dict[str, object]] = {
    "mean": {"weights": [0.1, 0.2, 0.7]},
    "of weights that do not add up": {"weights": [1.0, 1.0, 1e-3]},
    "rank": {"how": "rank", "within_folds": True},
    "geometric": {"how": "geometric", "clip": 1e-6},
    "largest": {"how": "power", "power": float("inf")},
    "median": {"how": "median"},
    "trimmed": {"how": "trimmed", "trim": 1},
    "rank powers": {"how": "mean_of_rank_powers", "power": 3.0},
}


@pytest.mark.parametrize("what", BLENDS)
def test_a_blend_is_blended_again_to_the_same_bytes(what: str, root: Path) -> None:
    entry = blended(root, "toy-001", "toy-002", "toy-003", **BLENDS[what])
    made = sent(root, entry.name)
    again = reproduce(made.name, root)
    assert again.data == made.path.read_bytes()
    assert (again.sha256, again.fault) == (made.sha256, None)
    assert again.entries == ("toy-001", "toy-002", "toy-003", entry.name)


def test_blends_of_blends_are_made_again_from_the_runs(root: Path) -> None:
    inner = blended(root, "toy-001", "toy-002", weights=[1.0, 2.0])
    outer = blended(root, inner.name, "toy-003", how="logit")
    made = sent(root, outer.name, digits=4)
    tree = read_sealed(made.path.parent / "submission.json")["made_of"]
    assert [(member["entry"], member["weight"]) for member in tree["members"]] == [(inner.name, 0.5), ("toy-003", 0.5)]
    assert [member["weight"] for member in tree["members"][0]["members"]] == [1 / 3, 2 / 3]
    assert len({member["test"] for member in tree["members"]}) == 2
    again = reproduce(made.name, root)
    assert again.entries == ("toy-001", "toy-002", inner.name, "toy-003", outer.name)
    assert again.data == made.path.read_bytes()


def test_what_is_derived_is_taken_from_its_file_and_what_it_is_of_is_recorded(root: Path) -> None:
    values = np.random.default_rng(1).normal(size=ROWS)
    entry_of(
        root, "average-001", values, values, np.arange(ROWS) % 3, test=np.full(TESTS, 0.3), kind="average", of="toy-001"
    )
    assert reproduce(sent(root, "average-001").name, root).entries == ("toy-001", "average-001")


def test_recorded_weights_are_not_divided_again() -> None:
    for seed in range(50):
        once = Blend(weights=tuple(np.random.default_rng(seed).uniform(size=37).tolist())).weights
        assert Blend(weights=once).weights == once


def test_the_record_says_all_that_decides_the_bytes(root: Path) -> None:
    made = sent(root, "toy-001", digits=3)
    record = read_sealed(made.path.parent / "submission.json")
    assert record["entry"] == "toy-001"
    assert record["members"] == {"toy-001": 1.0}
    assert record["digits"] == 3
    assert record["sample"]["name"] == "Binary.sample_submission()"
    assert record["target"]["metric"] == "log_loss"
    assert {"python", "numpy", "polars"} <= record["versions"].keys()
    assert record["made"]


def test_the_competitions_file_is_copied_and_may_be_gone(root: Path, tmp_path: Path) -> None:
    sample = tmp_path / "sample_submission.csv"
    sample.write_text("\ufeffrow,p\r\n" + "".join(f"{id},0.5\r\n" for id in np.arange(TESTS) + FIRST_TEST_ID))
    made = sent(root, "toy-001", sample=sample)
    assert made.path.read_text().startswith(f"row,p\n{FIRST_TEST_ID},0.")
    sample.unlink()
    assert reproduce(made.name, root).data == made.path.read_bytes()


def test_a_stale_sample_is_refused_with_both_counts_and_nothing_is_written(root: Path) -> None:
    sample = pl.DataFrame({"id": np.arange(TESTS - 10) + FIRST_TEST_ID, "p": [0.5] * (TESTS - 10)})
    message = (
        r"has 30 ids, the predictions 40: 0 are only in the sample .*, 10 only in the predictions \(first: \['10030'"
    )
    with pytest.raises(SubmissionError, match=message):
        sent(root, "toy-001", sample=sample)
    assert not list(root.glob("*submission*"))


def test_a_sample_of_another_library_is_refused(root: Path) -> None:
    class Other(Binary):
        def sample_submission(self) -> pl.DataFrame | None:
            return {"id": [1]}  # type: ignore[return-value]

    with pytest.raises(
        ExperimentError, match=r"Other.sample_submission\(\) must return a polars DataFrame .*, got dict"
    ):
        bt.submit(open_entry(root, "toy-001"), Other(), root)


def test_another_number_of_digits_is_another_submission_and_the_same_is_not_made_twice(root: Path) -> None:
    names = [sent(root, "toy-001", digits=digits).name for digits in (None, 3, None, 3)]
    assert names == ["submission-001", "submission-002"] * 2


def test_a_submission_whose_file_was_changed_is_made_anew(root: Path) -> None:
    made = sent(root, "toy-001")
    made.path.write_text("other")
    assert sent(root, "toy-001").name == "submission-002"


# --- what differs


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


def test_a_members_file_that_changed_is_named_with_both_digests(root: Path) -> None:
    made = sent(root, blended(root, "toy-001", "toy-002").name)
    path = root / "toy-002" / "test.parquet"
    Predictions(pl.Series(np.arange(TESTS) + FIRST_TEST_ID), np.full(TESTS, 0.5)).save(path)
    with pytest.raises(CorruptError, match=r"toy-002/test.parquet: is not the file .*SHA-256 [0-9a-f]{12}, recorded"):
        reproduce(made.name, root)


def test_what_is_gone_is_named(root: Path) -> None:
    made = sent(root, blended(root, "toy-001", "toy-002").name)
    shutil.rmtree(root / "toy-001")
    with pytest.raises(CorruptError, match=r"toy-001/test.parquet is no longer there; restore it from a copy"):
        reproduce(made.name, root)


@pytest.mark.parametrize("file", ["sample.csv", "submission.json"])
def test_a_damaged_file_of_the_submission_is_refused(file: str, root: Path) -> None:
    made = sent(root, "toy-001")
    damaged(made.path.parent / file)
    with pytest.raises(CorruptError, match=file):
        reproduce(made.name, root)


def test_bytes_that_come_out_otherwise_are_told_apart_by_ids(root: Path) -> None:
    made = sent(root, "toy-001")
    path = made.path.parent / "submission.json"
    record = read_sealed(path)
    write_sealed(path, {**record, "digits": 2, "versions": {**record["versions"], "polars": "0.1"}})
    with pytest.raises(CorruptError, match=r"SHA-256 .* 40 of 40 ids have other values .*first: \['10039'.*polars 0.1"):
        reproduce(made.name, root)


def test_a_blend_that_comes_out_otherwise_is_named(root: Path) -> None:
    made = sent(root, blended(root, "toy-001", "toy-002").name)
    path = made.path.parent / "submission.json"
    record = read_sealed(path)
    record["made_of"]["members"][0]["weight"] = 0.25
    record["made_of"]["members"][1]["weight"] = 0.75
    write_sealed(path, record)
    with pytest.raises(CorruptError, match="blend-001: blending toy-001, toy-002 again gives other predictions for 40"):
        reproduce(made.name, root)


def test_members_that_were_gone_at_the_submission_are_not_needed(root: Path) -> None:
    entry = blended(root, "toy-001", "toy-002")
    shutil.rmtree(root / "toy-001")
    assert reproduce(sent(root, entry.name).name, root).entries == ("toy-001", "toy-002", entry.name)


def test_a_submission_of_an_older_batteries_says_so(root: Path) -> None:
    made = sent(root, "toy-001")
    path = made.path.parent / "submission.json"
    write_sealed(path, {key: value for key, value in read_sealed(path).items() if key != "made_of"})
    with pytest.raises(UsageError, match="made by an older Batteries"):
        reproduce(made.name, root)
    assert sent(root, "toy-001").name == "submission-002"


def _killed(root: Path, kill_at: int) -> None:
    """Submit toy-001; die before the n-th flush, rename or removal."""
    count = _counted(kill_at, signal.SIGKILL)
    sent(root, "toy-001")
    (root / "moments").write_text(str(count()))
    os._exit(0)


def test_killed_at_any_moment_a_submission_is_there_whole_or_not_at_all(root: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*HEAVY, "batteries.combine.submission"])
    moment = 0
    while not (root / "moments").exists():
        moment += 1
        process = context.Process(target=_killed, args=(root, moment))
        process.start()
        process.join(60)
        assert process.exitcode in (0, -signal.SIGKILL)
        for folder in root.glob("submission-*"):
            assert reproduce(folder.name, root).fault is None
            assert sent(root, "toy-001").name == folder.name  # and is noted now
            with Ledger(root) as ledger:
                assert [row["name"] for row in ledger.submissions()] == [folder.name]
            break
    assert moment > 8


# --- the command


def test_the_command_makes_it_again_and_says_so(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = sent(root, "toy-001")
    size = len(made.path.read_bytes())
    assert main(["reproduce", made.name]) == 0
    assert f"submission-001: the same {size:,} bytes, made again from toy-001; SHA-256" in capfd.readouterr().out
    assert main(["reproduce", made.name, "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "submission": made.name,
        "same": True,
        "bytes": size,
        "sha256": made.sha256,
        "entries": ["toy-001"],
        "fault": None,
    }


def test_a_damaged_submission_ends_with_4_and_can_be_had_again(root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = sent(root, "toy-001")
    whole = made.path.read_bytes()
    made.path.write_bytes(whole.replace(b"10007,0.", b"10007,1."))
    assert main(["reproduce", made.name]) == 4
    err = capfd.readouterr().err
    assert "submission.csv was changed since: 1 of 40 ids have other values" in err
    assert "(first: ['10007']). To have it again: batteries reproduce submission-001 --out FILE" in err
    assert main(["reproduce", made.name, "--out", "again.csv"]) == 0
    assert Path("again.csv").read_bytes() == whole
    assert main(["reproduce", made.name, "--out", "again.csv"]) == 2
    assert "again.csv exists already" in capfd.readouterr().err
    made.path.unlink()
    assert main(["reproduce", made.name]) == 4
    assert "submission.csv is no longer there" in capfd.readouterr().err


def test_a_file_that_got_longer_is_told_from_one_with_other_values(root: Path) -> None:
    made = sent(root, "toy-001")
    whole = made.path.read_bytes()
    for more, said in {
        b"more,1\n": r"it has 1 row more \(first: \['more'\]\)",
        b"\n": "it says the same in other bytes",
    }.items():
        made.path.write_bytes(whole + more)
        fault = reproduce(made.name, root).fault
        assert fault is not None
        assert re.search(f"submission.csv was changed since: {said}", fault), fault


def test_a_damaged_record_of_one_submission_hinders_no_other_one(root: Path) -> None:
    first, second = sent(root, "toy-001"), sent(root, "toy-002")
    (first.path.parent / "submission.json").write_text("garbage")
    with pytest.warns(UserWarning, match=r"submission-001/submission\.json: cannot be read .*; going on without it"):
        assert sent(root, "toy-002").name == second.name


# --- beside another submission


def columns(**values: object) -> pl.DataFrame:
    return pl.DataFrame({"id": [f"r{i}" for i in range(200)], **values})


@pytest.fixture
def draw() -> Callable[[], np.ndarray]:
    random = np.random.default_rng(3)
    return lambda: random.normal(size=200).round(1)  # with ties


def test_correlations_are_those_of_scipy_whatever_the_order_of_rows(draw: Callable[[], np.ndarray]) -> None:
    first, second = draw(), draw()
    now, before = columns(p=first), columns(p=second + first)
    change = difference(now, before.sample(fraction=1, shuffle=True, seed=1), "it").changes[0]
    assert change.pearson == pytest.approx(stats.pearsonr(first, second + first).statistic, abs=1e-12)
    assert change.spearman == pytest.approx(stats.spearmanr(first, second + first).statistic, abs=1e-12)
    assert change.spread is not None
    assert (change.spread.least, change.spread.most) == (first.min(), first.max())
    assert change.spread.mean == pytest.approx(first.mean())


def test_a_constant_column_has_no_correlation(draw: Callable[[], np.ndarray]) -> None:
    change = difference(columns(p=[0.5] * 200), columns(p=draw()), "it").changes[0]
    assert (change.pearson, change.spearman) == (None, None)


def test_of_labels_the_changed_share_and_the_counts_are_told() -> None:
    now, before = ["cat"] * 150 + ["dog"] * 50, ["cat"] * 140 + ["dog"] * 60
    change = difference(columns(p=now), columns(p=before), "it").changes[0]
    assert change.changed == 0.05
    assert (change.counts, change.counts_before) == ({"cat": 150, "dog": 50}, {"cat": 140, "dog": 60})


def test_of_many_labels_the_commonest_are_counted() -> None:
    table = pl.DataFrame({"id": range(3000), "p": ["b", "a"] * 500 + [f"c{i}" for i in range(2000)]})
    counts = distribution(table)[0].counts
    assert counts is not None
    assert (len(counts), counts["a"], counts["b"], counts["c0"]) == (1000, 500, 500, 1)


def test_codes_written_another_way_are_the_same_labels() -> None:
    now = columns(p=[1, 0] * 100)
    assert difference(now, columns(p=["1.0", "0.0"] * 100), "it").changes[0].changed == 0
    now = columns(p=["True", "False"] * 100)
    assert difference(now, columns(p=["true", "false"] * 100), "it").changes[0].changed == 0


def test_of_classes_the_rows_with_another_largest_column_are_counted(draw: Callable[[], np.ndarray]) -> None:
    a, b = np.linspace(0, 1, 200), np.linspace(0, 1, 200)[::-1]
    assert difference(columns(x=a, y=b), columns(x=b, y=a), "it").largest_changed == 1.0
    assert difference(columns(x=a, y=b), columns(x=a * 2, y=b * 2), "it").largest_changed == 0.0


def test_rows_of_one_alone_are_counted_and_strangers_refused(draw: Callable[[], np.ndarray]) -> None:
    now = columns(p=draw())
    found = difference(now.head(150), now.tail(120), "it")
    assert (found.rows, found.only_now, found.only_before) == (70, 80, 50)
    with pytest.raises(UsageError, match="it has no ids in common with the submission"):
        difference(now.head(10), now.tail(10), "it")
    with pytest.raises(UsageError, match="it has no columns in common with the submission"):
        difference(now, columns(q=draw()), "it")


def test_the_previous_one_is_the_newest_other_of_the_experiment(root: Path) -> None:
    first, second = sent(root, "toy-001"), sent(root, "toy-002")
    assert (previous(first), previous(second)) == ("submission-002", "submission-001")
    other = entry_of(
        root,
        "other-001",
        np.full(ROWS, 0.5),
        np.zeros(ROWS),
        np.arange(ROWS) % 3,
        test=np.full(TESTS, 0.5),
        experiment={"name": "other", "file": "experiment.py"},
    )
    assert previous(bt.submit(other, Binary(), root)) is None
    third = sent(root, "toy-003")
    second.path.unlink()
    assert previous(third) == "submission-001"
    with Ledger(root) as ledger:
        assert [row["name"] for row in ledger.submissions()] == [f"submission-00{number}" for number in (1, 2, 3, 4)]
