"""Quick metrics against the metrics they stand for."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import batteries as bt
from batteries.combine.quick import quick
from batteries.score.noise import resampled

AUC, LOG_LOSS = bt.Metric.auc(), bt.Metric.log_loss()
generator = np.random.default_rng(0)
POSITIVE = generator.random(2000) < 0.3
VALUES = generator.random(2000) + 0.3 * POSITIVE


def test_only_the_metrics_of_one_class_a_row_are_made_quick() -> None:
    auc, targets = AUC, POSITIVE.astype(int)
    assert quick(bt.Metric.rmse(), targets, 1) == bt.Metric.rmse()
    assert quick(bt.Metric("auc", lambda y, p: 0.5, higher_is_better=True), targets, 1)(targets, VALUES) == 0.5
    assert quick(auc, np.stack([targets, targets], axis=1), 2) == auc
    assert quick(auc, np.zeros(9), 1) == auc
    assert quick(auc, np.arange(9) % 2, 3) == auc, "a class is missing"
    assert quick(auc, targets, 1) != auc
    assert quick(LOG_LOSS, targets, 1) != LOG_LOSS
    assert quick(LOG_LOSS, targets + 1, 1) == LOG_LOSS, "there is a class 2"
    assert quick(LOG_LOSS, np.stack([targets, targets], axis=1), 2) == LOG_LOSS


@pytest.mark.parametrize("labels", [(0, 1), (-1, 1), ("bad", "good"), (False, True)])
def test_quick_is_the_metric_for_two_classes_by_any_name(labels: tuple[object, object]) -> None:
    auc, targets = AUC, np.array(labels)[POSITIVE.astype(int)]
    for predictions in (VALUES, VALUES[:, None], np.stack([-VALUES, VALUES], axis=1), VALUES.astype("float16")):
        columns = predictions.shape[1] if predictions.ndim == 2 else 1
        expected = auc(targets, predictions)
        assert quick(auc, targets, columns)(targets, predictions) == pytest.approx(expected, abs=1e-12)


def test_quick_is_the_metric_for_several_classes_and_draws() -> None:
    auc, targets = AUC, generator.integers(0, 3, 60)
    predictions = generator.random((60, 3)).round(1) + np.eye(3)[targets] / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = resampled(auc, targets, [predictions], draws=50)
    np.testing.assert_allclose(
        resampled(quick(auc, targets, 3), targets, [predictions], draws=50), expected, rtol=1e-12
    )


def test_a_draw_of_one_class_has_no_quick_score_either() -> None:
    scores = resampled(quick(AUC, np.array([0, 1]), 1), np.array([0, 1]), [np.array([0.1, 0.9])], draws=50)
    assert np.isnan(scores).any()
    assert set(scores[~np.isnan(scores)]) == {1.0}


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
def test_the_quick_log_loss_of_two_classes_is_scikit_learns(dtype: str) -> None:
    targets, unit = POSITIVE.astype(int), VALUES / VALUES.max()
    values = np.concatenate([unit, [0.0, 1.0, 0.0, 1.0]]).round(0 if dtype == "int64" else 9).astype(dtype)
    targets = np.concatenate([targets, [0, 0, 1, 1]])
    scored = quick(LOG_LOSS, targets, 1)
    exact = 1e-12 if dtype != "float32" else 1e-6  # scikit-learn sums in float32 there
    assert scored(targets, values) == pytest.approx(LOG_LOSS(targets, values), rel=exact)
    assert scored(targets, values[:, None]) == pytest.approx(LOG_LOSS(targets, values[:, None]), rel=exact)
    ones = np.ones(len(targets))
    assert scored(ones, values) == pytest.approx(LOG_LOSS(ones, values), rel=exact), "a draw of one class"


def test_the_quick_log_loss_of_several_classes_is_scikit_learns() -> None:
    targets = generator.integers(0, 4, 300)
    for chances in (generator.dirichlet(np.full(4, 0.05), 300), np.eye(4)[generator.integers(0, 4, 300)]):
        for values in (chances, chances.astype("float32"), 0.5 * chances):
            expected = LOG_LOSS(targets, values)
            assert quick(LOG_LOSS, targets, 4)(targets, values) == pytest.approx(expected, rel=1e-12)


def test_what_is_no_probability_has_no_quick_log_loss_either() -> None:
    targets = np.array([0, 1, 1])
    for bad in ([0.5, -0.1, 0.2], [0.5, 1.1, 0.2]):
        for metric in (LOG_LOSS, quick(LOG_LOSS, targets, 1)):
            with pytest.raises(ValueError, match=r"-0\.1|1\.1"):
                metric(targets, np.array(bad))
    with pytest.raises(ValueError, match="needs probabilities"):
        quick(LOG_LOSS, targets, 3)(targets, np.array([[0.5, 0.6, -0.1]] * 3))
