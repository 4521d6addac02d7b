"""Ordinal: the cuts of a score into ordered classes that make the best weighted kappa, exactly.

In:    scores, such as the outputs of a regression, and ordered classes 0 to K - 1.
Out:   K - 1 ascending cuts.
Next:  `decide` estimates over the folds what they are worth on other rows.

Weighted kappa is 1 - A / B, A the sum of weights of (said, true) over rows, B the same for each said with every
true class in turn. Both are sums over rows, so for a given ratio the cuts that make A - ratio * B least are
found by dynamic programming over the sorted scores; taking their ratio next, it falls to the least there is
(Dinkelbach 1967, On Nonlinear Fractional Programming). No search from random starts can do better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from batteries.combine.crossfit import Array, checked_codes, checked_values
from batteries.combine.thresholds import middle_of_widest
from batteries.errors import DataError, UsageError

Weights = Literal["quadratic", "linear", "equal"]
_TIED = 1e-12
_MOST_ROUNDS = 100


@dataclass(frozen=True)
class Cuts:
    """Class k begins at the k-th cut.

    >>> Cuts((0.5, 1.5))(np.array([0.2, 0.5, 7.0])).tolist()
    [0, 1, 2]
    """

    values: tuple[float, ...]

    def __str__(self) -> str:
        return "classes begin at " + ", ".join(f"{value:.4g}" for value in self.values)

    def __call__(self, scores: NDArray[Any]) -> NDArray[np.int64]:
        """Return class codes, shape (n,), of scores (n,)."""
        codes: NDArray[np.int64] = np.searchsorted(self.values, np.asarray(scores, dtype=np.float64), side="right")
        return codes


def rounding(classes: int) -> Cuts:
    """Return the cuts that learn nothing: the nearest class."""
    return Cuts(tuple(k + 0.5 for k in range(classes - 1)))


def weighted_kappa(
    labels: NDArray[Any], targets: NDArray[Any], *, classes: int | None = None, weights: Weights = "quadratic"
) -> float:
    """Return Cohen's kappa with weights (Cohen 1968); 0 where it is undefined, of one class everywhere.

    >>> weighted_kappa(np.array([0, 1, 2]), np.array([0, 1, 1])).__round__(4)
    0.6667
    """
    said, true = checked_codes(labels, len(labels), classes), checked_codes(targets, len(labels), classes)
    size = int(max(said.max(), true.max())) + 1
    table = np.bincount(said * size + true, minlength=size**2).reshape(size, size).astype(np.float64)
    costs = _costs(size, weights)
    by_chance = float((costs * np.outer(table.sum(axis=1), table.sum(axis=0))).sum()) / len(said)
    return 1 - float((costs * table).sum()) / by_chance if by_chance else 0.0


def best_cuts(
    scores: NDArray[Any], targets: NDArray[Any], *, classes: int | None = None, weights: Weights = "quadratic"
) -> Cuts:
    """Return the cuts with the highest weighted kappa of all there are; O(n log n + n K) a round, a few rounds.

    Each cut lies in the middle of the widest stretch that is as good, the others held.

    Parameters
    ----------
    scores
        Finite numbers, higher for higher classes, shape (n,).
    targets
        Class codes, at least two different ones, shape (n,).
    classes
        How many there are; one more than the highest target unless given.
    weights
        `quadratic` (k - l)^2, `linear` |k - l|, or `equal`, the plain kappa.

    Raises
    ------
    DataError
        When scores or targets are not so.
    UsageError
        When there are no such weights.

    >>> best_cuts(np.array([0.1, 0.2, 0.9, 1.0, 3.0]), np.array([0, 0, 1, 1, 2])).values
    (0.55, 2.0)

    """
    scores = checked_values(scores, "scores")
    if scores.ndim != 1:
        raise DataError(f"cuts need one score a row, got shape {scores.shape}")
    codes = checked_codes(targets, len(scores), classes)
    if len(np.unique(codes)) < 2:
        raise DataError(f"all {len(codes)} targets are {codes[0]}; cuts need rows of two classes or more")
    size = classes or int(codes.max()) + 1
    distinct, place = np.unique(scores, return_inverse=True)
    sums = _sums(place, codes, len(distinct), _costs(size, weights))
    return Cuts(tuple(_centred(distinct, _best_places(*sums), *sums)))


def _costs(classes: int, weights: Weights) -> Array:
    if weights not in get_args(Weights):
        raise UsageError(f"there are no weights {weights!r}; choose one of {', '.join(get_args(Weights))}")
    apart = np.abs(np.arange(classes)[:, None] - np.arange(classes))
    costs: Array = {"quadratic": apart**2, "linear": apart, "equal": apart > 0}[weights].astype(np.float64)
    return costs


def _sums(place: NDArray[np.int64], codes: NDArray[np.int64], distinct: int, costs: Array) -> tuple[Array, Array]:
    """For class k and the first i distinct scores: A and B where all of these are said to be k; (K, distinct + 1)."""
    size = len(costs)
    counts = np.bincount(place * size + codes, minlength=distinct * size).reshape(distinct, size)
    by_chance = counts.sum(axis=1)[:, None] * (costs @ np.bincount(codes, minlength=size) / len(codes))
    return tuple(  # type: ignore[return-value]
        np.concatenate([np.zeros((size, 1)), np.cumsum(each.T, axis=1)], axis=1) for each in (counts @ costs, by_chance)
    )


def _best_places(observed: Array, by_chance: Array) -> list[int]:
    """How many distinct scores lie below each cut."""
    ratio = 1.0  # of saying one class everywhere, whichever
    places = [0] * (len(observed) - 1)
    for _ in range(_MOST_ROUNDS):
        found = _least(observed - ratio * by_chance)
        a, b = (_total(each, found) for each in (observed, by_chance))
        if a / b >= ratio:
            return places
        places, ratio = found, a / b
    return places


def _least(costs: Array) -> list[int]:
    """Ascending places of the cuts that make the sum of running costs least, by dynamic programming."""
    best, came_from = costs[0], []
    steps = np.arange(costs.shape[1])
    for running in costs[1:]:
        begun = best - running
        least = np.minimum.accumulate(begun)
        came_from.append(np.maximum.accumulate(np.where(begun == least, steps, 0)))
        best = least + running
    places, end = [], costs.shape[1] - 1
    for origin in reversed(came_from):
        end = int(origin[end])
        places.append(end)
    return places[::-1]


def _total(running: Array, places: list[int]) -> float:
    edges = [0, *places, running.shape[1] - 1]
    return float(sum(running[k, edges[k + 1]] - running[k, edges[k]] for k in range(len(running))))


def _centred(distinct: Array, places: list[int], observed: Array, by_chance: Array) -> list[float]:
    """Each cut in the middle of the widest stretch that is as good, the others held."""
    best = _total(observed, places) / _total(by_chance, places)
    values = []
    for k in range(len(places)):
        low, high = ([0, *places][k], [*places, len(distinct)][k + 1])
        moved = np.arange(low, high + 1)
        a, b = (
            _total(each, places) + (each[k, moved] - each[k + 1, moved]) - (each[k, places[k]] - each[k + 1, places[k]])
            for each in (observed, by_chance)
        )
        tied = np.zeros(len(distinct) + 1, dtype=np.bool_)
        tied[moved] = a <= (best + _TIED) * b
        value, _, _ = middle_of_widest(distinct, tied)
        values.append(value)
        places[k] = int(np.searchsorted(distinct, value))
    return sorted(values)  # two cuts between the same neighbours may have crossed, which changes no class
