"""Stack: a second-level model that learns how to combine members from their out-of-fold predictions.

In:    members' predictions for the same rows, targets, folds; or entries that have them.
Out:   out-of-fold predictions of the stack, and test predictions; or a new entry.
Next:  the board shows whether it beats a plain blend; often it does not.

There is no leak by construction: members are out-of-fold predictions, and the rows of a fold are predicted by a
second-level model that was fitted on the other folds. Test rows are predicted from the members' test
predictions, which are means over fold models as a rule and so a little surer than what the stack was fitted
on: compare `test` scores where there is a test set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.combine.blend import check_entries
from batteries.combine.crossfit import Array, checked_codes, checked_values, cross_fit
from batteries.combine.derive import scored, warn_of_later_rows
from batteries.combine.reliability import class_rows, eps_of
from batteries.errors import BlendError, UsageError
from batteries.experiment.predictions import Predictions
from batteries.files import digest_of
from batteries.score.entry import INHERITED, Entry, find_entry, write_entry

Named = Literal["ridge", "logistic", "boosting_regressor", "boosting_classifier"]
Space = Literal["plain", "log_odds"]
TestBy = Literal["mean", "refit"]


@dataclass(frozen=True)
class Level:
    """A fitted second-level model, from features to predictions of the members' shape."""

    estimator: Any
    columns: int
    """Of the predictions: 1 for a number or the probability of class 1."""

    def __call__(self, features: NDArray[Any]) -> Array:
        """Return predictions of features (n, columns)."""
        if not _is_classifier(self.estimator):
            numbers: Array = np.asarray(self.estimator.predict(features), dtype=np.float64)
            return numbers
        known = self.estimator.predict_proba(features)
        rows = np.zeros((len(features), max(2, self.columns)))
        rows[:, np.asarray(self.estimator.classes_, dtype=np.int64)] = known  # a class that training lacked stays 0
        return rows if self.columns > 1 else rows[:, 1]


@dataclass(frozen=True)
class Stacked:
    """Predictions of a stack and the models that made them."""

    oof: Array
    """Shape (n,) or (n, columns), each fold from the model of the others."""
    test: Array | None
    models: dict[int, Level]
    """Fold -> the model that was fitted on the others."""
    refitted: Level | None
    """The model of all rows, where test rows are predicted by it."""


def stack(
    members: Sequence[NDArray[Any]],
    targets: NDArray[Any],
    folds: NDArray[Any],
    *,
    model: Named | Any,
    tests: Sequence[NDArray[Any]] | None = None,
    test_by: TestBy = "mean",
    space: Space = "plain",
) -> Stacked:
    """Fit a second-level model on out-of-fold predictions, fold by fold.

    Parameters
    ----------
    members
        Out-of-fold predictions, each (n,) or (n, columns), rows in one order; their columns are the features.
    targets
        Shape (n,): numbers, or class codes for a classifier.
    folds
        The fold of each row in the members' training, shape (n,).
    model
        `ridge` (standardised, strength by leave-one-out within the training rows) and `boosting_regressor` predict
        numbers, `logistic` (standardised) and `boosting_classifier` probabilities. Or an estimator of
        scikit-learn's kind: `fit` and `predict_proba` or `predict`; it is cloned, never fitted itself.
    tests
        The members' test predictions, in the same order.
    test_by
        `mean`: the mean of the fold models, as the members' own; `refit`: one model fitted on all rows.
    space
        `log_odds` gives probabilities as log p / (1 - p) to the model (clipped at 1e-15; 1e-7 for float32). Neither
        is better in general: compare the out-of-fold scores.

    Raises
    ------
    BlendError
        When there are no members, their rows differ, or tests do not fit them.
    DataError
        When values are not finite or no probabilities where they must be, or targets and folds do not fit.
    UsageError
        When there is no such model, `test_by` or `space`.

    Notes
    -----
    Wolpert 1992, Stacked Generalization; Breiman 1996, Stacked Regressions.

    >>> member, targets = np.array([1.0, 2.0, 3.0, 4.0] * 5), np.array([2.0, 4.0, 6.0, 8.0] * 5)
    >>> stack([member], targets, np.arange(20) // 10, model="ridge").oof[:4].round(1).tolist()
    [2.0, 4.0, 6.0, 8.0]

    """
    if test_by not in get_args(TestBy):
        raise UsageError(f"there is no test_by {test_by!r}; choose one of {', '.join(get_args(TestBy))}")
    features = _features(members, space)
    estimator = _estimator(model)
    columns = np.shape(members[0])[1] if np.ndim(members[0]) == 2 else 1
    if _is_classifier(estimator):
        wanted: NDArray[Any] = checked_codes(targets, len(features), max(2, columns))
    else:
        wanted, columns = checked_values(targets, "targets"), 1
    fit = partial(_fit, estimator, columns)
    crossed = cross_fit(fit, features, wanted, folds)
    if tests is None:
        return Stacked(crossed.values, None, crossed.models, None)
    rows = _test_features(members, tests, space)
    if test_by == "refit":
        refitted = fit(features, wanted)
        return Stacked(crossed.values, refitted(rows), crossed.models, refitted)
    mean: Array = np.mean([level(rows) for level in crossed.models.values()], axis=0)
    return Stacked(crossed.values, mean, crossed.models, None)


