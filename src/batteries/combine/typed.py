"""Typed: the cells of one column as what the sample's column holds.

In:    texts, numbers or booleans; what is asked for.
Out:   numbers, whole numbers, booleans or texts; or an error that counts what is none and names the first ids.
Next:  `check_submission` does it for every column, `written` writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from batteries.combine.cells import is_empty
from batteries.combine.sample import SPELLINGS, WHOLE, Asked, Sample
from batteries.errors import SubmissionError, some

_EXACT = 2**53
"""Below it, a float64 holds every whole number."""
_TRUTH = {text: bool(value) for value in (0, 1) for text in (str(value), *(words[value] for words in SPELLINGS))}


def typed(column: pl.Series, asked: Asked, sample: Sample, *, source: str, classes: Sequence[str] = ()) -> pl.Series:
    """Return the cells as what is asked for; rows are those of the sample.

    Raises
    ------
    SubmissionError
        Naming the column, the count of cells that are unfit, one of them, and the first five ids.

    """
    refuse = _Refusal(source, asked, sample)
    empty = is_empty(column)
    if not (asked.kind == "text" and asked.may_be_empty):
        refuse.rows(empty, "are empty", "fill them")
    match asked.kind:
        case "text":
            return _texts(column, empty, asked, refuse, classes)
        case "bool":
            return _booleans(column, asked, refuse)
    numbers = _numbers(column, refuse)
    if asked.kind == "probability":
        outside = ~numbers.is_between(0, 1)
        refuse.rows(
            outside,
            "are no probabilities",
            "the sample holds probabilities; if they are none, write 0.0 into it",
            numbers,
        )
    if asked.kind == "whole" and numbers.dtype.is_float():
        refuse.rows(
            numbers != numbers.round(0),
            "are no whole numbers",
            f"the sample holds whole numbers such as {asked.example}: choose the class, or round; if decimals are"
            " right, write 0.0 into it",
            numbers,
        )
    return _as_asked(numbers, asked)


@dataclass(frozen=True)
class _Refusal:
    """Says what is wrong with a column of a source."""

    source: str
    asked: Asked
    sample: Sample

    def rows(self, bad: pl.Series, what: str, hint: str, shown: pl.Series | None = None) -> None:
        """Raise SubmissionError if any row is bad."""
        if not (count := int(bad.sum())):
            return
        example = "" if shown is None else f", such as {shown.filter(bad)[0]!r}"
        ids = self.sample.ids.filter(bad).head(5).to_list()
        raise SubmissionError(
            f"{self.source}: column {self.asked.name!r}: {count:,} of {len(bad):,} values {what}{example}"
            f" (first ids: {ids}). Next: {hint}"
        )

    def type(self, holds: str) -> SubmissionError:
        """Return the error that a column of another type deserves."""
        wanted = f"{_WORDS[self.asked.kind]} such as {self.asked.example!r}"
        return SubmissionError(
            f"{self.source}: column {self.asked.name!r} holds {holds}; the sample's holds {wanted}. Next: write those"
        )


_WORDS = {
    "text": "texts",
    "bool": "booleans",
    "whole": "whole numbers",
    "number": "numbers",
    "probability": "probabilities",
}


def _texts(column: pl.Series, empty: pl.Series, asked: Asked, refuse: _Refusal, classes: Sequence[str]) -> pl.Series:
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype != pl.String:
        raise refuse.type(str(column.dtype))
    if classes:
        foreign = ~column.is_in(list(classes)) & ~empty
        refuse.rows(foreign, "are no class", f"the classes are {some(classes, 12)}", column)
    elif column.filter(~empty).cast(pl.Float64, strict=False).null_count() == 0:
        raise refuse.type(f"numbers such as {column.filter(~empty).first()!r}")
    return column


def _booleans(column: pl.Series, asked: Asked, refuse: _Refusal) -> pl.Series:
    if column.dtype == pl.Boolean:
        return column
    if column.dtype != pl.String and not column.dtype.is_numeric():
        raise refuse.type(str(column.dtype))
    texts = column if column.dtype == pl.String else column.cast(pl.Float64).cast(pl.String).str.replace(r"\.0$", "")
    refuse.rows(
        ~texts.is_in(list(_TRUTH)), "are neither true nor false", f"write {' or '.join(asked.spelling)}", column
    )
    return texts.replace_strict(_TRUTH, return_dtype=pl.Boolean)


def _numbers(column: pl.Series, refuse: _Refusal) -> pl.Series:
    if column.dtype == pl.Boolean:
        return column.cast(pl.Int64)
    if column.dtype == pl.String:
        texts = column.str.strip_chars()
        column = texts.cast(pl.Float64, strict=False)
        refuse.rows(column.is_null(), "are no numbers", _hint(refuse), texts)
        if texts.str.contains(WHOLE).all():
            whole = texts.cast(pl.Int64, strict=False)
            refuse.rows(
                whole.is_null(), "are whole numbers beyond 64 bits", "write .0 behind them if digits may be lost", texts
            )
            column = whole
    if not (column.dtype.is_integer() or column.dtype.is_float()):
        raise refuse.type(str(column.dtype))
    if column.dtype.is_float():
        refuse.rows(~column.is_finite(), "are NaN or infinite", "predict these rows again, or fill them", column)
    return column


def _hint(refuse: _Refusal) -> str:
    return f"the sample holds {_WORDS[refuse.asked.kind]} such as {refuse.asked.example}"


def _as_asked(numbers: pl.Series, asked: Asked) -> pl.Series:
    """Whole numbers without `.0` and decimal ones with it, where no digit is lost."""
    if asked.kind == "whole" and numbers.dtype.is_float() and (numbers.abs() < _EXACT).all():
        return numbers.cast(pl.Int64)
    wants_decimals = not asked.example.lstrip("+-").isdigit()
    if wants_decimals and numbers.dtype.is_integer() and (numbers.cast(pl.Float64).abs() < _EXACT).all():
        return numbers.cast(pl.Float64)
    return numbers
