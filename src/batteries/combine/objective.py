"""Objective: members, targets and a metric; how good is a weighted mean of them?

In:    predictions of the same rows by several members, what was to be predicted, a metric, limits of the weights.
Out:   scores of weights and of steps from one blend to the next, and values to compare them by: higher is better.
Next:  `greedy`, `climb`, `simplex` and `search` look for the best weights.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from math import inf, isfinite, nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from batteries.combine.auc import area_under_curve
from batteries.combine.quick import quick
from batteries.errors import BlendError
from batteries.experiment import Metric

Array = NDArray[np.float64]
SAME = 1e-12
"""Values that differ by less, relatively, differ by rounding."""
_ROUNDING = 1e-9
_ROWS_OF_A_THREAD = 20_000
_COLUMNS_OF_A_THREAD = 2.0  # in float64: the candidate, and what its AUC needs
_WORKING_SHARE = 0.2  # of the members' memory, for the blend and all threads


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a fit: the score after it, and the member that was added, if it is one."""

    score: float
    member: int | None = None


class Found(NamedTuple):
    """What a method comes back with."""

    weights: Array
    history: list[Step]


class Moves(NamedTuple):
    """Steps that could be taken from a blend: `keep` times the blend plus `add` times the member, keep > 0."""

    member: NDArray[np.int64]
    keep: Array
    add: Array


class Objective:
    """Members, targets and a metric, checked once.

    Nothing is copied: members stay in their own types, sums run in float64.

    Raises
    ------
    BlendError
        When members differ in shape, are no numbers or not finite, targets do not fit, or the limits leave no weights.

    """

    def __init__(
        self,
        members: Sequence[NDArray[Any]],
        targets: NDArray[Any],
        metric: Metric,
        *,
        max_weight: float = 1.0,
        l2: float = 0.0,
    ) -> None:
        self.members = _checked_members(members)
        self.targets = _checked_targets(targets, len(self.members[0]))
        self.metric, self.max_weight, self.l2 = metric, float(max_weight), float(l2)
        self.evaluations = 0
        self._candidates: list[Array] = []  # one a thread, kept: memory that is given back may stay in use
        _check_limits(self.max_weight, self.l2, self.num_members)
        self._positive = self._positives()
        self._quick = quick(metric, self.targets, self.members[0][0].size)
        self.parts = self.members
        if self._positive is not None and self.members[0].ndim == 2:
            self.parts = [member[:, -1] for member in self.members]  # the other column is not read by AUC

    @property
    def num_members(self) -> int:
        """K."""
        return len(self.members)

    def mix(self, weights: NDArray[Any]) -> Array:
        """Sum of weight times part, in float64: what steps start from."""
        return weighted_sum(self.parts, weights)

    def score(self, weights: Array) -> float:
        """The metric of the blend."""
        if self._positive is not None:
            return area_under_curve(self.mix(weights), self._positive)
        return self.metric(self.targets, weighted_sum(self.members, weights))

    def value(self, weights: Array, mixed: Array | None = None) -> float:
        """How good weights of sum 1 are, higher is better; `mixed` is their `mix` and may be lost."""
        self.evaluations += 1
        score = self._judge(self.mix(weights) if mixed is None else mixed)
        return float(self._values(np.array([score]), np.array([weights @ weights]))[0])

    @cached_property
    def singles(self) -> tuple[Array, Array]:
        """Scores and values of every member alone."""
        first = np.zeros(self.num_members)
        first[0] = 1.0
        try:
            self.score(first)
        except (ValueError, ArithmeticError, IndexError) as error:
            raise BlendError(f"{self.metric.name} cannot score the first member: {error}") from error
        ones = np.ones(self.num_members)
        moves = Moves(np.arange(self.num_members), ones, ones)
        scores, values = self.after(np.zeros(self.parts[0].shape), np.zeros(self.num_members), moves)
        if not np.isfinite(values).any():
            raise BlendError(
                f"{self.metric.name} of every member is NaN or infinite; are there targets of one class only?"
            )
        return scores, values

    def after(self, mixed: Array, weights: NDArray[Any], moves: Moves) -> tuple[Array, Array]:
        """Scores and values of each move from a blend; weights after a move must have the sum 1."""
        scores = self._scores(mixed, moves)
        member, keep, add = moves
        squares = keep**2 * (weights @ weights) + 2 * keep * add * weights[member] + add**2
        return scores, self._values(scores, squares)

    def _values(self, scores: Array, squares: Array) -> Array:
        signed = scores if self.metric.higher_is_better else -scores
        pull = self.l2 * (squares - 1 / self.num_members)  # the squared distance from equal weights
        return np.where(np.isfinite(scores), signed - pull, -inf)

    def _scores(self, mixed: Array, moves: Moves) -> Array:
        jobs = list(zip(*moves, strict=True))
        self.evaluations += len(jobs)
        threads = self._threads(len(jobs))
        while len(self._candidates) < threads:
            self._candidates.append(np.empty_like(mixed))
        if threads == 1:
            return np.array(self._scored(mixed, self._candidates[0], jobs), dtype=np.float64)
        scores = np.empty(len(jobs))
        with ThreadPoolExecutor(threads) as pool:
            shares = [jobs[first::threads] for first in range(threads)]
            parts = pool.map(partial(self._scored, mixed), self._candidates[:threads], shares)
            for first, part in enumerate(parts):
                scores[first::threads] = part
        return scores

    def _threads(self, jobs: int) -> int:
        """Only our own AUC runs in threads, and only in little memory; a metric of others may keep a state."""
        if self._positive is None or len(self.targets) < _ROWS_OF_A_THREAD:
            return 1
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        columns = sum(member.nbytes for member in self.members) / (8 * len(self.targets))  # if they were float64
        return max(1, min(cores, jobs, int((_WORKING_SHARE * columns - 1) / _COLUMNS_OF_A_THREAD)))

    def _scored(self, mixed: Array, candidate: Array, jobs: Sequence[tuple[Any, ...]]) -> list[float]:
        scores = []
        for member, keep, add in jobs:
            np.multiply(self.parts[member], add / keep, out=candidate, dtype=np.float64)
            candidate += mixed
            candidate *= keep
            scores.append(self._judge(candidate))
        return scores

    def _judge(self, blended: Array) -> float:
        """Score an array, which may be lost; NaN where the metric is undefined for it."""
        if self._positive is not None:
            return area_under_curve(blended, self._positive)
        try:
            with np.errstate(all="ignore"):
                return self._quick(self.targets, blended)
        except (ValueError, ArithmeticError, IndexError):  # such as a log-loss of what is no probability
            return nan

    def _positives(self) -> NDArray[np.bool_] | None:
        """Which rows are positive, where the metric is the AUC of two classes."""
        if self.metric.fn is not Metric.auc().fn or self.targets.ndim != 1:
            return None
        if self.members[0].ndim == 2 and self.members[0].shape[1] != 2:
            return None
        classes = np.unique(self.targets)
        return None if len(classes) != 2 else np.asarray(self.targets == classes[1])


