"""Weights of least squares and least log-loss against SciPy, and against the conditions of a minimum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import LinearConstraint, minimize

import batteries as bt
from batteries.combine.fitted import fit_weights
from batteries.combine.quadratic import gap, lowest_point
from batteries.combine.simplex import Simplex
from batteries.errors import BlendError, ConfigError

RMSE, LOG_LOSS = bt.Metric.rmse(), bt.Metric.log_loss()


def binary(members: int, rows: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Probabilities of models that differ in noise and in confidence."""
    generator = np.random.default_rng(seed)
    targets = (generator.random(rows) < 0.4).astype(int)
    truth = generator.normal(0, 1, rows) + 1.5 * targets
    noise = generator.uniform(0.2, 2.0, members)
    scores = [generator.uniform(0.3, 2) * (truth + generator.normal(0, spread, rows) - 0.6) for spread in noise]
    return [1 / (1 + np.exp(-score)) for score in scores], targets


def solved(loss: object, slope: object, size: int, most: float = 1.0) -> np.ndarray:
    """SciPy's SLSQP with the exact slope."""
    found = minimize(
        loss,
        np.full(size, 1 / size),
        jac=slope,
        bounds=[(0, most)] * size,
        constraints=LinearConstraint(np.ones((1, size)), 1, 1),
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    return found.x


@pytest.mark.parametrize(("members", "most", "l2"), [(2, 1, 0), (5, 1, 0), (12, 1, 0), (12, 0.2, 0), (12, 1, 0.01)])
def test_least_squares_are_scipys(members: int, most: float, l2: float) -> None:
    arrays, targets = binary(members, 300, members)
    stacked, equal = np.stack(arrays), 1 / members

    def loss(w: np.ndarray) -> float:
        return ((w @ stacked - targets) ** 2).mean() + l2 * ((w - equal) ** 2).sum()

    def slope(w: np.ndarray) -> np.ndarray:
        return 2 * (stacked * (w @ stacked - targets)).mean(axis=1) + 2 * l2 * (w - equal)

    fitted = fit_weights(arrays, targets, RMSE, how="simplex", max_weight=most, l2=l2)
    expected = solved(loss, slope, members, most)
    assert loss(np.array(fitted.weights)) <= loss(expected) + 1e-13
    np.testing.assert_allclose(fitted.weights, expected, atol=1e-5)
    assert gap(slope(np.array(fitted.weights)), np.array(fitted.weights), most=most) < 1e-10
    assert fitted.score == pytest.approx(RMSE(targets, np.array(fitted.weights) @ stacked), rel=1e-12)


@pytest.mark.parametrize(("members", "most", "l2"), [(2, 1, 0), (5, 1, 0), (12, 1, 0), (12, 0.2, 0), (12, 1, 0.01)])
def test_least_log_loss_is_scipys(members: int, most: float, l2: float) -> None:
    arrays, targets = binary(members, 300, members)
    chances, equal = np.stack([np.where(targets == 1, array, 1 - array) for array in arrays]), 1 / members

    def loss(w: np.ndarray) -> float:
        return -np.log(np.maximum(w @ chances, 1e-300)).mean() + l2 * ((w - equal) ** 2).sum()

    def slope(w: np.ndarray) -> np.ndarray:
        return -(chances / np.maximum(w @ chances, 1e-300)).mean(axis=1) + 2 * l2 * (w - equal)

    fitted = fit_weights(arrays, targets, LOG_LOSS, how="simplex", max_weight=most, l2=l2)
    expected = solved(loss, slope, members, most)
    assert loss(np.array(fitted.weights)) <= loss(expected) + 1e-10
    np.testing.assert_allclose(fitted.weights, expected, atol=1e-4)
    assert gap(slope(np.array(fitted.weights)), np.array(fitted.weights), most=most) <= 1e-9


def test_log_loss_of_classes_and_of_labels_is_that_of_the_true_ones() -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 4, 200)
    members = [generator.dirichlet(np.ones(4), 200) + sharp * np.eye(4)[codes] for sharp in (0.5, 1.0, 0.1)]
    members = [member / member.sum(axis=1, keepdims=True) for member in members]
    fitted = fit_weights(members, codes, LOG_LOSS, how="simplex")
    assert fitted.score == pytest.approx(fitted.history[-1].score, rel=1e-9)
    grid = [(a, b, 20 - a - b) for a in range(21) for b in range(21 - a)]
    losses = [LOG_LOSS(codes, sum(w / 20 * member for w, member in zip(point, members, strict=True))) for point in grid]
    assert fitted.score <= min(losses) + 1e-10

    labels = (generator.random((200, 3)) < 0.5).astype(int)
    chances = [np.clip(labels * mix + generator.random((200, 3)) * (1 - mix), 0, 1) for mix in (0.2, 0.4)]

    def mean_loss(y: np.ndarray, p: np.ndarray) -> float:
        return float(np.mean([LOG_LOSS(y[:, column], p[:, column]) for column in range(3)]))

    several = bt.Metric("labels", mean_loss, higher_is_better=False)
    fitted = fit_weights(chances, labels, several, how=Simplex(loss="log_loss"))
    assert fitted.score == pytest.approx(fitted.history[-1].score, rel=1e-9)


