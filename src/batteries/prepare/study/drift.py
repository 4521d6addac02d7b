"""Drift: columns that are not the same in training and test.

In:    the training and test tables.
Out:   a distance for every column that can be compared, flagged where it is large and no accident.
Next:  advice not to trust validation on such columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.study.facts import Drift
from batteries.prepare.study.table import counted, numbers

_LEVEL = 0.001  # chance of one false alarm in the whole table
_LARGE = 0.1  # smallest distance worth a word
_LEAST_ROWS = 20
_MOST_CATEGORIES = 1000
_BINS = 24


def drift_of(
    train: pl.DataFrame, test: pl.DataFrame, columns: Sequence[str], *, more: Sequence[Drift] = ()
) -> tuple[Drift, ...]:
    """Compare `columns` of both tables, and join what was compared otherwise; largest distance first.

    A difference is clear if its distance is at least 0.1 and its p-value, multiplied by the number of
    comparisons (Bonferroni), is below 0.001.
    """
    found = [*(drift for name in columns for drift in _compare(train[name], test[name])), *more]
    level = _LEVEL / max(1, len(found))
    judged = [replace(drift, clear=drift.distance >= _LARGE and drift.p_value < level) for drift in found]
    return tuple(sorted(judged, key=lambda drift: (not drift.clear, -drift.distance, drift.column)))


def _compare(train: pl.Series, test: pl.Series) -> list[Drift]:
    found: list[Drift | None] = []
    if train.dtype.is_numeric() and test.dtype.is_numeric():
        found.append(drift_of_values(train.name, numbers(train), numbers(test)))
    elif train.dtype.is_temporal() and train.dtype == test.dtype and train.dtype != pl.Duration:
        a, b = (numbers(column.to_physical()) for column in (train, test))
        found.append(drift_of_values(train.name, a, b, ends=(_middle(train), _middle(test))))
    elif _is_category(train) and _is_category(test):
        found.append(_categories(train, test))
    if train.null_count() or test.null_count():
        found.append(_missing(train, test))
    return [drift for drift in found if drift is not None]


def _middle(column: pl.Series) -> str:
    return f"median {column.drop_nulls().sort()[column.drop_nulls().len() // 2]}" if column.drop_nulls().len() else ""


def _is_category(column: pl.Series) -> bool:
    known = column.dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum)
    return known and column.n_unique() <= min(_MOST_CATEGORIES, len(column) // 2)


def drift_of_values(
    name: str, train: NDArray[np.float64], test: NDArray[np.float64], *, ends: tuple[str, str] | None = None
) -> Drift | None:
    """Two-sample Kolmogorov-Smirnov (scipy), with its large-sample p-value; None for fewer than 20 rows."""
    from scipy.stats import ks_2samp

    if min(len(train), len(test)) < _LEAST_ROWS:
        return None
    result = ks_2samp(train, test, method="asymp")
    ends = ends or (f"mean {train.mean():.4g}", f"mean {test.mean():.4g}")
    return Drift(
        column=name,
        measure="values",
        distance=float(result.statistic),
        p_value=float(result.pvalue),
        clear=False,
        train=ends[0],
        test=ends[1],
        **_shares(train, test),
    )


def _shares(train: NDArray[np.float64], test: NDArray[np.float64]) -> dict[str, Any]:
    """Both as histograms over the same steps."""
    tails = np.array([np.quantile(values, [0.005, 0.995]) for values in (train, test)])
    low, high = float(tails[:, 0].min()), float(tails[:, 1].max())
    with np.errstate(over="ignore"):
        if not 0 < np.subtract(high, low) < np.inf:
            return {}
    counts = [np.histogram(values.clip(low, high), _BINS, (low, high))[0] / len(values) for values in (train, test)]
    return {"edges": (low, high), "shares": tuple(tuple(share.round(5).tolist()) for share in counts)}


def _categories(train: pl.Series, test: pl.Series) -> Drift | None:
    names = ("train", "test")
    counts = [
        counted(column.cast(pl.String).fill_null("(empty)")).rename({"rows": name})
        for column, name in zip((train, test), names, strict=True)
    ]
    both = counts[0].join(counts[1], on="value", how="full", coalesce=True).fill_null(0).sort("value")
    found = _variation(train.name, both.select(names).to_numpy().T.astype(np.float64))
    if found is None:
        return None
    shares = both.with_columns((pl.col(name) / pl.col(name).sum()).alias(name) for name in names)
    moved = shares.sort((pl.col("train") - pl.col("test")).abs(), descending=True).row(0, named=True)
    value = str(moved["value"])[:40]
    texts = [f"{value!r} in {moved[name]:.1%}" for name in names]
    return replace(found, train=texts[0], test=texts[1])


def _missing(train: pl.Series, test: pl.Series) -> Drift | None:
    counts = [[column.null_count(), len(column) - column.null_count()] for column in (train, test)]
    found = _variation(train.name, np.array(counts, dtype=np.float64))
    if found is None:
        return None
    texts = [f"{empty / (empty + there):.1%} missing" for empty, there in counts]
    return replace(found, measure="missing", train=texts[0], test=texts[1])


def _variation(name: str, counts: NDArray[np.float64]) -> Drift | None:
    """Total variation of two rows of counts, and the chi-square p-value with rare categories joined."""
    from scipy.stats import chi2_contingency

    if counts.sum(axis=1).min() < _LEAST_ROWS:
        return None
    shares = counts / counts.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    rare = (counts.sum(axis=0) * counts.sum(axis=1).min() / counts.sum()) < 5  # fewer than five expected
    joined = np.concatenate([counts[:, ~rare], counts[:, rare].sum(axis=1, keepdims=True)], axis=1)
    joined = joined[:, joined.sum(axis=0) > 0]
    p_value = float(chi2_contingency(joined).pvalue) if joined.shape[1] > 1 else 1.0
    return Drift(column=name, measure="categories", distance=distance, p_value=p_value, clear=False, train="", test="")
