"""Strategies: the rules by which rows are held out, as an experiment declares them.

In:    a table; the columns that a rule looks at.
Out:   the fold of every row.
Next:  `folds` writes them down with digests; longer rules are in `time_folds`, `multilabel`, `made_elsewhere`.

Where scikit-learn has the rule, it is asked with `random_state=seed`: the same generator, the same folds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass, is_dataclass, replace
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.errors import ConfigError, FoldsError
from batteries.prepare.seed import derive_seed

Fold = NDArray[np.int64]
"""Shape (n,): 0 to n - 1 for the fold that holds a row out, -1 for a row that none does."""


@dataclass(frozen=True)
class Assigned:
    """Folds in whose training not all other rows take part."""

    fold: Fold
    trains: NDArray[np.bool_]
    """Shape (n, folds): whether a row trains when a fold is held out."""


class Strategy(Protocol):
    """What decides which row is held out when."""

    def assign(self, table: pl.DataFrame) -> Fold | Assigned:
        """Return the fold of every row; all other rows train, unless it is said which."""
        ...

    def columns(self) -> list[str]:
        """Return the columns the folds depend on."""
        ...


@dataclass(frozen=True)
class KFold:
    """Shuffled folds of equal size (scikit-learn's KFold)."""

    _: KW_ONLY
    n: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_n(self.n)

    def columns(self) -> list[str]:
        """Return the columns that decide."""
        return []

    def assign(self, table: pl.DataFrame) -> Fold:
        """Return the fold of every row."""
        from sklearn.model_selection import KFold as Splitter

        return _held_out(Splitter(enough(self.n, table), shuffle=True, random_state=self.seed), table)


@dataclass(frozen=True)
class Stratified:
    """Folds with the same share of every class, and never parting a group if there are groups.

    Scikit-learn's StratifiedKFold, with `groups` its StratifiedGroupKFold. With `bins`, the column holds numbers
    and its classes are so many quantiles; a bin that ties leave with fewer rows than folds joins the next.

    >>> Stratified("price", bins=3, n=2).assign(pl.DataFrame({"price": [9.0, 1.0, 5.0, 8.0, 4.0, 2.0]}))
    array([1, 0, 0, 0, 1, 1])
    """

    column: str
    _: KW_ONLY
    groups: str | None = None
    """Column whose equal values are held out together."""
    bins: int | None = None
    n: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_n(self.n)
        if self.bins is not None and (not isinstance(self.bins, int) or self.bins < 2):
            raise ConfigError(f"folds: bins must be a whole number >= 2, got {self.bins!r}")

    def columns(self) -> list[str]:
        """Return the columns that decide."""
        return [self.column] if self.groups is None else [self.column, self.groups]

    def assign(self, table: pl.DataFrame) -> Fold:
        """Return the fold of every row."""
        from sklearn import model_selection as sklearn

        column = column_of(table, self.column)
        enough(self.n, table)
        classes = self._checked_classes(column) if self.bins is None else _quantile_bins(column, self.bins, self.n)
        if self.groups is None:
            splitter = sklearn.StratifiedKFold(self.n, shuffle=True, random_state=self.seed)
            return _held_out(splitter, table, classes)
        groups = codes(column_of(table, self.groups))
        enough_groups(groups, self.groups, self.n)
        splitter = sklearn.StratifiedGroupKFold(self.n, shuffle=True, random_state=self.seed)
        fold = _held_out(splitter, table, classes, groups)
        if empty := sorted(set(range(self.n)) - set(fold.tolist())):
            raise FoldsError(f"{self.groups!r} has too few or too uneven groups: fold {empty[0]} got none; lower n")
        return fold

    def _checked_classes(self, column: pl.Series) -> NDArray[np.int64]:
        counts = column.alias("value").value_counts(sort=True)
        if (rarest := int(counts["count"].to_numpy().min())) < self.n:
            rare = counts.filter(pl.col("count") < self.n)["value"].to_list()
            binned = f", Stratified({self.column!r}, bins=10) for a number" if column.dtype.is_numeric() else ""
            raise FoldsError(
                f"{len(rare)} classes of {self.column!r} have fewer rows than the {self.n} folds (the rarest {rarest};"
                f" first: {rare[:5]}); use Stratified({self.column!r}, n={max(2, rarest)}) or KFold(n={self.n}){binned}"
            )
        return codes(column)


@dataclass(frozen=True)
class Grouped:
    """Folds that never part a group: all rows of one patient, user or scene are held out together.

    Groups are shuffled by the seed and dealt to the smallest fold, largest group first (the rule of
    scikit-learn's GroupKFold); written here so that ties fall the same way on every machine.
    """

    column: str
    _: KW_ONLY
    n: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_n(self.n)

    def columns(self) -> list[str]:
        """Return the columns that decide."""
        return [self.column]

    def assign(self, table: pl.DataFrame) -> Fold:
        """Return the fold of every row."""
        groups = codes(column_of(table, self.column))
        enough(self.n, table)
        enough_groups(groups, self.column, self.n)
        sizes = np.bincount(groups)
        order = np.random.default_rng(self.seed).permutation(len(sizes))
        order = order[np.argsort(-sizes[order], kind="stable")]
        rows_in, fold_of = np.zeros(self.n, dtype=np.int64), np.zeros(len(sizes), dtype=np.int64)
        for group in order:
            fold_of[group] = rows_in.argmin()
            rows_in[fold_of[group]] += sizes[group]
        return fold_of[groups]


@dataclass(frozen=True)
class HoldOut:
    """One part held out once, all other rows for training: scikit-learn's ShuffleSplit of one split.

    With `column`, of every class the same share (StratifiedShuffleSplit); with `groups`, of whole groups
    (GroupShuffleSplit: the share is of groups). Blends and calibration that are fitted fold by fold need more
    than this one fold.
    """

    share: float = 0.2
    _: KW_ONLY
    column: str | None = None
    groups: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.share, float) or not 0 < self.share < 1:
            raise ConfigError(f"folds: the share held out must be between 0 and 1, got {self.share!r}")
        if self.column is not None and self.groups is not None:
            raise ConfigError(
                "folds: HoldOut takes a column to stratify or groups, not both; fold 0 of"
                f" Stratified({self.column!r}, groups={self.groups!r}) has both"
            )

    def columns(self) -> list[str]:
        """Return the columns that decide."""
        return [name for name in (self.column, self.groups) if name is not None]

    def assign(self, table: pl.DataFrame) -> Fold:
        """Return the fold of every row."""
        from sklearn import model_selection as sklearn

        how = {"n_splits": 1, "test_size": self.share, "random_state": self.seed}
        classes = None if self.column is None else codes(column_of(table, self.column))
        groups = None if self.groups is None else codes(column_of(table, self.groups))
        plain: Any = sklearn.ShuffleSplit if classes is None else sklearn.StratifiedShuffleSplit
        splitter: Any = plain if groups is None else sklearn.GroupShuffleSplit
        try:
            return _held_out(splitter(**how), table, classes, groups)
        except ValueError as error:
            raise FoldsError(f"{self.share:.0%} of {len(table)} rows cannot be held out: {error}") from error


