"""Repeats: rows that occur twice, in training or in training and test.

In:    tables without their id and target.
Out:   counts, ids of the first few, and how many to expect by chance.
Next:  advice to drop them or to keep them in one fold.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.study.facts import Repeats
from batteries.prepare.study.table import counted

_SHOWN = 5


def key_of(column: pl.Series) -> pl.Series | None:
    """Return a column whose equal values mean equal values of `column`; None for objects.

    Arrays of numbers become digests of their bytes; lists and structs polars' own 64-bit hashes.
    """
    if column.dtype == pl.Object:
        return None
    if column.dtype in (pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    if isinstance(column.dtype, pl.Array) and not column.null_count():
        array = column.to_numpy()
        if array.dtype.kind in "iufb":
            return pl.Series(column.name, digests(array), dtype=pl.Binary)
    return column.hash() if column.dtype.is_nested() else column


def digests(array: NDArray[np.generic]) -> list[bytes]:
    """Return 16 bytes for each row of an array that are equal exactly where the rows are."""
    return [blake2b(row.tobytes(), digest_size=16).digest() for row in array]


def keys_of(table: pl.DataFrame, columns: list[str]) -> pl.DataFrame:
    """Return the keys of some columns, those left out that cannot be compared."""
    keys = [key for name in columns if (key := key_of(table[name])) is not None]
    return pl.DataFrame(keys)


def repeats_of(
    keys: pl.DataFrame, ids: pl.Series, target: pl.Series, test_keys: pl.DataFrame | None = None
) -> Repeats | None:
    """Compare rows by their keys.

    Parameters
    ----------
    keys
        What must be equal, one row a training row.
    ids, target
        Names of the rows, and what to call a conflict when it differs.
    test_keys
        The same for the test table; left aside unless names and types are those of `keys`.

    """
    if not keys.width:
        return None
    names = [f"key{i}" for i in range(keys.width)]
    label = key_of(target)
    rows = pl.DataFrame([key.rename(name) for key, name in zip(keys, names, strict=True)]).with_columns(
        ids.cast(pl.String).alias("id"), (pl.Series(range(len(ids))) if label is None else label).alias("target")
    )
    groups = rows.group_by(names, maintain_order=True).agg(
        pl.len().alias("rows"), pl.col("target").n_unique().alias("targets"), pl.col("id").head(_SHOWN).alias("ids")
    )
    several = groups.filter(pl.col("rows") > 1)
    conflicting = 0 if label is None else several.filter(pl.col("targets") > 1)["rows"].sum()
    return Repeats(
        repeated=len(rows) - len(groups),
        expected=_by_chance(keys),
        conflicting=int(conflicting),
        shared=_shared(keys, test_keys),
        first=tuple(tuple(ids) for ids in several["ids"].head(_SHOWN).to_list()),
    )


def _shared(keys: pl.DataFrame, test_keys: pl.DataFrame | None) -> int | None:
    if test_keys is None or test_keys.schema != keys.schema:
        return None
    return len(test_keys.join(keys.unique(), on=keys.columns, how="semi", nulls_equal=True))


def _by_chance(keys: pl.DataFrame) -> float:
    """Pairs of rows times the chance that a pair agrees in every column, were they independent.

    In a column of mostly different values (a text, a measurement) only empty ones agree by chance.
    """
    n = len(keys)
    expected = pairs = n * (n - 1) / 2
    for key in keys:
        counts = [] if key.dtype == pl.Null else counted(key)["rows"].to_list()
        agreeing = np.array([*(counts if len(counts) <= n / 2 else []), key.null_count()], dtype=np.float64)
        expected *= float((agreeing * (agreeing - 1) / 2).sum()) / max(1.0, pairs)
    return min(float(n), expected)
