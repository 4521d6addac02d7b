"""Significance: published examples, SciPy's figures, and how often the tests are wrong when nothing is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.datasets import make_moons
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.svm import SVC

from batteries.errors import DataError
from batteries.experiment import Metric
from batteries.experiment.counted import Scorer, mean_of
from batteries.improve.significance import bootstrap_p, corrected_t, holm
from batteries.score.noise import gains, resampled

SIMULATIONS = 1000


def test_the_corrected_t_test_gives_the_published_figures_of_scikit_learns_example() -> None:
    """Its page on comparing models statistically: ten times ten folds of 100 points, two kernels.

    It states the 95 % interval -0.016445 to 0.036445, t 0.750 and a one-sided p of 0.227.
    """
    points, classes = make_moons(noise=0.352, random_state=1, n_samples=100)
    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=10, random_state=0)
    rbf, linear = (
        cross_val_score(SVC(kernel=kernel, random_state=0), points, classes, scoring="roc_auc", cv=folds)
        for kernel in ("rbf", "linear")
    )
    found = corrected_t(rbf - linear, test_share=10 / 90)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((-0.016445, 0.036445), abs=5e-7)
    assert (found.statistic, found.p / 2) == pytest.approx((0.750, 0.227), abs=5e-4)
    assert found.degrees == 99


@pytest.mark.parametrize(("repeats", "folds"), [(1, 5), (1, 3), (10, 10), (3, 4)])
def test_the_corrected_t_test_is_scipys_t_test_with_a_wider_deviation(repeats: int, folds: int) -> None:
    """With s / sqrt(J) replaced: t of the same differences times sqrt((1 / J) / (1 / J + share))."""
    differences = np.random.default_rng(folds).normal(0.01, 0.02, repeats * folds)
    j, share = len(differences), 1 / (folds - 1)
    plain = stats.ttest_1samp(differences, 0.0)
    statistic = plain.statistic * np.sqrt((1 / j) / (1 / j + share))
    found = corrected_t(differences, test_share=share)
    assert found is not None
    assert found.statistic == pytest.approx(statistic, rel=1e-10)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(statistic), j - 1), rel=1e-10)
    scale = np.std(differences, ddof=1) * np.sqrt(1 / j + share)
    assert (found.low, found.high) == pytest.approx(stats.t.interval(0.95, j - 1, differences.mean(), scale), rel=1e-10)


def test_without_the_correction_it_is_scipys_paired_t_test() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 8))
    found = corrected_t(a - b, test_share=0.0)
    assert found is not None
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-10)


def test_no_difference_is_p_one_and_a_constant_difference_has_none() -> None:
    nothing = corrected_t([0.0] * 5, test_share=0.25)
    assert nothing is not None
    assert (nothing.p, nothing.low, nothing.high) == (1.0, 0.0, 0.0)
    assert corrected_t([0.1] * 5, test_share=0.25) is None


def test_what_the_t_test_cannot_judge_is_refused() -> None:
    with pytest.raises(DataError, match="3 or more held-out sets, got 2"):
        corrected_t([0.1, 0.2], test_share=1.0)
    with pytest.raises(DataError, match="finite differences"):
        corrected_t([0.1, 0.2, float("nan")], test_share=0.5)
    with pytest.raises(DataError, match=r"a share >= 0, got .*-1"):
        corrected_t([0.1, 0.2, 0.3], test_share=-1)


def test_holms_correction_gives_the_figures_of_rs_p_adjust() -> None:
    """p.adjust(c(0.01, 0.02, 0.03, 0.04, 0.05), "holm") and p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")."""
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holms_correction_rejects_what_the_step_down_procedure_rejects(values: list[float]) -> None:
    corrected = holm(values)
    assert all(p <= c <= min(1.0, p * len(values)) + 1e-15 for p, c in zip(values, corrected, strict=True))
    for level in (0.01, 0.05, 0.3):
        rejected: set[int] = set()
        for step, place in enumerate(sorted(range(len(values)), key=lambda i: values[i])):
            if values[place] * (len(values) - step) > level:
                break
            rejected.add(place)
        assert {place for place, c in enumerate(corrected) if c <= level} == rejected


