"""Thresholds against every threshold there is, scored by scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from batteries.combine.thresholds import Counts, best_threshold, objective_of
from batteries.errors import DataError, UsageError

REFERENCES: dict[str, Callable[..., float]] = {
    "accuracy": sk.accuracy_score,
    "f1": sk.f1_score,
    "f2": lambda y, p: sk.fbeta_score(y, p, beta=2),
    "f0.5": lambda y, p: sk.fbeta_score(y, p, beta=0.5),
    "mcc": sk.matthews_corrcoef,
    "kappa": sk.cohen_kappa_score,
}


def of_all(scores: np.ndarray, targets: np.ndarray, name: str) -> dict[float, float]:
    """Score of every cut: each distinct score as a threshold, and one above all of them."""
    cuts = [*np.unique(scores).tolist(), np.inf]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a metric that is undefined at a cut is 0 there
        return {cut: REFERENCES[name](targets, (scores >= cut).astype(int)) for cut in cuts}


tasks = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 1)), min_size=2, max_size=24).filter(
    lambda rows: len({target for _, target in rows}) == 2
)


@pytest.mark.parametrize("name", REFERENCES)
@settings(max_examples=40)
@given(rows=tasks)
def test_no_threshold_beats_the_one_that_is_found(name: str, rows: list[tuple[int, int]]) -> None:
    scores, targets = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = best_threshold(scores / 8, targets, objective=name)
    every = of_all(scores / 8, targets, name)
    assert found.score == pytest.approx(max(every.values()), abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reached = REFERENCES[name](targets, found(scores / 8))
    assert reached == pytest.approx(found.score, abs=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_on_real_predictions_the_best_is_that_of_a_search_over_all(name: str) -> None:
    inputs, targets = load_breast_cancer(return_X_y=True)
    model = make_pipeline(StandardScaler(), LogisticRegression())
    scores = cross_val_predict(model, inputs[:, :4], targets, cv=5, method="predict_proba")[:, 1].round(2)
    found = best_threshold(scores, targets, objective=name)
    assert found.score == pytest.approx(max(of_all(scores, targets, name).values()), abs=1e-12)
    assert REFERENCES[name](targets, found(scores)) == pytest.approx(found.score, abs=1e-12)


def test_ties_take_the_middle_of_the_widest_stretch() -> None:
    scores, targets = np.array([0.1, 0.2, 0.3, 0.7, 0.75]), np.array([0, 0, 1, 0, 1])
    # accuracy 4 of 5 above 0.2 (to 0.3) and above 0.7 (to 0.75): the first stretch is the wider
    found = best_threshold(scores, targets, objective="accuracy")
    assert (found.low, found.high) == (0.2, 0.3)
    assert found.value == pytest.approx(0.25)


def test_neighbouring_stretches_of_one_score_are_one() -> None:
    scores, targets = np.array([0.0, 0.4, 0.5, 1.0]), np.array([0, 1, 0, 1])
    found = best_threshold(scores, targets, objective=lambda counts: np.ones(np.shape(counts.true_positive)))
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_where_no_row_should_be_positive_none_that_was_seen_is() -> None:
    scores, targets = np.array([0.9, 0.8, 0.1, 0.3]), np.array([0, 0, 0, 1])
    found = best_threshold(scores, targets, objective="accuracy")
    assert found(scores).sum() == 0
    assert found.value > 0.9
    everything = best_threshold(-scores, 1 - targets, objective="accuracy")
    assert everything(-scores).sum() == 4


def test_scores_one_rounding_error_apart_are_still_parted() -> None:
    scores = np.array([0.5, np.nextafter(0.5, 1)])
    assert best_threshold(scores, np.array([0, 1])).score == 1.0
    assert best_threshold(scores, np.array([0, 1])).value == scores[1]
    huge = np.array([-1.7e308, 1.7e308])
    assert best_threshold(huge, np.array([0, 1])).value == 0.0


@given(rows=tasks)
def test_order_of_rows_and_a_rising_scale_change_no_answer(rows: list[tuple[int, int]]) -> None:
    scores, targets = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    found = best_threshold(scores, targets)
    assert best_threshold(scores[::-1], targets[::-1]) == found
    doubled = best_threshold(scores * 2 + 4, targets)
    assert (doubled(scores * 2 + 4) == found(scores)).all()


def test_any_function_of_counts_can_be_the_objective() -> None:
    scores, targets = np.array([0.1, 0.2, 0.6, 0.9]), np.array([0, 1, 0, 1])

    def cost(counts: Counts) -> np.ndarray:
        return -(10 * counts.false_negative + counts.false_positive)

    assert best_threshold(scores, targets, objective=cost).value == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("scores", "targets", "objective", "kind", "message"),
    [
        ([0.1, np.nan], [0, 1], "f1", DataError, "scores: 1 values are NaN"),
        ([], [], "f1", DataError, "scores must be numbers"),
        ([[0.1, 0.2]], [0], "f1", DataError, "one threshold cuts one score a row"),
        ([0.1, 0.2], [0, 0], "f1", DataError, "all 2 targets are 0; a threshold needs rows of both classes"),
        ([0.1, 0.2], [0, 2], "f1", DataError, r"targets must be class codes, 0 to 1, got \[2.0\]"),
        ([0.1, 0.2], [0, 1, 1], "f1", DataError, "2 rows need one class each"),
        ([0.1, 0.2], [0, 1], "auc", UsageError, "there is no objective 'auc'; choose accuracy, f1"),
        ([0.1, 0.2], [0, 1], "f-1", UsageError, "there is no objective 'f-1'"),
        ([0.1, 0.2], [0, 1], lambda c: c.true_positive * np.nan, DataError, "NaN or infinite at some thresholds"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    scores: list[float], targets: list[int], objective: object, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        best_threshold(np.array(scores), np.array(targets), objective=objective)  # type: ignore[arg-type]


def test_named_objectives_are_0_where_they_are_undefined() -> None:
    for name in ("f1", "mcc", "kappa"):
        assert objective_of(name)(Counts(0.0, 0.0, 0.0, 4.0)) == 0
