"""Counted: the same rows scored again and again, each time with other counts of them.

In:    what a score needs of every row, taken once.
Out:   a function from counts to scores, in O(rows) for each set of counts.
Next:  `Metric` offers one for each built-in score; the bootstrap and the shake-up draw the counts.

A row that is drawn three times counts three times, one that is not drawn counts nothing, so a resample is
scored without being laid out: no sort, no copy of the predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
"""How often each row is taken, shape (draws, n), 0 or above."""
Scores = NDArray[np.float64]
"""One score a draw, shape (draws,); NaN where the score is not defined on what was drawn."""
Scorer = Callable[[Counts], Scores]


def mean_of(rows: NDArray[Any], *, root: bool = False) -> Scorer:
    """Score by the mean of one number a row, or by its square root.

    >>> mean_of(np.array([1.0, 4.0]))(np.array([[1, 1], [2, 0], [0, 0]])).tolist()
    [2.5, 1.0, nan]
    """
    values = rows.astype(np.float64)

    def score(counts: Counts) -> Scores:
        with np.errstate(invalid="ignore"):  # 0 of 0 rows
            means: Scores = (counts @ values) / counts.sum(axis=1)
        return np.sqrt(means) if root else means

    return score


def auc_of(positive: NDArray[np.bool_], values: NDArray[Any]) -> Scorer:
    """Score by the area under the ROC curve: the share of pairs in the right order, ties counting half.

    Rows are sorted once. For each row of the rarer class, the rows of the other class below it are a
    cumulative sum of counts (Hanley & McNeil 1982, Radiology 143:29-36). The sums are of whole numbers,
    so each area is exact to its last rounding.

    >>> auc_of(np.array([False, True, True]), np.array([0.1, 0.1, 0.9]))(np.array([[1, 1, 1]])).tolist()
    [0.75]
    """
    few, many = np.flatnonzero(positive), np.flatnonzero(~positive)
    turned = len(few) > len(many)
    few, many = (many, few) if turned else (few, many)
    few, many = few[np.argsort(values[few])], many[np.argsort(values[many])]
    lower, upper = (np.searchsorted(values[many], values[few], side) for side in ("left", "right"))
    tied = not np.array_equal(lower, upper)

    def score(counts: Counts) -> Scores:
        below = np.zeros((len(counts), len(many) + 1), dtype=np.int64)
        np.cumsum(counts.take(many, axis=1), axis=1, out=below[:, 1:])
        own = counts.take(few, axis=1)
        wins = np.einsum("ij,ij->i", own, below.take(lower, axis=1))
        halves = wins + (np.einsum("ij,ij->i", own, below.take(upper, axis=1)) if tied else wins)
        pairs = 2 * own.sum(axis=1) * below[:, -1]
        with np.errstate(invalid="ignore"):  # one class only was drawn: 0 of 0 pairs
            areas: Scores = (pairs - halves if turned else halves) / pairs
        return areas

    return score


def f1_of(targets: NDArray[Any], codes: NDArray[Any], *, macro: bool) -> Scorer:
    """Score by F1 of class 1, or by the mean of the F1 of every class that was drawn or predicted.

    As in scikit-learn, F1 is 0 where class 1 is neither drawn nor predicted.

    >>> f1_of(np.array([0, 1, 1]), np.array([0, 1, 0]), macro=False)(np.array([[1, 1, 1]])).round(4).tolist()
    [0.6667]
    """
    labels, numbers = np.unique(np.concatenate([targets, codes]), return_inverse=True)
    true, found = numbers[: len(targets)], numbers[len(targets) :]
    right = np.flatnonzero(true == found)

    def one(counts: NDArray[np.int64]) -> float:
        hits = np.bincount(true[right], counts[right], len(labels))
        seen = np.bincount(true, counts, len(labels)) + np.bincount(found, counts, len(labels))
        each = 2 * hits / np.maximum(seen, 1)
        if macro:
            return float(each[seen > 0].mean()) if counts.any() else float("nan")
        return float(each[labels == 1].sum())

    return lambda counts: np.array([one(row) for row in counts])


def average_of(scorers: Sequence[Scorer]) -> Scorer:
    """Score by the mean of several scores; undefined where one of them is."""

    def score(counts: Counts) -> Scores:
        return np.asarray(np.mean([scorer(counts) for scorer in scorers], axis=0))

    return score
