"""Assign: the most probable classes of rows when it is known how many rows each class has.

In:    a value for each row and class; the least and the most rows of each class.
Out:   a class for each row: of all assignments within the limits, the one of the largest sum.
Next:  `decide` makes an entry of it; a submission takes the classes.

Exact for any size, by shortest augmenting paths over the classes: every row begins in its best class, then one row
after another moves along the cheapest chain from a class with too many to one with too few. It costs a sort
of the rows for each pair of classes, and for each row too many about (classes)^2 steps: a second for 100,000 rows of
10 classes of which 12,000 must move. SciPy's linear_sum_assignment, with n^2 costs, ends at some thousand rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from batteries.combine.crossfit import Array, checked_values
from batteries.errors import DataError

_ROUNDING = 1e-13
"""Chains whose sums differ by less than this part of the largest value are equally cheap."""


def assign_classes(
    values: NDArray[np.floating],
    *,
    at_least: Sequence[int] | NDArray[np.integer] | None = None,
    at_most: Sequence[int] | NDArray[np.integer] | None = None,
) -> NDArray[np.int64]:
    """Return the class of each row so that the sum of values is largest within limits on the rows of each class.

    Parameters
    ----------
    values
        Shape (n, classes), finite. Probabilities make the most right classes expected; their logarithms
        make the most probable assignment as a whole.
    at_least, at_most
        Rows of each class, shape (classes,); 0 and n unless given. The same for both asks for exact counts.

    Returns
    -------
    Class codes, int64, shape (n,). Without limits they are the argmax of the rows.

    Raises
    ------
    DataError
        When the limits are no whole numbers, or n rows cannot be within them.

    >>> assign_classes(np.array([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]]), at_least=[0, 1]).tolist()
    [0, 0, 1]

    """
    values = checked_values(values, "values")
    if values.ndim != 2:
        raise DataError(f"values must be (n, classes) with two classes or more, got {values.shape}")
    rows, classes = values.shape
    least = _limits(at_least, classes, 0, "at_least")
    most = np.minimum(_limits(at_most, classes, rows, "at_most"), rows)
    if (least > most).any() or least.sum() > rows or most.sum() < rows:
        raise DataError(
            f"{rows} rows cannot have at least {least.tolist()} and at most {most.tolist()} in the {classes} classes"
        )
    flow = _Flow(values, least, most)
    while flow.excess.max() > 0:
        flow.augment()
    return flow.codes


def counts_of(shares: Sequence[float] | NDArray[np.floating], rows: int) -> NDArray[np.int64]:
    """Return whole counts that sum to `rows`, nearest to shares of it: the largest remainders are rounded up.

    >>> counts_of([0.5, 0.3, 0.2], 9).tolist()
    [4, 3, 2]
    """
    parts = checked_values(shares, "shares")
    if parts.ndim != 1 or (parts < 0).any() or parts.sum() <= 0:
        raise DataError(f"shares must be 0 or above and not all 0, one for each class, got {parts.tolist()}")
    exact = parts / parts.sum() * rows
    counts: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    rest = np.argsort(counts - exact, kind="stable")[: rows - int(counts.sum())]
    counts[rest] += 1
    return counts


def _limits(
    given: Sequence[int] | NDArray[np.integer] | None, classes: int, default: int, what: str
) -> NDArray[np.int64]:
    if given is None:
        return np.full(classes, default, dtype=np.int64)
    limits = np.asarray(given)
    if limits.shape != (classes,) or limits.dtype.kind not in "iu" or (limits < 0).any():
        raise DataError(f"{what} must be {classes} whole numbers, 0 or above, got {limits.tolist()}")
    return limits.astype(np.int64)


class _Flow:
    """Rows in classes, classes flowing into one sink within their limits; what does not fit yet is in excess.

    Node `classes` is the sink. Invariant: no chain of moves makes the sum larger without changing the excess.
    """

    def __init__(self, values: Array, least: NDArray[np.int64], most: NDArray[np.int64]) -> None:
        self.values, self.least, self.most = values, least, most
        self.classes = values.shape[1]
        self.slack = _ROUNDING * float(np.abs(values).max())
        self.codes: NDArray[np.int64] = values.argmax(axis=1).astype(np.int64)
        counts = np.bincount(self.codes, minlength=self.classes)
        self.out = np.clip(counts, least, most)
        self.excess = np.append(counts - self.out, self.out.sum() - len(values))
        self.costs = np.full((self.classes + 1, self.classes + 1), np.inf)
        self.queues = [[self._queue(a, b) for b in range(self.classes)] for a in range(self.classes)]
        for a in range(self.classes):
            self._refresh(a)

    def _queue(self, a: int, b: int) -> _Queue:
        inside = np.flatnonzero(self.codes == a) if a != b else np.empty(0, dtype=np.int64)
        return _Queue(inside, self.values[inside, a] - self.values[inside, b])

    def _refresh(self, a: int) -> None:
        """Costs of the moves out of a class, and between it and the sink."""
        for b in range(self.classes):
            if a != b:
                self.costs[a, b] = self.queues[a][b].cheapest(self.codes, a)
        self.costs[a, -1] = 0.0 if self.out[a] < self.most[a] else np.inf
        self.costs[-1, a] = 0.0 if self.out[a] > self.least[a] else np.inf

    def augment(self) -> None:
        """Move one unit of excess along the cheapest chain to where one is lacking."""
        distance = np.where(self.excess > 0, 0.0, np.inf)
        origin = np.full(len(distance), -1)
        for _ in range(len(distance)):  # Bellman-Ford: a row moved before may be cheaper to move back
            through = distance[:, None] + self.costs
            nearest = through.argmin(axis=0)
            reached = through[nearest, np.arange(len(distance))]
            shorter = reached < distance - self.slack
            if not shorter.any():
                break
            distance[shorter], origin[shorter] = reached[shorter], nearest[shorter]
        to = int(np.where(self.excess < 0, distance, np.inf).argmin())
        self.excess[to] += 1
        while origin[to] >= 0:
            self._move(int(origin[to]), to)
            to = int(origin[to])
        self.excess[to] -= 1

    def _move(self, a: int, b: int) -> None:
        if b == self.classes:
            self.out[a] += 1
        elif a == self.classes:
            self.out[b] -= 1
        else:
            row = self.queues[a][b].row
            self.codes[row] = b
            for c in range(self.classes):
                if c != b:
                    self.queues[b][c].add(row, self.values[row, b] - self.values[row, c])
        for node in (a, b):
            if node < self.classes:
                self._refresh(node)


class _Queue:
    """Rows of one class by the cost of moving them to another: those there at first sorted, later ones in a heap."""

    def __init__(self, rows: NDArray[np.int64], costs: Array) -> None:
        order = np.argsort(costs, kind="stable")
        self.rows, self.costs, self.next = rows[order].tolist(), costs[order].tolist(), 0
        self.later: list[tuple[float, int]] = []
        self.row = -1

    def add(self, row: int, cost: float) -> None:
        heappush(self.later, (cost, row))

    def cheapest(self, codes: NDArray[np.int64], a: int) -> float:
        """Cost of the cheapest row that is in class `a` now, kept as `row`; infinite where none is."""
        while self.next < len(self.rows) and codes[self.rows[self.next]] != a:
            self.next += 1
        while self.later and codes[self.later[0][1]] != a:
            heappop(self.later)
        first = (self.costs[self.next], self.rows[self.next]) if self.next < len(self.rows) else (np.inf, -1)
        cost, self.row = min(first, self.later[0]) if self.later else first
        return float(cost)
