"""Table: figures for the columns of a table, whatever they hold.

In:    a polars table; the names of its id and target columns.
Out:   facts of every column and of the target.
Next:  the survey joins them with images, repeats, groups and drift.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.folds import MAX_CLASSES
from batteries.prepare.study.facts import ClassCount, Column, Role, Table, Target

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_BINS = 24
_LONG = 60  # characters of a value that are shown
_DIGITS = 10  # characters of a number that are shown
_LEAST_ROWS = 20
_FAR = 3.0  # interquartile ranges beyond the quartiles (Tukey 1977, "far out")
_OFTEN = 0.01


def describe(table: pl.DataFrame, roles: dict[str, Role]) -> Table:
    """Return the facts of every column; `roles` says what each is."""
    columns = tuple(describe_column(column, roles[column.name]) for column in table)
    return Table(rows=len(table), bytes=int(table.estimated_size()), columns=columns)


def role_of(column: pl.Series) -> Role:
    """Say what a column holds, from its type and, for texts, from how often they come back."""
    dtype = column.dtype
    if dtype.is_numeric():
        return "number"
    if dtype.is_temporal():
        return "time"
    if dtype in (pl.Boolean, pl.Categorical, pl.Enum):
        return "category"
    if dtype == pl.String:
        return "category" if column.n_unique() <= max(2, len(column) // 2) else "text"
    return "other"


def describe_column(column: pl.Series, role: Role) -> Column:
    """Return the facts of one column."""
    missing = column.null_count() + (int(column.is_nan().sum()) if column.dtype.is_float() else 0)
    values = numbers(column)
    frequent, times = _most_frequent(column)
    edges: dict[str, Any] = {}
    if len(values):
        edges = {"minimum": float(values.min()), "maximum": float(values.max())}
    elif column.dtype.is_temporal() and column.null_count() < len(column):
        edges = {"minimum": str(column.min()), "maximum": str(column.max())}
    return Column(
        name=column.name,
        type=str(column.dtype),
        role=role,
        missing=missing,
        missing_share=missing / len(column),
        distinct=num_distinct(column),
        mean=_mean(values),
        frequent=frequent,
        frequent_share=None if times is None else times / len(column),
        histogram=histogram(values),
        **edges,
        **_outliers(values),
    )


def _outliers(values: NDArray[np.float64]) -> dict[str, Any]:
    """Count values far outside the quartiles; name one that comes back as if it meant "missing"."""
    if len(values) < _LEAST_ROWS:
        return {}
    low, high = np.quantile(values, [0.25, 0.75])
    with np.errstate(over="ignore"):
        width = high - low
    if not 0 < width < np.inf:
        return {}
    far = values[(values < low - _FAR * width) | (values > high + _FAR * width)]
    found: dict[str, Any] = {"outliers": len(far)}
    if len(far):
        different, times = np.unique(far, return_counts=True)
        often = int(times.argmax())
        alone = values[values != different[often]]
        gap = float(np.abs(alone - different[often]).min()) if len(alone) else 0.0
        if times[often] >= max(5, _OFTEN * len(values)) and gap > _FAR * width:
            found |= {"stand_in": float(different[often]), "stand_in_share": float(times[often] / len(values))}
    return found


def numbers(column: pl.Series) -> NDArray[np.float64]:
    """Return the finite values of a numeric column as float64; nothing for any other column."""
    if not column.dtype.is_numeric():
        return np.empty(0)
    values = column.cast(pl.Float64, strict=False).drop_nulls().to_numpy()
    finite: NDArray[np.float64] = values[np.isfinite(values)]
    return finite


def num_distinct(column: pl.Series) -> int | None:
    """Count different values, an empty one as a value; None for types that cannot be compared cheaply."""
    if column.dtype.is_nested() or column.dtype == pl.Object:
        return None
    return int(column.n_unique())


def looks_like_classes(column: pl.Series) -> bool:
    """Whether a target holds classes: texts, yes or no, or a few different whole numbers."""
    discrete = column.dtype.is_integer() or column.dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum)
    return discrete and 1 <= column.drop_nulls().n_unique() <= MAX_CLASSES


def describe_target(column: pl.Series, names: Sequence[str] | None) -> Target:
    """Return the facts of the target; `names` are the classes as the experiment orders them."""
    common = {"name": column.name, "type": str(column.dtype), "missing": column.null_count()}
    if looks_like_classes(column):
        return _classes(column, names, common)
    values = numbers(column)
    if not len(values):
        return Target(kind="other", **common)  # type: ignore[arg-type]
    with np.errstate(over="ignore"):
        quantiles = np.quantile(values, QUANTILES)
    return Target(
        kind="number",
        quantiles=tuple(
            (share, float(value)) for share, value in zip(QUANTILES, quantiles, strict=True) if isfinite(value)
        ),
        skewness=_skewness(values),
        histogram=histogram(values),
        **common,  # type: ignore[arg-type]
    )


def _classes(column: pl.Series, names: Sequence[str] | None, common: dict[str, object]) -> Target:
    counts = counted(column).sort("value")
    rows = counts["rows"].to_list()
    labels = [str(value) for value in counts["value"].to_list()]
    if names is None and not column.dtype.is_integer():
        names = labels
    return Target(
        kind="classes",
        classes=tuple(
            ClassCount(label=label, rows=n, share=n / len(column)) for label, n in zip(labels, rows, strict=True)
        ),
        names=None if names is None else tuple(names),
        imbalance=max(rows) / min(rows),
        **common,  # type: ignore[arg-type]
    )


def counted(column: pl.Series) -> pl.DataFrame:
    """Return the values of a column that are not empty as `value`, and in how many `rows` each occurs."""
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    return column.rename("value").drop_nulls().value_counts(name="rows")


def histogram(values: NDArray[np.float64]) -> tuple[int, ...] | None:
    """Count values in equal steps; None where there is nothing to spread.

    >>> sum(histogram(np.array([0.0, 1.0, 1.0])))
    3
    """
    if not len(values):
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        low, spread = values.min(), values.max() - values.min()
        if not isfinite(spread) or spread <= 0:
            return None
        places = np.minimum(((values - low) / spread * _BINS).astype(np.int64), _BINS - 1)
    return tuple(int(count) for count in np.bincount(places, minlength=_BINS))


def _most_frequent(column: pl.Series) -> tuple[str | None, int | None]:
    if column.dtype.is_nested() or column.dtype in (pl.Object, pl.Binary, pl.Null):
        return None, None
    counts = counted(column)
    times = counts["rows"].max()
    if not isinstance(times, int) or times < 2:
        return None, None
    values = counts.filter(pl.col("rows") == times)["value"].head(1000).to_list()
    value = min(_short(each) if isinstance(each, float) else str(each) for each in values)
    return (value if len(value) <= _LONG else f"{value[: _LONG - 1]}…"), times


def _short(number: float) -> str:
    return str(number) if len(str(number)) <= _DIGITS else f"{number:.6g}"


def _mean(values: NDArray[np.float64]) -> float | None:
    if not len(values):
        return None
    with np.errstate(over="ignore"):
        mean = float(values.mean())
    return mean if isfinite(mean) else None


def _skewness(values: NDArray[np.float64]) -> float | None:
    """Third standardised moment; None where all values are one."""
    with np.errstate(over="ignore", invalid="ignore"):
        centred = values - values.mean()
        deviation = float(np.sqrt((centred**2).mean()))
        if not isfinite(deviation) or deviation == 0:
            return None
        skewness = float(((centred / deviation) ** 3).mean())
    return skewness if isfinite(skewness) else None
