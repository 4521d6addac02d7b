"""Cross-fitting: no row has a part in what is said of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteries.combine.crossfit import checked_codes, checked_values, cross_fit
from batteries.errors import DataError


def mean_of(values: np.ndarray, targets: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    mean = float(targets.mean())
    return lambda rows: rows + mean


@given(st.integers(0, 10**6), st.integers(2, 5))
def test_each_fold_is_given_what_the_other_folds_teach(seed: int, num_folds: int) -> None:
    generator = np.random.default_rng(seed)
    folds = generator.permutation(np.arange(20) % num_folds)
    values, targets = generator.normal(size=(2, 20))
    result = cross_fit(mean_of, values, targets, folds)
    assert sorted(result.models) == list(range(num_folds))
    for fold in range(num_folds):
        held_out = folds == fold
        assert (result.values[held_out] == values[held_out] + targets[~held_out].mean()).all()


def test_targets_of_a_fold_do_not_reach_its_own_values() -> None:
    values, targets, folds = np.arange(6.0), np.arange(6.0), np.array([0, 1, 2, 0, 1, 2])
    before = cross_fit(mean_of, values, targets, folds).values
    targets[folds == 1] += 100
    after = cross_fit(mean_of, values, targets, folds).values
    assert (after[folds == 1] == before[folds == 1]).all()
    assert (after[folds != 1] != before[folds != 1]).all()


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (None, "3 rows need a fold each, a whole number: got none"),
        ([0, 1], r"3 rows need a fold each, a whole number: got int64 \(2,\)"),
        ([0.0, 1.0, 1.0], "got float64"),
        ([2, 2, 2], "all rows are of one fold; nothing is left to fit on"),
    ],
)
def test_folds_that_hold_nothing_out_are_refused(folds: list[int] | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        cross_fit(mean_of, np.ones(3), np.ones(3), None if folds is None else np.array(folds))  # type: ignore[arg-type]


def test_arrays_of_other_lengths_and_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="3 predictions but 2 targets"):
        cross_fit(mean_of, np.ones(3), np.ones(2), np.array([0, 1, 1]))
    with pytest.raises(DataError, match=r"predictions must be numbers, \(n,\) or \(n, columns\), got <U1"):
        checked_values(np.array(["a"]))
    with pytest.raises(DataError, match=r"targets must be class codes, 0 to 2, got \[-1.0, 3.0\]"):
        checked_codes(np.array([3, 0, -1]), 3, 3)
