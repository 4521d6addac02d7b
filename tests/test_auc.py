"""The AUC of one sort against scikit-learn and against counting every pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from batteries.combine.auc import area_under_curve

generator = np.random.default_rng(0)
POSITIVE = generator.random(2000) < 0.3
VALUES = generator.random(2000) + 0.3 * POSITIVE


def pairs(values: np.ndarray, positive: np.ndarray) -> float:
    """Every positive beside every negative."""
    above = values[positive][:, None] - values[~positive]
    with np.errstate(invalid="ignore"):
        return float(((values[positive][:, None] > values[~positive]) + 0.5 * (above == 0)).mean())


@pytest.mark.parametrize(
    "values",
    [
        VALUES,
        VALUES - 0.7,
        np.round(VALUES, 2),
        np.round(VALUES, 1) - 0.5,
        VALUES.astype("float32").astype("float64"),
        1e6 * VALUES - 3e5,
        np.exp(200 * VALUES),
        1e-300 * VALUES,
        1e307 * (VALUES - 0.5),
        np.argsort(np.argsort(VALUES)).astype("float64"),
        np.zeros(2000),
        np.where(generator.random(2000) < 0.5, 0.0, -0.0),
        POSITIVE.astype("float64"),
        -POSITIVE.astype("float64"),
    ],
    ids="unit signed ties signed_ties float32 wide exponential tiny huge ranks constant zeros perfect worst".split(),
)
def test_it_is_scikit_learns(values: np.ndarray) -> None:
    assert area_under_curve(values.copy(), POSITIVE) == pytest.approx(roc_auc_score(POSITIVE, values), abs=1e-12)


row = st.tuples(
    st.booleans(), st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0, -0.0, 0.5, 1]))
)


@given(st.lists(row, min_size=2, max_size=30).filter(lambda rows: len({label for label, _ in rows}) == 2))
def test_every_pair_is_counted_for_any_finite_values(rows: list[tuple[bool, float]]) -> None:
    positive, values = np.array([label for label, _ in rows]), np.array([float(value) for _, value in rows])
    with np.errstate(over="ignore"):
        expected = pairs(values, positive)
    assert area_under_curve(values.copy(), positive) == pytest.approx(expected, abs=1e-14)


def test_values_that_differ_in_the_last_bit_are_no_tie() -> None:
    positive = np.array([False, True])
    for low in (0.1, 0.5, 1.0, -1.0, 3.0, 1e300, 5e-324, -5e-324):
        values = np.array([low, np.nextafter(low, np.inf)])
        assert area_under_curve(values.copy(), positive) == 1.0
        assert area_under_curve(values[::-1].copy(), positive) == 0.0


def test_small_values_beside_huge_ones_are_not_rounded_away() -> None:
    values, positive = np.array([1e-310, 2e-310, 1e300]), np.array([False, True, True])
    assert area_under_curve(values.copy(), positive) == 1.0
    assert area_under_curve(-values, positive) == 0.0


def test_without_both_classes_or_with_what_is_not_finite_there_is_no_area() -> None:
    assert np.isnan(area_under_curve(np.array([0.1, 0.2]), np.array([True, True])))
    assert np.isnan(area_under_curve(np.array([0.1, 0.2]), np.array([False, False])))
    for bad in (np.nan, np.inf, -np.inf):
        assert np.isnan(area_under_curve(np.array([0.1, bad]), np.array([True, False])))
