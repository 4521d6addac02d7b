"""Time folds: rows in the order of time, so that no model is judged on rows older than those it saw.

In:    a table with a column of moments, or with the start and end of what each row's target tells of.
Out:   the fold of every row, and which rows train for each fold.
Next:  `folds` writes both down.

What is fitted on out-of-fold predictions fold by fold (calibration, stacks, nested blends) is fitted on all other
folds, later ones too.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.errors import ConfigError, FoldsError
from batteries.prepare.strategies import Assigned, check_n, codes, column_of


@dataclass(frozen=True)
class TimeOrdered:
    """Blocks of later and later rows, each predicted by a model that saw earlier rows only.

    Rows of the same moment stay together, and everything is counted in different moments: of a table with one row
    a moment these are scikit-learn's TimeSeriesSplit(n, gap=gap, max_train_size=window, test_size=size). The rows
    before the first block are never held out. One fold is a hold-out of the last rows.

    >>> folds = TimeOrdered("day", n=2).assign(pl.DataFrame({"day": [1, 2, 3, 4, 5, 6]}))
    >>> folds.fold, folds.trains[:, 1].tolist()
    (array([-1, -1,  0,  0,  1,  1]), [True, True, True, True, False, False])
    """

    column: str
    """Dates, times or numbers, in any order of the rows."""
    _: KW_ONLY
    n: int = 5
    gap: int = 0
    """Moments before each block that are left out of training."""
    window: int | None = None
    """Train on so many moments at most (sliding); by default on all earlier ones (expanding)."""
    size: int | None = None
    """Moments in a block; by default as many as make n + 1 equal parts."""

    def __post_init__(self) -> None:
        check_n(self.n, least=1)
        for name, value, least in (("gap", self.gap, 0), ("window", self.window, 1), ("size", self.size, 1)):
            if value is not None and (not isinstance(value, int) or value < least):
                raise ConfigError(f"folds: {name} must be a whole number of moments >= {least}, got {value!r}")

    def columns(self) -> list[str]:
        """Return the columns that decide."""
        return [self.column]

    def assign(self, table: pl.DataFrame) -> Assigned:
        """Return the fold of every row, and who trains."""
        moment = codes(_moments(table, self.column))
        count = int(moment.max()) + 1
        size = self.size or count // (self.n + 1)
        if size < 1 or count - self.gap - size * self.n < 1:
            raise FoldsError(
                f"{self.column!r} has {count} different moments, too few for {self.n} blocks of {max(size, 1)} after a"
                f" gap of {self.gap} and something to train on; lower n, size or gap"
            )
        fold = np.full(len(table), -1, dtype=np.int64)
        trains = np.zeros((len(table), self.n), dtype=bool)
        for number in range(self.n):
            start = count - (self.n - number) * size
            fold[(moment >= start) & (moment < start + size)] = number
            end = start - self.gap
            trains[:, number] = (moment < end) & (moment >= (0 if self.window is None else end - self.window))
        return Assigned(fold, trains)


@dataclass(frozen=True)
class Purged:
    """Blocks in the order of time, all other rows for training but those whose targets tell of the block's time.

    Every row's target is known from what happens between `start` and `end`. Rows that train and overlap the time of
    the rows held out are purged, and so are those that start within an embargo after it (López de Prado 2018,
    "Advances in Financial Machine Learning", chapter 7). Without overlaps these are the blocks of scikit-learn's
    KFold without shuffling.
    """

    start: str
    """Dates, times or numbers: when the target of a row begins to be known."""
    end: str
    """Of the same type, never before the start: when it is known."""
    _: KW_ONLY
    n: int = 5
    embargo: float | str = 0
    """In units of the columns, or for dates and times a length such as `3d` or `12h` (polars' offset_by)."""

    def __post_init__(self) -> None:
        check_n(self.n)
        told = self.embargo
        if not (told[:1].isdigit() if isinstance(told, str) else 0 <= told < float("inf")):
            raise ConfigError(f"folds: the embargo must be 0 or more, or a length such as '3d', got {self.embargo!r}")

    def columns(self) -> list[str]:
        """Return the columns that decide."""
        return [self.start, self.end]

    def assign(self, table: pl.DataFrame) -> Assigned:
        """Return the fold of every row, and who trains."""
        begin, end = _moments(table, self.start), _moments(table, self.end)
        self._check(begin, end)
        fold = self._blocks(codes(begin))
        starts, ends = begin.to_physical().to_numpy(), end.to_physical().to_numpy()
        trains = np.zeros((len(table), self.n), dtype=bool)
        for number in range(self.n):
            held_out = fold == number
            last = end.filter(pl.Series(held_out)).sort()[-1:]
            after = starts > self._embargoed(last)
            trains[:, number] = ~held_out & ((ends < starts[held_out].min()) | after)
            if not trains[:, number].any():
                raise FoldsError(
                    f"no row is left to train when fold {number} of {self.n} is held out: all overlap its time or start"
                    f" within the embargo; check {self.start!r} and {self.end!r}, or take fewer folds"
                )
        return Assigned(fold, trains)

    def _check(self, begin: pl.Series, end: pl.Series) -> None:
        if begin.dtype != end.dtype:
            raise FoldsError(
                f"{self.start!r} is {begin.dtype} and {self.end!r} {end.dtype}; cast one to the type of the other"
            )
        if early := (end < begin).arg_true().to_list():
            raise FoldsError(f"{len(early)} rows end before they start (rows {early[:5]}, ...); correct {self.end!r}")
        if isinstance(self.embargo, str) != begin.dtype.is_temporal() and self.embargo != 0:
            raise FoldsError(
                f"an embargo of {self.embargo!r} does not fit column {self.start!r} of {begin.dtype}: give a number for"
                " numbers, a length such as '3d' for dates and times"
            )

    def _blocks(self, moment: NDArray[np.int64]) -> NDArray[np.int64]:
        """Equal parts of the rows in the order of time; rows of one moment go where its first row does."""
        rows = np.bincount(moment)
        first = np.cumsum(rows) - rows
        part = np.repeat(np.arange(self.n), [len(each) for each in np.array_split(moment, self.n)])
        fold: NDArray[np.int64] = part[first][moment]
        if len(np.unique(fold)) < self.n:
            raise FoldsError(f"{self.start!r} has too few different moments ({len(rows)}) for {self.n} folds; lower n")
        return fold

    def _embargoed(self, last: pl.Series) -> Any:
        """The end of the embargo after the last moment, as the number that polars stores for it."""
        if not isinstance(self.embargo, str):
            return last.to_physical()[0] + self.embargo
        try:
            return last.dt.offset_by(self.embargo).to_physical()[0]
        except pl.exceptions.PolarsError as error:
            raise FoldsError(
                f"the embargo {self.embargo!r} is no length of time that {last.dtype} takes"
                f" ({str(error).splitlines()[0]}); write 3d, 12h, ..., or turn the columns into dates"
            ) from None


def _moments(table: pl.DataFrame, name: str) -> pl.Series:
    column = column_of(table, name)
    if not (column.dtype.is_temporal() or column.dtype.is_numeric()) or column.dtype.is_decimal():
        raise FoldsError(
            f"column {name!r} is of type {column.dtype}, not dates, times or numbers; turn texts into them:"
            f" pl.col({name!r}).str.to_datetime()"
        )
    return column
