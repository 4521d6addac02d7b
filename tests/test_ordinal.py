"""Cuts of an ordered target against every cut there is, and against the search that people use."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.datasets import load_diabetes, load_wine
from sklearn.linear_model import Ridge
from sklearn.metrics import cohen_kappa_score
from sklearn.model_selection import cross_val_predict

from batteries.combine.ordinal import Cuts, best_cuts, rounding, weighted_kappa
from batteries.errors import DataError, UsageError

WEIGHTS = {"quadratic": "quadratic", "linear": "linear", "equal": None}
rows_of = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3)), min_size=2, max_size=16).filter(
    lambda rows: len({target for _, target in rows}) > 1
)


def ordered_diabetes() -> tuple[np.ndarray, np.ndarray]:
    """Scores of a ridge regression for a target in five unequal classes."""
    inputs, progress = load_diabetes(return_X_y=True)
    targets = np.digitize(progress, [60, 100, 180, 260])
    return cross_val_predict(Ridge(alpha=0.1), inputs, targets, cv=5), targets


@pytest.mark.parametrize("weights", WEIGHTS)
@settings(max_examples=25)
@given(rows=rows_of)
def test_no_cuts_beat_those_that_are_found(weights: str, rows: list[tuple[int, int]]) -> None:
    scores, targets = (np.array(column) for column in zip(*rows, strict=True))
    size = int(targets.max()) + 1
    found = weighted_kappa(best_cuts(scores, targets, weights=weights)(scores), targets, classes=size, weights=weights)
    edges = [*np.unique(scores), np.inf]
    every = (
        weighted_kappa(Cuts(cuts)(scores), targets, classes=size, weights=weights)
        for cuts in combinations_with_replacement(edges, size - 1)
    )
    assert found == pytest.approx(max(every), abs=1e-10)


@pytest.mark.parametrize("weights", WEIGHTS)
@given(rows=rows_of)
def test_weighted_kappa_is_scikit_learns(weights: str, rows: list[tuple[int, int]]) -> None:
    labels, targets = (np.array(column) % 4 for column in zip(*rows, strict=True))
    expected = cohen_kappa_score(labels, targets, labels=range(4), weights=WEIGHTS[weights])
    assert weighted_kappa(labels, targets, weights=weights) == pytest.approx(expected, abs=1e-12)


def test_the_search_with_restarts_that_people_use_never_ends_above() -> None:
    scores, targets = ordered_diabetes()
    found = weighted_kappa(best_cuts(scores, targets)(scores), targets)
    generator = np.random.default_rng(0)

    def loss(cuts: np.ndarray) -> float:
        return -cohen_kappa_score(np.digitize(scores, np.sort(cuts)), targets, weights="quadratic")

    starts = [np.sort(generator.choice(scores, 4, replace=False)) for _ in range(3)]
    searched = [-minimize(loss, start, method="Nelder-Mead", options={"maxfev": 150}).fun for start in starts]
    plain = weighted_kappa(rounding(5)(scores), targets)
    assert found >= max(searched)
    assert found > plain + 0.05


def test_classes_that_part_cleanly_are_parted_in_the_middle() -> None:
    scores, targets = np.array([0.0, 1.0, 3.0, 4.0, 8.0]), np.array([0, 0, 1, 1, 2])
    assert best_cuts(scores, targets).values == (2.0, 6.0)


def test_a_class_that_no_row_has_costs_nothing() -> None:
    scores, targets = np.array([0.0, 1.0, 3.0, 4.0]), np.array([0, 0, 2, 2])
    cuts = best_cuts(scores, targets, classes=4)
    assert len(cuts.values) == 3
    assert list(cuts.values) == sorted(cuts.values)
    assert weighted_kappa(cuts(scores), targets) == 1.0


def test_scores_that_tell_nothing_give_one_class_and_kappa_zero() -> None:
    targets = np.array([0, 1, 2, 0, 1, 2])
    cuts = best_cuts(np.ones(6), targets)
    assert weighted_kappa(cuts(np.ones(6)), targets) == 0.0
    assert len(cuts.values) == 2


def test_two_classes_are_cut_as_the_threshold_of_plain_kappa() -> None:
    from batteries.combine.thresholds import best_threshold

    inputs, targets = load_wine(return_X_y=True)
    scores, targets = inputs[:, 0], (targets == 0).astype(int)
    threshold = best_threshold(scores, targets, objective="kappa")
    cuts = best_cuts(scores, targets)
    assert weighted_kappa(cuts(scores), targets) == pytest.approx(threshold.score, abs=1e-12)
    assert cuts.values == (threshold.value,)


@given(rows=rows_of)
def test_cuts_ascend_and_do_not_depend_on_the_order_of_rows(rows: list[tuple[int, int]]) -> None:
    scores, targets = (np.array(column) for column in zip(*rows, strict=True))
    cuts = best_cuts(scores, targets)
    assert list(cuts.values) == sorted(cuts.values)
    assert best_cuts(scores[::-1], targets[::-1]) == cuts


def test_what_has_no_order_or_one_class_is_refused() -> None:
    scores, targets = np.array([0.1, 0.2]), np.array([0, 1])
    with pytest.raises(DataError, match=r"cuts need one score a row, got shape \(2, 2\)"):
        best_cuts(np.ones((2, 2)), targets)
    with pytest.raises(DataError, match="all 2 targets are 1; cuts need rows of two classes or more"):
        best_cuts(scores, np.array([1, 1]))
    with pytest.raises(DataError, match=r"targets must be class codes, 0 or above, got \[0.5\]"):
        best_cuts(scores, np.array([0.5, 1]))
    with pytest.raises(DataError, match=r"class codes, 0 to 1, got \[2.0\]"):
        best_cuts(scores, np.array([0, 2]), classes=2)
    with pytest.raises(UsageError, match="there are no weights 'cubic'; choose one of quadratic, linear, equal"):
        best_cuts(scores, targets, weights="cubic")  # type: ignore[arg-type]
