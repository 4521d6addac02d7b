"""Chance: how many rows are equal by accident, because their columns hold few values; which images only look alike.

In:    a table and which rows are equal; fingerprints of images.
Out:   the pairs to expect without any copy; whether there are surprisingly many.
Next:  the study and the split check call rows and images duplicates by the same judgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.duplicates import PICTURE_LIKENESS, Fingerprints, Pairs, key_of, likeness_of, near_images

_MOST_COLUMNS = 100  # left out one after the other to see how often the rest agrees
_LEVEL, _TIMES = 1e-3, 3.0
_FLOOR = 0.1  # pairs that agree in a column where none does


def pairs_of(group: NDArray[np.int64]) -> int:
    """Return how many pairs of rows are of one group."""
    sizes = np.bincount(group)
    return int((sizes * (sizes - 1) // 2).sum())


def surprising(pairs: int, expected: float) -> bool:
    """Whether so many pairs are three times what is expected, and no accident (Poisson, one in a thousand)."""
    from scipy.stats import poisson

    return pairs > _TIMES * expected and float(poisson.sf(pairs - 1, expected)) < _LEVEL


def look_alikes(prints: Fingerprints) -> tuple[Pairs, int]:
    """Return the pairs of images that are nearly the same, and how many were left out as alike by accident.

    Among many images some look alike. As pictures grow less alike, such pairs become more, at least in proportion:
    those at up to twice the distance allowed to near-duplicates are then no fewer than near-duplicates. Only where
    near-duplicates outnumber them (Poisson, one in a thousand) do copies stand out; pairs whose small pictures are
    the same to the last bit count in any case.
    """
    from scipy.stats import poisson

    wide = near_images(prints, likeness=2 * PICTURE_LIKENESS - 1)
    same = (prints.pictures[wide[:, 0]] == prints.pictures[wide[:, 1]]).all(axis=1)
    near = ~same & (likeness_of(prints, wide) >= PICTURE_LIKENESS)
    close, beyond = int(near.sum()), int((~same & ~near).sum())
    if close > beyond and float(poisson.sf(close - 1, beyond)) < _LEVEL:
        return wide[same | near], 0
    return wide[same], close


def expected_pairs(table: pl.DataFrame, columns: Sequence[str], groups: NDArray[np.int64]) -> float:
    """Pairs that would be equal without any copy, told from pairs that are equal in all columns but one.

    The larger of two estimates. Were columns independent with chances a of agreeing, pairs that differ in exactly one
    column would outnumber equal ones by the sum of (1 - a) / a; one more such pair is assumed than there is, so that
    none is no certainty. And whatever columns depend on each other, rows that differ by one step in one ordered column
    (31 and 32 years, all else the same) are twice as many as rows that do not differ in it: a distribution of
    differences is even around 0, copies stand out of it. In a column of mostly different values repeated rows
    themselves say nothing about chance, and steps mean nothing.

    Parameters
    ----------
    table, columns
        What is compared.
    groups
        Shape (n,): the first row that each row equals.

    """
    keys = {name: key for name in columns[:_MOST_COLUMNS] if (key := key_of(table[name])) is not None}
    all_pairs = max(1.0, len(table) * (len(table) - 1) / 2)
    whole = np.zeros(len(table), dtype=np.uint64)
    for key in keys.values():
        whole += _hashed(key)
    once = groups == np.arange(len(groups))
    equal, but_one, odds, steps = _pairs(groups), 0.0, 0.0, 0.0
    for name, key in keys.items():
        own = _hashed(key)
        different = key.n_unique() > len(key) / 2
        agreeing = max(_pairs(own[once] if different else own), _FLOOR) / all_pairs
        odds += (1 - agreeing) / agreeing
        but_one += max(0.0, _pairs(whole - own) - equal)
        if not different and (table[name].dtype.is_numeric() or table[name].dtype.is_temporal()):
            steps = max(steps, _step_pairs(table[name], whole - own))
    return max((but_one + 1) / odds if odds > 0 else all_pairs, steps / 2)


def _step_pairs(column: pl.Series, rest: NDArray[np.uint64]) -> float:
    """Pairs of rows that agree in the rest and are neighbours in the order of this column's values."""
    rows = pl.DataFrame({"rest": rest, "level": column.rank("dense")}).drop_nulls()
    counts = rows.group_by("rest", "level").agg(pl.len().cast(pl.Float64).alias("rows"))
    several = counts.filter(pl.len().over("rest") > 1)
    above = several.with_columns(pl.col("level") - 1)
    return float(several.join(above, on=["rest", "level"]).select((pl.col("rows") * pl.col("rows_right")).sum()).item())


def _hashed(key: pl.Series) -> NDArray[np.uint64]:
    values: NDArray[np.uint64] = key.to_frame().hash_rows(seed=3).to_numpy()
    return values


def _pairs(hashes: NDArray[Any]) -> float:
    """Pairs of equal values."""
    counts = pl.Series("value", hashes).value_counts()["count"].cast(pl.Float64).to_numpy()
    return float((counts * (counts - 1) / 2).sum())
