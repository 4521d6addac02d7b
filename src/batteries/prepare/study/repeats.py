"""Repeats: rows that occur twice, in training or in training and test.

In:    tables without their id and target.
Out:   counts, ids of the first few, and how many to expect by chance.
Next:  advice to drop them or to keep them in one fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.duplicates import first_of, key_of, row_keys
from batteries.prepare.study.facts import Repeats

_SHOWN = 5
_MOST_COLUMNS = 100  # left out one after the other to see how often the rest agrees
_LEVEL, _TIMES = 1e-3, 3.0
_FLOOR = 0.1  # pairs that agree in a column where none does


def repeats_of(
    train: pl.DataFrame,
    columns: Sequence[str],
    ids: pl.Series,
    target: pl.Series,
    test: pl.DataFrame | None = None,
    *,
    accidents: bool = True,
) -> Repeats | None:
    """Compare rows in some columns. None where none of them can be compared.

    Parameters
    ----------
    train, columns
        What must be equal.
    ids, target
        Names of the rows, and what to call a conflict when it differs.
    test
        The test table; left aside unless it has these columns with the same types.
    accidents
        Whether rows may be equal by accident. Images are not.

    """
    keys = row_keys(train, columns)
    if keys is None:
        return None
    groups = first_of(keys)
    sizes = np.bincount(groups, minlength=len(groups))
    several = np.flatnonzero(sizes > 1)
    pairs = int((sizes * (sizes - 1) // 2).sum())
    shared = _shared(train, keys, test, columns)
    expected = _by_chance(train, columns, groups) if accidents and (len(several) or shared) else 0.0
    across = 0.0 if test is None else expected * 2 * len(test) / len(train)
    return Repeats(
        repeated=len(groups) - int((sizes > 0).sum()),
        pairs=pairs,
        expected=expected,
        conflicting=_conflicting(groups, sizes, target),
        shared=shared,
        first=_first(groups, several, ids),
        by_accident=pairs > 0 and not _surprising(pairs, expected),
        shared_by_accident=bool(shared) and not _surprising(shared or 0, across),
    )


def _first(groups: NDArray[np.int64], several: NDArray[np.int64], ids: pl.Series) -> tuple[tuple[str, ...], ...]:
    rows = [np.flatnonzero(groups == one)[:_SHOWN] for one in several[:_SHOWN]]
    return tuple(tuple(ids.gather(some).cast(pl.String).to_list()) for some in rows)


def _conflicting(groups: NDArray[np.int64], sizes: NDArray[np.int64], target: pl.Series) -> int:
    """Rows equal to another one that has another target."""
    label = key_of(target)
    if label is None:
        return 0
    rows = pl.DataFrame({"group": groups, "target": label.alias("target")}).filter(sizes[groups] > 1)
    mixed = rows.group_by("group").agg(pl.len().alias("rows"), pl.col("target").n_unique().alias("targets"))
    return int(mixed.filter(pl.col("targets") > 1)["rows"].sum())


def _shared(train: pl.DataFrame, keys: pl.DataFrame, test: pl.DataFrame | None, columns: Sequence[str]) -> int | None:
    if test is None or not set(columns) <= set(test.columns):
        return None
    if any(train[name].dtype != test[name].dtype for name in columns):
        return None
    others = row_keys(test, columns)
    return None if others is None else len(others.join(keys.unique(), on=keys.columns, how="semi"))


def _by_chance(train: pl.DataFrame, columns: Sequence[str], groups: NDArray[np.int64]) -> float:
    """Pairs that would be equal if each column agreed on its own, given how many agree in all but one.

    Were columns independent with chances a of agreeing, pairs that differ in exactly one column would outnumber equal
    ones by the sum of (1 - a) / a. One more such pair is assumed than there is, so that none is no certainty. In a
    column of mostly different values repeated rows themselves say nothing about chance.
    """
    keys = [key for name in columns[:_MOST_COLUMNS] if (key := key_of(train[name])) is not None]
    all_pairs = max(1.0, len(train) * (len(train) - 1) / 2)
    whole = np.zeros(len(train), dtype=np.uint64)
    for key in keys:
        whole += _hashed(key)
    once = groups == np.arange(len(groups))
    equal, but_one, odds = _pairs(groups), 0.0, 0.0
    for key in keys:
        own = _hashed(key)
        different = key.n_unique() > len(key) / 2
        agreeing = max(_pairs(own[once] if different else own), _FLOOR) / all_pairs
        odds += (1 - agreeing) / agreeing
        but_one += max(0.0, _pairs(whole - own) - equal)
    return (but_one + 1) / odds if odds > 0 else all_pairs


def _hashed(key: pl.Series) -> NDArray[np.uint64]:
    values: NDArray[np.uint64] = key.to_frame().hash_rows(seed=3).to_numpy()
    return values


def _pairs(hashes: NDArray[Any]) -> float:
    """Pairs of equal values."""
    counts = pl.Series("value", hashes).value_counts()["count"].cast(pl.Float64).to_numpy()
    return float((counts * (counts - 1) / 2).sum())


def _surprising(pairs: int, expected: float) -> bool:
    from scipy.stats import poisson

    return pairs > _TIMES * expected and float(poisson.sf(pairs - 1, expected)) < _LEVEL
