"""Multi-label: folds in which every label, however rare, has its share of rows.

In:    a table whose rows have any number of labels; groups that must not be parted, if there are any.
Out:   the fold of every row.
Next:  `folds` writes them down.

As in iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011, "On the stratification of multi-label data"),
rows with rare labels are dealt first, to the fold that lacks them most. Here all labels of a row count, so that
whole groups, which have many, can be dealt as well.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.errors import ConfigError, FoldsError
from batteries.prepare.strategies import Fold, check_n, codes, column_of, enough, enough_groups


@dataclass(frozen=True)
class MultiLabel:
    """Folds with the same share of every label of a multi-label target, never parting a group if there are groups.

    >>> table = pl.DataFrame({"cat": [1, 1, 0, 0], "dog": [0, 1, 1, 0]})
    >>> sorted(MultiLabel(("cat", "dog"), n=2).assign(table).tolist())
    [0, 0, 1, 1]
    """

    column: str | tuple[str, ...]
    """Columns of 0 and 1; or one column of lists: as many 0s and 1s in each, or the names of a row's labels."""
    _: KW_ONLY
    groups: str | None = None
    """Column whose equal values are held out together."""
    n: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        check_n(self.n)
        if not self.column or not all(isinstance(name, str) for name in self._names()):
            raise ConfigError(f"folds: MultiLabel needs the name of a column, or a tuple of names, got {self.column!r}")

    def _names(self) -> list[str]:
        return [self.column] if isinstance(self.column, str) else list(self.column)

    def columns(self) -> list[str]:
        """Return the columns that decide."""
        return [*self._names(), *([] if self.groups is None else [self.groups])]

    def assign(self, table: pl.DataFrame) -> Fold:
        """Return the fold of every row."""
        enough(self.n, table)
        labels = label_matrix(table, self._names())
        groups = np.arange(len(table)) if self.groups is None else codes(column_of(table, self.groups))
        if self.groups is not None:
            enough_groups(groups, self.groups, self.n)
        counts = np.zeros((int(groups.max()) + 1, 1 + labels.shape[1]))
        np.add.at(counts, groups, np.insert(labels, 0, 1, axis=1))  # rows are shared out as labels are
        return balanced(counts, self.n, self.seed)[groups]


def balanced(counts: NDArray[np.float64], n: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of every unit, so that each column is shared out evenly.

    Units are dealt from the one with the largest shares (sum of squares) on, each to the fold where the sum of squared
    deviations from 1 / n, over all columns as shares of their totals, grows least. Ties in order are broken by the
    seed.

    Parameters
    ----------
    counts
        Shape (units, columns), none below 0: what a unit brings of each column; a unit is a row or a group of rows.

    Raises
    ------
    FoldsError
        When a fold stays empty.

    """
    shares = counts[:, counts.any(axis=0)]
    shares = shares / shares.sum(axis=0)
    order = np.random.default_rng(seed).permutation(len(shares))
    order = order[np.argsort(-(shares[order] ** 2).sum(axis=1), kind="stable")]
    filled, fold = np.zeros((n, shares.shape[1])), np.empty(len(shares), dtype=np.int64)
    for unit in order:
        # of the sum of squares; not a matrix product, whose rounding differs from one processor to another
        growth = ((2 * filled + shares[unit]) * shares[unit]).sum(axis=1)
        fold[unit] = growth.argmin()
        filled[fold[unit]] += shares[unit]
    if len(empty := np.setdiff1d(np.arange(n), fold)):
        raise FoldsError(f"fold {empty[0]} of {n} got no rows: labels and groups are too uneven; lower n")
    return fold


def label_matrix(table: pl.DataFrame, names: list[str]) -> NDArray[np.float64]:
    """Return 0 and 1, shape (rows, labels).

    Raises
    ------
    FoldsError
        When a column holds something else.

    """
    column = column_of(table, names[0])
    if len(names) == 1 and column.dtype.base_type() == pl.List and column.dtype.inner == pl.String:  # type: ignore[attr-defined]
        found = pl.DataFrame({"row": np.arange(len(column)), "label": column}).explode("label").drop_nulls()
        if not len(found):
            raise FoldsError(f"no row of {names[0]!r} has a label; use KFold")
        matrix = np.zeros((len(column), found["label"].n_unique()))
        matrix[found["row"].to_numpy(), codes(found["label"])] = 1
        return matrix
    if len(names) == 1 and column.dtype.is_nested():
        lengths = column.list.len().unique().sort().to_list() if column.dtype.base_type() == pl.List else []
        if len(lengths) > 1:
            raise FoldsError(f"{names[0]!r} holds lists of {lengths[0]} to {lengths[-1]} values, not one length")
        values = np.array(column.to_list())
    else:
        values = np.stack([column_of(table, name).cast(pl.Float64, strict=False).to_numpy() for name in names], axis=1)
    if values.ndim != 2 or not np.isin(values, (0, 1)).all():
        raise FoldsError(f"the labels in {', '.join(names)} must be 0 or 1 each, or lists of names")
    return values.astype(np.float64)
