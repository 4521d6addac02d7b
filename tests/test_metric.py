"""Metric: a score and which way is up; the built-in ones against scikit-learn."""

from __future__ import annotations

import pickle
from itertools import permutations
from math import inf, isfinite, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from batteries.errors import ConfigError, ExperimentError, NotSafeError
from batteries.experiment.metric import Metric, most_probable

UP = Metric("auc", higher_is_better=True)
DOWN = Metric("rmse", higher_is_better=False)
SCORES = st.none() | st.floats()
RNG = np.random.default_rng(0)
LABELS = np.arange(90) % 3
PROBABILITIES = RNG.dirichlet(np.ones(3), 90)
BINARY = np.arange(90) % 2
CHANCES = RNG.random(90)
MOST = PROBABILITIES.argmax(axis=1)


@settings(deadline=None)
@given(a=st.floats(), b=st.floats())
def test_of_two_scores_at_most_one_is_better_and_nan_never(a: float, b: float) -> None:
    for metric in (UP, DOWN):
        assert not (metric.better(a, b) and metric.better(b, a))
        assert not metric.better(a, a)
        assert metric.better(a, None) == isfinite(a)
        assert not metric.better(nan, b)
        if isfinite(a) and not isfinite(b):
            assert metric.better(a, b)


@settings(deadline=None)
@given(scores=st.lists(SCORES, max_size=6))
def test_the_first_by_order_is_beaten_by_none(scores: list[float | None]) -> None:
    for metric in (UP, DOWN):
        finite = [s for s in scores if s is not None and isfinite(s)]
        first = min(scores, key=metric.order, default=None)
        if first is None or not isfinite(first):
            assert not finite
            continue
        assert not any(metric.better(score, first) for score in finite)


def test_sorting_by_order_puts_the_best_first_and_what_is_no_number_last() -> None:
    for scores in permutations([0.2, nan, 0.9, None]):
        assert sorted(scores, key=UP.order)[:2] == [0.9, 0.2]
        assert sorted(scores, key=DOWN.order)[:2] == [0.2, 0.9]


def test_infinity_in_the_good_direction_is_still_worst() -> None:
    assert not UP.better(inf, 0.5)
    assert min([inf, 0.5], key=UP.order) == 0.5


def test_a_gain_is_positive_when_the_new_score_is_better() -> None:
    assert UP.gain(0.75, 0.5) == 0.25
    assert DOWN.gain(0.5, 0.75) == 0.25


def test_a_metric_can_be_pickled_and_is_one_by_value() -> None:
    assert pickle.loads(pickle.dumps(Metric.auc())) == Metric.auc()


@pytest.mark.parametrize("name", ["", "a/b", "valid auc", None])
def test_a_metric_needs_a_name_that_a_file_can_have(name: str) -> None:
    with pytest.raises(NotSafeError, match=r"metric .* cannot be used as a file name"):
        Metric(name, higher_is_better=True)


def test_the_direction_cannot_be_left_out() -> None:
    with pytest.raises(TypeError, match="higher_is_better"):
        Metric("auc")  # type: ignore[call-arg]


def test_what_is_no_function_is_refused_when_the_metric_is_made() -> None:
    with pytest.raises(ConfigError, match=r"metric 'auc': the second argument must be a function, got 3"):
        Metric("auc", 3, higher_is_better=True)  # type: ignore[arg-type]


def test_a_metric_without_a_function_ranks_but_does_not_score() -> None:
    with pytest.raises(ConfigError, match=r"metric 'auc' has no function; write Metric\('auc', function"):
        UP(BINARY, CHANCES)


