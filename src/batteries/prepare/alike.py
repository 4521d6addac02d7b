"""Alike: rows of a table that say the same, or nearly, in what a model sees.

In:    a table; the columns that are no features.
Out:   for each kind of likeness a group number for every row.
Next:  `split_check` looks whether folds part such groups; `duplicate_groups` makes a column of them to split by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.duplicates import (
    Fingerprints,
    Pairs,
    equal_rows,
    fingerprints,
    groups_of_pairs,
    near_images,
    near_texts,
)
from batteries.prepare.folds import MAX_CLASSES
from batteries.prepare.pictures import SUFFIXES, Picture, Unreadable, read_pictures
from batteries.prepare.strategies import codes, column_of
from batteries.prepare.study.images import pixels_of
from batteries.progress import Progress

Likeness = Literal["duplicates", "near-duplicates"]

_TEXT = 40
"""Characters of a text on average, so that its pieces tell it from others; shorter ones are names and codes."""
_LOOK = 200
"""Values of a column that are looked at to say whether they are image files."""


@dataclass(frozen=True)
class Alike:
    """Groups of rows that are alike in one respect."""

    kind: Likeness
    where: str
    """In words: which columns were compared."""
    group: NDArray[np.int64]
    """Shape (n,): rows of one group have one number."""


@dataclass(frozen=True)
class Found:
    """All likeness in a table, and what could not be compared."""

    alike: tuple[Alike, ...]
    notes: tuple[str, ...]


def alike_rows(table: pl.DataFrame, *, apart: Sequence[str], show: bool = True) -> Found:
    """Find rows that are equal in all features, and texts and images that are nearly the same.

    Parameters
    ----------
    table
        Image columns hold arrays or paths of files, seen from the working folder.
    apart
        Columns that are no features: id, target, groups, folds. Row numbers are left out in any case.
    show
        Whether to show a bar while texts and images are compared.

    """
    names = [name for name in table.columns if name not in apart and not _row_number(table[name])]
    found: list[Alike] = []
    notes: list[str] = []
    features = [name for name in names if _varies(table[name])]
    notes += _hidden(table, features)
    if features:
        chance = expected_by_chance(table, features)
        if chance >= 1:
            notes.append(
                f"rows are not compared whole: with so few values in {_columns(features)}, about {chance:,.0f} pairs"
                " are equal by chance"
            )
        else:
            found.append(Alike("duplicates", _columns(features), equal_rows(table, features)))
    else:
        notes.append("rows are not compared: beside id and target no column differs from row to row")
    for name in names:
        near = _near(table[name], show, notes)
        if near is not None:
            found.append(Alike("near-duplicates", _columns([name]), groups_of_pairs(len(table), near)))
    return Found(tuple(found), tuple(notes))


def _hidden(table: pl.DataFrame, features: Sequence[str]) -> Iterator[str]:
    """Rows that would be equal but for columns that name each row, or tell when it came."""
    telling = [name for name in features if _names_rows(table[name])]
    others = [name for name in features if name not in telling]
    if telling and others and expected_by_chance(table, others) < 1:
        again = int((equal_rows(table, others) != np.arange(len(table))).sum())
        if again:
            yield (
                f"{again:,} rows repeat another in all but {_columns(telling)}, different in every row; they count"
                " as duplicates once table() leaves that out"
            )


def _names_rows(column: pl.Series) -> bool:
    """Whether a column of moments or short texts, but no files, has another value in every row."""
    if not (column.dtype == pl.String or column.dtype.is_temporal()) or column.n_unique() < len(column):
        return False
    return column.dtype != pl.String or not (_holds_files(column) or _holds_texts(column))


def duplicate_groups(
    table: pl.DataFrame, *, id: str = "id", target: str = "target", groups: str | None = None, show: bool = False
) -> NDArray[np.int64]:
    """Number the rows so that duplicates and near-duplicates have one number: a column to hold out together.

    With `groups`, rows of one value of that column have one number too, and so has all that this joins.

    >>> table = pl.DataFrame({"id": [1, 2, 3, 4], "x": [0.5, 0.7, 0.5, 0.9], "target": [0, 1, 0, 1]})
    >>> table.with_columns(same=duplicate_groups(table))["same"].to_list()  # then: folds = bt.Grouped("same")
    [0, 1, 0, 3]
    """
    apart = [id, target, *([] if groups is None else [groups])]
    every = [each.group for each in alike_rows(table, apart=apart, show=show).alike]
    if groups is not None:
        every.append(codes(column_of(table, groups)))
    links = [np.stack([_first(group)[group], np.arange(len(group))], axis=1) for group in map(_dense, every)]
    pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *links])
    return groups_of_pairs(len(table), pairs[pairs[:, 0] != pairs[:, 1]])


def _dense(group: NDArray[np.int64]) -> NDArray[np.int64]:
    return codes(pl.Series(group))


def _first(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first row of each group."""
    return np.unique(group, return_index=True)[1].astype(np.int64)


