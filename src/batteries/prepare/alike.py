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

from batteries.prepare.chance import expected_pairs, look_alikes, pairs_of, surprising
from batteries.prepare.duplicates import (
    Fingerprints,
    Pairs,
    equal_rows,
    fingerprints,
    groups_of_pairs,
    near_texts,
)
from batteries.prepare.pictures import SUFFIXES, Picture, Unreadable, read_pictures
from batteries.prepare.strategies import codes, column_of
from batteries.prepare.study.images import pixels_of
from batteries.prepare.study.texts import tells_apart
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


def alike_rows(table: pl.DataFrame, *, apart: Sequence[str], near: bool = True, show: bool = True) -> Found:
    """Find rows that are equal in all features, and texts and images that are nearly the same.

    Parameters
    ----------
    table
        Image columns hold arrays or paths of files, seen from the working folder.
    apart
        Columns that are no features: id, target, groups, folds. Row numbers are left out in any case.
    near
        Whether to compare texts and images too, which takes its time.
    show
        Whether to show a bar while texts and images are compared.

    """
    names = [name for name in table.columns if name not in apart and not _row_number(table[name])]
    found: list[Alike] = []
    notes: list[str] = []
    features = [name for name in names if _varies(table[name])]
    notes += _hidden(table, features)
    if features:
        group = equal_rows(table, features)
        equals = pairs_of(group)
        chance = 0.0 if _tell_apart(table, features) or not equals else expected_pairs(table, features, group)
        if equals and not surprising(equals, chance):
            equal = f"{equals:,} pairs of rows are" if equals > 1 else "1 pair of rows is"
            notes.append(
                f"{equal} equal in {_columns(features)} and no duplicates: rows that differ by a step in one of them"
                f" speak for {chance:,.3g} by chance"
            )
        else:
            found.append(Alike("duplicates", _columns(features), group))
    else:
        notes.append("rows are not compared: beside id and target no column differs from row to row")
    for name in names if near else ():
        pairs = _near(table[name], show, notes)
        if pairs is not None:
            found.append(Alike("near-duplicates", _columns([name]), groups_of_pairs(len(table), pairs)))
    return Found(tuple(found), tuple(notes))


def _hidden(table: pl.DataFrame, features: Sequence[str]) -> Iterator[str]:
    """Rows that would be equal but for columns that name each row, or tell when it came."""
    telling = [name for name in features if _names_rows(table[name])]
    others = [name for name in features if name not in telling]
    if not telling or not others:
        return
    group = equal_rows(table, others)
    if (equals := pairs_of(group)) and surprising(equals, expected_pairs(table, others, group)):
        again = int((group != np.arange(len(table))).sum())
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

    >>> x = [row % 19 / 10 for row in range(20)]  # the last row says what the first one says
    >>> table = pl.DataFrame({"id": range(20), "x": x, "y": [each**2 for each in x], "target": [0, 1] * 10})
    >>> table.with_columns(same=duplicate_groups(table))["same"].to_list()[-3:]  # then: folds = bt.Grouped("same")
    [17, 18, 0]
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


def _tell_apart(table: pl.DataFrame, names: Sequence[str]) -> bool:
    """Whether a column holds lists, arrays or texts, which no accident makes equal."""
    columns = [table[name] for name in names]
    return any(_uncounted(column) or (column.dtype == pl.String and _holds_texts(column)) for column in columns)


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
            return there[_near_images(column.name, fingerprints(pixels), notes)]
    return None


def _holds_files(column: pl.Series) -> bool:
    first = column.drop_nulls().head(_LOOK)
    return len(first) > 0 and all(text.lower().endswith(SUFFIXES) for text in first)


def _holds_texts(column: pl.Series) -> bool:
    return tells_apart(column) and column.n_unique() > len(column) // 2


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
    return places[_near_images(column.name, prints, notes)]


def _near_images(name: str, prints: Fingerprints, notes: list[str]) -> Pairs:
    pairs, accidents = look_alikes(prints)
    if accidents:
        notes.append(
            f"{accidents:,} pairs of images in {name!r} look alike by accident: pairs that are a little less alike are"
            " more"
        )
    return pairs


def _columns(names: Sequence[str]) -> str:
    return (
        f"column {names[0]}" if len(names) == 1 else f"all {len(names)} columns ({', '.join(names[:3])}{_more(names)})"
    )


def _more(names: Sequence[str]) -> str:
    return ", ..." if len(names) > 3 else ""
