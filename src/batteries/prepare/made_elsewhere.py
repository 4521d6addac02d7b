"""Made elsewhere: folds that a column of the table or a file of somebody else's gives.

In:    a column of folds; a CSV or Parquet file with ids and folds.
Out:   the fold of every row, or what is wrong with them.
Next:  `folds` writes them down; `split_check` looks whether they leak.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path

import numpy as np
import polars as pl

from batteries.errors import FoldsError, some
from batteries.experiment.sealed import UNREADABLE
from batteries.prepare.strategies import Fold, codes, column_of


@dataclass(frozen=True)
class Predefined:
    """Folds that a column of the table names: whole numbers, or texts in their order.

    Values are numbered anew from 0; -1 stays: such rows always train and are never held out.
    """

    column: str

    def columns(self) -> list[str]:
        """Return the columns that decide."""
        return [self.column]

    def assign(self, table: pl.DataFrame) -> Fold:
        """Return the fold of every row."""
        return numbered(column_of(table, self.column), f"column {self.column!r}")


@dataclass(frozen=True)
class FromFile:
    """Folds made elsewhere: a CSV or Parquet file with ids and folds.

    It is read once, when runs/folds.parquet is written; from then on that file is the split.

    Raises
    ------
    FoldsError
        When the file has an id twice, not all ids of the table, or others; the first five are named.

    """

    path: str
    _: KW_ONLY
    id: str = "id"
    """Column of the file and of the table."""
    fold: str = "fold"
    """Column of the file, numbered as for `Predefined`."""

    def columns(self) -> list[str]:
        """Return the columns that decide."""
        return []

    def assign(self, table: pl.DataFrame) -> Fold:
        """Return the fold of every row."""
        return read_assignment(Path(self.path), column_of(table, self.id), id=self.id, fold=self.fold)


def read_assignment(path: Path, ids: pl.Series, *, id: str = "id", fold: str = "fold") -> Fold:
    """Return the folds that a CSV or Parquet file gives the rows with these `ids`, in their order."""
    frame = _read(path)
    for name in (id, fold):
        if name not in frame.columns:
            raise FoldsError(f"{path}: has no column {name!r}; it has {some(frame.columns, 12)}. Rename its columns")
    theirs = frame[id].cast(ids.dtype, strict=False)
    if lost := frame[id].filter(theirs.is_null()).head(5).to_list():
        raise FoldsError(f"{path}: ids must be {ids.dtype} as in the table, got {lost}")
    if len(twice := theirs.filter(theirs.is_duplicated()).unique(maintain_order=True)):
        raise FoldsError(f"{path}: {len(twice)} ids occur more than once (first: {twice.head(5).to_list()})")
    given = pl.DataFrame({"id": theirs, "fold": numbered(frame[fold], f"{path}, column {fold!r}")})
    asked = pl.DataFrame({"id": ids})
    if len(unknown := given.join(asked, on="id", how="anti")["id"]):
        first = unknown.head(5).to_list()
        raise FoldsError(f"{path}: {len(unknown)} of its ids are not in the table (first: {first})")
    found = asked.join(given, on="id", how="left", maintain_order="left")
    if missing := found["fold"].null_count():
        first = found.filter(pl.col("fold").is_null())["id"].head(5).to_list()
        raise FoldsError(
            f"{path}: {missing} of {len(ids)} rows of the table have no fold (first: {first});"
            " write -1 for rows that are never held out"
        )
    return found["fold"].to_numpy()


def _read(path: Path) -> pl.DataFrame:
    """A CSV with all its values as texts, or a Parquet file."""
    if not path.is_file():
        raise FoldsError(f"{path}: there is no such file of folds")
    try:
        with open(path, "rb") as file:
            parquet = file.read(4) == b"PAR1"
        return pl.read_parquet(path, glob=False) if parquet else pl.read_csv(path, infer_schema=False, glob=False)
    except UNREADABLE as error:
        raise FoldsError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error


_MOST = 2**53
"""Above it floats skip whole numbers, so that two folds could become one."""


def numbered(column: pl.Series, what: str) -> Fold:
    """Return values as folds: numbered from 0 in their order, -1 as it is."""
    if empty := column.null_count():
        raise FoldsError(f"{what}: {empty} of its rows have no fold; write -1 for rows that are never held out")
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    numbers = column.cast(pl.Float64, strict=False)
    if not numbers.null_count():
        values = numbers.to_numpy()
        wrong = values[(values != np.floor(values)) | (values < -1) | (values > _MOST)]
        if len(wrong):
            raise FoldsError(f"{what}: folds must be whole numbers from -1 on, got {wrong[:5].tolist()}")
        column = pl.Series(values.astype(np.int64))
        none = values == -1
    else:
        none = (column == "-1").to_numpy()
    fold = np.full(len(column), -1, dtype=np.int64)
    fold[~none] = codes(column.filter(pl.Series(~none)))
    return fold
