"""Shake-up: the noise of a public leaderboard, against formulas and against real splits of a real test set."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from batteries.errors import DataError
from batteries.experiment import Metric
from batteries.improve import shakeup
from batteries.improve.shakeup import shake_up


def test_the_noise_of_a_public_score_is_that_of_sampling_without_replacement() -> None:
    """Of a mean: s / sqrt(m) sqrt(1 - m / n), Cochran 1977, Sampling Techniques, theorem 2.2."""
    random = np.random.default_rng(0)
    targets, first = np.zeros(1000), np.abs(random.normal(size=1000))
    second = first + random.normal(0.01, 0.1, 1000)
    found = shake_up(Metric.mae(), targets, first, np.abs(second), public=300, private=700, draws=4000)
    losses = first, np.abs(second), first - np.abs(second)
    expected = [np.std(part, ddof=1) / 300**0.5 * (1 - 0.3) ** 0.5 for part in losses]
    assert [*found.deviation, found.gap_deviation] == pytest.approx(expected, rel=0.05)
    assert found.moved == pytest.approx(np.std(losses[2], ddof=1) * (1 / 300 + 1 / 700) ** 0.5, rel=0.05)
    assert found.worth == pytest.approx(stats.norm.ppf(0.95) * found.moved, rel=0.07)
    assert not found.replaced


def test_the_chance_given_a_gap_is_the_normal_tail() -> None:
    random = np.random.default_rng(1)
    targets, first, second = np.zeros(2000), *np.abs(random.normal(size=(2, 2000)))
    how = {"public": 500, "private": 1500, "draws": 2000}
    for gap in (0.0, 0.02, -0.05, 0.2):
        found = shake_up(Metric.mae(), targets, first, second, gap=gap, **how)  # type: ignore[arg-type]
        assert found.chance == pytest.approx(stats.norm.sf(abs(gap) / found.moved), abs=0.03)
        assert ("means little" in found.sentence) == (abs(gap) < found.worth)


def test_equal_models_turn_as_a_coin_and_far_ones_never() -> None:
    random = np.random.default_rng(2)
    targets = (random.random(400) < 0.5).astype(int)
    good, bad = targets + 0.2 * random.normal(size=400), random.random(400)
    same = shake_up(Metric.auc(), targets, bad, bad, public=100, private=200, draws=200)
    assert (same.chance, same.gap_deviation) == (0.5, 0.0)
    assert shake_up(Metric.auc(), targets, bad, good, public=100, private=200, draws=200).chance == 0.0


def test_more_test_rows_than_there_are_here_are_drawn_with_replacement() -> None:
    random = np.random.default_rng(3)
    first, second = np.abs(random.normal(size=(2, 500)))
    found = shake_up(Metric.mae(), np.zeros(500), first, second, public=2000, private=8000, draws=1000)
    assert found.replaced
    assert found.deviation[0] == pytest.approx(first.std(ddof=1) / 2000**0.5, rel=0.1)


def test_a_known_class_mix_is_kept_by_both_parts() -> None:
    targets = np.array([0] * 300 + [1] * 300)
    splitter = shakeup._Splitter(targets, 50, 151, {0: 0.9, 1: 0.1})
    counts = splitter.draw(np.random.default_rng(0), 20)
    assert counts[::2].sum(axis=1).tolist() == [50] * 20
    assert counts[::2][:, targets == 1].sum(axis=1).tolist() == [5] * 20
    assert counts[1::2].sum(axis=1).tolist() == [151] * 20
    assert set(counts[1::2][:, targets == 1].sum(axis=1)) == {15}
    assert not (counts[::2] * counts[1::2]).any()
    predictions = np.where(np.arange(600) % 3 == 0, 1 - targets, targets).astype(float)
    with_mix = shake_up(
        Metric.accuracy(), targets, predictions, predictions, public=50, private=60, mix={0: 9, 1: 1}, draws=50
    )
    assert with_mix.deviation[0] > 0


def test_what_makes_no_shake_up_is_refused() -> None:
    targets, values = np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.2, 0.8])
    with pytest.raises(DataError, match="both parts of the test set need rows, got 0 public and 3 private"):
        shake_up(Metric.auc(), targets, values, values, public=0, private=3)
    with pytest.raises(DataError, match="needs 2 or more draws, got 1"):
        shake_up(Metric.auc(), targets, values, values, public=1, private=3, draws=1)
    with pytest.raises(DataError, match=r"a share of 0 or above for each of the classes \[0, 1\], got {0: 1.0}"):
        shake_up(Metric.auc(), targets, values, values, public=1, private=3, mix={0: 1.0})
    with pytest.raises(DataError, match="auc is undefined on all but 0 of 50 splits; give larger parts"):
        shake_up(Metric.auc(), targets, values, values, public=1, private=1, draws=50)


@pytest.fixture(scope="module")
def models() -> tuple[np.ndarray, list[np.ndarray]]:
    """Even or odd of 1,497 handwritten digits, by models that each learned from a hundred or two of 300 others."""
    pixels, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(digits))
    pixels, targets = pixels[order] / 16, digits[order] % 2
    model = LogisticRegression(C=0.05, max_iter=500)
    learned = [slice(0, 100), slice(100, 200), slice(200, 300), slice(0, 130), slice(0, 200)]
    return targets[300:], [model.fit(pixels[rows], targets[rows]).predict_proba(pixels[300:])[:, 1] for rows in learned]


PAIRS = [(0, 1), (1, 2), (1, 4), (2, 3), (3, 4)]


@pytest.mark.parametrize("metric", [Metric.auc(), Metric.accuracy()], ids=lambda m: m.name)
def test_the_foretold_chance_is_how_often_splits_of_a_real_test_set_turn_the_order(
    models: tuple[np.ndarray, list[np.ndarray]], metric: Metric
) -> None:
    """Rows are dealt 80 times into 1,237 out-of-fold ones and a test set of 260, that into 60 public, 200 private.

    Over the deals, the chance foretold from the out-of-fold rows is the frequency seen in the test sets.
    """
    targets, fitted = models
    random, deals = np.random.default_rng(1), 80
    foretold, seen = np.empty((len(PAIRS), deals)), np.empty((len(PAIRS), deals))
    for number, (first, second) in enumerate(PAIRS):
        for deal in range(deals):
            order = random.permutation(len(targets))
            known, public, private = order[260:], order[:60], order[60:260]
            own = (targets[known], fitted[first][known], fitted[second][known])
            foretold[number, deal] = shake_up(metric, *own, public=60, private=200, draws=60, seed=deal).chance
            seen[number, deal] = _turned(metric, targets, fitted[first], fitted[second], public, private)
    error = np.std(seen - foretold, axis=1, ddof=1) / deals**0.5
    assert foretold.mean() > 0.1
    assert (np.abs(foretold.mean(axis=1) - seen.mean(axis=1)) <= 3 * error + 1 / deals).all()
    assert abs(foretold.mean() - seen.mean()) <= 2 * np.hypot.reduce(error) / len(PAIRS)


def _turned(metric: Metric, targets: np.ndarray, first: np.ndarray, second: np.ndarray, *sets: np.ndarray) -> float:
    signs = [np.sign(metric.gain(metric(targets[s], second[s]), metric(targets[s], first[s]))) for s in sets]
    return 0.5 if 0 in signs else float(signs[0] != signs[1])
