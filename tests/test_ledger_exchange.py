"""The ledger and other tools: exported tables, imported predictions, and the verbs that do it."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression

import batteries as bt
from batteries.cli.app import main
from batteries.errors import (
    CorruptError,
    DataError,
    FoldsError,
    NotSafeError,
    PredictionsError,
    ResumeError,
    UsageError,
)
from batteries.files import read_sealed, write_sealed
from batteries.score.exchange import export, import_rows, scores_table
from batteries.score.imported import Outside, import_entry, outside_in
from batteries.score.ledger import Ledger
from batteries.score.recover import recover
from batteries.score.verify import verify
from test_ledger import both, config
from test_ledger_faults import everything, filled

ROOT = Path("runs")

# --- export and import of the ledger itself


def unnumbered(tables: dict[str, Any]) -> dict[str, Any]:
    return {name: [{**row, "number": None} for row in rows] for name, rows in tables.items()}


@both
def test_the_exported_table_is_every_score_with_what_is_known_of_its_entry(tmp_path: Path) -> None:
    filled(ROOT)
    for name in ("scores.parquet", "scores.csv"):
        assert export(name, ROOT) == 8
    table = pl.read_parquet("scores.parquet")
    assert table.equals(scores_table(ROOT))
    public = table.filter(pl.col("scope") == "public")
    assert public["value"].to_list() == [0.7, 0.8]
    assert public.select("kind", "submission", "sha256").row(0) == ("blend", "s-1", "ab")
    assert pl.read_csv("scores.csv", schema=table.schema).equals(table)


def test_texts_that_a_spreadsheet_would_run_are_neutralised_in_csv_alone() -> None:
    hostile = ["=1+1", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "fine", "a=b"]
    with Ledger(ROOT) as ledger:
        ledger.add_entry(config("toy-001"))
        for name in hostile:
            ledger.add_score("toy-001", "oof", 0.5, metric=name, higher_is_better=True)
    export("scores.csv", ROOT)
    with open("scores.csv", newline="", encoding="utf-8") as file:
        found = [row["metric"] for row in csv.DictReader(file)]
    assert found == [f"'{name}" for name in hostile[:6]] + hostile[6:]
    export("scores.parquet", ROOT)
    assert pl.read_parquet("scores.parquet")["metric"].to_list() == hostile


@both
def test_an_exported_ledger_enters_another_once(tmp_path: Path) -> None:
    before = filled(ROOT)
    rows = export("all.json", ROOT)
    other = tmp_path / "other"
    assert [import_rows("all.json", other) for _ in range(2)] == [rows, 0]
    assert unnumbered(everything(other)) == unnumbered(before)  # numbers are those of the database
    assert everything(ROOT) == before


def test_what_is_no_exported_ledger_or_contradicts_this_one_is_refused_whole(tmp_path: Path) -> None:
    filled(ROOT)
    export("all.json", ROOT)
    data = read_sealed(Path("all.json"))
    write_sealed(Path("newer.json"), {**data, "schema": 9, "batteries": "8.0"})
    write_sealed(Path("other.json"), {"schema": "x"})
    Path("damaged.json").write_text(Path("all.json").read_text().replace("0.7", "0.9"))
    for name, error, message in (
        ("newer.json", ResumeError, r"written by Batteries 8\.0.*schema 9, this one knows 3"),
        ("other.json", CorruptError, "is no exported ledger"),
        ("damaged.json", CorruptError, "was changed or damaged"),
    ):
        with pytest.raises(error, match=message):
            import_rows(name, ROOT)
    other = tmp_path / "other"
    with Ledger(other) as ledger:
        ledger.add_entry(config("blend-001", identity="another"))
    with pytest.raises(UsageError, match="knows another 'blend-001'"):
        import_rows("all.json", other)
    assert [row["name"] for row in everything(other)["entries"]] == ["blend-001"]


# --- predictions of other tools


@pytest.fixture
def outside(toy_folder: Path) -> bt.Experiment:
    """The toy, its folds, and out.csv files of a logistic regression that was trained by them, rows shuffled."""
    experiment = bt.load_experiment(toy_folder)
    folds = bt.split(experiment, ROOT)
    table, test = experiment.table(), experiment.test_table()
    assert test is not None
    x, y = table.select("x", "y").to_numpy(), table["label"].to_numpy()
    values, of_test = np.zeros((len(table), 3)), np.zeros((len(test), 3))
    for fold in range(folds.n):
        rows = folds.training(fold)
        model = LogisticRegression().fit(x[rows], y[rows])
        values[folds.held_out(fold)] = model.predict_proba(x[folds.held_out(fold)])
        of_test += model.predict_proba(test.select("x", "y").to_numpy()) / folds.n
    Path("theirs").mkdir()
    for name, ids, each in (("oof", table["id"], values), ("test", test["id"], of_test)):
        frame = pl.DataFrame({"id": ids, **{f"class{c}": each[:, c] for c in range(3)}})
        frame.sample(fraction=1, shuffle=True, seed=1).write_csv(f"theirs/logistic_{name}.csv")
    return experiment


LOGISTIC = Outside("logistic", Path("theirs/logistic_oof.csv"), Path("theirs/logistic_test.csv"))


def test_predictions_of_another_tool_are_an_entry_that_takes_part_in_everything(
    outside: bt.Experiment, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train"]) == 0
    assert main(["ledger", "import", "theirs"]) == 0
    entry = bt.open_entry(ROOT, "logistic")
    table = outside.table()
    theirs = pl.read_csv("theirs/logistic_oof.csv").sort("id").drop("id").to_numpy()
    assert entry.oof().ids.equals(table["id"])
    np.testing.assert_array_equal(entry.oof().values, theirs)
    expected = float((theirs.argmax(axis=1) == table["label"].to_numpy()).mean())
    assert f"logistic: accuracy {expected:.5f}; runs/logistic" in capfd.readouterr().out
    rows = {row.name: row for row in bt.scores(ROOT)}
    assert (rows["logistic"].valid, rows["logistic"].folds, rows["logistic"].kind) == (expected, "2/2", "imported")
    assert rows["logistic"].group == rows["toy-001"].group
    assert not [finding for finding in verify(entry.folder) if finding.bad]
    for line in (
        *(
            "scores",
            "blend toy-001 logistic",
            "blend logistic toy-001 --fit greedy",
            "stack logistic toy-001 --model logistic",
        ),
        *("compare toy-001 logistic --draws 200", "submit logistic", "submit blend-001", "test logistic", "report"),
        *("leaderboard submission-001 0.9", "ledger check", "ledger recover", "verify logistic"),
    ):
        assert main(line.split()) == 0, (line, capfd.readouterr().err)
    sent = pl.read_csv("runs/submission-001/submission.csv")["label"].to_numpy()
    their_test = pl.read_csv("theirs/logistic_test.csv").sort("id").drop("id").to_numpy()
    np.testing.assert_array_equal(sent, their_test.argmax(axis=1))


def test_the_same_predictions_are_one_entry_and_others_of_its_name_are_refused(outside: bt.Experiment) -> None:
    first = import_entry(LOGISTIC, outside, ROOT)
    assert import_entry(LOGISTIC, outside, ROOT).config == first.config
    with pytest.raises(UsageError, match=r"runs/logistic is there already and holds something else"):
        import_entry(Outside("logistic", LOGISTIC.oof), outside, ROOT)
    with pytest.raises(NotSafeError):
        import_entry(Outside("../logistic", LOGISTIC.oof), outside, ROOT)


Change = Callable[[pl.DataFrame], pl.DataFrame]
WRONG: dict[str, tuple[Change, type[Exception], str]] = {
    "a row is missing": (lambda t: t.head(59), PredictionsError, r"oof\.csv: 1 of 60 ids have no prediction"),
    "a row is foreign": (
        lambda t: pl.concat([t, t.head(1).with_columns(id=pl.lit(777, pl.Int64))]),
        PredictionsError,
        r"1 predictions belong to no asked id \(first: \[777\]\)",
    ),
    "a row is there twice": (lambda t: pl.concat([t, t.head(1)]), PredictionsError, "more than once"),
    "a value is missing": (
        lambda t: t.with_columns(class0=pl.when(pl.col("id") == 3).then(None).otherwise("class0")),
        PredictionsError,
        r"column 'class0': 1 of 60 values are empty \(first ids: \[3\]\)",
    ),
    "a value is infinite": (lambda t: t.with_columns(class1=pl.lit(float("inf"))), PredictionsError, "infinite"),
    "a column is text": (lambda t: t.with_columns(class2=pl.lit("cat")), PredictionsError, "no numbers, such as 'cat'"),
    "other columns than the test's": (lambda t: t.drop("class2"), PredictionsError, r"\(30, 3\), the out-of-fold"),
}


@pytest.mark.parametrize("name", WRONG)
def test_predictions_that_do_not_fit_the_table_are_refused_and_nothing_is_made(
    name: str, outside: bt.Experiment
) -> None:
    change, error, message = WRONG[name]
    change(pl.read_csv(LOGISTIC.oof)).write_csv("theirs/wrong_oof.csv")
    with pytest.raises(error, match=message):
        import_entry(Outside("wrong", Path("theirs/wrong_oof.csv"), LOGISTIC.test), outside, ROOT)
    assert not (ROOT / "wrong").exists()
    assert not list(ROOT.glob(".*.tmp"))


def test_predictions_without_folds_or_for_a_test_table_that_is_not_there_are_refused(
    outside: bt.Experiment, change: Callable[[str, str], None]
) -> None:
    shutil.move(ROOT / "folds.parquet", "elsewhere")
    with pytest.raises(FoldsError, match="make the folds first: batteries split"):
        import_entry(LOGISTIC, outside, ROOT)
    shutil.move("elsewhere", ROOT / "folds.parquet")
    change("return rows(30, first=1000)\n\n    def sample", "return None\n\n    def sample")
    with pytest.raises(DataError, match=r"Toy\.test_table\(\) returns None; leave the test file out"):
        import_entry(LOGISTIC, bt.load_experiment("."), ROOT)


def test_entries_come_back_from_their_folders_and_one_that_cannot_be_scored_is_named(outside: bt.Experiment) -> None:
    assert main(["ledger", "import", "theirs"]) == 0
    before = bt.scores(ROOT)
    for name in ("ledger.db", "ledger.jsonl"):
        (ROOT / name).unlink()
    shutil.move("experiment.py", "elsewhere.py")
    with pytest.warns(UserWarning, match=r"logistic is not entered: .* has no experiment\.py"):
        assert recover(ROOT).rows["entries"] == 0
    shutil.move("elsewhere.py", "experiment.py")
    assert main(["ledger", "recover"]) == 0
    assert bt.scores(ROOT) == before


def test_a_folder_of_predictions_is_read_as_pairs(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    for name in ("b_oof.csv", "a_oof.parquet", "a_test.csv", "notes.txt", "other.csv"):
        (folder / name).touch()
    assert outside_in(folder) == [
        Outside("a", folder / "a_oof.parquet", folder / "a_test.csv"),
        Outside("b", folder / "b_oof.csv"),
    ]
    (folder / "c_test.csv").touch()
    with pytest.raises(UsageError, match=r"c_test\.csv has no c_oof\.csv beside it"):
        outside_in(folder)


# --- the verbs


def test_the_verbs_check_export_import_and_recover(capfd: pytest.CaptureFixture[str]) -> None:
    filled(ROOT)
    assert main(["ledger", "check"]) == 0
    assert "every row is as it was written" in capfd.readouterr().out
    assert main(["ledger", "check", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["rows"]["scores"] == 8
    assert main(["ledger", "export", "all.json"]) == 0
    assert main(["ledger", "import", "all.json"]) == 0
    assert capfd.readouterr().out == "all.json: 14 rows\nall.json: 0 rows were new\n"
    data = bytearray((ROOT / "ledger.db").read_bytes())
    data[:100] = bytes(100)
    (ROOT / "ledger.db").write_bytes(data)
    assert main(["ledger", "check"]) == 4
    assert "run: batteries ledger recover" in capfd.readouterr().err
    assert main(["ledger", "recover"]) == 0
    out = capfd.readouterr().out
    assert "the damaged file is kept as runs/ledger-damaged-1.db" in out
    assert "3 entries, 1 submission, 8 scores, 1 look, 1 upload" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("ledger check", 2, "runs has no ledger to check; train something first"),
        ("ledger recover", 2, "no runs here to recover a ledger from"),
        ("ledger export scores.csv", 2, "has no ledger to export"),
        ("ledger export scores.xlsx", 2, "exported as .parquet, .csv or .json"),
        ("ledger export nowhere/scores.csv", 2, "there is no folder nowhere"),
        ("ledger import xgboost", 2, "no folder or file xgboost; for an entry of this name give --oof FILE"),
        ("ledger import xgboost --test t.csv", 2, "--test alone is no entry; give --oof"),
        ("ledger import xgboost --oof o.csv", 2, "has no experiment.py"),
        ("ledger frobnicate", 2, "No such command 'frobnicate'"),
    ],
)
def test_wrong_use_of_the_verbs_gives_one_message(
    line: str, code: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == code
    out, err = capfd.readouterr()
    assert message in err.replace("\n", " "), err
    assert out == ""
    assert "Traceback" not in err
    assert not ROOT.exists()
