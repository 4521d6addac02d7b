"""Counted scores: what a metric says of a resample, without laying it out."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from batteries.errors import DataError, ExperimentError
from batteries.experiment import Metric
from batteries.experiment.counted import auc_of, mean_of
from batteries.score.noise import scorer

BUILT_IN = [Metric.accuracy(), Metric.auc(), Metric.log_loss(), Metric.f1(), Metric.rmse(), Metric.mae()]
BUILT_IN += [Metric.fbeta(2), Metric.fbeta(0.5), Metric.mcc(), Metric.qwk()]


def drawn_rows(n: int, draws: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, n, (draws, n))


def counts_of(rows: np.ndarray, n: int) -> np.ndarray:
    return np.stack([np.bincount(line, minlength=n) for line in rows])


@pytest.mark.parametrize("decimals", [1, 2, 15])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_area_of_each_of_50_resamples_is_scikit_learns(decimals: int, share: float) -> None:
    """One decimal ties most rows, two some, fifteen none."""
    random = np.random.default_rng(3)
    targets = (random.random(500) < share).astype(int)
    values = (0.3 * targets + random.random(500)).round(decimals)
    rows = drawn_rows(500, 50, seed=4)
    found = auc_of(targets == 1, values)(counts_of(rows, 500))
    theirs = [sk.roc_auc_score(targets[line], values[line]) for line in rows]
    assert np.abs(found - theirs).max() < 1e-12


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 4)), min_size=2, max_size=8))
def test_the_area_is_the_share_of_ordered_pairs_whatever_the_counts(rows: list[tuple[bool, int, int]]) -> None:
    positive, values, counts = (np.array(part) for part in zip(*rows, strict=True))
    ups = np.repeat(values[positive], counts[positive])
    downs = np.repeat(values[~positive], counts[~positive])
    found = auc_of(positive, values)(counts[np.newaxis])[0]
    if not len(ups) or not len(downs):
        assert np.isnan(found)
        return
    pairs = ups[:, np.newaxis] - downs
    assert found == pytest.approx(((pairs > 0).mean() + (pairs == 0).mean() / 2), abs=1e-12)


@pytest.mark.parametrize("metric", BUILT_IN, ids=lambda metric: metric.name)
@pytest.mark.parametrize("columns", [0, 1, 2, 3])
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_every_built_in_score_says_of_counts_what_it_says_of_the_rows(metric: Metric, columns: int, kind: str) -> None:
    random, n = np.random.default_rng(columns), 90
    targets = np.arange(n) % max(2, columns)
    values = random.random(n) if columns < 2 else random.dirichlet(np.ones(columns), n)
    if columns == 1:
        values = values[:, np.newaxis]
    if metric.name in ("rmse", "mae") and columns >= 2:
        targets = random.random((n, columns))
    values = values.astype(kind)
    rows = drawn_rows(n, 20, seed=1)
    found = scorer(metric, targets, values)(counts_of(rows, n))
    whole = [metric(targets[line], values[line]) for line in rows]
    exact = kind == "float64" or metric.name != "log_loss" or columns >= 2
    np.testing.assert_allclose(found, whole, rtol=1e-12 if exact else 1e-5)  # scikit-learn adds in float32


def test_labels_that_hold_together_have_their_mean_area() -> None:
    random = np.random.default_rng(0)
    targets, values = random.integers(0, 2, (60, 3)), random.random((60, 3)).round(1)
    rows = drawn_rows(60, 20, seed=2)
    found = scorer(Metric.auc(), targets, values)(counts_of(rows, 60))
    np.testing.assert_allclose(found, [sk.roc_auc_score(targets[r], values[r]) for r in rows], rtol=0, atol=1e-12)


def test_macro_f1_is_over_the_classes_that_were_drawn_or_predicted() -> None:
    targets, values = np.array([0, 0, 1, 2, 2]), np.eye(3)[[0, 1, 1, 2, 0]]
    rows = np.array([[0, 0, 3, 3, 3], [0, 1, 2, 3, 4], [3, 3, 3, 3, 3]])
    found = scorer(Metric.f1(), targets, values)(counts_of(rows, 5))
    theirs = [sk.f1_score(targets[r], values[r].argmax(axis=1), average="macro") for r in rows]
    np.testing.assert_allclose(found, theirs, rtol=1e-14)


def test_f1_of_a_class_that_nobody_names_is_zero_as_in_scikit_learn() -> None:
    targets, values = np.array([0, 1]), np.array([0.2, 0.9])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = sk.f1_score([0, 0], [0, 0])
    assert scorer(Metric.f1(), targets, values)(np.array([[2, 0]])).tolist() == [theirs] == [0.0]


def test_a_draw_of_one_class_has_no_area_and_a_draw_of_nothing_no_mean() -> None:
    assert np.isnan(auc_of(np.array([True, False]), np.array([0.9, 0.1]))(np.array([[2, 0], [0, 2]]))).all()
    assert np.isnan(mean_of(np.array([1.0, 2.0]))(np.array([[0, 0]]))).all()


def test_a_metric_of_ones_own_can_be_counted_too() -> None:
    own = Metric("square", lambda y, p: float(((y - p) ** 2).mean()), higher_is_better=False, counted=_squares)
    targets, values = np.array([0.0, 1.0, 3.0]), np.array([1.0, 1.0, 1.0])
    assert scorer(own, targets, values)(np.array([[1, 0, 2]])).tolist() == [3.0]


def _squares(targets: np.ndarray, predictions: np.ndarray):  # type: ignore[no-untyped-def]
    return mean_of((targets - predictions) ** 2)


def test_a_counted_form_of_another_score_is_refused() -> None:
    wrong = Metric("mae", Metric.mae().fn, higher_is_better=False, counted=_squares)
    with pytest.raises(ExperimentError, match=r"metric 'mae': its counted form gives 4.0 where its function gives 2.0"):
        scorer(wrong, np.zeros(3), np.full(3, 2.0))


def test_predictions_of_other_rows_and_no_rows_are_refused() -> None:
    with pytest.raises(DataError, match="as many predictions as targets, got 2 of 3 rows"):
        scorer(Metric.mae(), np.zeros(3), np.zeros(2))
    with pytest.raises(DataError, match="got 0 of 0 rows"):
        scorer(Metric.mae(), np.zeros(0), np.zeros(0))


def test_built_in_metrics_stay_equal_by_value_and_travel() -> None:
    for metric in BUILT_IN:
        assert pickle.loads(pickle.dumps(metric)) == metric
        assert "counted" not in repr(metric)