def test_a_member_that_gives_the_truth_no_chance_does_not_end_the_fit() -> None:
    targets = np.array([0, 1, 0, 1])
    fitted = fit_weights([np.array([1.0, 0.0, 1.0, 0.0]), np.full(4, 0.5)], targets, LOG_LOSS, how="simplex")
    assert fitted.weights == pytest.approx((0.0, 1.0), abs=1e-9)


def test_a_stand_in_is_minimised_and_the_metric_reported() -> None:
    arrays, targets = binary(4, 300, 1)
    stand_in = fit_weights(arrays, targets, bt.Metric.auc(), how=Simplex(loss="log_loss"))
    assert stand_in.weights == fit_weights(arrays, targets, LOG_LOSS, how="simplex").weights
    assert stand_in.score == bt.Metric.auc()(targets, stand_in(arrays))


def test_rows_in_pieces_give_the_weights_of_the_whole() -> None:
    """50,000 rows of 60 members are two pieces; each row twice is the same problem."""
    arrays, targets = binary(60, 25_000, 3)
    for metric in (RMSE, LOG_LOSS):
        once = fit_weights(arrays, targets, metric, how="simplex")
        twice = fit_weights([np.tile(array, 2) for array in arrays], np.tile(targets, 2), metric, how="simplex")
        np.testing.assert_allclose(once.weights, twice.weights, atol=1e-8)


@given(st.integers(0, 10_000), st.integers(1, 8), st.sampled_from([1.0, 0.5, 0.3]), st.booleans())
def test_no_weight_can_be_moved_to_a_lower_point(seed: int, size: int, most: float, flat: bool) -> None:
    """The conditions of Karush, Kuhn and Tucker, for full and for deficient rank."""
    generator = np.random.default_rng(seed)
    size = max(size, int(np.ceil(1 / most)))
    factor = generator.normal(size=(1 if flat else 2 * size, size))
    curvature, slope = factor.T @ factor, generator.normal(size=size) * (seed % 3)
    weights = lowest_point(curvature, slope, most=most)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert weights.min() >= 0
    assert weights.max() <= most + 1e-9
    gradient = curvature @ weights + slope
    up, down = weights < most - 1e-12, weights > 1e-12
    assert gradient[down].max() <= gradient[up].min() + 1e-8 * (1 + np.abs(gradient).max()) if up.any() else True


def test_a_thousand_members_of_fifty_rows_are_solved() -> None:
    arrays, targets = binary(1000, 50, 4)
    for metric in (RMSE, LOG_LOSS):
        fitted = fit_weights(arrays, targets, metric, how="simplex")
        assert sum(fitted.weights) == pytest.approx(1, abs=1e-12)
        assert min(fitted.weights) >= 0
        assert fitted.score <= min(metric(targets, array) for array in arrays)


def test_equal_members_share_equally_and_a_perfect_one_takes_all() -> None:
    arrays, targets = binary(1, 100, 5)
    for metric in (RMSE, LOG_LOSS):
        shared = fit_weights(arrays * 4, targets, metric, how="simplex").weights
        np.testing.assert_allclose(shared, 0.25, atol=1e-3)  # rounding of products moves them that much
    truth = targets.astype(float)
    np.testing.assert_allclose(fit_weights([*arrays, truth], truth, RMSE, how="simplex").weights, (0, 1), atol=1e-9)
    np.testing.assert_allclose(fit_weights([truth, truth], truth, RMSE, how="simplex").weights, 0.5, atol=1e-9)


def test_a_strong_pull_gives_equal_weights_and_the_least_limit_too() -> None:
    arrays, targets = binary(5, 200, 6)
    for metric in (RMSE, LOG_LOSS):
        pulled = fit_weights(arrays, targets, metric, how="simplex", l2=1e6)
        np.testing.assert_allclose(pulled.weights, 0.2, atol=1e-6)
        np.testing.assert_allclose(
            fit_weights(arrays, targets, metric, how="simplex", max_weight=0.2).weights, 0.2, atol=1e-12
        )


def test_what_is_no_such_problem_is_refused() -> None:
    arrays, targets = binary(2, 20, 7)
    classes = [np.full((20, 3), 1 / 3)] * 2

    def refused(message: str, members: list[np.ndarray], truth: np.ndarray, metric: bt.Metric, how: object) -> None:
        with pytest.raises(BlendError, match=message):
            fit_weights(members, truth, metric, how=how)  # type: ignore[arg-type]

    refused("simplex solves rmse and log_loss, the metric is auc", arrays, targets, bt.Metric.auc(), "simplex")
    refused(r"needs targets of the members' shape \(20, 3\)", classes, targets, RMSE, "simplex")
    refused("member 2 has values from", [arrays[0], arrays[1] - 1], targets, LOG_LOSS, "simplex")
    refused("needs targets 0 and 1", arrays, targets * 2, LOG_LOSS, "simplex")
    refused("class codes from 0 to 2, got int64 of shape .* from 0 to 3", classes, targets * 3, LOG_LOSS, "simplex")
    refused("rows of member 1 miss the sum 1 by up to 0.5", [m / 2 for m in classes], targets, LOG_LOSS, "simplex")
    with pytest.raises(ConfigError, match="no loss 'hinge'; choose one of squares, log_loss"):
        Simplex(loss="hinge")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="tolerance must be above 0"):
        Simplex(tolerance=0.0)
