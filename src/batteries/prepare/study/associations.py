"""Associations: how strongly columns go together, and which say the same twice.

In:    a table.
Out:   a matrix of figures from 0 to 1.
Next:  the page draws it; advice names twins.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.study.encode import encoded
from batteries.prepare.study.findings import Associations

MOST_COLUMNS = 40
_MOST_CATEGORIES = 50  # the rarest are joined
_LEAST_ROWS = 20
_TWIN = 0.995


def associations_of(table: pl.DataFrame, names: Sequence[str]) -> Associations | None:
    """Return how strongly the columns that can be compared go together; rows where either is missing are left out.

    Two numbers: Spearman's rank correlation without its sign. Two categories: Cramer's V, corrected for bias (Bergsma
    2013). One of each: the correlation ratio of ranks, the root of the share of their variance that lies between
    categories, corrected likewise (epsilon squared, Kelley 1935).
    """
    columns = {name: values for name in names if (values := _ranked(table[name])) is not None}
    kept = list(columns)[:MOST_COLUMNS]
    if len(kept) < 2 or len(table) < _LEAST_ROWS:
        return None
    matrix = np.eye(len(kept))
    for i, one in enumerate(kept):
        for j, other in enumerate(kept[:i]):
            matrix[i, j] = matrix[j, i] = _association(columns[one], columns[other])
    twins = [
        (kept[j], kept[i], float(matrix[i, j])) for i in range(len(kept)) for j in range(i) if matrix[i, j] >= _TWIN
    ]
    return Associations(
        names=tuple(kept),
        matrix=tuple(tuple(float(value) for value in row) for row in matrix),
        twins=tuple(sorted(twins, key=lambda twin: -twin[2])),
        rows=len(table),
    )


Column = tuple[NDArray[np.float64], bool]
"""Ranks or codes, and whether they are ranks."""


def _ranked(column: pl.Series) -> Column | None:
    from scipy.stats import rankdata

    values = encoded([column])
    if values is None or len(np.unique(values[0][np.isfinite(values[0])])) < 2:
        return None
    if column.dtype.is_numeric():
        return rankdata(values[0], nan_policy="omit"), True
    return np.minimum(values[0], _MOST_CATEGORIES - 1), False


def _association(one: Column, other: Column) -> float:
    both = np.isfinite(one[0]) & np.isfinite(other[0])
    if both.sum() < _LEAST_ROWS:
        return 0.0
    a, b = one[0][both], other[0][both]
    if one[1] and other[1]:
        return _correlation(a, b)
    if one[1] or other[1]:
        ranks, codes = (a, b) if one[1] else (b, a)
        return correlation_ratio(ranks, codes.astype(np.int64))
    return cramers_v(a.astype(np.int64), b.astype(np.int64))


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return min(1.0, abs(float(a @ b)) / scale) if scale > 0 else 0.0


def correlation_ratio(values: NDArray[np.float64], codes: NDArray[np.int64]) -> float:
    """Return the root of epsilon squared of values in groups."""
    counts = np.bincount(codes)
    sums = np.bincount(codes, values)[counts > 0]
    counts = counts[counts > 0]
    total = float(((values - values.mean()) ** 2).sum())
    degrees = len(values) - len(counts)
    if total <= 0 or degrees < 1:
        return 0.0
    within = total - float((counts * (sums / counts - values.mean()) ** 2).sum())
    return float(np.sqrt(np.clip(1 - within / degrees / (total / (len(values) - 1)), 0, 1)))


def cramers_v(a: NDArray[np.int64], b: NDArray[np.int64]) -> float:
    """Return Cramer's V of two columns of codes, corrected for bias."""
    table = np.bincount(a * (b.max() + 1) + b, minlength=(a.max() + 1) * (b.max() + 1)).reshape(a.max() + 1, -1)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0].astype(np.float64)
    n, (rows, columns) = table.sum(), table.shape
    if min(rows, columns) < 2:
        return 0.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / n
    phi = max(0.0, float(((table - expected) ** 2 / expected).sum()) / n - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(rows - (rows - 1) ** 2 / (n - 1), columns - (columns - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(min(1.0, phi / smaller))) if smaller > 0 else 0.0
