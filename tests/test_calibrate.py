"""Calibration against scikit-learn and SciPy, on real models of real data."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV, calibration_curve
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.naive_bayes import GaussianNB

from batteries.combine.calibrate import (
    HOTTEST,
    Temperature,
    calibrate,
    calibrate_entry,
    fit_isotonic,
    fit_platt,
    fit_temperature,
)
from batteries.combine.reliability import calibration_error, quality, reliability
from batteries.errors import DataError, UsageError
from batteries.files import read_sealed
from batteries.score.verify import verify
from entries import entry_of

METHODS = ("temperature", "platt", "isotonic")


@cache
def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Out-of-fold probabilities of a naive Bayes model, which is far too sure of itself: ten classes."""
    inputs, targets = load_digits(return_X_y=True)
    folds = np.arange(len(targets)) % 5
    values = cross_val_predict(
        GaussianNB(var_smoothing=1e-3), inputs, targets, cv=PredefinedSplit(folds), method="predict_proba"
    )
    return values, targets, folds


@cache
def cancer() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of two classes, the probability of class 1."""
    inputs, targets = load_breast_cancer(return_X_y=True)
    folds = np.arange(len(targets)) % 5
    values = cross_val_predict(GaussianNB(), inputs[:, :10], targets, cv=PredefinedSplit(folds), method="predict_proba")
    return values[:, 1], targets, folds


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose probabilities are its inputs; of one column, whose log-odds are."""

    def fit(self, inputs: np.ndarray, targets: np.ndarray) -> Given:
        self.classes_ = np.unique(targets)
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return self.classes_[inputs.argmax(axis=1)]

    def predict_proba(self, inputs: np.ndarray) -> np.ndarray:
        return inputs


class Odds(ClassifierMixin, BaseEstimator):
    """A classifier whose decision function is its one input."""

    def fit(self, inputs: np.ndarray, targets: np.ndarray) -> Odds:
        self.classes_ = np.unique(targets)
        return self

    def predict(self, inputs: np.ndarray) -> np.ndarray:
        return self.classes_[(inputs[:, 0] > 0).astype(int)]

    def decision_function(self, inputs: np.ndarray) -> np.ndarray:
        return inputs[:, 0]


def by_scikit_learn(model: BaseEstimator, inputs: np.ndarray, targets: np.ndarray, method: str) -> np.ndarray:
    frozen = FrozenEstimator(model.fit(inputs, targets))  # type: ignore[attr-defined]
    return CalibratedClassifierCV(frozen, method=method).fit(inputs, targets).predict_proba(inputs)


def test_temperature_of_ten_classes_is_scikit_learns() -> None:
    values, targets, _ = digits()
    values = np.maximum(values, 1e-9)  # scikit-learn adds 1e-12 to every probability, where a tiny one would differ
    values = values / values.sum(axis=1, keepdims=True)
    ours = fit_temperature(values, targets)
    theirs = by_scikit_learn(Given(), values, targets, "temperature")
    np.testing.assert_allclose(ours(values), theirs, atol=1e-4)  # 1e-12 beside 1e-9 moves them so much


def test_temperature_is_the_minimum_that_scipy_finds() -> None:
    values, targets, _ = digits()
    logs = np.log(np.maximum(values, 1e-15))

    def loss(theta: float) -> float:
        return log_loss(targets, softmax(logs / np.exp(theta), axis=1))

    found = minimize_scalar(loss, bounds=(-3, 3), options={"xatol": 1e-10})
    ours = fit_temperature(values, targets)
    assert np.log(ours.temperature) == pytest.approx(found.x, abs=1e-5)
    assert loss(np.log(ours.temperature)) <= found.fun + 1e-12
    assert ours.temperature > 1.5  # naive Bayes counts every pixel as evidence of its own


def test_temperature_of_two_classes_divides_the_log_odds_and_takes_both_forms() -> None:
    values, targets, _ = cancer()
    ours = fit_temperature(values, targets)
    two = np.stack([1 - values, values], axis=1)
    assert fit_temperature(two, targets).temperature == pytest.approx(ours.temperature, rel=1e-6)
    inside = np.clip(values, 1e-12, 1 - 1e-12)
    np.testing.assert_allclose(logit(ours(inside)), logit(inside) / ours.temperature, rtol=1e-3, atol=1e-9)
    assert ours(values[:, None]).shape == (len(values), 1)
    np.testing.assert_allclose(ours(two)[:, 1], ours(values), rtol=1e-12)


@given(st.floats(0.05, 20.0))
@settings(max_examples=20)
def test_a_temperature_that_was_put_in_is_found_again(factor: float) -> None:
    values, targets, _ = digits()
    values = np.maximum(values[:600], 1e-3)
    base = values / values.sum(axis=1, keepdims=True)
    first = fit_temperature(base, targets[:600], eps=1e-300).temperature
    heated = softmax(np.log(base) * factor, axis=1)
    assert fit_temperature(heated, targets[:600], eps=1e-300).temperature == pytest.approx(first * factor, rel=1e-6)