def repeats(strategy: Any, times: int) -> list[Any]:
    """Return `times` strategies that differ in nothing but the seed, the first of them as it is.

    Repeated k-fold: make folds of each, in a folder of runs of its own, as every split has its own board.
    The seeds are `derive_seed(seed, "repeat", number)`.

    >>> [strategy.seed for strategy in repeats(KFold(n=5), 3)]
    [0, 1896983678, 938146583]
    """
    if not is_dataclass(strategy) or not hasattr(strategy, "seed"):
        raise ConfigError(f"{type(strategy).__name__} draws nothing at random, so that repeats would all be the same")
    seeds = [derive_seed(strategy.seed, "repeat", number) for number in range(1, times)]
    return [strategy, *(replace(strategy, seed=seed) for seed in seeds)]  # type: ignore[type-var]


def _held_out(
    splitter: Any,
    table: pl.DataFrame,
    classes: NDArray[np.int64] | None = None,
    groups: NDArray[np.int64] | None = None,
) -> Fold:
    folds = np.full(len(table), -1, dtype=np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(table)), classes, groups)):
        folds[held_out] = fold
    return folds


def _quantile_bins(column: pl.Series, bins: int, least: int) -> NDArray[np.int64]:
    """The quantile of every value, ties together; each of at least so many rows."""
    if not column.dtype.is_numeric():
        raise FoldsError(f"bins are of numbers, and column {column.name!r} holds {column.dtype}; leave bins away")
    values = column.cast(pl.Float64).to_numpy()
    edges = np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1])
    found = codes(pl.Series(np.searchsorted(edges, values, side="right")))
    counts = np.bincount(found)
    joined, rows = np.zeros(len(counts), dtype=np.int64), 0
    for place, count in enumerate(counts[:-1].tolist()):
        rows += count
        enough_left = rows >= least and counts[place + 1 :].sum() >= least
        joined[place + 1] = joined[place] + enough_left
        rows = 0 if enough_left else rows
    return joined[found]


def check_n(n: Any, *, least: int = 2) -> None:
    """Refuse a number of folds that cannot be."""
    if not isinstance(n, int) or n < least:
        raise ConfigError(f"folds: n must be a whole number >= {least}, got {n!r}")


def enough(n: int, table: pl.DataFrame) -> int:
    """Return `n`, refused for a table with fewer rows."""
    if len(table) < n:
        raise FoldsError(f"the table has {len(table)} rows, fewer than {n} folds; lower n")
    return n


def enough_groups(groups: NDArray[np.int64], name: str, n: int) -> None:
    """Refuse fewer groups than folds."""
    if (count := int(groups.max()) + 1) < n:
        raise FoldsError(f"{name!r} has {count} groups, fewer than {n} folds; lower n")


def column_of(table: pl.DataFrame, name: str) -> pl.Series:
    """Return a column, refused when it is not there or has empty or NaN rows."""
    if name not in table.columns:
        raise FoldsError(f"the folds need column {name!r}; the table has {', '.join(table.columns[:12])}")
    column = table[name]
    for what, count in _gaps(column):
        if count:
            raise FoldsError(f"the folds need column {name!r}, but {count} of its rows are {what}; fill them first")
    return column


def _gaps(column: pl.Series) -> Iterator[tuple[str, int]]:
    yield "empty", column.null_count()
    if column.dtype.is_float():
        yield "NaN", int(column.is_nan().sum())


def codes(column: pl.Series) -> NDArray[np.int64]:
    """Whole numbers for values, in sorted order, whatever their type."""
    return (column.rank("dense") - 1).cast(pl.Int64).to_numpy()