def expected_by_chance(table: pl.DataFrame, names: Sequence[str]) -> float:
    """Return how many pairs of rows would be equal if columns were independent; 0 where one tells rows apart.

    The chance of a pair is the product over the columns of sum c (c - 1) / (n (n - 1)), c rows of each value.
    A column tells rows apart if it has more than `MAX_CLASSES` values, more than half as many as there are rows, or
    lists and arrays.
    """
    n = len(table)
    pairs = n * (n - 1) / 2
    for name in names:
        if _uncounted(table[name]) or table[name].n_unique() > min(MAX_CLASSES, n // 2):
            return 0.0
        counts = table[name].alias("value").value_counts()["count"].cast(pl.Float64).to_numpy()
        pairs *= float((counts * (counts - 1)).sum()) / (n * (n - 1))
    return pairs


def _varies(column: pl.Series) -> bool:
    return _uncounted(column) or column.n_unique() > 1


def _uncounted(column: pl.Series) -> bool:
    return column.dtype.is_nested() or column.dtype == pl.Object


def _row_number(column: pl.Series) -> bool:
    """Whether a column only counts the rows, as pandas' index does."""
    if not column.dtype.is_integer() or column.null_count() or len(column) < 2:
        return False
    low, high = column.min(), column.max()
    return column.n_unique() == len(column) and int(high) - int(low) == len(column) - 1  # type: ignore[arg-type]


def _near(column: pl.Series, show: bool, notes: list[str]) -> Pairs | None:
    """Pairs of texts or images that are nearly the same; None for columns that hold neither."""
    if column.dtype == pl.String:
        if _holds_files(column):
            return _near_files(column, show, notes)
        if _holds_texts(column):
            there = np.flatnonzero(column.is_not_null().to_numpy())
            with Progress(f"comparing {column.name}", total=1, show=show):
                return there[near_texts(column.drop_nulls().to_list())]
    elif (pixels := pixels_of(column)) is not None:
        there = np.flatnonzero(column.is_not_null().to_numpy())
        with Progress(f"comparing {column.name}", total=1, show=show):
            return there[near_images(fingerprints(pixels))]
    return None


def _holds_files(column: pl.Series) -> bool:
    first = column.drop_nulls().head(_LOOK)
    return len(first) > 0 and all(text.lower().endswith(SUFFIXES) for text in first)


def _holds_texts(column: pl.Series) -> bool:
    lengths = column.drop_nulls().str.len_chars()
    return len(lengths) > 1 and float(lengths.mean()) >= _TEXT and column.n_unique() > len(column) // 2  # type: ignore[arg-type]


def _near_files(column: pl.Series, show: bool, notes: list[str]) -> Pairs | None:
    there = np.flatnonzero(column.is_not_null().to_numpy())
    pictures = read_pictures([Path(path) for path in column.drop_nulls()], show=show)
    readable = [picture for picture in pictures if isinstance(picture, Picture)]
    if bad := [each for each in pictures if isinstance(each, Unreadable)]:
        notes.append(f"{len(bad)} files of {column.name!r} are not compared (first: {bad[0].path}: {bad[0].reason})")
    if not readable:
        return None
    places = there[[place for place, each in enumerate(pictures) if isinstance(each, Picture)]]
    prints = Fingerprints(
        np.array([each.hash for each in readable], dtype=np.uint64), np.stack([each.grey for each in readable])
    )
    return places[near_images(prints)]


def _columns(names: Sequence[str]) -> str:
    return (
        f"column {names[0]}" if len(names) == 1 else f"all {len(names)} columns ({', '.join(names[:3])}{_more(names)})"
    )


def _more(names: Sequence[str]) -> str:
    return ", ..." if len(names) > 3 else ""