def test_a_temperature_has_ends_and_flat_rows_keep_theirs() -> None:
    targets = np.array([0, 1, 0, 1])
    right, wrong = np.array([0.4, 0.6, 0.4, 0.6]), np.array([0.6, 0.4, 0.6, 0.4])
    assert fit_temperature(right, targets).temperature == 1 / HOTTEST
    assert fit_temperature(wrong, targets).temperature == HOTTEST
    assert fit_temperature(np.full(4, 0.5), targets).temperature == 1.0


def test_platt_is_scikit_learns_sigmoid_of_the_log_odds() -> None:
    values, targets, _ = cancer()
    odds = logit(np.clip(values, 1e-15, 1 - 1e-15))
    theirs = by_scikit_learn(Odds(), odds[:, None], targets, "sigmoid")[:, 1]
    np.testing.assert_allclose(fit_platt(values, targets)(values), theirs, atol=2e-5)  # its search ends so early


def test_platt_is_logistic_regression_on_rows_that_are_weighed_by_its_softer_targets() -> None:
    values, targets, _ = cancer()
    odds, inside = logit(np.clip(values, 1e-15, 1 - 1e-15))[:, None] / 10, targets == 1
    softer = np.where(inside, (inside.sum() + 1) / (inside.sum() + 2), 1 / ((~inside).sum() + 2))
    both, weights = np.concatenate([odds, odds]), np.concatenate([softer, 1 - softer])
    model = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000)
    model.fit(both, np.repeat([1, 0], len(values)), sample_weight=weights)
    np.testing.assert_allclose(fit_platt(values, targets)(values), model.predict_proba(odds)[:, 1], atol=1e-6)  # L-BFGS


def test_platt_stays_finite_where_classes_part_cleanly() -> None:
    values, targets = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    fitted = fit_platt(values, targets)
    assert np.isfinite([*fitted.slopes, *fitted.intercepts]).all()
    assert fitted(values)[3] < 0.8  # Platt's targets of two rows of each class are 1/4 and 3/4


def test_isotonic_of_two_classes_is_scikit_learns() -> None:
    values, targets, _ = cancer()
    theirs = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(values, targets)
    new = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(fit_isotonic(values, targets)(new), theirs.predict(new), atol=1e-12)


@pytest.mark.parametrize("method", ["isotonic", "sigmoid"])
def test_several_classes_are_each_against_the_rest_then_normalised(method: str) -> None:
    values, targets, _ = digits()
    ours = {"isotonic": fit_isotonic, "sigmoid": fit_platt}[method](values, targets)(values)
    if method == "isotonic":
        theirs = by_scikit_learn(Given(), values, targets, method)
    else:
        odds = logit(np.clip(values, 1e-15, 1 - 1e-15))
        columns = [by_scikit_learn(Odds(), odds[:, [c]], targets == c, method)[:, 1] for c in range(10)]
        theirs = np.stack(columns, axis=1) / np.sum(columns, axis=0)[:, None]
    np.testing.assert_allclose(ours, theirs, atol=1e-12 if method == "isotonic" else 5e-4)  # ten early ends add up
    np.testing.assert_allclose(ours.sum(axis=1), 1, rtol=1e-12)


@pytest.mark.parametrize("how", METHODS)
def test_too_sure_a_model_is_accepted_with_a_nested_loss_no_better_than_in_sample(how: str) -> None:
    for values, targets, folds in (digits(), cancer()):
        result = calibrate(values, targets, folds, how=how)
        assert sorted(result.by_fold) == [0, 1, 2, 3, 4]
        assert result.in_sample.log_loss < result.before.log_loss
        assert result.in_sample.log_loss <= result.nested.log_loss
        assert result.nested.log_loss == pytest.approx(quality(result.values, targets).log_loss, rel=1e-12)
        assert result.values.shape == values.shape
        if how != "isotonic":  # its zeros may cost more than it gains, which is what the nested loss is for
            assert result.accepted
            assert result.nested.calibration_error < result.before.calibration_error
            assert (result(values) == result.fitted(values)).all()


def test_where_nothing_is_gained_the_predictions_stay_as_they_are() -> None:
    generator = np.random.default_rng(0)
    values = generator.uniform(0.05, 0.95, 300)
    targets = (generator.random(300) < values).astype(int)  # exactly calibrated
    result = calibrate(values, targets, np.arange(300) % 3, how="isotonic")
    assert not result.accepted
    assert result.in_sample.log_loss < result.before.log_loss < result.nested.log_loss
    assert result(values) is values


def test_targets_of_a_fold_do_not_change_its_calibrated_predictions() -> None:
    values, targets, folds = digits()
    held_out = folds == 2
    shuffled = targets.copy()
    shuffled[held_out] = np.random.default_rng(0).permutation(targets[held_out])
    for how in METHODS:
        before, after = (calibrate(values, y, folds, how=how).values for y in (targets, shuffled))
        assert (before[held_out] == after[held_out]).all()
        assert not (before[~held_out] == after[~held_out]).all()