@pytest.mark.parametrize("value", ["high", [0.1, 0.2], None, {}])
def test_a_function_that_returns_no_number_is_named(value: object) -> None:
    metric = Metric("odd", lambda y, p: value, higher_is_better=True)  # type: ignore[arg-type,return-value]
    with pytest.raises(ExperimentError, match=f"metric 'odd' must return one number, got {type(value).__name__}"):
        metric(BINARY, CHANCES)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Metric.accuracy()(LABELS, PROBABILITIES), sk.accuracy_score(LABELS, PROBABILITIES.argmax(1))),
        (Metric.accuracy()(BINARY, CHANCES), sk.accuracy_score(BINARY, CHANCES >= 0.5)),
        (Metric.auc()(LABELS, PROBABILITIES), sk.roc_auc_score(LABELS, PROBABILITIES, multi_class="ovr")),
        (Metric.auc()(BINARY, CHANCES), sk.roc_auc_score(BINARY, CHANCES)),
        (Metric.log_loss()(BINARY, CHANCES), sk.log_loss(BINARY, CHANCES)),
        (Metric.f1()(LABELS, PROBABILITIES), sk.f1_score(LABELS, PROBABILITIES.argmax(1), average="macro")),
        (Metric.f1()(BINARY, CHANCES), sk.f1_score(BINARY, CHANCES >= 0.5)),
        (Metric.fbeta(2)(LABELS, PROBABILITIES), sk.fbeta_score(LABELS, MOST, beta=2, average="macro")),
        (Metric.fbeta(0.5)(BINARY, CHANCES), sk.fbeta_score(BINARY, CHANCES >= 0.5, beta=0.5)),
        (Metric.mcc()(LABELS, PROBABILITIES), sk.matthews_corrcoef(LABELS, MOST)),
        (Metric.mcc()(BINARY, CHANCES), sk.matthews_corrcoef(BINARY, CHANCES >= 0.5)),
        (Metric.mae()(CHANCES, CHANCES[::-1]), sk.mean_absolute_error(CHANCES, CHANCES[::-1])),
    ],
)
def test_a_built_in_metric_is_scikit_learns(ours: float, theirs: float) -> None:
    assert ours == theirs


def test_quadratic_kappa_is_scikit_learns_over_all_codes_there_can_be() -> None:
    for targets, codes in ((LABELS, MOST), (LABELS * 3, MOST * 2), (BINARY, LABELS)):
        expected = sk.cohen_kappa_score(targets, codes, weights="quadratic", labels=range(10))
        assert Metric.qwk()(targets, codes) == pytest.approx(expected, rel=1e-12)
        assert Metric.qwk()(targets, np.eye(10)[codes]) == pytest.approx(expected, rel=1e-12)
    assert Metric.qwk()(np.ones(3), np.ones(3)) == 0.0


def test_quadratic_kappa_takes_a_number_for_its_nearest_class() -> None:
    numbers, targets = np.array([0.4, 0.5, 1.5, 2.49, 2.5]), np.array([1, 1, 2, 0, 2])
    expected = sk.cohen_kappa_score(targets, [0, 1, 2, 2, 3], weights="quadratic")
    assert Metric.qwk()(targets, numbers) == Metric.qwk()(targets, numbers[:, None]) == pytest.approx(expected)


def test_f_beta_is_named_by_its_beta() -> None:
    assert (Metric.fbeta(2).name, Metric.fbeta(0.5).name) == ("f2", "f0.5")
    assert pickle.loads(pickle.dumps(Metric.fbeta(2)))(BINARY, CHANCES) == Metric.fbeta(2)(BINARY, CHANCES)
    with pytest.raises(ConfigError, match="fbeta: beta must be above 0, got -1"):
        Metric.fbeta(-1)


def test_log_loss_and_rmse_are_scikit_learns_up_to_the_order_of_summation() -> None:
    assert Metric.log_loss()(LABELS, PROBABILITIES) == pytest.approx(sk.log_loss(LABELS, PROBABILITIES), rel=1e-14)
    rmse = sk.root_mean_squared_error(CHANCES, CHANCES[::-1])
    assert Metric.rmse()(CHANCES, CHANCES[::-1]) == pytest.approx(rmse, rel=1e-14)


BINARY_METRICS = [
    *(Metric.accuracy(), Metric.auc(), Metric.log_loss(), Metric.f1()),
    *(Metric.fbeta(2), Metric.mcc(), Metric.qwk()),
]


