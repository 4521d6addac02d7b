"""Counted: the same rows scored again and again, each time with other counts of them.

In:    what a score needs of every row, taken once.
Out:   a function from counts to scores, in O(rows) for each set of counts.
Next:  `Metric` offers one for each built-in score; the bootstrap and the shake-up draw the counts.

A row that is drawn three times counts three times, one that is not drawn counts nothing, so a resample is
scored without being laid out: no sort, no copy of the predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

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


class Classes(NamedTuple):
    """How many rows of one draw are of each class, of those that are there at all; each of shape (classes,)."""

    labels: NDArray[Any]
    hits: NDArray[Any]
    """Of the class, and predicted so."""
    true: NDArray[Any]
    found: NDArray[Any]
    """Predicted to be of the class."""


def classes_of(targets: NDArray[Any], codes: NDArray[Any], score_of: Callable[[Classes], float]) -> Scorer:
    """Score by what only depends on how many rows of each class are there, predicted, and both.

    >>> share = classes_of(np.array([0, 1]), np.array([0, 0]), lambda of: float(of.hits.sum() / of.true.sum()))
    >>> share(np.array([[1, 1], [3, 1]])).tolist()
    [0.5, 0.75]
    """
    labels, numbers = np.unique(np.concatenate([targets, codes]), return_inverse=True)
    true, found = numbers[: len(targets)], numbers[len(targets) :]
    right = np.flatnonzero(true == found)

    def one(counts: NDArray[np.int64]) -> float:
        if not counts.any():
            return float("nan")
        hits = np.bincount(true[right], counts[right], len(labels))
        by_class = (np.bincount(each, counts, len(labels)) for each in (true, found))
        return score_of(Classes(labels, hits, *by_class))

    return lambda counts: np.array([one(row) for row in counts])


def fbeta_of(targets: NDArray[Any], codes: NDArray[Any], *, beta: float, macro: bool) -> Scorer:
    """Score by F-beta of class 1, or by the mean of that of every class that was drawn or predicted.

    As in scikit-learn, it is 0 where class 1 is neither drawn nor predicted.

    >>> fbeta_of(np.array([0, 1, 1]), np.array([0, 1, 0]), beta=1, macro=False)(np.array([[1, 1, 1]])).round(4).tolist()
    [0.6667]
    """

    def score_of(of: Classes) -> float:
        seen = beta**2 * of.true + of.found
        each = (1 + beta**2) * of.hits / np.where(seen > 0, seen, 1)
        return float(each[seen > 0].mean()) if macro else float(each[of.labels == 1].sum())

    return classes_of(targets, codes, score_of)


def mcc_of(targets: NDArray[Any], codes: NDArray[Any]) -> Scorer:
    """Score by Matthews correlation, of two classes or more (Gorodkin 2004, Comput. Biol. Chem. 28:367-374).

    As in scikit-learn, it is 0 where all drawn rows are of one class, or predicted so.

    >>> mcc_of(np.array([0, 1, 1]), np.array([0, 1, 0]))(np.array([[1, 1, 1], [1, 0, 0]])).tolist()
    [0.5, 0.0]
    """

    def score_of(of: Classes) -> float:
        rows = of.true.sum()
        spread = (rows**2 - of.true @ of.true) * (rows**2 - of.found @ of.found)
        return float((of.hits.sum() * rows - of.true @ of.found) / np.sqrt(spread)) if spread else 0.0

    return classes_of(targets, codes, score_of)


def qwk_of(targets: NDArray[Any], codes: NDArray[Any]) -> Scorer:
    """Score by Cohen's kappa with quadratic weights (1968): all of it is means over the rows.

    It is 0 where all drawn rows are of one class, and said to be.

    >>> qwk_of(np.array([0, 1, 2]), np.array([0, 1, 1]))(np.array([[1, 1, 1], [0, 1, 0]])).round(4).tolist()
    [0.6667, 0.0]
    """
    targets, codes = targets.astype(np.float64), codes.astype(np.float64)
    middle = targets.mean()  # moments about it, else large codes lose digits
    true, found = targets - middle, codes - middle
    of_rows = np.stack([(codes - targets) ** 2, true, found, true**2, found**2], axis=1)

    def score(counts: Counts) -> Scores:
        with np.errstate(invalid="ignore", divide="ignore"):  # 0 of 0 rows; all of one class
            apart, one, other, one_squared, other_squared = (counts @ of_rows / counts.sum(axis=1)[:, None]).T
            by_chance = one_squared + other_squared - 2 * one * other
            scores: Scores = np.where(by_chance > 1e-12 * (one_squared + other_squared), 1 - apart / by_chance, 0.0)
        scores[np.isnan(apart)] = np.nan
        return scores

    return score


def average_of(scorers: Sequence[Scorer]) -> Scorer:
    """Score by the mean of several scores; undefined where one of them is."""

    def score(counts: Counts) -> Scores:
        return np.asarray(np.mean([scorer(counts) for scorer in scorers], axis=0))

    return score