def test_the_p_of_a_bootstrap_counts_both_tails_ties_and_itself() -> None:
    assert bootstrap_p(np.full(99, 0.1)) == pytest.approx(2 * 1 / 100)
    assert bootstrap_p(np.array([0.1] * 97 + [-0.1] * 2)) == pytest.approx(2 * 3 / 100)
    assert bootstrap_p(np.zeros(50)) == 1.0
    assert bootstrap_p(-np.full(99, 0.1)) == bootstrap_p(np.full(99, 0.1))


def pair(random: np.random.Generator, n: int, metric: Metric, edge: float) -> tuple[np.ndarray, ...]:
    """Targets and two models whose errors have half of their variance in common; `edge` makes the second better."""
    shared = random.normal(size=n)
    first, second = ((shared + random.normal(size=n)) / 2**0.5 for _ in range(2))
    second = second * (1 - edge)
    if metric.name == "rmse":
        return np.zeros(n), first, second
    targets = np.arange(n) % 2
    return targets, targets + first, targets + second  # accuracy: right above and below one half


def rejections(metric: Metric, *, n: int, edge: float, draws: int = 400) -> int:
    random, count = np.random.default_rng(7), 0
    for number in range(SIMULATIONS):
        targets, first, second = pair(random, n, metric, edge)
        drawn = resampled(metric, targets, [first, second], draws=draws, seed=number)
        count += bootstrap_p(gains(metric, drawn)) <= 0.05
    return count


@pytest.mark.parametrize("metric", [Metric.auc(), Metric.rmse(), Metric.accuracy()], ids=lambda metric: metric.name)
def test_of_1000_pairs_of_equally_good_models_about_50_are_told_apart(metric: Metric) -> None:
    low, high = stats.binom.interval(0.95, SIMULATIONS, 0.05)
    assert low <= rejections(metric, n=200, edge=0.0) <= high


@pytest.mark.parametrize("power", [0.5, 0.9])
def test_a_known_difference_is_found_as_often_as_the_t_test_would_find_it(power: float) -> None:
    """Mean losses whose difference is normal: the power of the paired t-test is known (noncentral t)."""
    n, deviation = 200, 2**0.5
    needed = stats.norm.isf(0.025) + stats.norm.ppf(power)
    difference = needed * deviation / n**0.5
    edge, critical = needed, stats.t.isf(0.025, n - 1)
    known = stats.nct.sf(critical, n - 1, edge) + stats.nct.cdf(-critical, n - 1, edge)
    random, metric, found = np.random.default_rng(11), Metric("loss", _mean, higher_is_better=False, counted=_loss), 0
    for number in range(SIMULATIONS):
        first, second = random.normal(size=(2, n))
        drawn = resampled(metric, np.zeros(n), [first, second - difference], draws=400, seed=number)
        found += bootstrap_p(gains(metric, drawn)) <= 0.05
    low, high = stats.binom.interval(0.99, SIMULATIONS, known)
    assert low <= found <= high


def _mean(targets: np.ndarray, losses: np.ndarray) -> float:
    return float(losses.mean())


def _loss(targets: np.ndarray, losses: np.ndarray) -> Scorer:
    return mean_of(losses)


def test_a_better_area_is_found_as_often_as_its_spread_lets_expect() -> None:
    """AUC 0.760 against 0.827 on 400 rows (normal scores, deviations 1 and 0.75): in about 82 of 100 pairs.

    The spread of the difference is that of 4,000 other pairs.
    """
    metric, random, n, times, found = Metric.auc(), np.random.default_rng(5), 400, 250, 0
    true = [float(stats.norm.cdf(1 / (width * 2**0.5))) for width in (1, 0.75)]
    differences = [_area_gain(*pair(random, n, metric, 0.25)) for _ in range(4000)]
    for number in range(times):
        targets, first, second = pair(random, n, metric, 0.25)
        drawn = resampled(metric, targets, [first, second], draws=400, seed=number)
        found += bootstrap_p(gains(metric, drawn)) <= 0.05
    expected = stats.norm.sf(stats.norm.isf(0.025) - (true[1] - true[0]) / np.std(differences, ddof=1))
    assert expected == pytest.approx(0.82, abs=0.02)
    low, high = stats.binom.interval(0.99, times, expected)
    assert low <= found <= high


def _area_gain(targets: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """By SciPy's Mann-Whitney statistic of the ranks."""
    ups = targets == 1
    most = ups.sum() * (~ups).sum()
    ranks = stats.rankdata(np.stack([first, second]), axis=1)[:, ups].sum(axis=1)
    return float((ranks[1] - ranks[0]) / most)