@pytest.mark.parametrize("metric", BINARY_METRICS, ids=lambda m: m.name)
def test_one_number_one_column_and_two_columns_of_a_binary_model_score_alike(metric: Metric) -> None:
    two = np.stack([1 - CHANCES, CHANCES], axis=1)
    assert metric(BINARY, CHANCES) == metric(BINARY, CHANCES[:, None]) == pytest.approx(metric(BINARY, two), rel=1e-12)


@pytest.mark.parametrize("metric", [Metric.rmse(), Metric.mae()], ids=lambda m: m.name)
def test_a_column_is_never_broadcast_against_the_rows(metric: Metric) -> None:
    values = np.array([1.0, 2.0, 4.0])
    assert metric(values, values[:, None]) == metric(values[:, None], values) == 0
    with pytest.raises(ValueError, match=r"targets of shape \(3,\) cannot be compared with predictions of \(2,\)"):
        metric(values, values[:2])
    with pytest.raises(ValueError, match=r"targets of shape \(3,\) cannot be compared with predictions of \(3, 3\)"):
        metric(values, np.zeros((3, 3)))


def test_errors_are_taken_in_float64_whatever_the_type_of_the_predictions() -> None:
    targets = np.full(10, 1000.1)
    assert Metric.mae()(targets, np.full(10, 1000.0, dtype="float16")) == pytest.approx(0.1, rel=1e-9)


def test_log_loss_takes_rows_of_float32_and_a_class_that_no_row_has() -> None:
    kept = LABELS != 2
    probabilities = PROBABILITIES[kept].astype("float32")
    assert isfinite(Metric.log_loss()(LABELS[kept], probabilities))


def test_auc_of_classes_takes_ranks_that_do_not_add_up_to_one() -> None:
    ranks = PROBABILITIES.argsort(axis=0).argsort(axis=0) / 90
    assert Metric.auc()(LABELS, ranks) == sk.roc_auc_score(LABELS, PROBABILITIES, multi_class="ovr")


def test_auc_says_which_classes_there_are_when_one_is_missing() -> None:
    kept = LABELS != 2
    with pytest.raises(ValueError, match=r"AUC needs rows of all 3 classes, got \[0, 1\]"):
        Metric.auc()(LABELS[kept], PROBABILITIES[kept])


def test_the_most_probable_class_of_ties_is_the_first() -> None:
    assert most_probable(np.array([[0.5, 0.5], [0.2, 0.8]])).tolist() == [0, 1]
    assert most_probable(np.array([0.5, 0.4])).tolist() == [1, 0]


def test_a_streamed_metric_gives_what_the_whole_set_gives() -> None:
    from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy

    accuracy = Metric.streamed(MulticlassAccuracy(num_classes=3, average="micro"), rows=7)
    assert (accuracy.name, accuracy.higher_is_better) == ("MulticlassAccuracy", True)
    assert accuracy(LABELS, PROBABILITIES) == pytest.approx(Metric.accuracy()(LABELS, PROBABILITIES), abs=1e-7)
    assert accuracy(LABELS, PROBABILITIES) == accuracy(LABELS, PROBABILITIES)  # nothing is left of the call before
    auc = Metric.streamed(BinaryAUROC(), rows=11, name="auc")
    assert auc(BINARY, CHANCES) == pytest.approx(sk.roc_auc_score(BINARY, CHANCES), abs=1e-6)


def test_a_streamed_metric_leaves_the_given_one_alone_and_waits_for_no_other_process() -> None:
    from torchmetrics.classification import BinaryAUROC

    given = BinaryAUROC()
    metric = Metric.streamed(given)
    metric(BINARY, CHANCES)
    assert given.update_count == 0
    assert metric.fn.args[0].distributed_available_fn() is False  # type: ignore[union-attr]
    assert pickle.loads(pickle.dumps(metric))(BINARY, CHANCES) == metric(BINARY, CHANCES)


def test_a_streamed_metric_must_say_which_way_is_up() -> None:
    from torchmetrics import MeanMetric

    with pytest.raises(ConfigError, match="metric 'MeanMetric' does not say which way is up; give higher_is_better"):
        Metric.streamed(MeanMetric())
    assert Metric.streamed(MeanMetric(), higher_is_better=False, name="mean").higher_is_better is False
