"""Decide: from scores to the answers that a metric of answers wants, with an honest estimate of the gain.

In:    out-of-fold predictions, targets, folds; or an entry that has them.
Out:   a rule, and its score in sample, nested, and of the rule that learns nothing; or a new entry of answers.
Next:  the board scores the entry, `submit` writes it.

| targets | predictions | objective | rule |
| --- | --- | --- | --- |
| 0 or 1, (n,) | (n,) or (n, 2) | accuracy, f1, f2, ..., mcc, kappa | one threshold |
| 0 or 1, (n, labels) | (n, labels) | the same, mean over the labels | a threshold for each label |
| ordered classes, (n,) | a number, (n,), or probabilities, (n, classes) | qwk | ascending cuts |
| classes, (n,) | probabilities, (n, classes) | accuracy | as many rows of each class as its share says |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.combine.assign import assign_classes, counts_of
from batteries.combine.crossfit import Array, checked_codes, checked_values, cross_fit
from batteries.combine.derive import derive_entry, scored, warn_of_later_rows
from batteries.combine.ordinal import Cuts, best_cuts, rounding, weighted_kappa
from batteries.combine.thresholds import Counts, Objective, best_threshold, objective_of
from batteries.errors import DataError, UsageError
from batteries.score.entry import Entry

_ORDINAL = "qwk"


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


@dataclass(frozen=True)
class Thresholds:
    """A score at its threshold or above means 1, below it 0; one for each column, or one for the last of two.

    >>> Thresholds((0.3, 0.8))(np.array([[0.3, 0.7], [0.2, 0.9]])).tolist()
    [[1, 0], [0, 1]]
    """

    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"1 from {_listed(self.values)}"

    def __call__(self, scores: NDArray[Any]) -> NDArray[np.int64]:
        """Return 0 and 1: shape (n,) of one threshold, (n, labels) of several."""
        scores = np.asarray(scores, dtype=np.float64)
        if len(self.values) == 1:
            return (_last(scores) >= self.values[0]).astype(np.int64)
        return (scores >= self.values).astype(np.int64)


@dataclass(frozen=True)
class Shares:
    """The most probable classes of all rows together, when each class has its share of them.

    What it says of a row depends on the other rows that it is given with.
    """

    values: tuple[float, ...]

    def __str__(self) -> str:
        return f"shares of the classes: {_listed(self.values)}"

    def __call__(self, scores: NDArray[Any]) -> NDArray[np.int64]:
        """Return class codes, shape (n,), of probabilities (n, classes)."""
        counts = counts_of(self.values, len(scores))
        return assign_classes(scores, at_least=counts, at_most=counts)


@dataclass(frozen=True)
class MostProbable:
    """The class of the largest probability, whatever the other rows."""

    def __str__(self) -> str:
        return "the most probable class"

    def __call__(self, scores: NDArray[Any]) -> NDArray[np.int64]:
        """Return class codes, shape (n,), of probabilities (n, classes)."""
        codes: NDArray[np.int64] = np.asarray(scores).argmax(axis=1).astype(np.int64)
        return codes


Rule = Thresholds | Cuts | Shares | MostProbable


@dataclass(frozen=True)
class Decision:
    """A rule, and what it is worth on rows that it was not fitted on."""

    objective: str
    rule: Rule
    """On all rows."""
    by_fold: dict[int, Rule]
    """Fitted on all folds but one: how far they lie apart is how sure `rule` is."""
    labels: NDArray[np.int64]
    """What `by_fold` say of the rows of their folds: 0 and 1, shape (n,) or (n, labels), or class codes, (n,)."""
    default: float
    """Score of the rule that learns nothing: 0.5, the nearest class, the most probable class."""
    in_sample: float
    """Score of `rule` on the rows it was fitted on: too good."""
    nested: float
    """Score of `labels`, all rows at once: to be believed."""

    @property
    def accepted(self) -> bool:
        """Whether the nested score beats the default."""
        return self.nested > self.default

    def __call__(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return what `rule` says of predictions of other rows, in the form of the ones it was fitted on."""
        return self.rule(_scores(values, self.objective))

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data, without the labels."""
        rules = {"rule": asdict(self.rule), "by_fold": {str(fold): asdict(rule) for fold, rule in self.by_fold.items()}}
        figures = {name: getattr(self, name) for name in ("objective", "accepted", "default", "in_sample", "nested")}
        return {**figures, **rules}


def decide(
    values: NDArray[Any], targets: NDArray[Any], folds: NDArray[Any], *, objective: str | Objective = "f1"
) -> Decision:
    """Fit the rule that the table above names, and estimate over the folds what it is worth.

    Parameters
    ----------
    values
        Out-of-fold predictions, shape (n,) or (n, columns).
    targets
        Shape (n,) or (n, labels).
    folds
        The fold of each row, shape (n,): each is decided by a rule of the others.
    objective
        A name, or for thresholds a function of `Counts`.

    Raises
    ------
    DataError
        When arrays do not fit each other or the objective, or a fit would see only one class.
    UsageError
        When there is no such objective.

    >>> scores, targets = np.array([0.1, 0.2, 0.3, 0.4] * 10), np.array([0, 0, 1, 1] * 10)
    >>> result = decide(scores, targets, np.arange(40) // 20)
    >>> result.rule, result.default, result.nested
    (Thresholds(values=(0.25,)), 0.0, 1.0)

    """
    name = objective if isinstance(objective, str) else "custom"
    values, targets = checked_values(values), np.asarray(targets)
    scores = _scores(values, name)
    task = _task(scores, targets, objective, classes=values.shape[1] if values.ndim == 2 else None)
    rule, nested = task.fit(scores, task.targets), cross_fit(task.fit, scores, task.targets, folds)
    default, in_sample, honest = (task.score(labels) for labels in (task.default(scores), rule(scores), nested.values))
    return Decision(name, rule, nested.models, nested.values, default, in_sample, honest)


def decide_entry(entry: Entry, root: Path | str = "runs", *, objective: str | None = None) -> tuple[Decision, Entry]:
    """Decide an entry into a new one, or return it as it is where the nested score does not beat the default.

    The new entry's out-of-fold answers are the nested ones, so its score on the board is honest; its test
    answers are those of the rule of all rows. They have the shape of the entry's predictions: where these are
    one column a class, 1 stands in that of the class. So metrics and submissions take them as they took those.

    Parameters
    ----------
    objective
        A name; that of the entry's metric unless given.

    Raises
    ------
    DataError
        When the predictions do not fit the objective, or do not cover every row.
    UsageError
        When there is no such objective.

    """
    oof = scored(entry)
    warn_of_later_rows(entry)
    assert oof.targets is not None
    assert oof.folds is not None
    result = decide(oof.values, oof.targets, oof.folds, objective=objective or entry.direction.name)
    if not result.accepted:
        return result, entry
    made = derive_entry(
        entry,
        root,
        "decided",
        settings={"how": result.objective},
        learned=result.plain(),
        make=lambda test: _in_form_of(test.values, result(test.values)),
        values=_in_form_of(oof.values, result.labels),
    )
    return result, made


def _in_form_of(values: NDArray[Any], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Answers in the shape of the predictions."""
    if labels.ndim == values.ndim:
        return labels
    if values.shape[1] == 1:
        return labels[:, None]
    columns: NDArray[np.int64] = (labels[:, None] == np.arange(values.shape[1])).astype(np.int64)
    return columns


@dataclass(frozen=True)
class _Task:
    """What is fitted, to what, and how it is judged."""

    targets: NDArray[np.int64]
    fit: Callable[[NDArray[Any], NDArray[Any]], Rule]
    default: Rule
    score: Callable[[NDArray[np.int64]], float]


def _scores(values: NDArray[Any], objective: str) -> Array:
    """What is cut: the predictions, but the expected class of ordered ones."""
    scores = checked_values(values)
    if objective == _ORDINAL and scores.ndim == 2:
        expected: Array = scores @ np.arange(scores.shape[1])
        return expected
    return scores


def _last(scores: Array) -> Array:
    """The probability of class 1 where both are there."""
    return scores[:, -1] if scores.ndim == 2 else scores


def _task(scores: Array, targets: NDArray[Any], objective: str | Objective, *, classes: int | None) -> _Task:
    if objective == _ORDINAL:
        codes = checked_codes(targets, len(scores), classes)
        size = classes or int(codes.max()) + 1
        return _Task(codes, partial(_fit_cuts, size), rounding(size), lambda said: weighted_kappa(said, codes))
    measure = objective_of(objective) if isinstance(objective, str) else objective
    if targets.ndim == 2 and targets.shape[1] > 1:
        return _task_of_labels(scores, targets, measure)
    if scores.ndim == 2 and scores.shape[1] > 2:
        return _task_of_classes(scores, targets, objective)
    codes = checked_codes(targets, len(scores), 2)
    return _Task(
        codes, partial(_fit_threshold, measure), Thresholds((0.5,)), lambda said: _measured(measure, said, codes)
    )


def _task_of_labels(scores: Array, targets: NDArray[Any], measure: Objective) -> _Task:
    if scores.shape != targets.shape:
        raise DataError(f"labels of shape {targets.shape} need scores of that shape, got {scores.shape}")
    columns = range(targets.shape[1])
    codes = np.stack([checked_codes(targets[:, c], len(targets), 2) for c in columns], axis=1)

    def mean(said: NDArray[np.int64]) -> float:
        return float(np.mean([_measured(measure, said[:, c], codes[:, c]) for c in columns]))

    return _Task(codes, partial(_fit_thresholds, measure), Thresholds((0.5,) * len(columns)), mean)


def _task_of_classes(scores: Array, targets: NDArray[Any], objective: str | Objective) -> _Task:
    size = scores.shape[1]
    if objective != "accuracy":
        raise UsageError(
            f"{size} classes are decided for accuracy (by the shares of the classes) or qwk, got {objective!r}"
        )
    codes = checked_codes(targets, len(scores), size)
    return _Task(codes, partial(_fit_shares, size), MostProbable(), lambda said: float((said == codes).mean()))


def _fit_threshold(measure: Objective, scores: NDArray[Any], targets: NDArray[Any]) -> Thresholds:
    return Thresholds((best_threshold(_last(scores), targets, objective=measure).value,))


def _fit_thresholds(measure: Objective, scores: NDArray[Any], targets: NDArray[Any]) -> Thresholds:
    found = []
    for column in range(targets.shape[1]):
        try:
            found.append(best_threshold(scores[:, column], targets[:, column], objective=measure).value)
        except DataError as error:
            raise DataError(f"label {column}: {error}") from error
    return Thresholds(tuple(found))


def _fit_cuts(classes: int, scores: NDArray[Any], targets: NDArray[Any]) -> Cuts:
    return best_cuts(scores, targets, classes=classes)


def _fit_shares(classes: int, scores: NDArray[Any], targets: NDArray[Any]) -> Shares:
    return Shares(tuple((np.bincount(targets, minlength=classes) / len(targets)).tolist()))


def _measured(measure: Objective, said: NDArray[np.int64], true: NDArray[np.int64]) -> float:
    table = np.bincount(2 * true + said, minlength=4).astype(np.float64)
    return float(measure(Counts(table[3], table[1], table[2], table[0])))
