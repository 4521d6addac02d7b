"""Thresholds: the cut of a score that makes the best yes or no, exactly.

In:    scores and 0/1 targets; what is to be best: accuracy, F-beta, MCC, Cohen's kappa.
Out:   the threshold in the middle of the widest stretch that is best, and its score on these rows.
Next:  `decide` estimates over the folds what it is worth on others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.combine.crossfit import Array, checked_codes, checked_values
from batteries.errors import DataError, UsageError

_TIED = 1e-12
"""Scores that differ by less are one: MCC takes roots, so that equal ones differ in the last bits."""


@dataclass(frozen=True)
class Counts:
    """Rows by what they are and what is said of them: numbers, or arrays with one value for each threshold."""

    true_positive: Any
    false_positive: Any
    false_negative: Any
    true_negative: Any


Objective = Callable[[Counts], Any]
"""From counts to a score, higher is better; 0 where it is undefined."""


def accuracy(counts: Counts) -> Any:
    """Share of rows that are right."""
    right = counts.true_positive + counts.true_negative
    return right / (right + counts.false_positive + counts.false_negative)


def f_beta(counts: Counts, beta: float = 1.0) -> Any:
    """Mean of precision and recall, harmonic, recall `beta` times as important (van Rijsbergen 1979)."""
    squared = beta**2
    hits = (1 + squared) * counts.true_positive
    return _share(hits, hits + squared * counts.false_negative + counts.false_positive)


def mcc(counts: Counts) -> Any:
    """Correlation of what rows are and what is said of them (Matthews 1975)."""
    tp, fp, fn, tn = _floats(counts)
    return _share(tp * tn - fp * fn, np.sqrt((tp + fp) * (tp + fn)) * np.sqrt((tn + fp) * (tn + fn)))


def kappa(counts: Counts) -> Any:
    """Agreement beyond chance (Cohen 1960)."""
    tp, fp, fn, tn = _floats(counts)
    return _share(2 * (tp * tn - fn * fp), (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn))


def _floats(counts: Counts) -> tuple[Any, Any, Any, Any]:
    parts = counts.true_positive, counts.false_positive, counts.false_negative, counts.true_negative
    return tuple(np.asarray(part, dtype=np.float64) for part in parts)  # type: ignore[return-value]


def _share(part: Any, whole: Any) -> Any:
    """A quotient that is 0 where both are."""
    return np.divide(part, whole, out=np.zeros(np.shape(whole)), where=np.asarray(whole) != 0)


_NAMED: dict[str, Objective] = {"accuracy": accuracy, "f1": f_beta, "mcc": mcc, "kappa": kappa}


def objective_of(name: str) -> Objective:
    """Return an objective by name: accuracy, mcc, kappa, f1, or f with any beta, such as f2 and f0.5."""
    if name in _NAMED:
        return _NAMED[name]
    try:
        beta = float(name.removeprefix("f")) if name.startswith("f") else 0.0
    except ValueError:
        beta = 0.0
    if not (np.isfinite(beta) and beta > 0):
        raise UsageError(f"there is no objective {name!r}; choose accuracy, f1, mcc, kappa, or f with a beta: f2, f0.5")
    return lambda counts: f_beta(counts, beta)


@dataclass(frozen=True)
class Threshold:
    """A score of `value` or above means yes."""

    value: float
    score: float
    """Of the objective, on the rows it was chosen on: too good, for rows that it was not."""
    low: float
    high: float
    """Any threshold above `low` and up to `high` does as well on these rows."""

    def __call__(self, scores: NDArray[Any]) -> NDArray[np.int64]:
        """Return 0 and 1, shape (n,), of scores (n,)."""
        return (np.asarray(scores, dtype=np.float64) >= self.value).astype(np.int64)


def best_threshold(scores: NDArray[Any], targets: NDArray[Any], *, objective: str | Objective = "f1") -> Threshold:
    """Return the best threshold of all there are, in O(n log n).

    Only the midpoints between sorted distinct scores differ, and the two ends. Of those that are equally
    good the widest stretch is taken, and its middle; an end reaches as far as the last score that was seen.

    Parameters
    ----------
    scores
        Finite numbers, higher for yes, shape (n,).
    targets
        0 or 1, both there, shape (n,).
    objective
        A name (see `objective_of`), or a function of `Counts` whose values are arrays.

    Raises
    ------
    DataError
        When scores or targets are not so.
    UsageError
        When there is no such objective.

    >>> best_threshold(np.array([0.1, 0.4, 0.6, 0.9]), np.array([0, 0, 1, 1])).value
    0.5

    """
    measure = objective_of(objective) if isinstance(objective, str) else objective
    scores = checked_values(scores, "scores")
    if scores.ndim != 1:
        raise DataError(f"one threshold cuts one score a row, got shape {scores.shape}; take one column at a time")
    codes = checked_codes(targets, len(scores), 2)
    if len(np.unique(codes)) < 2:
        raise DataError(f"all {len(codes)} targets are {codes[0]}; a threshold needs rows of both classes")
    distinct, place = np.unique(scores, return_inverse=True)
    found = np.asarray(measure(_counts_at(place, codes, len(distinct))), dtype=np.float64)
    if not np.isfinite(found).all():
        raise DataError("the objective is NaN or infinite at some thresholds; return 0 where it is undefined")
    best = found.max()
    value, low, high = middle_of_widest(distinct, found >= best - _TIED * max(1.0, abs(best)))
    return Threshold(value, float(best), low, high)


def _counts_at(place: NDArray[np.int64], codes: NDArray[np.int64], distinct: int) -> Counts:
    """Counts for each cut: cut i says yes from the i-th distinct score on, the last one never."""
    positive = np.bincount(place, weights=codes, minlength=distinct)
    negative = np.bincount(place, weights=1 - codes, minlength=distinct)
    below = [np.concatenate([[0.0], np.cumsum(each)]) for each in (positive, negative)]
    return Counts(below[0][-1] - below[0], below[1][-1] - below[1], below[0], below[1])


def middle_of_widest(distinct: Array, tied: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Return the middle of the widest stretch of tied cuts, and the stretch.

    `distinct` are m ascending scores; cut i of m + 1 lies above score i - 1 and up to score i.
    """
    last = len(distinct) - 1
    steps = np.flatnonzero(np.diff(np.concatenate([[False], tied, [False]]).astype(np.int8)))
    starts, ends = steps[::2], steps[1::2] - 1
    lows, highs = distinct[np.maximum(starts - 1, 0)], distinct[np.minimum(ends, last)]
    widest = int((highs / 2 - lows / 2).argmax())
    low, high = float(lows[widest]), float(highs[widest])
    if starts[widest] > last:  # only never saying yes is best
        return float(np.nextafter(high, np.inf)), low, float(np.inf)
    middle = low / 2 + high / 2
    return (middle if low < middle <= high else high), low, high
