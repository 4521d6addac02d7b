"""Resampling: the bootstrap is the one of the books, for rows, groups and blocks, at any number of threads."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from batteries import progress
from batteries.errors import DataError
from batteries.experiment import Metric
from batteries.score import noise
from batteries.score.noise import deviation, gains, resampled, spread
from batteries.score.resample import Blocks, Groups, Resampling, Rows

PLAIN = Metric("plain", lambda y, p: float(abs(y - p).mean()), higher_is_better=False)
"""Mean absolute error without a counted form."""


def binary(n: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    targets = (random.random(n) < 0.4).astype(int)
    return targets, targets + random.normal(size=n), targets + random.normal(size=n)


@pytest.mark.parametrize("metric", [Metric.auc(), Metric.rmse(), PLAIN], ids=lambda metric: metric.name)
def test_the_bootstrap_of_four_rows_is_that_of_all_256_resamples(metric: Metric) -> None:
    targets = np.array([0, 1, 0, 1])
    models = [np.array([0.1, 0.4, 0.5, 0.9]), np.array([0.2, 0.2, 0.1, 0.6])]
    every = np.array([[noise.score_or_nan(metric, targets[list(r)], m[list(r)]) for m in models]
                      for r in product(range(4), repeat=4)])  # fmt: skip
    draws = 20_000 if metric.counted else 4_000
    found = resampled(metric, targets, models, draws=draws, seed=1)

    def close(mine: float, exact: float, deviation: float) -> bool:
        return abs(mine - exact) <= 4 * deviation / draws**0.5 + 1e-12

    undefined = float(np.isnan(every[:, 0]).mean())
    assert close(float(np.isnan(found[:, 0]).mean()), undefined, (undefined * (1 - undefined)) ** 0.5)
    exact, mine = gains(metric, every), gains(metric, found)
    assert close(mine.mean(), exact.mean(), exact.std() / (1 - undefined) ** 0.5)
    for value in np.unique(exact.round(12)):
        share = float((exact <= value + 1e-9).mean())
        assert close(float((mine <= value + 1e-9).mean()), share, 0.5 / (1 - undefined) ** 0.5)


def test_undefined_on_all_but_a_few_of_the_256_is_counted_as_such() -> None:
    """Of two rows of two classes, half of the resamples have one class only."""
    scores = resampled(Metric.auc(), np.array([0, 1]), [np.array([0.1, 0.9])], draws=4000)
    assert np.isnan(scores).mean() == pytest.approx(0.5, abs=4 * 0.5 / 4000**0.5)
    assert set(scores[~np.isnan(scores)]) == {1.0}


def test_the_fast_way_scores_the_same_resamples_as_computing_the_metric_whole() -> None:
    targets, a, b = binary(200)
    for fast in (Metric.auc(), Metric.mae(), Metric.rmse()):
        slow = Metric(fast.name, fast.fn, higher_is_better=fast.higher_is_better)
        both = [resampled(metric, targets, [a, b], draws=60, seed=3) for metric in (fast, slow)]
        np.testing.assert_allclose(both[0], both[1], rtol=1e-12)


def test_the_result_is_the_same_for_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    targets, a, b = binary(300)
    alone = resampled(Metric.auc(), targets, [a, b], draws=1500, seed=5)
    monkeypatch.setattr(noise, "_MANY", 0)
    monkeypatch.setattr(noise, "threads_for", lambda metric: 3)
    assert np.array_equal(resampled(Metric.auc(), targets, [a, b], draws=1500, seed=5), alone)


def test_a_longer_run_begins_with_the_draws_of_a_shorter_one_and_another_seed_draws_others() -> None:
    targets, a, _ = binary(500)
    runs = [
        resampled(Metric.mae(), targets, [a], draws=draws, seed=seed) for draws, seed in ((900, 0), (333, 0), (9, 1))
    ]
    assert np.array_equal(runs[0][:333], runs[1])
    assert not np.isin(runs[2], runs[0]).any()


def test_models_are_scored_on_the_same_rows() -> None:
    targets, a, _ = binary(100)
    scores = resampled(Metric.auc(), targets, [a, a.copy()], draws=50)
    assert np.array_equal(scores[:, 0], scores[:, 1])
    assert len(np.unique(scores[:, 0])) > 25


def test_no_resample_is_no_score() -> None:
    targets, a, b = binary(10)
    assert resampled(Metric.mae(), targets, [a, b], draws=0).shape == (0, 2)


def test_the_deviation_of_accuracy_is_the_binomial_one() -> None:
    targets = np.zeros(1000, dtype=int)
    predictions = (np.arange(1000) < 100).astype(float)  # 10 % wrong
    expected = np.sqrt(0.9 * 0.1 / 1000)
    assert deviation(Metric.accuracy(), targets, predictions, draws=2000) == pytest.approx(expected, rel=0.06)


def test_a_deviation_that_nothing_defines_is_nan() -> None:
    assert np.isnan(deviation(Metric.auc(), np.zeros(20, dtype=int), np.arange(20) / 20))
    assert np.isnan(spread(np.array([0.5, np.nan])))


@pytest.mark.parametrize("how", [Rows(), Blocks(3), Blocks(7)])
def test_as_many_rows_are_drawn_as_there_are_and_each_as_often_as_any(how: Resampling) -> None:
    counts = how.counts(np.random.default_rng(0), 4000, 20)
    assert (counts.sum(axis=1) == 20).all()
    assert np.abs(counts.mean(axis=0) - 1).max() < 0.12


def test_a_drawn_block_is_of_neighbours_in_a_circle() -> None:
    counts = Blocks(5).counts(np.random.default_rng(0), 200, 5)
    assert (counts == 1).all()
    pairs = Blocks(2).counts(np.random.default_rng(0), 500, 2 * 50)
    lonely = (pairs > 0) & (np.roll(pairs, 1, axis=1) == 0) & (np.roll(pairs, -1, axis=1) == 0)
    assert not lonely.any()


def test_groups_are_drawn_whole() -> None:
    labels = np.array(["a", "b", "a", "c", "b", "a"])
    counts = Groups(labels, "patient").counts(np.random.default_rng(0), 100, 6)
    for group in "abc":
        assert (np.ptp(counts[:, labels == group], axis=1) == 0).all()
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert Groups(labels, "patient").unit == "groups of patient"


def test_one_group_has_no_noise_that_could_be_known() -> None:
    targets, a, _ = binary(10)
    assert np.isnan(resampled(Metric.mae(), targets, [a], draws=5, how=Groups(np.zeros(10)))).all()
    assert np.isnan(deviation(Metric.mae(), targets, a, how=Groups(np.zeros(10))))


def test_rows_that_repeat_each_other_are_noisier_than_they_look() -> None:
    """Every row ten times: the deviation is that of the groups, sqrt(10) times that of the rows."""
    random = np.random.default_rng(0)
    errors = np.repeat(random.normal(size=200), 10)
    labels = np.repeat(np.arange(200), 10)
    zeros = np.zeros(2000)
    by_rows, by_groups = (
        deviation(Metric.rmse(), zeros, errors, draws=2000, how=how) for how in (Rows(), Groups(labels))
    )
    assert by_groups / by_rows == pytest.approx(10**0.5, rel=0.1)


def test_a_series_that_remembers_is_noisier_than_its_rows_say() -> None:
    """An AR(1) of 0.9: the mean's deviation is about sqrt((1 + 0.9) / (1 - 0.9)) times that of white noise."""
    random = np.random.default_rng(1)
    steps = random.normal(size=4000)
    series = np.empty(4000)
    series[0] = steps[0]
    for place in range(1, 4000):
        series[place] = 0.9 * series[place - 1] + steps[place]
    level = Metric("level", lambda y, p: float((p - y).mean()), higher_is_better=True, counted=_level)
    ratio = deviation(level, np.zeros(4000), series, how=Blocks(100)) / deviation(level, np.zeros(4000), series)
    assert ratio == pytest.approx((1.9 / 0.1) ** 0.5, rel=0.25)


