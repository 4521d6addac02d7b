"""Multi-label: folds in which every label, however rare, has its share of rows.

In:    a table whose rows have any number of labels; groups that must not be parted, if there are any.
Out:   the fold of every row.
Next:  `folds` writes them down.

Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011, "On the stratification of multi-label data"): the
label with the fewest rows left is dealt first, each row to the fold that lacks most of that label.
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
        if not self._names() or not all(isinstance(name, str) for name in self._names()):
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
        counts = np.zeros((int(groups.max()) + 1, labels.shape[1]))
        np.add.at(counts, groups, labels)
        return iterative_stratification(counts, np.bincount(groups), self.n, self.seed)[groups]


def iterative_stratification(
    labels: NDArray[np.float64], sizes: NDArray[np.int64], n: int, seed: int
) -> NDArray[np.int64]:
    """Return the fold of every unit.

    Parameters
    ----------
    labels
        Shape (units, labels): how many rows of a unit have a label; a unit is a row, or a group of rows.
    sizes
        Shape (units,): the rows of each.
    n, seed
        Folds; ties are broken by the seed.

    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))
    fold = np.full(len(labels), -1, dtype=np.int64)
    lacks = np.tile(labels.sum(axis=0) / n, (n, 1))
    room = np.full(n, sizes.sum() / n)
    left = labels.sum(axis=0)

    def deal(units: NDArray[np.int64], label: int | None) -> None:
        for unit in units:
            wish = room if label is None else lacks[:, label]
            best = np.flatnonzero(wish >= wish.max() - 1e-9)
            best = best[room[best] >= room[best].max() - 1e-9]
            chosen = best[0] if len(best) == 1 else random.choice(best)
            fold[unit] = chosen
            lacks[chosen] -= labels[unit]
            room[chosen] -= sizes[unit]
            left[:] -= labels[unit]

    while (left > 0).any():
        label = int(np.where(left > 0, left, np.inf).argmin())
        units = order[(fold[order] < 0) & (labels[order, label] > 0)]
        deal(units[np.argsort(-labels[units, label], kind="stable")], label)
    rest = order[fold[order] < 0]
    deal(rest[np.argsort(-sizes[rest], kind="stable")], None)
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
