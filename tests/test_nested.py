"""What fitted weights are worth: on made-up members whose truth is known, and on real models of real data."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn import datasets
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor, RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import BayesianRidge, ElasticNet, HuberRegressor, Lasso, LogisticRegression, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor
from threadpoolctl import threadpool_limits

import batteries as bt
from batteries.combine.blend import blend_entries
from batteries.combine.fit_blend import fit_blend
from batteries.combine.fitted import Fitted, fit_weights
from batteries.combine.greedy import Greedy
from batteries.combine.nested import NestedEstimate, nested
from batteries.combine.ranks import ranks
from batteries.errors import BlendError
from batteries.experiment.predictions import Predictions
from batteries.files import read_sealed
from batteries.score.entry import Entry, write_entry
from entries import whole_config

AUC, RMSE, LOG_LOSS = bt.Metric.auc(), bt.Metric.rmse(), bt.Metric.log_loss()
Arrays = list[np.ndarray]


def exchangeable(members: int, rows: int, seed: int) -> tuple[Arrays, np.ndarray]:
    """Members that are all equally good: equal weights are the best there are."""
    generator = np.random.default_rng(seed)
    targets = np.arange(rows) % 2
    return [0.5 * targets + generator.normal(0, 1, rows) for _ in range(members)], targets


def estimated(
    members: Arrays, targets: np.ndarray, metric: bt.Metric, how: Any = "greedy", **more: Any
) -> NestedEstimate:
    folds = np.random.default_rng(0).permutation(len(targets)) % 5
    return nested(members, targets, folds, metric, partial(fit_weights, metric=metric, how=how), **more)


# --- made-up members


def test_every_fold_is_blended_with_weights_that_have_not_seen_it() -> None:
    members, targets = exchangeable(4, 100, seed=0)
    folds = np.arange(100) // 25
    seen: list[np.ndarray] = []

    def fit(some: Sequence[np.ndarray], truth: np.ndarray) -> Fitted:
        seen.append(some[0])
        return fit_weights(some, truth, AUC)

    estimate = nested(members, targets, folds, AUC, fit, draws=20)
    assert len(seen[0]) == 100, "the weights to use are fitted on all rows"
    blended = np.empty(100)
    for fold, rows in enumerate(seen[1:]):
        np.testing.assert_array_equal(rows, members[0][folds != fold])
        held_out = [member[folds == fold] for member in members]
        blended[folds == fold] = np.array(estimate.fold_weights[fold]) @ np.stack(held_out)
    assert estimate.score == pytest.approx(AUC(targets, blended), abs=1e-12)
    assert estimate.weights == fit_weights(members, targets, AUC).weights
    assert estimate.spread == pytest.approx(np.std(estimate.fold_weights, axis=0, ddof=1).max())


def test_the_in_sample_score_of_equal_members_hides_what_fitting_loses() -> None:
    """FORMULAS: a climb over equal members gains on its own rows and loses on others."""
    differences = []
    for seed in range(4):
        members, targets = exchangeable(20, 400, seed)
        estimate = estimated(members, targets, AUC, draws=200)
        assert estimate.in_sample_gain > 0
        assert estimate.over_equal.gain < estimate.in_sample_gain
        assert not estimate.real
        fresh, truth = exchangeable(20, 20_000, seed + 100)
        true_gain = AUC(truth, estimate.fitted(fresh)) - AUC(truth, np.mean(fresh, axis=0))
        assert true_gain < 0
        differences.append((estimate.over_equal.gain - true_gain, estimate.in_sample_gain - true_gain))
    nested_error, in_sample_error = np.abs(np.mean(differences, axis=0))
    assert nested_error < in_sample_error


def test_a_gain_that_is_there_is_found_in_either_direction() -> None:
    generator = np.random.default_rng(0)
    truth = generator.normal(0, 1, 600)
    left, right = truth + generator.normal(0, 0.3, 600) + 1, truth + generator.normal(0, 0.3, 600) - 3
    estimate = estimated([left, right], truth, RMSE, "simplex", draws=500)
    assert estimate.real
    assert estimate.over_equal.low > 0.3
    assert estimate.over_equal.p < 0.01
    assert estimate.over_best.over == "member 1"
    assert estimate.sentence.startswith("On rows they were not fitted on, the weights score rmse 0.2")
    assert estimate.sentence.endswith("is larger than the noise. The gain is real: use the weights.")
    assert "(in-sample 0.2" in estimate.sentence


def test_the_interval_is_the_paired_bootstrap_of_the_gain() -> None:
    generator = np.random.default_rng(1)
    truth = generator.normal(0, 1, 400)
    members = [truth + generator.normal(0, spread, 400) for spread in (0.5, 1.5)]
    mse = bt.Metric("mse", lambda y, p: ((y - p) ** 2).mean(), higher_is_better=False)
    how = "greedy"
    estimate = estimated(members, truth, mse, how, draws=4000)
    folds = np.random.default_rng(0).permutation(400) % 5
    weights = np.array(estimate.fold_weights)[folds]
    of_rows = (np.mean(members, axis=0) - truth) ** 2 - ((weights * np.stack(members, axis=1)).sum(axis=1) - truth) ** 2
    error = of_rows.std() / np.sqrt(400)  # of a mean over rows, which the bootstrap of a mean gives too
    assert estimate.over_equal.gain == pytest.approx(of_rows.mean(), rel=1e-10)
    assert estimate.over_equal.low == pytest.approx(of_rows.mean() - 1.96 * error, abs=0.15 * error)
    assert estimate.over_equal.high == pytest.approx(of_rows.mean() + 1.96 * error, abs=0.15 * error)


@pytest.mark.parametrize(
    ("weights", "advice"),
    [
        ((1.0, 0.0, 0.0), "good alone does as well."),
        ((0.0, 1.0, 0.0), "good alone is better."),
        ((1 / 3, 1 / 3, 1 / 3), "good alone is better."),
    ],
)
def test_the_sentence_says_what_to_do(weights: tuple[float, ...], advice: str) -> None:
    generator = np.random.default_rng(2)
    truth = generator.normal(0, 1, 300)
    members = [truth + generator.normal(0, spread, 300) for spread in (0.1, 2.0, 2.0)]

    def fit(some: Sequence[np.ndarray], targets: np.ndarray) -> Fitted:
        return Fitted(weights, RMSE(targets, weights @ np.stack(some)), "rmse", "by hand", (), 0)

    folds = np.arange(300) % 3
    estimate = nested(members, truth, folds, RMSE, fit, names=["good", "bad", "poor"], draws=200)
    assert estimate.sentence.endswith(advice)
    assert not estimate.real
    assert "over good (95 % interval" in estimate.sentence


def test_equal_weights_are_advised_where_fitting_gains_nothing_or_loses() -> None:
    members, targets = exchangeable(3, 300, seed=5)

    def fit_of(weights: Sequence[float]) -> Any:
        return lambda some, truth: Fitted(tuple(weights), 0.5, "auc", "by hand", (), 0)

    folds = np.arange(300) % 3
    same = nested(members, targets, folds, AUC, fit_of([1 / 3] * 3), draws=200)
    assert (same.over_equal.gain, same.over_equal.low, same.over_equal.high, same.over_equal.p) == (0, 0, 0, 1)
    assert same.sentence.endswith("Equal weights do as well.")
    worse = [member for member in members for _ in range(4)]
    single = nested(worse, targets, folds, AUC, fit_of([1.0] + [0.0] * 11), draws=200)
    assert "is a loss" in single.sentence
    assert single.sentence.endswith("Equal weights are better.")


def test_one_member_has_an_estimate_and_no_gain() -> None:
    members, targets = exchangeable(1, 60, seed=6)
    estimate = estimated(members, targets, AUC, draws=50)
    assert estimate.weights == (1.0,)
    assert estimate.score == pytest.approx(AUC(targets, members[0]), abs=1e-12)
    assert (estimate.over_equal.gain, estimate.over_best.gain, estimate.spread) == (0, 0, 0)


def test_resamples_of_one_class_are_counted_and_left_out() -> None:
    targets = np.array([0, 1, 0, 1, 0, 1])
    members = [targets + 0.1 * np.arange(6), np.arange(6.0)]
    estimate = nested(members, targets, np.arange(6) // 2, AUC, partial(fit_weights, metric=AUC), draws=300)
    assert 0 < estimate.undefined < 100
    assert np.isfinite([estimate.over_equal.low, estimate.over_equal.high]).all()


def test_the_same_seed_gives_the_same_estimate() -> None:
    members, targets = exchangeable(5, 80, seed=7)
    how = Greedy(bags=3)
    assert estimated(members, targets, AUC, how, draws=50) == estimated(members, targets, AUC, how, draws=50)
    assert json.loads(json.dumps(estimated(members, targets, AUC, draws=9).plain()))["fitted"]["metric"] == "auc"


def test_folds_and_names_that_do_not_fit_are_refused() -> None:
    members, targets = exchangeable(2, 30, seed=8)
    fit = partial(fit_weights, metric=AUC)
    with pytest.raises(BlendError, match=r"30 rows need 30 folds, got the shape \(29,\)"):
        nested(members, targets, np.arange(29) % 3, AUC, fit)
    with pytest.raises(BlendError, match="2 folds or more, all rows are of fold 4"):
        nested(members, targets, np.full(30, 4), AUC, fit)
    with pytest.raises(BlendError, match="2 members need 2 names, got 1"):
        nested(members, targets, np.arange(30) % 3, AUC, fit, names=["a"])
    with pytest.raises(BlendError, match="draws must be >= 1"):
        nested(members, targets, np.arange(30) % 3, AUC, fit, draws=0)


# --- entries


def entry(root: Path, name: str, values: np.ndarray, targets: np.ndarray, *, folds: str = "same", **more: Any) -> Entry:
    """An entry with predictions in an order of its own."""
    rows = np.random.default_rng(len(name)).permutation(len(values))
    oof = Predictions(
        pl.Series("id", np.arange(len(values))), values, targets=targets, folds=np.arange(len(values)) % 4
    )
    config = whole_config(identity=name, rows=len(values), folds={"n": 4, "strategy": "", "digest": folds})
    config |= {"metric": {"name": "auc", "higher_is_better": True}, **more}
    return write_entry(root, "run", config, oof.take(rows), oof.take(rows[::-1]))


@pytest.mark.parametrize("formula", ["mean", "rank"])
def test_weights_of_entries_go_into_their_blend(tmp_path: Path, formula: Any) -> None:
    members, targets = exchangeable(3, 120, seed=9)
    entries = [entry(tmp_path, "x" * number, member, targets) for number, member in enumerate(members, 1)]
    how = {"metric": AUC, "formula": formula, "how": "greedy", "max_weight": 0.6, "draws": 100}
    estimate, made = fit_blend(entries, tmp_path, **how)
    assert fit_blend(entries, tmp_path, **how)[1].name == made.name == "blend-001"
    assert estimate.over_best.over in {"run-001", "run-002", "run-003"}
    assert max(estimate.weights) <= 0.6 + 1e-9
    spaces = [ranks(member) for member in members] if formula == "rank" else members
    by_hand = nested(
        spaces, targets, np.arange(120) % 4, AUC, partial(fit_weights, metric=AUC, max_weight=0.6), draws=9
    )
    assert estimate.score == pytest.approx(by_hand.score, abs=1e-12)
    np.testing.assert_allclose(estimate.weights, by_hand.weights, atol=1e-12)
    own, alone = made.oof(), entries[0].oof()
    np.testing.assert_array_equal(own.align(alone.ids).targets, alone.targets)
    assert AUC(own.targets, own.values) == pytest.approx(estimate.score, abs=1e-12), "of rows not fitted on"
    plain = blend_entries(entries, tmp_path, how=formula, weights=estimate.weights)
    assert plain.name != made.name
    np.testing.assert_array_equal(made.test().values, plain.test().values)
    slack = 1e-3 if formula == "rank" else 1e-12  # means of ranks are often equal but for rounding
    assert AUC(plain.oof().targets, plain.oof().values) == pytest.approx(estimate.fitted.score, abs=slack)
    learned = read_sealed(made.folder / "learned.json")
    assert learned["score"] == estimate.score
    assert learned["sentence"] == estimate.sentence


def test_entries_of_other_folds_or_of_another_metric_are_refused(tmp_path: Path) -> None:
    members, targets = exchangeable(2, 40, seed=10)
    one, other = (entry(tmp_path, name, members[0], targets) for name in ("a", "bb"))
    elsewhere = entry(tmp_path, "ccc", members[1], targets, folds="others")
    with pytest.raises(BlendError, match="run-003 and run-001 were trained on different folds"):
        fit_blend([one, elsewhere], tmp_path, metric=AUC)
    with pytest.raises(BlendError, match="run-001 is scored by auc, weights are fitted for rmse"):
        fit_blend([one, other], tmp_path, metric=RMSE)
    with pytest.raises(BlendError, match="nothing to blend"):
        fit_blend([], tmp_path, metric=AUC)
    with pytest.raises(BlendError, match="for the blends mean and rank, got 'power'"):
        fit_blend([one, other], tmp_path, metric=AUC, formula="power")  # type: ignore[arg-type]


# --- real models of real data


@dataclass(frozen=True)
class Real:
    """A data set of scikit-learn, with out-of-fold predictions of a dozen models."""

    members: Arrays
    targets: np.ndarray
    folds: np.ndarray
    metric: bt.Metric
    how: str


def classifiers() -> list[BaseEstimator]:
    linear = [make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300)) for c in (0.001, 0.03, 1.0)]
    near = [make_pipeline(StandardScaler(), KNeighborsClassifier(k)) for k in (5, 15, 40)]
    trees = [DecisionTreeClassifier(max_depth=4, random_state=0), DecisionTreeClassifier(max_depth=8, random_state=1)]
    forests = [RandomForestClassifier(25, random_state=0), ExtraTreesClassifier(25, random_state=0)]
    return [*linear, *near, *trees, *forests, GaussianNB(var_smoothing=1e-3), LinearDiscriminantAnalysis()]


def regressors() -> list[BaseEstimator]:
    linear = [Ridge(1.0), Ridge(0.01), Lasso(0.1), ElasticNet(0.01), BayesianRidge()]
    others = [make_pipeline(StandardScaler(), model) for model in (HuberRegressor(max_iter=500), SVR(C=50))]
    near = [KNeighborsRegressor(k) for k in (5, 20)]
    trees = [DecisionTreeRegressor(max_depth=3, random_state=0)]
    forests = [RandomForestRegressor(25, random_state=0), ExtraTreesRegressor(25, random_state=0)]
    return [*linear, *others, *near, *trees, *forests]


SETS = {
    "breast_cancer": (datasets.load_breast_cancer, AUC, "greedy"),
    "digits": (datasets.load_digits, LOG_LOSS, "simplex"),
    "wine": (datasets.load_wine, LOG_LOSS, "greedy"),
    "diabetes": (datasets.load_diabetes, RMSE, "greedy"),
}


@pytest.fixture(scope="module")
def real() -> dict[str, Real]:
    return {name: made(name) for name in SETS}


def made(name: str) -> Real:
    load, metric, how = SETS[name]
    rows, targets = load(return_X_y=True)
    classes = metric is not RMSE
    splits = StratifiedKFold(5, shuffle=True, random_state=0) if classes else KFold(5, shuffle=True, random_state=0)
    folds = np.empty(len(targets), dtype=np.int64)
    for fold, (_, held_out) in enumerate(splits.split(rows, targets)):
        folds[held_out] = fold
    method = "predict_proba" if classes else "predict"
    with warnings.catch_warnings(), threadpool_limits(1):  # on a busy machine, threads wait for each other
        warnings.simplefilter("ignore")  # a model that has not converged is a model too
        members = [
            cross_val_predict(model, rows, targets, cv=splits, method=method)
            for model in (classifiers() if classes else regressors())
        ]
    two = members[0].ndim == 2 and members[0].shape[1] == 2
    return Real([member[:, 1] if two else member for member in members], targets, folds, metric, how)


def test_on_real_data_the_gain_in_sample_is_larger_than_the_nested_one(real: dict[str, Real]) -> None:
    differences = []
    for name, data in real.items():
        fit = partial(fit_weights, metric=data.metric, how=data.how)
        estimate = nested(data.members, data.targets, data.folds, data.metric, fit, draws=100)
        assert len(data.members) == 12
        assert estimate.over_equal.low <= estimate.over_equal.gain <= estimate.over_equal.high, name
        assert estimate.over_best.low <= estimate.over_best.high
        assert estimate.in_sample_gain > 0, name
        assert data.metric.gain(estimate.fitted.score, estimate.over_best.score) >= -1e-12, name
        differences.append((estimate.in_sample_gain - estimate.over_equal.gain) / estimate.in_sample_gain)
    assert np.mean(differences) > 0.02, "a share of the gain in-sample is not there on other rows"
    assert min(differences) > -0.01


def test_on_real_data_a_blend_of_real_models_beats_the_best_of_them(real: dict[str, Real]) -> None:
    data = real["digits"]
    fit = partial(fit_weights, metric=LOG_LOSS, how="simplex")
    estimate = nested(data.members, data.targets, data.folds, LOG_LOSS, fit, draws=100)
    assert estimate.real
    assert estimate.sentence.endswith("use the weights.")
