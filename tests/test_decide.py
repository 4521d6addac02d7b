"""Decisions: rules of the other folds, honest scores, entries of answers."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, fbeta_score, matthews_corrcoef
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.naive_bayes import GaussianNB

from batteries.combine.assign import assign_classes
from batteries.combine.decide import Decision, Shares, Thresholds, decide, decide_entry
from batteries.combine.ordinal import Cuts, best_cuts
from batteries.combine.thresholds import best_threshold
from batteries.errors import DataError, UsageError
from batteries.experiment import Metric
from entries import entry_of


@cache
def cancer() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Malignant or not, from two weak features."""
    inputs, targets = load_breast_cancer(return_X_y=True)
    folds = np.arange(len(targets)) % 5
    model = LogisticRegression()
    values = cross_val_predict(model, inputs[:, [1, 4]], 1 - targets, cv=PredefinedSplit(folds), method="predict_proba")
    return values[:, 1], 1 - targets, folds


@cache
def labels() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three labels of a digit at once: is it even, is it above 6, is it round?"""
    inputs, digits = load_digits(return_X_y=True)
    targets = np.stack([digits % 2 == 0, digits > 6, np.isin(digits, (0, 6, 8, 9))], axis=1).astype(int)
    folds = np.arange(len(digits)) % 3
    split = PredefinedSplit(folds)
    columns = [
        cross_val_predict(
            GaussianNB(var_smoothing=0.1), inputs[:, 20:30], targets[:, c], cv=split, method="predict_proba"
        )
        for c in range(3)
    ]
    return np.stack([column[:, 1] for column in columns], axis=1), targets, folds


@cache
def grades() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Five ordered grades of diabetes, predicted as a number."""
    inputs, progress = load_diabetes(return_X_y=True)
    targets = np.digitize(progress, [60, 100, 180, 260])
    folds = np.arange(len(targets)) % 5
    return cross_val_predict(Ridge(0.1), inputs, targets, cv=PredefinedSplit(folds)), targets, folds


@pytest.mark.parametrize(
    ("objective", "reference"),
    [
        ("f1", f1_score),
        ("f2", lambda y, p: fbeta_score(y, p, beta=2)),
        ("mcc", matthews_corrcoef),
        ("kappa", cohen_kappa_score),
        ("accuracy", accuracy_score),
    ],
)
def test_every_score_is_scikit_learns_on_the_same_answers(objective: str, reference: object) -> None:
    values, targets, folds = cancer()
    result = decide(values, targets, folds, objective=objective)
    for score, answers in (
        (result.default, (values >= 0.5).astype(int)),
        (result.in_sample, result(values)),
        (result.nested, result.labels),
    ):
        assert score == pytest.approx(reference(targets, answers), abs=1e-12)  # type: ignore[operator]
    assert result.in_sample >= max(result.nested, result.default)


def test_each_fold_is_answered_by_the_best_threshold_of_the_others() -> None:
    values, targets, folds = cancer()
    result = decide(values, targets, folds, objective="mcc")
    for fold in range(5):
        rest = folds != fold
        expected = best_threshold(values[rest], targets[rest], objective="mcc").value
        assert result.by_fold[fold] == Thresholds((expected,))
        assert (result.labels[~rest] == (values[~rest] >= expected)).all()
    two_columns = decide(np.stack([1 - values, values], axis=1), targets, folds, objective="mcc")
    assert two_columns.rule == result.rule
    assert (two_columns.labels == result.labels).all()


def test_a_rare_class_gains_in_f1_what_the_nested_score_says() -> None:
    values, targets, folds = cancer()
    rare = (targets == 0) | (np.arange(len(targets)) % 6 == 0)  # the ill become a tenth
    result = decide(values[rare], targets[rare], folds[rare])
    assert result.accepted
    assert result.default < result.nested <= result.in_sample
    assert result.rule.values[0] < 0.5


@pytest.mark.parametrize("task", [cancer, labels, grades])
def test_targets_of_a_fold_do_not_change_its_answers(task: object) -> None:
    values, targets, folds = task()  # type: ignore[operator]
    objective = "qwk" if task is grades else "f1"
    held_out = folds == 1
    changed = targets.copy()
    changed[held_out] = targets[held_out][::-1]
    before, after = (decide(values, each, folds, objective=objective) for each in (targets, changed))
    assert (before.labels[held_out] == after.labels[held_out]).all()
    assert before.by_fold[1] == after.by_fold[1]
    assert before.by_fold != after.by_fold


