"""Ranks: the place of every value in its column, ties averaged, and weighted means of such places.

In:    columns of numbers, ranked whole or fold by fold.
Out:   ranks as shares r / n in (0, 1], bit-equal to `scipy.stats.rankdata(method="average") / n`.
Next:  `blend` takes them for how="rank" and how="mean_of_rank_powers".

A float32 column is sorted once and in place: the value, as bits that keep its order, and the row fill the two
halves of a 64-bit integer. Threads rank columns beside each other: NumPy's sort leaves the interpreter free.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.combine.blocks import pieces
from batteries.errors import BlendError
from batteries.prepare.cores import usable_cores

Array = NDArray[np.float64]
Rows = slice | NDArray[np.int64]
_PIECE = 1 << 16
"""Rows handled at once: what is made of them stays in the cache and is small beside a column."""
_MEMORY_SHARE, _MEMORY_FREE = 0.13, 1 << 24
"""Sorting may take so much of what the members take, or 16 MiB where that is more."""
_BYTES_A_ROW = 12
"""What one column takes while it is ranked: 8 a row to sort, 4 for the ranks."""


def ranks(array: NDArray[Any], *, folds: NDArray[Any] | None = None) -> Array:
    """Ranks of each column alone, ties averaged, divided by the number of rows: float64 in (0, 1].

    r / n is pandas' `rank(pct=True)`. (r - 1) / (n - 1) and (r - 1/2) / n (Hazen) are straight lines of it, so
    they order rows alike. -0.0 and 0.0 are ties.

    Parameters
    ----------
    array
        Finite numbers, shape (n,) or (n, columns), n >= 1.
    folds
        Shape (n,): rows are ranked among those of the same fold, and divided by their number.

    Raises
    ------
    BlendError
        When values are NaN or infinite, or the shape is another.

    >>> ranks(np.array([0.2, 0.9, 0.2, 0.2])).tolist()
    [0.5, 1.0, 0.5, 0.5]

    """
    return rank_mean([(0, np.asarray(array))], (1.0,), folds=folds, warn=False)


def rank_mean(
    members: Sequence[tuple[int, NDArray[Any]]],
    shares: Sequence[float],
    *,
    folds: NDArray[Any] | None = None,
    power: float = 1.0,
    out: Array | None = None,
    warn: bool = True,
) -> Array:
    """Sum of share x (r / n)^power over numbered members, each column alone; `warn` of those that are constant."""
    shape = members[0][1].shape
    if len(shape) not in (1, 2) or not members[0][1].size:
        raise BlendError(f"ranks are taken of (n,) or (n, columns) with rows, got {shape}")
    total = np.empty(shape) if out is None else out
    total[...] = 0
    flat = total.reshape(shape[0], -1)
    groups = _groups(folds, shape[0])
    steps = [
        _Step(number, member.reshape(shape[0], -1)[:, column], flat[:, column], groups, share, power)
        for column in range(flat.shape[1])
        for (number, member), share in zip(members, shares, strict=True)
    ]
    constant = _in_turn(steps, _workers([member for _, member in members], len(steps)))
    if warn and any(constant):
        first = steps[constant.index(True)].number
        warnings.warn(
            f"{sum(constant)} of {len(constant)} columns hold one value in all their rows (the first is of member"
            f" {first}): all ranks are equal there and order nothing",
            stacklevel=4,
        )
    return total


def _groups(folds: NDArray[Any] | None, rows: int) -> list[Rows]:
    """The rows that are ranked among each other."""
    if folds is None:
        return [slice(0, rows)]
    if np.shape(folds) != (rows,):
        raise BlendError(f"{rows} rows but folds of shape {np.shape(folds)}")
    _, codes, counts = np.unique(folds, return_inverse=True, return_counts=True)
    return [*np.split(np.argsort(codes, kind="stable"), np.cumsum(counts)[:-1])]


def _workers(members: Sequence[NDArray[Any]], steps: int) -> int:
    """As many threads as there are cores, and room for what they sort; members on the disk take no memory."""
    room = max(_MEMORY_SHARE * sum(member.nbytes for member in members if not _on_disk(member)), _MEMORY_FREE)
    return max(1, min(usable_cores(), steps, int(room / (_BYTES_A_ROW * len(members[0])))))


def _on_disk(array: Any) -> bool:
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


class _Step:
    """One column of one member: ranked whenever there is a thread for it, added in its turn."""

    def __init__(
        self, number: int, column: NDArray[Any], into: Array, groups: list[Rows], share: float, power: float
    ) -> None:
        self.number = number
        self._column, self._into, self._groups = column, into, groups
        self._share, self._power = share, power

    def __call__(self, before: Future[bool] | None = None) -> bool:
        """Add the ranks to the total once the step `before` has; return whether the column is constant."""
        if before is not None and before.done():
            before.result()  # nothing more is ranked once a step has failed
        constant = True
        for rows in self._groups:
            doubled = doubled_ranks(self._checked(self._column[rows]))
            constant &= int(doubled.max()) == len(doubled) + 1
            if before is not None:
                before.result()
            self._add(rows, doubled)
        return constant

    def _checked(self, column: NDArray[Any]) -> NDArray[Any]:
        finite = (np.isfinite(column[a:b]) for a, b in pieces(0, len(column), _PIECE))
        if bad := sum(int((~piece).sum()) for piece in finite if not piece.all()):
            who = f"member {self.number} has" if self.number else "there are"
            raise BlendError(f"{who} {bad} values that are NaN or infinite; predict them again")
        return column

    def _add(self, rows: Rows, doubled: NDArray[Any]) -> None:
        for a, b in pieces(0, len(doubled), _PIECE):
            part = doubled[a:b] / (2 * len(doubled))
            if self._power != 1:
                part **= self._power
            part *= self._share
            self._into[slice(a, b) if isinstance(rows, slice) else rows[a:b]] += part


def _in_turn(steps: Sequence[_Step], workers: int) -> list[bool]:
    """Rank with threads, add in the order of the steps: sums have the same bits for any number of threads."""
    if workers == 1:
        return [step() for step in steps]
    done: list[Future[bool]] = []
    with ThreadPoolExecutor(workers) as pool:
        for step in steps:
            done.append(pool.submit(step, done[-1] if done else None))
        try:
            return [future.result() for future in done]
        finally:
            pool.shutdown(cancel_futures=True)


def doubled_ranks(column: NDArray[Any]) -> NDArray[Any]:
    """Twice the rank of each value of a finite column, ties averaged: whole numbers, as halves may occur.

    >>> doubled_ranks(np.array([0.2, 0.9, 0.2, 0.2])).tolist()
    [4, 8, 4, 4]
    """
    places = _Packed(column) if _is_packed(column) else _Ordered(column)
    doubled = np.empty(len(column), np.uint32 if len(column) < 1 << 31 else np.int64)
    start = end = 0  # of the run of equal values that reaches over the end of a piece
    for a, b in pieces(0, len(column), _PIECE):
        values = places.values(a, b)
        twice = _doubled_in(values, a, b, doubled.dtype)
        if end > a:
            twice[: end - a] = start + end + 1
        if end < b:
            start, end = a + int(np.searchsorted(values, values[-1])), places.end(values[-1])
            twice[start - a :] = start + end + 1
        doubled[places.rows(a, b)] = twice
    return doubled


def _doubled_in(values: NDArray[Any], a: int, b: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Doubled ranks of sorted values, as if those equal to the first and the last were all here."""
    twice = np.arange(2 * a + 2, 2 * b + 2, 2, dtype=dtype)
    tied = np.flatnonzero(values[1:] == values[:-1])  # to the next one
    if len(tied):
        begins = np.diff(tied, prepend=-2) > 1
        firsts, lasts = tied[begins], tied[np.append(begins[1:], True)] + 1
        means = (firsts + lasts + 2 * a + 2)[np.cumsum(begins) - 1]
        twice[tied] = means
        twice[tied + 1] = means
    return twice


