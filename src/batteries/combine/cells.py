"""Cells: a table as its file has it, every text byte for byte.

In:    a CSV or a Parquet file, or a table.
Out:   a table of texts (of a CSV), or of the types that the file has (of Parquet).
Next:  `sample` finds out what is asked, `check_submission` whether it is there.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import polars as pl

from batteries.errors import PredictionsError, SubmissionError
from batteries.experiment.prediction_files import csv_header
from batteries.experiment.sealed import UNREADABLE, check_seal

_OTHER = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""Separators that are often met instead of the comma."""


def read_cells(path: Path) -> pl.DataFrame:
    """Read a file of at least one row and two columns.

    Raises
    ------
    SubmissionError
        When it is no CSV in UTF-8 with commas and no Parquet, or holds no rows.
    CorruptError
        When a Parquet file of ours was changed.

    """
    if not path.is_file():
        raise SubmissionError(f"{path} is not a file; give the path of a CSV or Parquet file")
    if not is_parquet(path):
        return parse_cells(path.read_bytes(), str(path))
    check_seal(path)
    try:
        frame = pl.read_parquet(path, glob=False)
    except UNREADABLE as error:
        raise SubmissionError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    if frame.width < 2 or not len(frame):
        raise SubmissionError(f"{path}: has {frame.width} columns and {len(frame)} rows; it needs ids and predictions")
    return frame


def is_parquet(path: Path) -> bool:
    """Whether a file begins as Parquet does."""
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def parse_cells(data: bytes, source: str) -> pl.DataFrame:
    """Return the cells of a CSV as texts; null is a cell without anything, not even quotes. Raises as `read_cells`."""
    try:
        names = csv_header(BytesIO(data), source)
    except PredictionsError as error:
        raise SubmissionError(str(error)) from None
    if len(names) == 1:
        found = next((words for mark, words in _OTHER.items() if mark in names[0]), None)
        hint = f"it is separated by {found}; write it with commas" if found else "it needs ids and predictions"
        raise SubmissionError(f"{source}: has one column, {names[0]!r}; {hint}")
    try:
        frame = pl.read_csv(BytesIO(data), infer_schema=False)
    except UNREADABLE as error:
        raise SubmissionError(f"{source}: cannot be read as CSV ({str(error).splitlines()[0]})") from error
    if frame.columns != names:
        raise SubmissionError(f"{source}: its lines do not end as those of a CSV do; write it with \\n at their ends")
    frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines are no rows
    if not len(frame):
        raise SubmissionError(f"{source}: has names of columns but no rows")
    return frame


def is_empty(column: pl.Series) -> pl.Series:
    """Which cells hold nothing."""
    return (column.is_null() | (column == "")) if column.dtype == pl.String else column.is_null()