def test_every_label_has_its_own_threshold_and_the_score_is_their_mean() -> None:
    values, targets, folds = labels()
    result = decide(values, targets, folds)
    alone = [decide(values[:, c], targets[:, c], folds) for c in range(3)]
    assert result.rule == Thresholds(tuple(each.rule.values[0] for each in alone))
    assert (result.labels == np.stack([each.labels for each in alone], axis=1)).all()
    assert result.nested == pytest.approx(f1_score(targets, result.labels, average="macro"), abs=1e-12)
    assert result.default == pytest.approx(f1_score(targets, (values >= 0.5).astype(int), average="macro"), abs=1e-12)
    assert result.nested > result.default


def test_ordered_grades_gain_by_cuts_beside_rounding() -> None:
    values, targets, folds = grades()
    result = decide(values, targets, folds, objective="qwk")
    assert result.by_fold[0] == best_cuts(values[folds != 0], targets[folds != 0], classes=5)
    rounded = np.clip(np.floor(values + 0.5), 0, 4).astype(int)
    for score, answers in (
        (result.default, rounded),
        (result.nested, result.labels),
        (result.in_sample, result(values)),
    ):
        assert score == pytest.approx(cohen_kappa_score(targets, answers, weights="quadratic"), abs=1e-12)
    assert result.default < result.nested < result.in_sample


def test_probabilities_of_ordered_classes_are_cut_by_the_expected_class() -> None:
    _, targets, folds = grades()
    values = np.random.default_rng(0).dirichlet(np.ones(5), len(targets))
    result = decide(values, targets, folds, objective="qwk")
    assert result.rule == best_cuts(values @ np.arange(5), targets)
    assert (result(values) == Cuts(result.rule.values)(values @ np.arange(5))).all()


def test_several_classes_get_their_shares_of_the_other_folds() -> None:
    inputs, targets = load_wine(return_X_y=True)
    folds = np.arange(len(targets)) % 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few steps leave it uncertain
        model = LogisticRegression(max_iter=5)
        values = cross_val_predict(model, inputs, targets, cv=PredefinedSplit(folds), method="predict_proba")
    result = decide(values, targets, folds, objective="accuracy")
    assert result.rule == Shares(tuple(np.bincount(targets) / len(targets)))
    assert result.default == accuracy_score(targets, values.argmax(axis=1))
    assert result.nested == accuracy_score(targets, result.labels)
    counts = np.bincount(targets)
    assert (result(values) == assign_classes(values, at_least=counts, at_most=counts)).all()


def test_what_is_learned_from_noise_gains_in_sample_and_is_not_accepted() -> None:
    generator = np.random.default_rng(0)
    values, folds = generator.random(200), np.arange(200) % 5
    targets = (generator.random(200) < 0.5).astype(int)
    result = decide(values, targets, folds, objective="accuracy")
    assert result.nested <= result.default < result.in_sample
    assert not result.accepted


def test_an_objective_of_ones_own_is_called_custom() -> None:
    values, targets, folds = cancer()
    result = decide(
        values, targets, folds, objective=lambda c: -(5 * c.false_negative + c.false_positive) / len(values)
    )
    assert (result.objective, result.accepted) == ("custom", True)
    assert result.rule.values[0] < 0.5