def _level(targets: np.ndarray, predictions: np.ndarray):  # type: ignore[no-untyped-def]
    from batteries.experiment.counted import mean_of

    return mean_of(predictions - targets)


def test_what_cannot_be_resampled_is_refused() -> None:
    targets, a, _ = binary(10)
    with pytest.raises(DataError, match="8 rows have a group, 10 rows are scored"):
        resampled(Metric.mae(), targets, [a], draws=2, how=Groups(np.arange(8)))
    with pytest.raises(DataError, match="blocks of rows must be 1 or longer, got 0"):
        Blocks(0)
    with pytest.raises(DataError, match="blocks of 11 rows cannot be drawn from 10"):
        resampled(Metric.mae(), targets, [a], draws=2, how=Blocks(11))
    with pytest.raises(DataError, match="got 9 of 10 rows"):
        resampled(Metric.mae(), targets, [a, a[1:]], draws=2)


def test_long_work_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    targets, a, _ = binary(1000)
    resampled(Metric.mae(), targets, [a], draws=500, progress=True)
    assert capsys.readouterr().err.startswith("resample: ")


def test_gains_are_positive_where_the_second_is_better() -> None:
    scores = np.array([[0.2, 0.3], [0.4, 0.1]])
    assert gains(Metric.auc(), scores) == pytest.approx([0.1, -0.3])
    assert gains(Metric.rmse(), scores) == pytest.approx([-0.1, 0.3])
