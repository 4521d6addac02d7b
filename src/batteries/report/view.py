"""View: the few shapes that templates know, and how figures are written for people.

In:    numbers.
Out:   texts; charts with captions.
Next:  the sections build them, the templates place them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

from markupsafe import Markup

NONE = "\N{EN DASH}"
"""What stands where there is no value."""


@dataclass(frozen=True)
class Figures:
    """The figures of a chart."""

    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Plot:
    """A chart and what it says in plain words."""

    svg: Markup
    caption: str
    figures: Figures | None = None
    """What is drawn, as a table for those who do not see it."""


@dataclass(frozen=True)
class Matrix:
    """A square of figures, its rows and columns named alike; shares decide how strongly cells are coloured."""

    names: list[str]
    cells: list[list[str]]
    shares: list[list[float]]
    totals: list[str] | None = None


def score(value: Any) -> str:
    """A score with five significant digits.

    >>> score(0.5), score(None), score(12345.678)
    ('0.50000', '–', '12346')
    """
    if value is None or not isfinite(value):
        return NONE
    return f"{value:#.5g}".rstrip(".")


def rough(value: Any) -> str:
    """A noise or a weight with two significant digits.

    >>> rough(0.0123), rough(0.0), rough(1234.5)
    ('0.012', '0', '1,234')
    """
    return NONE if value is None or not isfinite(value) else _two_digits(value)


def _two_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 or value == 0 else f"{value:#.2g}"


def figure(value: Any) -> str:
    """Any figure of a table with four significant digits, all of its whole ones up to 15; texts as they are.

    >>> figure(0.00012345), figure(123456.78), figure(1e20), figure(12345), figure("one")
    ('0.0001234', '123,457', '1e+20', '12,345', 'one')
    """
    if value is None:
        return NONE
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def signed(value: Any) -> str:
    """A difference, with its sign."""
    return (
        NONE
        if value is None or not isfinite(value)
        else ("\N{MINUS SIGN}" if value < 0 else "+") + _two_digits(abs(value))
    )


def percent(value: Any) -> str:
    """A share of one as a percentage."""
    return NONE if value is None else f"{value:.1%}"


def size(count: int) -> str:
    """Bytes for people: `1.2 MB`."""
    if count < 1000:
        return f"{count} bytes"
    power = min(4, (len(str(count)) - 1) // 3)
    return f"{count / 1000**power:.1f} {('kB', 'MB', 'GB', 'TB')[power - 1]}"


def counted(count: int, thing: str, things: str | None = None) -> str:
    """`1 run`, `2 runs`, `3 entries`."""
    return f"{count:,} {thing if count == 1 else things or thing + 's'}"


def sentence(text: str) -> str:
    """A remark as a sentence: a capital first, a full stop last."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


FILTERS = {each.__name__: each for each in (score, rough, figure, signed, percent, size, counted, sentence)}
