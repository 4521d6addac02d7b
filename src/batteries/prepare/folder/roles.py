"""Roles: which columns a network can read as numbers, as categories, as dates, as texts.

In:    the first rows of a training table.
Out:   names of columns by role; why the others are left out.
Next:  `guess` says so, `generate` writes it into the experiment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl

_WORDS = 6
"""Mean number of words from which a column holds texts."""
_MOST_VALUES = 1000


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Columns by what they hold."""

    numbers: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Those of the numbers with empty values."""
    categories: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)

    def kinds(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """Each role, its columns, and what makes a column one of them."""
        holes = f", {len(self.missing)} with empty values" if self.missing else ""
        yield "numbers", self.numbers, f"of {len(self.numbers)}{holes}"
        yield "categories", self.categories, "values come back"
        yield "dates", self.dates, "as day, month and weekday"
        yield "texts", self.words, f"{_WORDS} words or more on average"


def roles_of(table: pl.DataFrame, columns: Sequence[str]) -> Roles:
    """Say what each of `columns` holds."""
    found: dict[str, list[str]] = {role: [] for role in ("number", "category", "date", "words")}
    left_out = {}
    for name in columns:
        role, why = _role(table[name])
        if role:
            found[role].append(name)
        else:
            left_out[name] = why
    numbers = tuple(found["number"])
    return Roles(
        numbers=numbers,
        missing=tuple(name for name in numbers if _holes(table[name])),
        categories=tuple(found["category"]),
        dates=tuple(found["date"]),
        words=tuple(found["words"]),
        left_out=left_out,
    )


def _holes(column: pl.Series) -> int:
    return column.null_count() + (int(column.is_nan().sum()) if column.dtype.is_float() else 0)


def _role(column: pl.Series) -> tuple[str, str]:
    """One of the roles, or nothing and why."""
    values = column.drop_nulls()
    if column.dtype.is_nested() or column.dtype in (pl.Object, pl.Binary):
        return "", f"holds {column.dtype}"
    if values.n_unique() < 2:
        return "", "says the same in every row"
    if column.dtype in (pl.Boolean, pl.Categorical, pl.Enum):
        return "category", ""
    if column.dtype in (pl.Date, pl.Datetime):
        return "date", ""
    if column.dtype.is_numeric():
        return "number", ""
    if column.dtype != pl.String:
        return "", f"holds {column.dtype}"
    if float(values.str.count_matches(r"\w+").mean() or 0) >= _WORDS:  # type: ignore[arg-type]
        return "words", ""
    if (different := values.n_unique()) <= max(2, min(_MOST_VALUES, len(values) // 2)):
        return "category", ""
    return "", f"{different:,} different texts in {len(values):,} rows"