def test_zeros_are_taken_as_eps_and_counted() -> None:
    values, targets = np.array([0.0, 1.0, 0.5, 1.0]), np.array([1, 0, 1, 1])
    found = quality(values, targets)
    assert (found.clipped, found.eps) == (2, 1e-15)
    assert found.log_loss == pytest.approx(-(2 * np.log(1e-15) + np.log(0.5)) / 4)
    assert quality(values.astype("float32"), targets).eps == 1e-7
    assert quality(values, targets, eps=0.01).log_loss == pytest.approx(-(2 * np.log(0.01) + np.log(0.5)) / 4)


def test_brier_score_and_log_loss_are_scikit_learns() -> None:
    for values, targets, _ in (digits(), cancer()):
        values = np.clip(values, 1e-6, 1 - 1e-6)
        values = values / values.sum(axis=1, keepdims=True) if values.ndim == 2 else values
        found = quality(values, targets)
        assert found.brier == pytest.approx(brier_score_loss(targets, values), rel=1e-12)
        assert found.log_loss == pytest.approx(log_loss(targets, values), rel=1e-10)


def test_bins_are_those_of_scikit_learns_calibration_curve() -> None:
    values, targets, _ = cancer()
    observed, stated = calibration_curve(targets, values, n_bins=10)
    bins = reliability(values, targets)
    np.testing.assert_allclose([each.stated for each in bins], stated, rtol=1e-12)
    np.testing.assert_allclose([each.observed for each in bins], observed, rtol=1e-12)
    assert sum(each.rows for each in bins) == len(values)
    expected = sum(each.rows * abs(each.stated - each.observed) for each in bins) / len(values)
    assert calibration_error(bins) == quality(values, targets).calibration_error == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "targets", "options", "kind", "message"),
    [
        ([0.2, 1.2], [0, 1], {}, DataError, r"probabilities must be in 0 to 1, got 0.2 to 1.2; give them, no logits"),
        ([[0.2, 0.7], [0.5, 0.5]], [0, 1], {}, DataError, r"1 rows of probabilities do not sum to 1 \(row 0: 0.9\)"),
        ([0.2, np.inf], [0, 1], {}, DataError, "predictions: 1 values are NaN or infinite"),
        ([0.2, 0.3], [0, 3], {}, DataError, r"targets must be class codes, 0 to 1, got \[3.0\]"),
        ([0.2, 0.3], [0, 1], {"how": "beta"}, UsageError, "there is no calibration 'beta'; choose one of temperature"),
        ([0.2, 0.3], [0, 1], {"eps": 0.0}, UsageError, "eps must be above 0 and below 0.5, got 0.0"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    values: list[float], targets: list[int], options: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        calibrate(np.array(values), np.array(targets), np.array([0, 1]), **options)  # type: ignore[arg-type]


def test_an_entry_is_calibrated_into_one_of_nested_predictions_and_made_once(tmp_path: Path) -> None:
    values, targets, folds = digits()
    entry = entry_of(tmp_path, "bayes-001", values, targets, folds)
    result, made = calibrate_entry(entry, tmp_path)
    assert (made.name, made.kind, made.config["of"]) == ("calibrated-001", "calibrated", "bayes-001")
    assert read_sealed(made.folder / "learned.json") == result.plain()
    assert [finding.state for finding in verify(made.folder)] == ["intact"] * 4
    oof, test = made.oof(complete=True), made.test()
    assert (oof.values == result.values).all()
    assert (oof.targets == targets).all()
    assert test is not None
    fitted = Temperature(result.fitted.temperature, 1e-15)  # type: ignore[union-attr]
    np.testing.assert_allclose(test.values, fitted(values[:50]), rtol=1e-14)
    assert calibrate_entry(entry, tmp_path)[1] == made
    assert calibrate_entry(entry, tmp_path, how="platt")[1].name == "calibrated-002"


def test_an_entry_that_gains_nothing_is_returned_and_ranks_are_refused(tmp_path: Path) -> None:
    _, targets, folds = digits()
    values = np.full((len(targets), 10), 0.1)
    entry = entry_of(tmp_path, "bayes-001", values, targets, folds)
    result, same = calibrate_entry(entry, tmp_path)
    assert not result.accepted
    assert same == entry
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bayes-001"]
    ranks = entry_of(tmp_path / "ranks", "bayes-001", values, targets, folds, how="rank")
    with pytest.raises(DataError, match="bayes-001 holds ranks or powers, an order and no probabilities"):
        calibrate_entry(ranks, tmp_path / "ranks")


def test_a_forest_is_made_surer_by_a_temperature_below_one() -> None:
    inputs, targets = load_digits(return_X_y=True)
    folds = np.arange(len(targets)) % 3
    forest = RandomForestClassifier(20, random_state=0, max_depth=8)
    values = cross_val_predict(forest, inputs, targets, cv=PredefinedSplit(folds), method="predict_proba")
    result = calibrate(values, targets, folds)
    assert result.accepted
    assert result.fitted.temperature < 1  # type: ignore[union-attr]
