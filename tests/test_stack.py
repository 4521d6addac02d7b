"""Stacking: no leak, and what scikit-learn's cross-validation gives."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.metrics import log_loss, root_mean_squared_error
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.svm import SVC

from batteries.combine.stack import _estimator, add_predictions, stack, stack_entries
from batteries.errors import BlendError, DataError, PredictionsError, UsageError
from batteries.experiment import Metric
from batteries.experiment.predictions import Predictions
from entries import FIRST_TEST_ID, entry_of

Task = tuple[list[np.ndarray], list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]
"""Members, their test predictions, targets, folds, test targets."""


def of_models(models: list[object], inputs: np.ndarray, targets: np.ndarray, method: str) -> Task:
    """Out-of-fold predictions of the first 300 rows, and the means of the fold models for the others."""
    seen, new = inputs[:300], inputs[300:]
    folds = np.arange(300) % 4
    split = PredefinedSplit(folds)
    members = [cross_val_predict(model, seen, targets[:300], cv=split, method=method) for model in models]
    tests = [
        np.mean(
            [getattr(model.fit(seen[folds != f], targets[:300][folds != f]), method)(new) for f in range(4)], axis=0
        )
        for model in models  # type: ignore[attr-defined]
    ]
    return members, tests, targets[:300], folds, targets[300:]


@cache
def numbers() -> Task:
    inputs, targets = load_diabetes(return_X_y=True)
    models = [Ridge(0.1), KNeighborsRegressor(20), RandomForestRegressor(20, max_depth=5, random_state=0)]
    return of_models(models, inputs, targets, "predict")


@cache
def binary() -> Task:
    inputs, targets = load_breast_cancer(return_X_y=True)
    models = [GaussianNB(), KNeighborsClassifier(15), RandomForestClassifier(20, max_depth=3, random_state=0)]
    members, tests, *rest = of_models(models, inputs[:, :4], targets, "predict_proba")
    return [each[:, 1] for each in members], [each[:, 1] for each in tests], *rest  # type: ignore[return-value]


@cache
def classes() -> Task:
    inputs, digits = load_digits(return_X_y=True)
    few = np.flatnonzero(digits < 4)[:400]
    models = [GaussianNB(var_smoothing=0.01), KNeighborsClassifier(5)]
    return of_models(models, inputs[few, 10:40], digits[few], "predict_proba")


@pytest.mark.parametrize(
    ("task", "model", "method"),
    [
        (numbers, "ridge", "predict"),
        (numbers, "boosting_regressor", "predict"),
        (numbers, LinearRegression(), "predict"),
        (binary, "logistic", "predict_proba"),
        (binary, "boosting_classifier", "predict_proba"),
        (classes, "logistic", "predict_proba"),
    ],
)
def test_out_of_fold_predictions_are_those_of_scikit_learns_cross_validation(
    task: object, model: object, method: str
) -> None:
    members, _, targets, folds, _ = task()  # type: ignore[operator]
    ours = stack(members, targets, folds, model=model)
    features = np.column_stack(members)
    theirs = cross_val_predict(_estimator(model), features, targets, cv=PredefinedSplit(folds), method=method)
    theirs = theirs[:, 1] if task is binary else theirs
    assert ours.oof.shape == members[0].shape
    np.testing.assert_allclose(ours.oof, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("task", "model"), [(numbers, "ridge"), (binary, "logistic"), (classes, "logistic")])
def test_targets_of_a_held_out_fold_do_not_change_its_predictions(task: object, model: str) -> None:
    members, _, targets, folds, _ = task()  # type: ignore[operator]
    before = stack(members, targets, folds, model=model).oof
    for fold in (0, 3):
        held_out = folds == fold
        changed = targets.copy()
        changed[held_out] = np.random.default_rng(fold).permutation(targets[held_out])
        after = stack(members, changed, folds, model=model).oof
        assert (after[held_out] == before[held_out]).all()
        assert not (after[~held_out] == before[~held_out]).all()


def test_test_rows_are_predicted_by_the_mean_of_the_fold_models_or_by_one_of_all_rows() -> None:
    members, tests, targets, folds, _ = numbers()
    mean = stack(members, targets, folds, model=LinearRegression(), tests=tests)
    assert mean.refitted is None
    features, new = np.column_stack(members), np.column_stack(tests)
    models = [LinearRegression().fit(features[folds != f], targets[folds != f]) for f in range(4)]
    np.testing.assert_allclose(mean.test, np.mean([m.predict(new) for m in models], axis=0), rtol=1e-9)
    refit = stack(members, targets, folds, model=LinearRegression(), tests=tests, test_by="refit")
    np.testing.assert_allclose(refit.test, LinearRegression().fit(features, targets).predict(new), rtol=1e-9)
    assert refit.refitted is not None
    assert (refit.oof == mean.oof).all()


def test_a_stack_beats_the_mean_member_on_rows_that_nobody_saw() -> None:
    members, tests, targets, folds, new = numbers()
    result = stack(members, targets, folds, model="ridge", tests=tests)
    assert result.test is not None
    assert root_mean_squared_error(new, result.test) < np.mean([root_mean_squared_error(new, t) for t in tests])
    members, tests, targets, folds, new = binary()
    result = stack(members, targets, folds, model="logistic", tests=tests, space="log_odds")
    assert log_loss(new, result.test) < np.mean([log_loss(new, np.clip(t, 1e-6, 1 - 1e-6)) for t in tests])


def test_log_odds_are_what_the_model_is_given() -> None:
    members, _, targets, folds, _ = binary()
    ours = stack(members, targets, folds, model=LogisticRegression(), space="log_odds").oof
    clipped = np.clip(np.column_stack(members), 1e-15, 1 - 1e-15)
    features = np.log(clipped) - np.log1p(-clipped)
    split = PredefinedSplit(folds)
    theirs = cross_val_predict(LogisticRegression(), features, targets, cv=split, method="predict_proba")[:, 1]
    np.testing.assert_allclose(ours, theirs, atol=1e-5)  # log-odds of 34 differ in the last bits, L-BFGS ends elsewhere


def test_a_class_that_a_training_lacks_has_probability_zero_there() -> None:
    values = np.tile(np.eye(3) * 0.7 + 0.1, (8, 1))
    targets, folds = np.tile([0, 1, 2], 8), np.repeat([0, 1], 12)
    targets[:12][targets[:12] == 2] = 0  # fold 0 has no class 2
    result = stack([values], targets, folds, model="logistic")
    assert result.oof.shape == (24, 3)
    assert (result.oof[folds == 1, 2] == 0).all()
    assert (result.oof[folds == 0, 2] > 0).all()
    np.testing.assert_allclose(result.oof.sum(axis=1), 1)


def test_a_given_estimator_is_not_fitted_itself() -> None:
    members, _, targets, folds, _ = numbers()
    model = LinearRegression()
    stack(members, targets, folds, model=model)
    assert not hasattr(model, "coef_")


class Mean:
    """No estimator of scikit-learn, but fit and predict."""

    def fit(self, features: np.ndarray, targets: np.ndarray) -> Mean:
        self.shift = float((targets - features.mean(axis=1)).mean())
        return self

    def predict(self, features: np.ndarray) -> np.ndarray:
        return features.mean(axis=1) + self.shift


def test_anything_with_fit_and_predict_can_be_the_second_level() -> None:
    members, _, targets, folds, _ = numbers()
    result = stack(members, targets, folds, model=Mean())
    mean, held_out = np.mean(members, axis=0), folds == 3
    expected = mean[held_out] + (targets - mean)[~held_out].mean()
    np.testing.assert_allclose(result.oof[held_out], expected, rtol=1e-12)


ONES, CODES, FOLDS = np.ones(4), np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("members", "options", "kind", "message"),
    [
        ([], {}, BlendError, "there is nothing to stack: give at least one member"),
        ([ONES, np.ones(3)], {}, BlendError, "member 2 has 3 rows, member 1 has 4"),
        ([ONES, ONES * np.nan], {}, DataError, "member 2: 4 values are NaN"),
        ([ONES], {"model": "lasso"}, UsageError, "no second-level model 'lasso'; choose one of ridge, logistic"),
        ([ONES], {"model": 3}, UsageError, "a second-level model needs fit and predict, got 3"),
        ([ONES], {"model": SVC()}, UsageError, r"SVC\(\) predicts classes without probabilities"),
        ([ONES], {"test_by": "vote"}, UsageError, "there is no test_by 'vote'; choose one of mean, refit"),
        ([ONES], {"space": "ranks"}, UsageError, "there is no space 'ranks'; choose one of plain, log_odds"),
        ([ONES * 2], {"space": "log_odds"}, DataError, "probabilities must be in 0 to 1, got 2 to 2"),
        ([ONES], {"tests": []}, BlendError, "1 members need as many test predictions, got 0"),
        ([ONES], {"tests": [np.ones((4, 2))]}, BlendError, r"member 1 has shape \(4,\), its test predictions \(4, 2\)"),
        ([ONES], {"model": "logistic", "targets": CODES * 3}, DataError, r"class codes, 0 to 1, got \[3.0\]"),
        ([ONES], {"targets": CODES[:3]}, DataError, "4 predictions but 3 targets"),
        ([ONES], {"folds": CODES * 0}, DataError, "all rows are of one fold"),
    ],
)
def test_what_cannot_be_stacked_is_refused(
    members: list[np.ndarray], options: dict[str, object], kind: type[Exception], message: str
) -> None:
    arguments = {"targets": CODES, "folds": FOLDS, "model": "ridge", **options}
    with pytest.raises(kind, match=message):
        stack(members, **arguments)  # type: ignore[arg-type]


def test_entries_are_stacked_by_id_into_a_new_one_made_once(tmp_path: Path) -> None:
    members, tests, targets, folds, _ = numbers()
    rmse = Metric.rmse()
    entries = [
        entry_of(tmp_path, f"model-{number:03d}", member, targets, folds, test=test, metric=rmse)
        for number, (member, test) in enumerate(zip(members, tests, strict=True), 1)
    ]
    order = np.random.default_rng(0).permutation(300)
    oof = entries[1].oof()
    oof.take(order).save(entries[1].folder / "oof.parquet")  # the same rows in another order
    made = stack_entries(entries, tmp_path, model="ridge")
    expected = stack(members, targets, folds, model="ridge", tests=tests)
    assert (made.name, made.kind, made.config["how"]) == ("stack-001", "stack", "ridge")
    assert list(made.config["members"]) == ["model-001", "model-002", "model-003"]
    found, test = made.oof(complete=True), made.test()
    assert test is not None
    assert (found.values == expected.oof).all()
    assert (test.values == expected.test).all()
    assert test.ids[0] == FIRST_TEST_ID
    assert (found.folds == folds).all()
    assert stack_entries(entries, tmp_path, model="ridge") == made
    refit = stack_entries(entries, tmp_path, model="ridge", test_by="refit")
    assert refit.name == "stack-002"
    assert (refit.oof().values == found.values).all()


def test_an_estimator_is_known_again_by_all_of_its_parameters(tmp_path: Path) -> None:
    members, _, targets, folds, _ = numbers()
    entry = entry_of(tmp_path, "model-001", members[0], targets, folds, metric=Metric.rmse())
    made = stack_entries([entry], tmp_path, model=Ridge(2.0))
    assert made.config["how"].startswith("sklearn.linear_model._ridge.Ridge(alpha=2.0, copy_X=True")
    assert stack_entries([entry], tmp_path, model=Ridge(2.0)) == made
    assert stack_entries([entry], tmp_path, model=Ridge(3.0)).name == "stack-002"


def test_entries_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    members, _, targets, folds, _ = numbers()
    first = entry_of(tmp_path, "model-001", members[0], targets, folds, metric=Metric.rmse())
    other = entry_of(tmp_path, "model-002", members[1], targets, folds, metric=Metric.mae())
    moved = entry_of(tmp_path, "model-003", members[1], targets, folds, metric=Metric.rmse(), split="g")
    blind = entry_of(tmp_path, "model-004", members[1], targets, folds, metric=Metric.rmse())
    (blind.folder / "test.parquet").unlink()
    for entries, message in (
        ([], "there is nothing to stack: name at least one entry"),
        ([first, first], "model-001 is named twice; a stack learns what a member counts"),
        ([first, other], "model-002 is scored by mae, model-001 by rmse"),
        ([first, moved], "model-003 and model-001 were trained on different folds"),
        ([first, blind], "model-004 has no test predictions, the other members have"),
    ):
        with pytest.raises(BlendError, match=message):
            stack_entries(entries, tmp_path, model="ridge")
    assert isinstance(stack_entries([blind], tmp_path, model="ridge").test(), Predictions | None)


def test_a_second_level_experiment_takes_members_as_columns_of_its_tables(tmp_path: Path) -> None:
    members, tests, targets, folds, _ = classes()
    first = entry_of(tmp_path, "model-001", members[0], targets, folds, test=tests[0])
    second = entry_of(tmp_path, "model-002", members[1], targets, folds, test=tests[1])
    order = np.random.default_rng(0).permutation(len(targets))
    table = pl.DataFrame({"id": order, "digit": targets[order]})
    wide = add_predictions(table, [first, second])
    assert wide.columns == ["id", "digit", *(f"model-00{n}_{c}" for n in (1, 2) for c in range(4))]
    assert (wide[:, 2:6].to_numpy() == members[0][order]).all()
    assert (wide[:, 6:].to_numpy() == members[1][order]).all()
    new = add_predictions(pl.DataFrame({"id": np.arange(len(tests[0])) + FIRST_TEST_ID}), [first], part="test")
    assert (new[:, 1:].to_numpy() == tests[0]).all()
    with pytest.raises(PredictionsError, match=r"1 of 3 ids have no prediction \(first: \[999999\]\)"):
        add_predictions(pl.DataFrame({"id": [1, 2, 999_999]}), [first])
    (second.folder / "test.parquet").unlink()
    with pytest.raises(BlendError, match="model-002 has no test predictions, so it cannot be stacked"):
        add_predictions(table, [second], part="test")
