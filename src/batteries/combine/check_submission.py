"""Check submission: refuse what the leaderboard would, and what it would take for something else.

In:    a finished submission, as a file or a table; the sample submission.
Out:   the same in the sample's order and types, and what is worth a look; or an error that names column and ids.
Next:  send it; `submit` writes files that pass.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from batteries.combine.cells import is_empty, read_cells
from batteries.combine.sample import Asked, Sample, as_sample
from batteries.combine.typed import typed
from batteries.errors import SubmissionError, some

OTHER_ORDER = "rows come in another order than the sample's; leaderboards join them by id"
_FORMULA = r"^[=+\-@\t\r]"
"""What a spreadsheet takes for the beginning of a formula: OWASP, CSV Injection."""
_ALIKE: dict[str, Callable[[str], str]] = {
    "letter case": str.casefold,
    "spaces around them": str.strip,
    "Unicode form (NFC, NFD)": lambda text: unicodedata.normalize("NFC", text),
    "leading zeros; read ids as texts": lambda text: text.lstrip("0"),
    "'.0' at the end; read ids as texts": lambda text: text.removesuffix(".0"),
}
"""What the ids of two files often differ by, and how to see that."""


@dataclass(frozen=True)
class Checked:
    """A submission that fits the sample."""

    table: pl.DataFrame
    """Columns and rows in the order of the sample; ids are texts."""
    notes: tuple[str, ...]
    """What is no error but worth a look: another order of rows, ids that are formulas, labels never seen, ..."""


def check_submission(
    given: pl.DataFrame | Path | str,
    sample: Sample | pl.DataFrame | Path | str,
    *,
    classes: Sequence[str] = (),
    source: str | None = None,
) -> Checked:
    """Compare a finished submission with the sample.

    Parameters
    ----------
    given
        A table, or a file: CSV in UTF-8 with commas and a line of names (a byte order mark is let pass), or Parquet.
    sample
        The competition's sample submission, likewise; its first column holds the ids.
    classes
        All labels there are, where they are known.
    source
        What errors call a table.

    Returns
    -------
    The submission in the sample's order of rows: leaderboards join rows by id, so another order is only noted.

    Raises
    ------
    SubmissionError
        For columns that lack, are too many, renamed or in another order; ids that are empty, there twice, missing
        or too many; cells that are empty, NaN, infinite, of another type or range, labels that are no class. It
        names the column, how many and the first five ids.

    >>> sample = pl.DataFrame({"id": ["a", "b"], "label": [0.5, 0.5]})
    >>> check_submission(pl.DataFrame({"id": ["b", "a"], "label": [0.9, 0.2]}), sample).table.rows()
    [('a', 0.2), ('b', 0.9)]

    """
    wanted = as_sample(sample)
    source = source or ("the table" if isinstance(given, pl.DataFrame) else str(given))
    frame = given if isinstance(given, pl.DataFrame) else read_cells(Path(given))
    _check_columns(frame.columns, wanted, source)
    ids = texts_of_ids(frame.to_series(0), source)
    rows = rows_of(ids, wanted, source)
    notes = []
    if rows.to_list() != list(range(len(rows))):
        notes.append(OTHER_ORDER)
    columns = [
        typed(frame[asked.name].gather(rows), asked, wanted, source=source, classes=classes) for asked in wanted.asked
    ]
    table = pl.DataFrame([wanted.ids, *columns])
    return Checked(table, (*notes, *_notes(table, wanted, classes)))


def _check_columns(names: Sequence[str], sample: Sample, source: str) -> None:
    asked = sample.columns
    if list(names) == asked:
        return
    told = f"{source}: columns are {some(names, 12)}; the sample {sample.source} asks for {some(asked, 12)}"
    if sorted(names) == sorted(asked):
        raise SubmissionError(f"{told}. Write them in that order")
    missing, extra = [n for n in asked if n not in names], [n for n in names if n not in asked]
    parts = [
        f"{len(missing)} missing: {some(missing, 5)}" if missing else "",
        f"{len(extra)} too many: {some(extra, 5)}" if extra else "",
    ]
    alike = {name.strip().casefold(): name for name in extra}
    near = [(alike[name.strip().casefold()], name) for name in missing if name.strip().casefold() in alike]
    hint = (
        f"rename {near[0][0]!r} to {near[0][1]!r}" if near else "rename or drop them, or write the file anew with --out"
    )
    raise SubmissionError(f"{told} ({', '.join(filter(None, parts))}). Next: {hint}")


def texts_of_ids(ids: pl.Series, source: str) -> pl.Series:
    """Return ids as texts. Raises SubmissionError for empty ones, for one that is there twice, for decimal numbers."""
    if not (ids.dtype.is_integer() or ids.dtype in (pl.String, pl.Categorical, pl.Enum)):
        raise SubmissionError(f"{source}: ids in column {ids.name!r} are {ids.dtype}; write whole numbers or texts")
    ids = ids.cast(pl.String)
    if empty := int(is_empty(ids).sum()):
        raise SubmissionError(f"{source}: {empty} of {len(ids)} ids in column {ids.name!r} are empty; name every row")
    if ids.n_unique() != len(ids):
        twice = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
        raise SubmissionError(
            f"{source}: {len(twice)} ids in column {ids.name!r} are there more than once"
            f" (first: {twice.head(5).to_list()}); keep one row of each"
        )
    return ids


def rows_of(ids: pl.Series, sample: Sample, source: str) -> pl.Series:
    """Where each id of the sample is in `ids`. Raises SubmissionError when they are not the same ids."""
    have = pl.DataFrame({"id": ids, "row": pl.int_range(len(ids), eager=True)})
    asked = pl.DataFrame({"id": sample.ids})
    found = asked.join(have, on="id", how="left", maintain_order="left")
    missing = found.filter(pl.col("row").is_null())["id"]
    extra = have.join(asked, on="id", how="anti", maintain_order="left")["id"]
    if len(missing) or len(extra):
        raise SubmissionError(
            f"the sample {sample.source} has {len(sample.ids):,} ids, {source} {len(ids):,}:"
            f" {len(missing):,} are only in the sample (first: {missing.head(5).to_list()}),"
            f" {len(extra):,} only in {source} (first: {extra.head(5).to_list()}). {_reason(missing, extra)}"
        )
    return found["row"]


def _reason(missing: pl.Series, extra: pl.Series) -> str:
    """What two sets of ids seem to differ by."""
    for words, alike in _ALIKE.items():
        if len(missing) and set(map(alike, missing.to_list())) == set(map(alike, extra.to_list())):
            return f"They differ by {words}"
    if len(missing) and len(extra):
        return "Is it the sample of this competition, and the column that names a row?"
    if len(extra):
        return "Drop them if the sample is the newest; else download it again, as the test set may have grown"
    return "Predict them too; download the sample again if the test set has shrunk"


def _notes(table: pl.DataFrame, sample: Sample, classes: Sequence[str]) -> list[str]:
    notes = []
    formulas = sample.ids.filter(sample.ids.str.contains(_FORMULA))
    if len(formulas):
        notes.append(
            f"{len(formulas):,} of {len(table):,} ids begin as a spreadsheet's formula does (first:"
            f" {formulas.head(5).to_list()}); they are kept as they are, so do not open the file in a spreadsheet"
        )
    constant = [name for name in sample.names if len(table) > 1 and table[name].n_unique() == 1]
    if constant:
        are = (
            f"s {some(constant, 5)} are the same"
            if len(constant) > 1
            else f" {constant[0]!r} is {table[constant[0]][0]}"
        )
        notes.append(f"column{are} in every row")
    for asked in sample.asked:
        column = table[asked.name]
        if classes and (strange := sorted(set(asked.labels) - set(classes))):
            notes.append(f"the sample's {asked.name!r} has labels that are none of the classes: {some(strange, 5)}")
        elif not classes and len(asked.labels) > 1 and (new := _unseen(column, asked)):
            notes.append(f"column {asked.name!r} has labels that the sample has not: {some(new, 5)}")
    if sample.adds_up and all(dtype.is_float() for dtype in table.dtypes[1:]):
        sums = table.select(pl.sum_horizontal(pl.exclude(sample.id))).to_series()
        if off := int(((sums - 1).abs() > 1e-3).sum()):
            notes.append(
                f"the columns of the sample add up to 1 in each row; in {off:,} of {len(table):,} rows here not"
            )
    return notes


def _unseen(column: pl.Series, asked: Asked) -> list[str]:
    return sorted(set(column.drop_nulls().unique().to_list()) - set(asked.labels))
