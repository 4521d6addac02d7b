"""Multi-label: every label has its share in every fold, nearer than chance would have it."""

from __future__ import annotations

import os
import sys
from subprocess import check_output
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_multilabel_classification
from sklearn.model_selection import KFold as Sklearn

from batteries.errors import ConfigError, FoldsError
from batteries.prepare.folds import describe, grouped_column, make_folds
from batteries.prepare.multilabel import MultiLabel, label_matrix
from batteries.prepare.strategies import Grouped


def labels_of(seed: int, rows: int = 600) -> np.ndarray:
    """Labels from frequent to rare, drawn by scikit-learn and thinned."""
    labels = make_multilabel_classification(rows, n_classes=8, n_labels=2, random_state=seed)[1]
    keep = np.random.default_rng(seed).random(labels.shape) < np.array([1, 1, 0.6, 0.4, 0.2, 0.1, 0.06, 0.04])
    return (labels * keep).astype(int)


def table(labels: np.ndarray, **columns: Any) -> pl.DataFrame:
    names = {f"l{i}": column for i, column in enumerate(labels.T)}
    return pl.DataFrame({"id": range(len(labels)), **names, **columns})


NAMES = tuple(f"l{i}" for i in range(8))


def deviation(labels: np.ndarray, fold: np.ndarray, n: int) -> float:
    """Label distribution of Sechidis et al.: mean difference of the odds of a label in a fold and over all."""
    over_all = labels.sum(axis=0) / (len(labels) - labels.sum(axis=0))
    found = [labels[fold == f].sum(axis=0) / (labels[fold == f] == 0).sum(axis=0) for f in range(n)]
    return float(np.abs(np.array(found) - over_all).mean())


def sechidis(labels: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Iterative stratification, as Algorithm 1 of Sechidis et al. 2011 has it."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))
    fold = np.full(len(labels), -1, dtype=np.int64)
    lacks = np.tile(labels.sum(axis=0) / n, (n, 1))
    room = np.full(n, len(labels) / n)
    left = labels.sum(axis=0)

    def deal(units: np.ndarray, label: int | None) -> None:
        for unit in units:
            wish = room if label is None else lacks[:, label]
            best = np.flatnonzero(wish >= wish.max() - 1e-9)
            best = best[room[best] >= room[best].max() - 1e-9]
            chosen = best[0] if len(best) == 1 else random.choice(best)
            fold[unit] = chosen
            lacks[chosen] -= labels[unit]
            room[chosen] -= 1
            left[:] -= labels[unit]

    while (left > 0).any():
        label = int(np.where(left > 0, left, np.inf).argmin())
        units = order[(fold[order] < 0) & (labels[order, label] > 0)]
        deal(units, label)
    rest = order[fold[order] < 0]
    deal(rest, None)
    return fold


@pytest.mark.parametrize("seed", range(4))
def test_labels_are_as_near_to_their_shares_as_iterative_stratification_brings_them(seed: int) -> None:
    labels = labels_of(seed)
    ours = make_folds(table(labels), MultiLabel(NAMES, seed=seed)).fold
    assert deviation(labels, ours, 5) <= 1.05 * deviation(labels, sechidis(labels, 5, seed), 5)


@pytest.mark.parametrize("seed", range(4))
def test_labels_are_nearer_to_their_shares_than_in_scikit_learns_kfold(seed: int) -> None:
    labels = labels_of(seed)
    ours = make_folds(table(labels), MultiLabel(NAMES, seed=seed)).fold
    theirs = np.empty(len(labels), dtype=int)
    for fold, (_, held_out) in enumerate(Sklearn(5, shuffle=True, random_state=seed).split(labels)):
        theirs[held_out] = fold
    assert deviation(labels, ours, 5) < 0.4 * deviation(labels, theirs, 5)
    assert np.ptp(np.bincount(ours)) <= 0.1 * len(labels) / 5
    for column in labels.T:
        counts = np.bincount(ours[column == 1], minlength=5)
        assert np.ptp(counts) <= max(2, 0.1 * column.sum() / 5)


def test_labels_with_groups_are_nearer_to_their_shares_than_groups_alone() -> None:
    labels = labels_of(0, 1500)
    group = np.random.default_rng(1).integers(0, 200, len(labels))
    rows = table(labels, g=group)
    folds = make_folds(rows, MultiLabel(NAMES, groups="g"))
    assert all(len(set(folds.fold[group == g].tolist())) == 1 for g in range(200))
    assert deviation(labels, folds.fold, 5) < 0.3 * deviation(labels, make_folds(rows, Grouped("g")).fold, 5)
    assert grouped_column(folds.strategy) == "g"


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=6, max_size=40),
    n=st.integers(2, 3),
    seed=st.integers(0, 3),
)
def test_every_row_is_held_out_once_and_folds_are_about_equal(rows: list[list[bool]], n: int, seed: int) -> None:
    labels = np.array(rows, dtype=int)
    folds = make_folds(table(labels), MultiLabel(NAMES[:3], n=n, seed=seed))
    assert (folds.fold >= 0).all()
    assert np.ptp(np.bincount(folds.fold)) <= 2
    for column in labels.T:
        assert np.ptp(np.bincount(folds.fold[column == 1], minlength=n)) <= 3


