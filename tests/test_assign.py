"""Assignments within class counts against SciPy's exact solvers."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment, linprog
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from batteries.combine.assign import assign_classes, counts_of
from batteries.errors import DataError


def total(values: np.ndarray, codes: np.ndarray) -> float:
    return float(values[np.arange(len(values)), codes].sum())


def by_linear_sum_assignment(values: np.ndarray, counts: np.ndarray) -> float:
    seats = np.repeat(np.arange(values.shape[1]), counts)
    rows, places = linear_sum_assignment(values[:, seats], maximize=True)
    return float(values[rows, seats[places]].sum())


def by_linear_program(values: np.ndarray, least: np.ndarray, most: np.ndarray) -> float:
    """The program's corners are whole, as those of every transport problem."""
    rows, classes = values.shape
    one_each = np.kron(np.eye(rows), np.ones(classes))
    of_class = np.kron(np.ones(rows), np.eye(classes))
    found = linprog(
        -values.ravel(),
        A_eq=one_each,
        b_eq=np.ones(rows),
        A_ub=np.concatenate([of_class, -of_class]),
        b_ub=np.concatenate([most, -least]),
        bounds=(0, 1),
    )
    return -float(found.fun)


@settings(max_examples=60)
@given(st.integers(1, 12), st.integers(2, 4), st.integers(0, 10**6), st.booleans())
def test_exact_counts_give_the_largest_sum_there_is(rows: int, classes: int, seed: int, coarse: bool) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, classes))
    values = values.round(0) if coarse else values  # many ties
    counts = np.bincount(generator.integers(0, classes, rows), minlength=classes)
    codes = assign_classes(values, at_least=counts, at_most=counts)
    assert np.bincount(codes, minlength=classes).tolist() == counts.tolist()
    assert total(values, codes) == pytest.approx(by_linear_sum_assignment(values, counts), abs=1e-9)


@settings(max_examples=40)
@given(st.integers(2, 10), st.integers(2, 4), st.integers(0, 10**6))
def test_limits_give_the_largest_sum_within_them(rows: int, classes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, classes))
    counts = np.bincount(generator.integers(0, classes, rows), minlength=classes)
    least = np.maximum(counts - generator.integers(0, 3, classes), 0)
    most = counts + generator.integers(0, 3, classes)
    codes = assign_classes(values, at_least=least, at_most=most)
    found = np.bincount(codes, minlength=classes)
    assert (found >= least).all()
    assert (found <= most).all()
    assert total(values, codes) == pytest.approx(by_linear_program(values, least, most), abs=1e-7)


def test_without_limits_it_is_the_argmax() -> None:
    values = np.random.default_rng(0).random((50, 4))
    assert (assign_classes(values) == values.argmax(axis=1)).all()


def test_real_probabilities_of_ten_classes_are_assigned_as_scipy_does() -> None:
    inputs, targets = load_digits(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 30 steps are meant to be too few
        model = LogisticRegression(max_iter=30)
        values = cross_val_predict(model, inputs[:, 16:32], targets, cv=3, method="predict_proba")
    counts = np.arange(10) * 20 + 89  # far from the true ones, so that many rows must move
    counts[-1] += len(targets) - counts.sum()
    codes = assign_classes(values, at_least=counts, at_most=counts)
    assert np.bincount(codes).tolist() == counts.tolist()
    assert total(values, codes) == pytest.approx(by_linear_sum_assignment(values, counts), rel=1e-12)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=6).filter(any), st.integers(0, 1000))
def test_counts_of_shares_add_up_and_are_off_by_less_than_one(shares: list[float], rows: int) -> None:
    counts = counts_of(shares, rows)
    assert counts.sum() == rows
    assert (np.abs(counts - np.array(shares) / np.sum(shares) * rows) < 1 + 1e-9).all()


@pytest.mark.parametrize(
    ("values", "limits", "message"),
    [
        (np.ones(3), {}, r"values must be \(n, classes\) with two classes or more, got \(3,\)"),
        (np.ones((3, 2)), {"at_least": [2, 2]}, r"3 rows cannot have at least \[2, 2\] and at most \[3, 3\]"),
        (np.ones((3, 2)), {"at_most": [1, 1]}, "3 rows cannot have"),
        (np.ones((3, 2)), {"at_least": [2, 0], "at_most": [1, 3]}, "3 rows cannot have"),
        (np.ones((3, 2)), {"at_least": [1]}, r"at_least must be 2 whole numbers, 0 or above, got \[1\]"),
        (np.ones((3, 2)), {"at_most": [1.5, 1.5]}, "at_most must be 2 whole numbers"),
        (np.array([[0.1, np.nan]]), {}, "values: 1 values are NaN"),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(values: np.ndarray, limits: dict[str, list[int]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        assign_classes(values, **limits)
