"""Submit file: predictions of any tool as a checked submission; no run folder, no ledger.

In:    a CSV or Parquet file of ids and predictions; the sample submission.
Out:   a file in the columns, rows and types of the sample.
Next:  send it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import polars as pl

from batteries.combine.cells import read_cells
from batteries.combine.check_submission import OTHER_ORDER, Checked, check_submission
from batteries.combine.fill import Target, fill_sample, places
from batteries.combine.sample import Sample, as_sample
from batteries.combine.written import write_cells
from batteries.errors import SubmissionError, UsageError, some
from batteries.experiment.prediction_files import our_columns, read_predictions
from batteries.files import write_atomic

_SORTED = "rows were brought into the sample's order"


@dataclass(frozen=True)
class SubmittedFile:
    """A checked file of predictions that somebody else made."""

    path: Path
    sha256: str
    table: pl.DataFrame
    notes: tuple[str, ...]
    """What was renamed, left out or brought into order, and what else is worth a look."""
    written: str
    """How numbers are written, and what rounding changed."""


def submit_file(
    path: Path | str,
    sample: Sample | pl.DataFrame | Path | str,
    out: Path | str,
    *,
    digits: int | None = None,
    classes: Sequence[str] = (),
) -> SubmittedFile:
    """Write predictions from a file as the sample asks.

    Columns are found by the sample's names, in any order; further ones are left out. Where the names are not
    there, one column of predictions is taken for the one that is asked, and `prediction_0`, `prediction_1`, ... of a
    file of ours for the columns that `classes` name, or by their numbers.
    Where one column is asked and the file has the probabilities of classes, in `prediction_0`, `prediction_1`, ... or
    in columns named as `classes`, the most probable class is sent, by its name where the sample has texts; of two
    classes the probability of the second, where it has decimal numbers or zeros.

    Parameters
    ----------
    path
        CSV in UTF-8 with commas and a line of names, or Parquet. Ids stand in the column that the sample names, or
        `id`, or the first.
    sample
        The competition's sample submission.
    out
        The new file, .csv; nothing is overwritten.
    digits
        Significant digits of decimal numbers; by default the shortest text that reads back exactly.
    classes
        All labels there are, where they are known; in the order of the columns of probabilities.

    Raises
    ------
    SubmissionError
        As `check_submission`.
    UsageError
        When `out` exists or is no .csv, or there are more or fewer classes than columns of probabilities.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "p.csv").write_text("id,score\\nb,0.25\\na,0.5\\n")
    ...     _ = Path(folder, "sample.csv").write_text("key,target\\na,0\\nb,0\\n")
    ...     made = submit_file(f"{folder}/p.csv", f"{folder}/sample.csv", f"{folder}/out.csv")
    ...     made.path.read_text()
    'key,target\\na,0.5\\nb,0.25\\n'

    """
    out, asked = Path(out), as_sample(sample)
    if out.suffix != ".csv":
        raise UsageError(f"{out}: a submission is written as .csv")
    if out.exists():
        raise UsageError(f"{out} exists already; choose another name, nothing is overwritten")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}; make it first")
    cells = read_cells(Path(path))
    if columns := _of_classes(cells.columns, asked, classes):
        checked, notes = _chosen(Path(path), _key(cells.columns, asked), columns, asked, classes)
    else:
        table, notes = _matched(cells, asked, classes, str(path))
        checked = check_submission(table, asked, classes=classes, source=str(path))
    written = write_cells(checked.table, asked, digits=digits)
    write_atomic(out, lambda file: file.write(written.data))
    digest = sha256(written.data).hexdigest()
    found = (_SORTED if note == OTHER_ORDER else note for note in checked.notes)
    return SubmittedFile(out, digest, written.table, (*notes, *found), written.sentence)


def _of_classes(names: Sequence[str], sample: Sample, classes: Sequence[str]) -> list[str]:
    """Columns of probabilities that one column is made of; none where columns are taken as they are."""
    if len(sample.asked) > 1:
        return []
    if len(ours := our_columns(names)) > 1:
        return ours
    named = len(classes) > 1 and all(name in names for name in classes) and sample.names[0] not in names
    return list(classes) if named else []


def _chosen(
    path: Path, key: str, columns: Sequence[str], sample: Sample, classes: Sequence[str]
) -> tuple[Checked, list[str]]:
    """One column made of probabilities of classes, and how."""
    if classes and len(classes) != len(columns):
        raise UsageError(
            f"{path}: {len(columns)} columns of probabilities but {len(classes)} classes: {some(classes, 5)}"
        )
    takes_numbers = sample.asked[0].kind in ("number", "probability")
    target = Target(sample.id, sample.names[0], metric="" if takes_numbers else "accuracy", classes=tuple(classes))
    checked = fill_sample(read_predictions(path, id=key, columns=columns), sample, target)
    chosen = columns[1] if takes_numbers and len(columns) == 2 else f"the most probable class of {some(columns, 5)}"
    return checked, [f"{chosen} is written as {sample.names[0]!r}"]


def _key(names: Sequence[str], sample: Sample) -> str:
    """The column of ids."""
    return next((name for name in (sample.id, "id") if name in names), names[0])


def _matched(
    frame: pl.DataFrame, sample: Sample, classes: Sequence[str], source: str
) -> tuple[pl.DataFrame, list[str]]:
    """The columns that are asked, under the sample's names and in its order, and what was done for that."""
    key = _key(frame.columns, sample)
    others = [name for name in frame.columns if name != key]
    ours = our_columns(others)
    if len(ours) == len(sample.asked) and not set(ours) & set(sample.names):  # `target` beside them is the truth
        chosen = [ours[place] for place in places(sample.names, classes).values()]
    elif all(name in others for name in sample.names):
        chosen = sample.names
    elif len(others) == len(sample.asked) == 1:
        chosen = others
    else:
        raise SubmissionError(
            f"{source}: has the columns {some(frame.columns, 12)}; the sample {sample.source} asks for"
            f" {some(sample.columns, 12)}, and it is not clear which are meant. Next: rename them as in the sample"
        )
    renamed = {old: new for old, new in zip([key, *chosen], sample.columns, strict=True) if old != new}
    told = [f"{old!r} as {new!r}" for old, new in renamed.items()]
    notes = [f"columns are written under the sample's names: {some(told, 5)}"] if told else []
    if left := [name for name in others if name not in chosen]:
        notes.append(f"left out: {some(left, 5)}")
    return frame.select(key, *chosen).rename(renamed), notes