def _fit(estimator: Any, columns: int, features: NDArray[Any], targets: NDArray[Any]) -> Level:
    from sklearn.base import clone

    return Level(clone(estimator, safe=False).fit(features, targets), columns)


def _is_classifier(estimator: Any) -> bool:
    return hasattr(estimator, "predict_proba")


def _estimator(model: Named | Any) -> Any:
    from sklearn.base import BaseEstimator, is_classifier

    if not isinstance(model, str):
        if not (hasattr(model, "fit") and (hasattr(model, "predict") or _is_classifier(model))):
            raise UsageError(
                f"a second-level model needs fit and predict, got {model!r}; name one or give an estimator"
            )
        if isinstance(model, BaseEstimator) and is_classifier(model) and not _is_classifier(model):
            raise UsageError(f"{model!r} predicts classes without probabilities; choose another, or calibrate it")
        return model
    if model not in _NAMED:
        raise UsageError(f"there is no second-level model {model!r}; choose one of {', '.join(_NAMED)}")
    return _NAMED[model]()


def _ridge() -> Any:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(-3, 3, 13)))


def _logistic() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def _boosting_regressor() -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_depth=3, learning_rate=0.05, early_stopping=False, random_state=0)


def _boosting_classifier() -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(max_depth=3, learning_rate=0.05, early_stopping=False, random_state=0)


_NAMED: dict[str, Callable[[], Any]] = {
    "ridge": _ridge,
    "logistic": _logistic,
    "boosting_regressor": _boosting_regressor,
    "boosting_classifier": _boosting_classifier,
}


def _features(members: Sequence[NDArray[Any]], space: Space) -> Array:
    """The columns of all members side by side, shape (n, columns)."""
    if not len(members):
        raise BlendError("there is nothing to stack: give at least one member")
    if space not in get_args(Space):
        raise UsageError(f"there is no space {space!r}; choose one of {', '.join(get_args(Space))}")
    parts = []
    for number, member in enumerate(members, 1):
        values = checked_values(member, f"member {number}")
        if len(values) != len(members[0]):
            raise BlendError(f"member {number} has {len(values)} rows, member 1 has {len(members[0])}")
        parts.append(_log_odds(values, eps_of(member)) if space == "log_odds" else values)
    return np.column_stack(parts)


def _log_odds(values: Array, eps: float) -> Array:
    from scipy.special import logit

    odds: Array = logit(np.clip(class_rows(values), eps, 1 - eps))
    return odds if values.ndim == 2 else odds[:, 1]


def _test_features(members: Sequence[NDArray[Any]], tests: Sequence[NDArray[Any]], space: Space) -> Array:
    if len(tests) != len(members):
        raise BlendError(f"{len(members)} members need as many test predictions, got {len(tests)}")
    for number, (member, test) in enumerate(zip(members, tests, strict=True), 1):
        if np.shape(member)[1:] != np.shape(test)[1:]:
            raise BlendError(f"member {number} has shape {np.shape(member)}, its test predictions {np.shape(test)}")
    return _features(tests, space)