def test_the_same_seed_deals_alike_and_another_otherwise() -> None:
    rows = table(labels_of(0))
    first, again, other = (make_folds(rows, MultiLabel(NAMES, seed=seed)).fold.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_folds_do_not_depend_on_the_processor() -> None:
    code = (
        "import numpy as np; from batteries.prepare.multilabel import balanced\n"
        "labels = (np.random.default_rng(0).random((3000, 9)) < 0.3).astype(float)\n"
        "print(balanced(np.insert(labels, 0, 1, axis=1), 5, 0).tolist())"
    )
    kernels = [{}, {"OPENBLAS_CORETYPE": "Nehalem"}, {"OPENBLAS_CORETYPE": "Haswell"}]  # of NumPy's matrix products
    told = {check_output([sys.executable, "-c", code], env={**os.environ, **kernel}) for kernel in kernels}
    assert len(told) == 1


def test_lists_arrays_and_names_of_labels_are_the_same_as_columns() -> None:
    labels = labels_of(2, 200)[:, :4]
    fold = make_folds(table(labels), MultiLabel(NAMES[:4])).fold.tolist()
    names = [[f"l{i}" for i in np.flatnonzero(row)] for row in labels]
    for column in (
        pl.Series("all", labels.tolist()),
        pl.Series("all", labels, dtype=pl.Array(pl.Int64, 4)),
        pl.Series("all", names, dtype=pl.List(pl.String)),
    ):
        rows = pl.DataFrame({"id": range(200), "all": column})
        assert make_folds(rows, MultiLabel("all")).fold.tolist() == fold
    assert describe(MultiLabel(("a", "b"))) == "MultiLabel(column=('a', 'b'), n=5, seed=0)"


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"all": [[0, 1], [1, 2], [0, 0]]}, "the labels in all must be 0 or 1 each, or lists of names"),
        ({"all": [[0, 1], [1], [0, 0]]}, "'all' holds lists of 1 to 2 values, not one length"),
        ({"all": ["a", "b", "c"]}, "the labels in all must be 0 or 1 each"),
        ({"all": [0.5, 1, 0]}, "the labels in all must be 0 or 1 each"),
        ({"all": [None, 1, 0]}, "the folds need column 'all', but 1 of its rows are empty"),
        ({"all": [0.0, float("nan"), 0.0]}, "the folds need column 'all', but 1 of its rows are NaN"),
        ({"all": pl.Series([[], [], []], dtype=pl.List(pl.String))}, "no row of 'all' has a label; use KFold"),
        ({"other": [0, 1, 0]}, "the folds need column 'all'; the table has id, other"),
    ],
)
def test_labels_that_are_none_are_refused(columns: Any, message: str) -> None:
    with pytest.raises(FoldsError, match=message):
        make_folds(pl.DataFrame({"id": range(3), **columns}), MultiLabel("all", n=2))


def test_more_folds_than_rows_or_groups_and_labels_without_names_are_refused() -> None:
    rows = table(labels_of(0)[:4], g=[0, 0, 1, 1])
    with pytest.raises(FoldsError, match="the table has 4 rows, fewer than 5 folds"):
        make_folds(rows, MultiLabel(NAMES))
    with pytest.raises(FoldsError, match="'g' has 2 groups, fewer than 3 folds"):
        make_folds(rows, MultiLabel(NAMES, groups="g", n=3))
    for wrong in ((), ("a", 1), ""):
        with pytest.raises(ConfigError, match="MultiLabel needs the name of a column, or a tuple of names"):
            MultiLabel(wrong)  # type: ignore[arg-type]


def test_a_matrix_has_a_column_for_each_label() -> None:
    rows = pl.DataFrame({"tags": [["b"], ["a", "b"], []]})
    assert label_matrix(rows, ["tags"]).tolist() == [[0, 1], [1, 1], [0, 0]]
