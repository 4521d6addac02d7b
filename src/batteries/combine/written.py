"""Written: a checked table as the text of a submission.

In:    columns as the sample asks for them; how many digits.
Out:   a CSV (UTF-8, commas, a line of names, LF, quotes where they must be), and what rounding did.
Next:  `submit` keeps it, with its SHA-256.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from batteries.combine.sample import Sample
from batteries.errors import UsageError


@dataclass(frozen=True)
class Written:
    """The text of a submission."""

    data: bytes
    table: pl.DataFrame
    """What it says: numbers rounded, booleans spelled."""
    digits: int | None
    decimals: bool
    """Whether there are decimal numbers."""
    change: float
    """The largest that rounding made of a number."""
    tied: int
    """Rows that equal another after rounding and did not before, in the column with most of them."""
    certain: int
    """Numbers between 0 and 1 that rounding made exactly 0 or 1."""

    @property
    def sentence(self) -> str:
        """How numbers are written."""
        if not self.decimals:
            return "whole numbers and texts written as they are"
        if self.digits is None:
            return "written with the shortest digits that read back exactly"
        digits = f"{self.digits} significant digit{'s' * (self.digits != 1)}: largest change {self.change:.1g}"
        ties = f"; {self.tied:,} rows become tied, so a metric of ranks (AUC, ...) changes"
        ones = f"; {self.certain:,} probabilities become exactly 0 or 1, which a log loss punishes"
        return digits + (ties if self.tied else ", no new ties") + (ones if self.certain else "")


def write_cells(table: pl.DataFrame, sample: Sample, *, digits: int | None = None) -> Written:
    """Write a table that `check_submission` returned.

    Parameters
    ----------
    digits
        Significant digits of decimal numbers, 1 to 17. By default the shortest text that reads back as the same number.

    Raises
    ------
    UsageError
        For another number of digits.

    >>> sample = Sample.parse(b"id,p\\na,0.5\\nb,0.5\\n", "sample.csv")
    >>> table = pl.DataFrame({"id": ["a", "b"], "p": [0.123456789, 1 / 3]})
    >>> write_cells(table, sample, digits=3).data
    b'id,p\\na,0.123\\nb,0.333\\n'

    """
    if digits is not None and not 1 <= digits <= 17:
        raise UsageError(f"digits must be from 1 to 17, got {digits}; leave it out to keep them all")
    columns, change, tied, certain = [table.to_series(0)], 0.0, 0, 0
    for asked in sample.asked:
        column = table[asked.name]
        if column.dtype == pl.Boolean:
            no, yes = asked.spelling
            column = pl.Series(column.name, np.where(column.to_numpy(), yes, no))
        elif digits is not None and column.dtype.is_float():
            exact = column.cast(pl.Float64)
            column = pl.Series(column.name, [float(f"{value:.{digits}g}") for value in exact])
            change = max(change, float((column - exact).abs().max()))  # type: ignore[arg-type]
            tied = max(tied, _tied(exact, column))
            certain += int((exact.is_between(0, 1, closed="none") & column.is_in([0.0, 1.0])).sum())
        columns.append(column)
    decimals = any(dtype.is_float() for dtype in table.dtypes)
    written = pl.DataFrame(columns)
    return Written(written.write_csv().encode(), written, digits, decimals, change, tied, certain)


def _tied(exact: pl.Series, rounded: pl.Series) -> int:
    """Rows whose rounded number is that of a row with another exact one."""
    pairs = pl.DataFrame({"exact": exact, "rounded": rounded})
    return int((pairs.select(pl.col("exact").n_unique().over("rounded")).to_series() > 1).sum())
