"""Sample: what a competition asks for, found out from its sample submission.

In:    sample_submission.csv, or the same as a table.
Out:   ids byte for byte and in their order; of each other column what it holds and how that is spelled.
Next:  `check_submission` compares with it, `submit` writes as it says.

| the sample's column holds | so it takes |
| --- | --- |
| True and False, in one spelling | True and False (or 1 and 0), in that spelling |
| whole numbers, several of them | whole numbers |
| whole numbers, all the same | numbers: many samples are filled with 0 where anything may stand |
| decimal numbers, all above 0 and below 1 | probabilities, from 0 to 1 |
| other decimal numbers | numbers |
| anything else | texts |
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Literal

import polars as pl
from polars.exceptions import PolarsError

from batteries.combine.cells import is_empty, is_parquet, parse_cells, read_cells
from batteries.errors import SubmissionError

Kind = Literal["text", "whole", "number", "probability", "bool"]
SPELLINGS = (("False", "True"), ("false", "true"), ("FALSE", "TRUE"))
_LABELS = 1000
WHOLE = r"^[+-]?\d+$"
"""How a whole number is written."""


@dataclass(frozen=True)
class Asked:
    """One column of a sample beside its ids."""

    name: str
    kind: Kind
    example: str
    """The first cell that holds anything."""
    labels: tuple[str, ...]
    """Different cells, sorted, of texts; none where they are so many that they are no labels."""
    spelling: tuple[str, str]
    """How False and True are written."""
    may_be_empty: bool
    """Whether some cells of the sample are."""


@dataclass(frozen=True)
class Sample:
    """A sample submission.

    >>> sample = Sample.parse(b"id,label\\n007,0.5\\n7,0.5\\n", "sample.csv")
    >>> sample.ids.to_list(), sample.asked[0].kind
    (['007', '7'], 'probability')
    """

    source: str
    """Its file's name, or that of the method that returned it."""
    data: bytes
    """As CSV."""
    ids: pl.Series
    """Texts, as they are written."""
    asked: tuple[Asked, ...]
    adds_up: bool
    """Whether there are several numbers in a row and they add up to 1 in each: shares, as of classes."""

    @classmethod
    def read(cls, path: Path | str) -> Sample:
        """Read a file. Raises SubmissionError when it cannot say what is asked."""
        path = Path(path)
        cells = read_cells(path)  # refuses what is no table before all its bytes are taken
        return cls.of(cells, str(path)) if is_parquet(path) else cls.parse(path.read_bytes(), str(path))

    @classmethod
    def of(cls, table: pl.DataFrame, source: str = "the sample submission") -> Sample:
        """Take a table, such as an experiment's `sample_submission()` returns. Raises as `read`."""
        if table.width < 2 or not len(table):
            raise SubmissionError(
                f"{source} has {table.width} columns and {len(table)} rows; it needs ids and predictions"
            )
        try:
            data = table.write_csv().encode()
        except PolarsError as error:
            raise SubmissionError(f"{source} cannot be written as CSV ({str(error).splitlines()[0]})") from error
        return cls.parse(data, source)

    @classmethod
    def parse(cls, data: bytes, source: str) -> Sample:
        """Take the bytes of a CSV. Raises as `read`."""
        cells = parse_cells(data, source)
        ids = cells.to_series(0)
        if empty := int(is_empty(ids).sum()):
            raise SubmissionError(f"{source}: {empty} of {len(ids)} ids in column {ids.name!r} are empty")
        if ids.n_unique() != len(ids):
            twice = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
            raise SubmissionError(
                f"{source}: {len(twice)} ids in its first column {ids.name!r} are there more than once"
                f" (first: {twice.head(5).to_list()}); put the column that names a row first"
            )
        asked = tuple(_asked(column, source) for column in cells.get_columns()[1:])
        return cls(source, data, ids, asked, _adds_up(cells, asked))

    @property
    def id(self) -> str:
        """Name of the column of ids: the first."""
        return self.ids.name

    @property
    def names(self) -> list[str]:
        """Names of the other columns."""
        return [column.name for column in self.asked]

    @property
    def columns(self) -> list[str]:
        """Names of all columns, in their order."""
        return [self.id, *self.names]

    @cached_property
    def sha256(self) -> str:
        """Digest of the CSV."""
        return sha256(self.data).hexdigest()


def as_sample(given: Sample | pl.DataFrame | Path | str) -> Sample:
    """Return what is asked, of a file or a table."""
    if isinstance(given, Sample):
        return given
    return Sample.of(given) if isinstance(given, pl.DataFrame) else Sample.read(given)


def _asked(column: pl.Series, source: str) -> Asked:
    filled = column.filter(~is_empty(column))
    if not len(filled):
        raise SubmissionError(
            f"{source}: column {column.name!r} is empty in every row; write an example into it, such as 0.5 or a label"
        )
    different = filled.unique()
    kind, spelling = _kind(different)
    labels = tuple(different.sort().to_list()) if kind == "text" and len(different) <= _LABELS else ()
    return Asked(column.name, kind, filled[0], labels, spelling, len(filled) < len(column))


def _kind(different: pl.Series) -> tuple[Kind, tuple[str, str]]:
    for spelling in SPELLINGS:
        if different.is_in(spelling).all():
            return "bool", spelling
    numbers = different.cast(pl.Float64, strict=False)
    if numbers.null_count() or not numbers.is_finite().all():
        return "text", SPELLINGS[0]
    if different.str.contains(WHOLE).all():
        return "whole" if len(different) > 1 else "number", SPELLINGS[0]
    return "probability" if numbers.is_between(0, 1, closed="none").all() else "number", SPELLINGS[0]


def _adds_up(cells: pl.DataFrame, asked: tuple[Asked, ...]) -> bool:
    if len(asked) == 1 or any(column.kind not in ("number", "probability") for column in asked):
        return False
    sums = cells.select(
        pl.sum_horizontal(pl.all().exclude(cells.columns[0]).cast(pl.Float64, strict=False))
    ).to_series()
    return bool(((sums - 1).abs() < 1e-3).all())
