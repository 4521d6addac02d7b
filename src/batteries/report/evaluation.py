"""Evaluation: what the out-of-fold predictions of one entry say, beyond its score.

In:    targets, predictions, ids.
Out:   confusion, the hardest rows, the correlation of entries: figures, no charts.
Next:  the sections draw them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from batteries.experiment.metric import most_probable
from batteries.experiment.predictions import Predictions

Task = Literal["classes", "number"]


@dataclass(frozen=True)
class Outcome:
    """Targets and predictions, read as one kind of task."""

    task: Task
    targets: NDArray[Any]
    """Class codes, or numbers; shape (n,)."""
    values: NDArray[Any]
    """Shape (n, classes), or (n,) for numbers."""
    probabilities: bool
    """Whether the rows of `values` are probabilities."""


def outcome_of(oof: Predictions, *, ranks: bool = False) -> Outcome | None:
    """Read predictions as those of classes or of a number; None where they are neither.

    `ranks` says that the values are an order only, as a rank blend's: no probabilities.
    """
    if oof.targets is None or oof.targets.ndim != 1 or oof.targets.dtype.kind not in "iufb":
        return None
    targets, values = oof.targets, np.asarray(oof.values, dtype=np.float64)
    if not np.isfinite(targets.astype(np.float64)).all():
        return None
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    whole = bool((targets == np.round(targets)).all())
    if values.ndim == 2:
        if not whole or targets.min() < 0 or targets.max() >= values.shape[1]:
            return None
        sums = bool(values.min() >= 0 and np.abs(values.sum(axis=1) - 1).max() < 1e-3)
        return Outcome("classes", targets.astype(np.int64), values, sums and not ranks)
    if whole and set(np.unique(targets).tolist()) <= {0, 1} and values.min() >= 0 and values.max() <= 1:
        if ranks:
            return None
        return Outcome("classes", targets.astype(np.int64), np.stack([1 - values, values], axis=1), True)
    return None if ranks else Outcome("number", targets.astype(np.float64), values, False)


def confusion(outcome: Outcome) -> NDArray[np.int64]:
    """Count rows by true class (down) and predicted class (across)."""
    classes = outcome.values.shape[1]
    predicted = most_probable(outcome.values)
    return np.bincount(outcome.targets * classes + predicted, minlength=classes**2).reshape(classes, classes)


def hardest(outcome: Outcome, count: int = 20) -> list[tuple[int, float]]:
    """Return the positions of the worst rows, and why: the value of the true class, or the size of the error."""
    if outcome.task == "number":
        errors = np.abs(outcome.values - outcome.targets)
        order = np.argsort(-errors, kind="stable")[:count]
        return [(int(row), float(errors[row])) for row in order]
    true = outcome.values[np.arange(len(outcome.targets)), outcome.targets]
    order = np.argsort(true, kind="stable")[:count]
    return [(int(row), float(true[row])) for row in order]


def correlation(members: Sequence[Predictions]) -> NDArray[np.float64] | None:
    """Pearson correlation of all values of entries, rows joined by id; None where they cannot be joined."""
    first = members[0]
    if any(len(member) != len(first) or member.values.shape != first.values.shape for member in members):
        return None
    flat = np.stack([member.align(first.ids).values.astype(np.float64).ravel() for member in members])
    if (flat.std(axis=1) == 0).any():
        return None
    return np.corrcoef(flat).reshape(len(members), len(members))
