"""Repeats: rows that occur twice, in training or in training and test.

In:    tables without their id and target.
Out:   counts, ids of the first few, and how many to expect by chance.
Next:  advice to drop them or to keep them in one fold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.chance import expected_pairs, pairs_of, surprising
from batteries.prepare.duplicates import first_of, key_of, row_keys
from batteries.prepare.study.facts import Repeats

_SHOWN = 5


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
    pairs = pairs_of(groups)
    shared = _shared(train, keys, test, columns)
    expected = expected_pairs(train, columns, groups) if accidents and (len(several) or shared) else 0.0
    across = 0.0 if test is None else expected * 2 * len(test) / len(train)
    return Repeats(
        repeated=len(groups) - int((sizes > 0).sum()),
        pairs=pairs,
        expected=expected,
        conflicting=_conflicting(groups, sizes, target),
        shared=shared,
        first=_first(groups, several, ids),
        by_accident=pairs > 0 and not surprising(pairs, expected),
        shared_by_accident=bool(shared) and not surprising(shared or 0, across),
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