def stack_entries(
    entries: Sequence[Entry],
    root: Path | str = "runs",
    *,
    model: Named | Any,
    test_by: TestBy = "mean",
    space: Space = "plain",
) -> Entry:
    """Stack entries into a new one, of kind `stack`; the same stack of the same members is not made twice.

    Rows are joined by id. Members must share folds and metric and cover every row. In `members` of its config each
    has the weight 1: it takes part; what it counts is in the model.

    Raises
    ------
    BlendError
        No members, one named twice, folds or metric that differ, or test predictions that only some have.
    DataError, UsageError
        As `stack`.

    """
    check_entries(entries, "stack", "a stack learns what a member counts")
    parts = [scored(entry) for entry in entries]
    first, tests = parts[0], [entry.test() for entry in entries]
    assert first.targets is not None
    assert first.folds is not None
    without = [entry.name for entry, test in zip(entries, tests, strict=True) if test is None]
    if 0 < len(without) < len(entries):
        raise BlendError(f"{', '.join(without)} has no test predictions, the other members have")
    config = {key: entries[0].config[key] for key in INHERITED}
    config |= {"how": _told(model), "test_by": test_by, "space": space, "members": {e.name: 1.0 for e in entries}}
    config["identity"] = digest_of({**config, "kind": "stack", "of": [entry.config["identity"] for entry in entries]})
    if made := find_entry(Path(root), config["identity"]):
        return made
    warn_of_later_rows(entries[0])
    known = [test for test in tests if test is not None]
    result = stack(
        [part.align(first.ids).values for part in parts], first.targets, first.folds, model=model, test_by=test_by,
        tests=[test.align(known[0].ids).values for test in known] or None, space=space,
    )  # fmt: skip
    oof = Predictions(first.ids, result.oof, targets=first.targets, folds=first.folds, about=first.about)
    if result.test is None:
        return write_entry(Path(root), "stack", config, oof, None)
    test = Predictions(known[0].ids, result.test, targets=known[0].targets, about=known[0].about)
    return write_entry(Path(root), "stack", config, oof, test)


def add_predictions(
    table: pl.DataFrame, entries: Sequence[Entry], *, id: str = "id", part: Literal["oof", "test"] = "oof"
) -> pl.DataFrame:
    """Return a table with the predictions of entries as further columns: what a second-level Experiment trains on.

    In its `table()` take the out-of-fold predictions, in its `test_table()` the test predictions. Trained on the
    same folds it is a stack without a leak, as each training row is predicted by models that did not see it.

    Parameters
    ----------
    table
        The training or the test table; every row must be predicted.
    entries
        Members; their columns are `digits-001`, or `digits-001_0`, `digits-001_1`, ... where there are several.
    id
        Column of the ids.
    part
        Which of their predictions.

    Raises
    ------
    BlendError
        Members that do not belong together, or without test predictions where they are asked for.
    PredictionsError
        When a row of the table has no prediction.

    """
    check_entries(entries, "stack", "a stack learns what a member counts")
    for entry in entries:
        found = scored(entry) if part == "oof" else entry.test()
        if found is None:
            raise BlendError(f"{entry.name} has no test predictions, so it cannot be stacked for the test table")
        frame = found.align(table[id]).frame()
        own = [column for column in frame.columns if column.startswith("prediction")]
        table = table.with_columns(frame[column].alias(column.replace("prediction", entry.name)) for column in own)
    return table


def _told(model: Named | Any) -> str:
    """A model by its name, or by its class and every parameter."""
    if isinstance(model, str):
        return model
    parameters = model.get_params(deep=True) if hasattr(model, "get_params") else vars(model)
    told = ", ".join(f"{name}={value!r}" for name, value in sorted(parameters.items()))
    return f"{type(model).__module__}.{type(model).__qualname__}({told})"
