"""Checks: what formulas cannot take, looked for in every block and said once, of all rows.

In:    blocks of members, the range of values that a formula is defined on.
Out:   BlendError with member, count, first rows and the next action; or a warning of what was clipped.
Next:  `blend` lets a block through to its formula only if nothing was found in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.errors import BlendError

Array = NDArray[np.float64]
_FIRST = 5
_SUM_ERROR = 0.01
"""Rows of class probabilities may miss 1 by what rounding to two or three digits does."""

_FAULTS = {
    "finite": "member {n} has {count} values that are NaN or infinite (first rows: {rows}); predict them again",
    "domain": "member {n} has {count} values that {how!r} does not take, such as {value:.6g} (first rows: {rows}):"
    " it needs {needs}. how='mean', 'median' and 'rank' take any number",
    "sum": "{count} rows of member {n} do not add up to 1, but to {value:.6g} for one (first rows: {rows}). If columns"
    " are labels of their own, say multilabel=True; else make them probabilities",
    "undefined": "{how!r} has no value in {count} rows (first: {rows}): what a member holds for certain, another rules"
    " out. Say how near to 0 and 1 a value may come, such as clip=1e-7",
    "overflow": "{how!r} is too large for a float64 in {count} rows (first: {rows}); scale the members",
}
"""What can be wrong, in the order in which it is said."""


@dataclass(frozen=True)
class Domain:
    """The values that a formula is defined on."""

    words: str
    low: float = -inf
    high: float = inf
    above_low: bool = False
    """Whether `low` itself is outside."""

    def outside(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Which values are not in the domain."""
        below = values <= self.low if self.above_low else values < self.low
        return below | (values > self.high)

    def holds(self, least: float, most: float) -> bool:
        """Whether all finite values between the two are in the domain."""
        return (least > self.low if self.above_low else least >= self.low) and most <= self.high


NUMBERS = Domain("finite numbers")
NOT_NEGATIVE = Domain("values of 0 or above", low=0.0)
POSITIVE = Domain("values above 0", low=0.0, above_low=True)
PROBABILITIES = Domain("probabilities from 0 to 1", low=0.0, high=1.0)


@dataclass
class _Tally:
    count: int = 0
    rows: list[int] = field(default_factory=list)
    value: float = 0.0
    """The first one."""

    def add(self, later: _Tally) -> None:
        self.value = self.value if self.count else later.value
        self.count += later.count
        self.rows = [*self.rows, *later.rows][:_FIRST]


class Findings:
    """What was found in the blocks of one stripe; `merged` in those of all."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, int], _Tally] = {}

    def note(self, what: str, member: int, bad: NDArray[np.bool_], first_row: int, value: float = 0.0) -> None:
        """Count the values that are `bad`, in a block of shape (rows,) or (rows, columns) beginning at `first_row`."""
        if not (count := int(bad.sum())):
            return
        rows = np.flatnonzero(bad if bad.ndim == 1 else bad.any(axis=1))[:_FIRST] + first_row
        self._tallies.setdefault((what, member), _Tally()).add(_Tally(count, rows.tolist(), value))

    @classmethod
    def merged(cls, parts: Iterable[Findings]) -> Findings:
        """All of them, in the order of the rows."""
        whole = cls()
        for part in parts:
            for key, tally in part._tallies.items():
                whole._tallies.setdefault(key, _Tally()).add(tally)
        return whole

    def fit(self, block: Array, numbers: Sequence[int], row: int, domain: Domain, *, classes: bool) -> bool:
        """Whether a block of (members, rows, ...) may go into its formula; what is wrong with it is noted.

        With `classes`, the last axis holds the probabilities of all classes and must add up to 1.
        """
        least, most = float(block.min()), float(block.max())  # NaN if any value is
        fine = isfinite(least) and isfinite(most) and domain.holds(least, most)
        if fine and classes:
            fine = bool((np.abs(block.sum(axis=-1) - 1) <= _SUM_ERROR).all())
        if not fine:
            for values, number in zip(block, numbers, strict=True):
                self._look_closer(values, number, row, domain, classes=classes)
        return fine

    def _look_closer(self, values: Array, number: int, row: int, domain: Domain, *, classes: bool) -> None:
        finite = np.isfinite(values)
        self.note("finite", number, ~finite, row)
        outside = domain.outside(values) & finite
        if outside.any():
            self.note("domain", number, outside, row, float(values[outside][0]))
        if classes:
            sums = values.sum(axis=-1)
            wrong = np.abs(sums - 1) > _SUM_ERROR
            if wrong.any():
                self.note("sum", number, wrong, row, float(sums[wrong][0]))

    def note_results(self, result: Array, row: int) -> None:
        """Note rows whose result is no finite number."""
        if not np.isfinite(result).all():
            rows = result.reshape(len(result), -1)
            sums = rows.sum(axis=1)
            self.note("undefined", 0, np.isnan(sums), row)
            self.note("overflow", 0, np.isinf(sums), row)

    def refuse(self, how: str, domain: Domain) -> None:
        """Raise BlendError for the first member that was found unfit, or rows without a result."""
        bad = [key for key in self._tallies if key[0] in _FAULTS]
        if not bad:
            return
        fault, number = min(bad, key=lambda key: ([*_FAULTS].index(key[0]), key[1]))
        tally = self._tallies[fault, number]
        text = _FAULTS[fault].format(
            how=how, needs=domain.words, n=number, count=tally.count, value=tally.value, rows=tally.rows
        )
        raise BlendError(text)

    def warn_of_clipping(self, clip: float, high: float, num_values: int) -> None:
        """Say how many values were clipped, and of which members."""
        found = {number: tally.count for (what, number), tally in self._tallies.items() if what == "clipped"}
        if found:
            of = ", ".join(f"member {number}: {count}" for number, count in sorted(found.items()))
            to = f"{clip:g} and above" if high == inf else f"{clip:g} to 1 - {clip:g}"
            warnings.warn(f"{sum(found.values())} of {num_values} values were clipped to {to} ({of})", stacklevel=5)


def clip_block(block: Array, numbers: Sequence[int], row: int, low: float, high: float, notes: Findings) -> None:
    """Move what lies outside of [low, high] to its border, and note how much that is of each member."""
    for values, number in zip(block, numbers, strict=True):
        notes.note("clipped", number, (values < low) | (values > high), row)
    np.clip(block, low, high, out=block)
