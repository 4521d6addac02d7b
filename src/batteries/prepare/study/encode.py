"""Encode: columns of any type as numbers, the same numbers in training and test.

In:    two tables and the names of columns.
Out:   arrays of float64 with NaN for what is missing.
Next:  power, associations and the adversarial classifier compute with them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

_LARGEST = 1e38
"""What float32 can hold, and float64 can square."""


def encoded(columns: Sequence[pl.Series]) -> list[NDArray[np.float64]] | None:
    """Return one column of several tables as numbers: categories by how often they occur in all, 0 the commonest.

    None for types that have no single number: times, lists, arrays, objects.
    """
    if all(column.dtype.is_numeric() or column.dtype == pl.Boolean for column in columns):
        return [_finite(column.cast(pl.Float64, strict=False)) for column in columns]
    if any(column.dtype not in (pl.String, pl.Categorical, pl.Enum) for column in columns):
        return None
    texts = [column.cast(pl.String).alias("value") for column in columns]
    counts = pl.concat(texts).drop_nulls().value_counts(name="rows").sort(["rows", "value"], descending=[True, False])
    codes = counts.select("value").with_row_index("code")
    return [
        _finite(text.to_frame().join(codes, on="value", how="left", maintain_order="left")["code"].cast(pl.Float64))
        for text in texts
    ]


def _finite(column: pl.Series) -> NDArray[np.float64]:
    values: NDArray[np.float64] = column.fill_null(float("nan")).to_numpy().astype(np.float64)
    return np.where(np.isfinite(values), values.clip(-_LARGEST, _LARGEST), np.nan)


def dealt(n: int, folds: int, seed: int) -> NDArray[np.int64]:
    """Return a fold for each of n rows, shuffled."""
    dealt: NDArray[np.int64] = np.random.default_rng(seed).permutation(np.arange(n) % folds)
    return dealt