def clearly_better(value: float, than: float) -> bool:
    """Whether a value is higher by more than rounding.

    >>> clearly_better(0.9 + 1e-15, 0.9), clearly_better(0.91, 0.9)
    (False, True)
    """
    return value > than + SAME * abs(than) if isfinite(than) else value > than


def within(weights: NDArray[Any] | float, limit: float) -> NDArray[np.bool_]:
    """Which weights are not above a limit, but for rounding."""
    return np.asarray(weights) <= limit + _ROUNDING


def weighted_sum(members: Sequence[NDArray[Any]], weights: NDArray[Any]) -> Array:
    """Return the sum of weight times member, in float64."""
    total = np.zeros(members[0].shape)
    for member, weight in zip(members, weights.tolist(), strict=True):
        if weight:
            total += np.multiply(member, weight, dtype=np.float64)
    return total


def _checked_members(members: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    if not len(members):
        raise BlendError("there are no weights to fit: give at least one member")
    arrays = [np.asarray(member) for member in members]
    for number, array in enumerate(arrays, 1):
        if array.shape != arrays[0].shape:
            raise BlendError(f"member {number} has shape {array.shape}, member 1 has {arrays[0].shape}")
        if array.ndim not in (1, 2) or not array.size:
            raise BlendError(f"members must have the shape (n,) or (n, columns) and rows, got {array.shape}")
        if array.dtype.kind not in "fiub":
            raise BlendError(f"member {number} holds {array.dtype}, not numbers")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise BlendError(f"member {number} has {bad} values that are NaN or infinite; predict them again")
    return [array[:, 0] for array in arrays] if arrays[0].shape[1:] == (1,) else arrays


def _checked_targets(targets: NDArray[Any], rows: int) -> NDArray[Any]:
    targets = np.asarray(targets)
    if targets.ndim not in (1, 2) or len(targets) != rows:
        raise BlendError(f"members have {rows} rows, targets have the shape {targets.shape}")
    if targets.dtype.kind == "f" and not np.isfinite(targets).all():
        raise BlendError(f"{int((~np.isfinite(targets)).sum())} targets are NaN or infinite")
    return targets[:, 0] if targets.shape[1:] == (1,) else targets


def _check_limits(max_weight: float, l2: float, members: int) -> None:
    if not 0 < max_weight <= 1:
        raise BlendError(f"max_weight must be in (0, 1], got {max_weight}")
    if max_weight * members < 1 - _ROUNDING:
        raise BlendError(
            f"{members} members of at most {max_weight} each do not add up to 1;"
            f" max_weight must be at least {1 / members:.4g}"
        )
    if not (isfinite(l2) and l2 >= 0):
        raise BlendError(f"l2 must be a finite number, 0 or above, got {l2}")