def _is_packed(column: NDArray[Any]) -> bool:
    """Whether every value is a float32 exactly, and every row fits beside it."""
    return np.can_cast(column.dtype, np.float32) and len(column) < 1 << 31


class _Packed:
    """Rows in the order of their values: the value's bits and the row sorted as one integer."""

    def __init__(self, column: NDArray[Any]) -> None:
        self._sorted = np.empty(len(column), np.uint64)
        for a, b in pieces(0, len(column), _PIECE):
            bits = (column[a:b].astype(np.float32, copy=False) + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
            bits ^= (bits.view(np.int32) >> 31).view(np.uint32) | np.uint32(1 << 31)  # negative ones all, else the sign
            part = self._sorted[a:b]
            part[:] = bits
            part <<= 32
            part |= np.arange(a, b, dtype=np.uint64)
        self._sorted.sort()

    def values(self, a: int, b: int) -> NDArray[Any]:
        return self._sorted[a:b] >> 32

    def rows(self, a: int, b: int) -> NDArray[np.int64]:
        return (self._sorted[a:b] & 0xFFFFFFFF).view(np.int64)

    def end(self, value: Any) -> int:
        """Where the next larger value begins."""
        return int(np.searchsorted(self._sorted, (value + np.uint64(1)) << np.uint64(32)))


class _Ordered:
    """The same for numbers that need more bits."""

    def __init__(self, column: NDArray[Any]) -> None:
        self._column = np.ascontiguousarray(column)
        self._order = np.argsort(self._column)

    def values(self, a: int, b: int) -> NDArray[Any]:
        return self._column[self._order[a:b]]

    def rows(self, a: int, b: int) -> NDArray[np.int64]:
        return self._order[a:b]

    def end(self, value: Any) -> int:
        return int(np.searchsorted(self._column, value, side="right", sorter=self._order))
