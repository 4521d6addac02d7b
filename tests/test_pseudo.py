"""Pseudo labels: confident, and blind to the fold that they are used against."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

import batteries as bt
from batteries.combine.pseudo import CONFIDENCE, FOLD, confident, pseudo_label, pseudo_table, training_rows
from batteries.errors import DataError, UsageError
from batteries.experiment import load_experiment
from batteries.experiment.predictions import Predictions
from batteries.files import read_sealed
from batteries.prepare.folds import Folds, make_folds
from batteries.prepare.strategies import Stratified
from batteries.score.entry import Entry, all_entries, open_entry
from batteries.train.run import train_run

PIXELS = [f"pixel_{n}" for n in range(64)]


@cache
def digits() -> tuple[pl.DataFrame, pl.DataFrame, np.ndarray, Folds]:
    """200 labelled digits and 400 without a label, whose true ones are the third part."""
    inputs, targets = load_digits(return_X_y=True)
    table = pl.DataFrame(inputs[:600], schema=PIXELS).with_row_index("id").cast({"id": pl.Int64})
    train = table[:200].with_columns(digit=targets[:200])
    folds = make_folds(train, Stratified("digit", n=4), target="digit")
    return train, table[200:], targets[200:600], folds


def of_folds(train: pl.DataFrame, test: pl.DataFrame, folds: Folds, model: object) -> dict[int, list[Predictions]]:
    """Test predictions of a model for each fold, which it did not see."""
    found = {}
    for fold in range(folds.n):
        rows = train[folds.training(fold)]
        fitted = model.fit(rows.select(PIXELS).to_numpy(), rows["digit"].to_numpy())  # type: ignore[attr-defined]
        found[fold] = [Predictions(test["id"], fitted.predict_proba(test.select(PIXELS).to_numpy()))]
    return found


def test_labels_of_a_fold_come_from_models_that_never_saw_it() -> None:
    train, test, _, folds = digits()
    model = GaussianNB(var_smoothing=0.05)
    before = pseudo_table(of_folds(train, test, folds, model), test, target="digit", at_least=0.9)
    held_out = folds.held_out(2)
    changed = train["digit"].to_numpy().copy()
    changed[held_out] = (changed[held_out] + 1) % 10
    after = pseudo_table(
        of_folds(train.with_columns(digit=changed), test, folds, model), test, target="digit", at_least=0.9
    )
    assert after.filter(pl.col(FOLD) == 2).equals(before.filter(pl.col(FOLD) == 2))
    for fold in (0, 1, 3):
        assert not after.filter(pl.col(FOLD) == fold).equals(before.filter(pl.col(FOLD) == fold))


def test_the_training_of_a_fold_takes_its_own_pseudo_rows_and_no_row_that_it_holds_out() -> None:
    train, test, _, folds = digits()
    pseudo = pseudo_table(of_folds(train, test, folds, GaussianNB(var_smoothing=0.05)), test, target="digit")
    for fold in range(4):
        rows = training_rows(train, folds, pseudo, fold)
        own, extra = folds.training(fold), pseudo.filter(pl.col(FOLD) == fold)
        assert rows[: len(own)].equals(train[own])
        assert rows[len(own) :]["id"].to_list() == extra["id"].to_list()
        assert rows.columns == train.columns
        assert not set(rows["id"]) & set(train[folds.held_out(fold)]["id"])
        assert rows["id"].is_unique().all()


def test_confident_digits_are_mostly_right_and_help_a_small_training() -> None:
    train, test, truth, folds = digits()
    model = LogisticRegression(max_iter=300)
    pseudo = pseudo_table(of_folds(train, test, folds, model), test, target="digit", at_least=0.95)
    right = truth[pseudo["id"].to_numpy() - 200] == pseudo["digit"].to_numpy()
    assert right.mean() > 0.95
    assert 0.2 < len(pseudo) / (4 * len(test)) < 0.9
    scores = []
    for rows_of in (lambda fold: train[folds.training(fold)], lambda fold: training_rows(train, folds, pseudo, fold)):
        hits = []
        for fold in range(4):
            rows, valid = rows_of(fold), train[folds.held_out(fold)]
            fitted = model.fit(rows.select(PIXELS).to_numpy(), rows["digit"].to_numpy())
            hits.extend(fitted.predict(valid.select(PIXELS).to_numpy()) == valid["digit"].to_numpy())
        scores.append(np.mean(hits))
    assert scores[1] >= scores[0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.5, 1), st.integers(1, 4))
def test_the_most_probable_rows_of_each_class_are_kept(values: list[float], at_least: float, per_class: int) -> None:
    array = np.array(values)
    rows, codes, stated = confident(array, at_least=at_least, per_class=per_class)
    assert (np.diff(rows) > 0).all()
    for code, probabilities in ((0, 1 - array), (1, array)):
        of_class = (array > 0.5) == bool(code)  # 0.5 is a tie, which the first class takes
        every = np.sort(probabilities[of_class & (probabilities >= at_least)])[::-1]
        np.testing.assert_array_equal(np.sort(stated[codes == code])[::-1], every[:per_class])


def test_classes_by_name_and_several_members_by_their_mean() -> None:
    test = pl.DataFrame({"id": ["a", "b"], "x": [1, 2], "kind": ["?", "?"]})
    one = Predictions(pl.Series("id", ["a", "b"]), np.array([[0.9, 0.1], [0.4, 0.6]]))
    two = Predictions(pl.Series("id", ["b", "a"]), np.array([[0.0, 1.0], [0.5, 0.5]]))
    table = pseudo_table({0: [one, two], 1: [one]}, test, target="kind", classes=("cat", "dog"), at_least=0.65)
    assert table.columns == ["id", "x", "kind", FOLD, CONFIDENCE]
    assert table.rows() == [("a", 1, "cat", 0, 0.7), ("b", 2, "dog", 0, 0.8), ("a", 1, "cat", 1, 0.9)]


def test_tables_that_do_not_fit_are_refused() -> None:
    test = pl.DataFrame({"id": [1, 2], "x": [1.0, 2.0]})
    given_ = Predictions(pl.Series("id", [1, 2]), np.array([0.9, 0.2]))
    with pytest.raises(DataError, match=r"no test row reaches a probability of 0.95, the highest is 0\.9000; lower it"):
        pseudo_table({0: [given_]}, test)
    with pytest.raises(DataError, match="the test table has a column 'pseudo_fold' already; rename it"):
        pseudo_table({0: [given_]}, test.with_columns(pseudo_fold=1))
    with pytest.raises(DataError, match="3 classes are named, fold 0 predicts 2"):
        pseudo_table({0: [given_]}, test, classes=("a", "b", "c"))
    with pytest.raises(DataError, match="fold 0: members predict 2 and 3 classes"):
        pseudo_table({0: [given_, Predictions(given_.ids, np.ones((2, 3)) / 3)]}, test)
    with pytest.raises(DataError, match="fold 1 has no predictions"):
        pseudo_table({0: [given_], 1: []}, test, at_least=0.8)
    with pytest.raises(DataError, match="probabilities must be in 0 to 1"):
        pseudo_table({0: [Predictions(pl.Series("id", [1, 2]), np.array([7.0, 3.0]))]}, test)
    with pytest.raises(UsageError, match="at_least must be above 0 and at most 1, got 95"):
        confident(np.array([0.9]), at_least=95)
    with pytest.raises(UsageError, match="per_class must be 1 or more, got 0"):
        confident(np.array([0.9]), per_class=0)
    table = pl.DataFrame({"id": [5, 6, 7], "x": [1.0, 2.0, 3.0], "site": [0, 1, 0], "target": [0, 1, 1]})
    folds = Folds(table["id"], np.array([0, 1, 1]), {"strategy": "", "columns": "{}"})
    pseudo = pseudo_table({0: [given_]}, test, at_least=0.8)
    with pytest.raises(DataError, match="the test table lacks columns that training rows have: site"):
        training_rows(table, folds, pseudo, 0)
    with pytest.raises(DataError, match=r"pseudo rows have ids of training rows \(first: \[1, 2\]\)"):
        training_rows(table.drop("site").with_columns(id=pl.Series([1, 2, 3])), folds, pseudo, 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run and one with a fold to train; not to be written to."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(Path(__file__).parent / "toy.py", folder / "experiment.py")
    train_run(load_experiment(folder), folder / "runs", device="cpu", progress=False, say=lambda _: None)
    half = load_experiment(folder, values={"seed": 7})
    train_run(half, folder / "runs", device="cpu", progress=False, say=lambda _: None, folds=[0])
    return folder


def entries(folder: Path) -> list[Entry]:
    return [open_entry(folder / "runs", name) for name in ("toy-001", "toy-002")]


def test_a_run_gives_a_sealed_table_that_is_written_once(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    run, root = entries(tmp_path)[0], tmp_path / "runs"
    made = pseudo_label([run], root, at_least=0.8)
    assert made.name == "pseudo-001"
    table = pl.read_parquet(made.folder / "pseudo.parquet")
    assert table.equals(made.table)
    for fold in range(2):
        predictions = Predictions.load(run.folder / f"fold{fold}" / "test.parquet")
        rows, codes, _ = confident(predictions.values, at_least=0.8)
        mine = table.filter(pl.col(FOLD) == fold)
        assert mine["id"].to_list() == predictions.ids[rows].to_list()
        assert mine["label"].to_list() == codes.tolist()
        assert made.record["rows"][str(fold)] == len(rows) > 0
    record = read_sealed(made.folder / "pseudo.json")
    assert (record["of"], record["at_least"], record["per_class"]) == (["toy-001"], 0.8, None)
    assert pseudo_label([run], root, at_least=0.8).name == "pseudo-001"
    assert pseudo_label([run], root, at_least=0.8, per_class=2).name == "pseudo-002"
    assert [entry.name for entry in all_entries(root)] == ["toy-001", "toy-002"]  # it is no entry: nothing to score


def test_what_saw_every_fold_gives_no_labels(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    run, half = entries(tmp_path)
    root = tmp_path / "runs"
    blend = bt.blend_entries([run], root)
    with pytest.raises(DataError, match="blend-001 is of kind blend: its test predictions come from models of all fol"):
        pseudo_label([blend], root)
    with pytest.raises(DataError, match="toy-002 has no model of fold 1 yet: batteries train --resume toy-002"):
        pseudo_label([run, half], root)
    with pytest.raises(DataError, match="there is nothing to take labels from: name at least one run"):
        pseudo_label([], root)
    path = tmp_path / "experiment.py"
    path.write_text(path.read_text().replace("rows(30, first=1000)\n", "rows(29, first=1000)\n"))
    with pytest.raises(DataError, match="toy-001 was trained on other data than Toy gives now"):
        pseudo_label([open_entry(root, "toy-001")], root)