def test_a_decision_can_be_written_as_json() -> None:
    import json

    values, targets, folds = cancer()
    told = json.loads(json.dumps(decide(values, targets, folds).plain(), allow_nan=False))
    assert set(told) == {"objective", "accepted", "default", "in_sample", "nested", "rule", "by_fold"}
    assert sorted(told["by_fold"]) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("values", "targets", "objective", "kind", "message"),
    [
        (np.ones((4, 3)) / 3, [0, 1, 2, 0], "f1", UsageError, "3 classes are decided for accuracy .* or qwk, got 'f1'"),
        (np.ones((4, 2)), np.ones((4, 3)), "f1", DataError, r"labels of shape \(4, 3\) need scores of that shape, got"),
        (np.ones(4), [0, 1, 0, 1], "auc", UsageError, "there is no objective 'auc'"),
        (np.ones(4), [0, 0, 1, 1], "f1", DataError, "all 2 targets are 1; a threshold needs rows of both classes"),
        (np.ones((4, 2)), [[0, 0], [1, 0], [0, 1], [1, 1]], "f1", DataError, "label 1: all 2 targets are 1"),
    ],
)
def test_what_cannot_be_decided_is_refused(
    values: np.ndarray, targets: list[int], objective: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        decide(values, np.array(targets), np.array([0, 0, 1, 1]), objective=objective)


def decided(folder: Path, task: object, metric: Metric, objective: str | None = None) -> tuple[Decision, np.ndarray]:
    values, targets, folds = task()  # type: ignore[operator]
    entry = entry_of(folder, "model-001", values, targets, folds, metric=metric)
    result, made = decide_entry(entry, folder, objective=objective)
    assert (made.name, made.kind, made.config["of"]) == ("decided-001", "decided", "model-001")
    assert decide_entry(entry, folder, objective=objective)[1] == made
    test = made.test()
    assert test is not None
    assert (made.oof(complete=True).values == result.labels).all()
    assert (test.values == result(values[:50])).all()
    assert metric(targets, made.oof().values) == pytest.approx(result.nested, abs=1e-12)
    return result, test.values


def test_entries_are_decided_into_answers_that_their_metric_scores_as_nested(tmp_path: Path) -> None:
    result, answers = decided(tmp_path / "binary", cancer, Metric.f1())
    assert result.objective == "f1"
    assert set(np.unique(answers)) == {0, 1}
    result, answers = decided(tmp_path / "grades", grades, Metric.qwk())
    assert result.objective == "qwk"
    assert set(np.unique(answers)) <= {0, 1, 2, 3, 4}
    macro = Metric("macro", lambda y, p: f1_score(y, p, average="macro"), higher_is_better=True)
    assert decided(tmp_path / "labels", labels, macro, "f1")[1].shape == (50, 3)


def test_answers_have_the_shape_of_the_predictions(tmp_path: Path) -> None:
    values, targets, folds = cancer()
    shapes = {
        "one": values,
        "column": values[:, None],
        "two": np.stack([1 - values, values], axis=1),
    }
    for name, given in shapes.items():
        entry = entry_of(tmp_path / name, "model-001", given, targets, folds, metric=Metric.f1())
        result, made = decide_entry(entry, tmp_path / name, objective="f2")
        oof, test = made.oof(complete=True).values, made.test()
        assert test is not None
        assert (oof.shape, test.values.shape) == (given.shape, given[:50].shape)
        assert (oof.reshape(len(values), -1)[:, -1] == result.labels).all()
        assert Metric.f1()(targets, oof) == f1_score(targets, result.labels)


def test_answers_of_ordered_classes_stand_in_the_columns_of_their_probabilities(tmp_path: Path) -> None:
    numbers, targets, folds = grades()
    values = np.exp(-((numbers[:, None] - np.arange(5)) ** 2))
    values /= values.sum(axis=1, keepdims=True)
    entry = entry_of(tmp_path, "model-001", values, targets, folds, metric=Metric.qwk())
    result, made = decide_entry(entry, tmp_path)
    oof = made.oof(complete=True).values
    assert oof.shape == values.shape
    assert (oof.argmax(axis=1) == result.labels).all()
    assert Metric.qwk()(targets, oof) == pytest.approx(result.nested, abs=1e-12)


def test_answers_of_several_classes_are_one_column_a_class(tmp_path: Path) -> None:
    inputs, targets = load_wine(return_X_y=True)
    folds = np.arange(len(targets)) % 4
    values = cross_val_predict(GaussianNB(), inputs[:, [4]], targets, cv=PredefinedSplit(folds), method="predict_proba")
    tilted = values * [0.2, 1, 1]
    tilted /= tilted.sum(axis=1, keepdims=True)
    entry = entry_of(tmp_path, "wine-001", tilted, targets, folds, metric=Metric.accuracy())
    result, made = decide_entry(entry, tmp_path)
    assert made.kind == "decided"
    oof = made.oof(complete=True).values
    assert (oof.argmax(axis=1) == result.labels).all()
    assert (oof.sum(axis=1) == 1).all()
    assert Metric.accuracy()(targets, oof) == result.nested > result.default


def test_an_entry_whose_answers_gain_nothing_is_returned(tmp_path: Path) -> None:
    targets = np.arange(100) % 2
    entry = entry_of(
        tmp_path, "exact-001", targets * 0.8 + 0.1, targets, np.arange(100) // 20, metric=Metric.accuracy()
    )
    result, same = decide_entry(entry, tmp_path)
    assert (result.default, result.nested, result.accepted) == (1.0, 1.0, False)
    assert same == entry
    with pytest.raises(UsageError, match="there is no objective 'auc'"):
        decide_entry(entry_of(tmp_path, "auc-001", targets * 0.8, targets, targets, metric=Metric.auc()), tmp_path)
