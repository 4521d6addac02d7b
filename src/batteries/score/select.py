"""Select: the rows of the board that are asked for, in the order that is asked for.

In:    all rows of the board.
Out:   some of them; their ranks and bands stay those among all.
Next:  `batteries scores` prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from batteries.errors import UsageError
from batteries.score.board import Row

_SCORES = ("valid", "fold_mean", "public", "private", "test")
_SIZES = ("gap", "public_gap", "private_gap")
_SMALL = ("noise", "fold_deviation")
_TEXTS = ("name", "kind", "experiment", "seed")
SORTS = (*_SCORES, *_SIZES, *_SMALL, *_TEXTS, "age")
"""What rows can be sorted by."""


def select(
    rows: Sequence[Row], *, sort: str | None = None, keep: Sequence[str] = (), limit: int | None = None
) -> list[Row]:
    """Return rows of the board, still by group.

    Parameters
    ----------
    rows
        As `scores` returns them.
    sort
        Scores the best first, gaps the widest first, deviations the smallest first, ages the youngest first,
        texts by name; rows that have none come last.
    keep
        A text that the name, kind, experiment or changes hold; or `field=value` of the board or of the
        hyperparameters. A row must fit all.
    limit
        The most rows of each group.

    Raises
    ------
    UsageError
        For a column or a field that does not exist.

    """
    if sort is not None and sort not in SORTS:
        raise UsageError(f"--sort {sort}: there is no such column; columns: {', '.join(SORTS)}")
    for text in keep:
        _check(text, rows)
    chosen = []
    for _, group in groupby(rows, key=lambda row: row.group):
        fitting = [row for row in group if all(_fits(row, text) for text in keep)]
        chosen += _sorted(fitting, sort)[:limit]
    return chosen


def _sorted(rows: Sequence[Row], by: str | None) -> list[Row]:
    if by is None:
        return list(rows)
    if by == "age":
        return sorted(rows, key=lambda row: row.at, reverse=True)
    there = [row for row in rows if getattr(row, by) is not None]

    def place(row: Row) -> Any:
        if by in _SCORES:
            return row.upward(by)
        return -abs(getattr(row, by)) if by in _SIZES else getattr(row, by)

    return [*sorted(there, key=place), *(row for row in rows if getattr(row, by) is None)]


def _check(text: str, rows: Sequence[Row]) -> None:
    name, equals, _ = text.partition("=")
    known = {field for row in rows for field in (*row.plain(), *row.fields)}
    if equals and name not in known:
        raise UsageError(f"--filter {text}: no entry has a field {name!r}; fields: {', '.join(sorted(known))}")


def _fits(row: Row, text: str) -> bool:
    name, equals, value = text.partition("=")
    if equals:
        own = row.fields[name] if name in row.fields else row.plain().get(name)
        return _same(own, value)
    return any(text.lower() in str(each).lower() for each in (row.name, row.kind, row.experiment, *row.changed))


def _same(own: object, text: str) -> bool:
    if isinstance(own, int | float) and not isinstance(own, bool):
        try:
            return float(own) == float(text)
        except ValueError:
            return False
    return str(own).lower() == text.lower()
