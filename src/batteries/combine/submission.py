"""Submission: a file for the leaderboard, checked before it costs a try.

In:    an entry with test predictions, or predictions of any tool; the sample submission.
Out:   `runs/submission-001/`: submission.csv, sample.csv, and a record with SHA-256, members and weights; or a file.
Next:  `leaderboard` notes what it scored, `reproduce` makes the same file again.
"""

from __future__ import annotations

import platform
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl

from batteries.combine.blend import ORDERS
from batteries.combine.check_submission import Checked
from batteries.combine.fill import Target, fill_sample, sample_without
from batteries.combine.lineage import lineage
from batteries.combine.sample import Sample, as_sample
from batteries.combine.written import Written, write_cells
from batteries.errors import ExperimentError, SubmissionError
from batteries.experiment import Experiment
from batteries.experiment.predictions import Predictions
from batteries.files import digest_file, new_folder, write_atomic, write_sealed
from batteries.score.board import submissions
from batteries.score.entry import Entry
from batteries.score.ledger import Ledger
from batteries.shapes import SubmissionRecord, read_record

FILE = "submission.csv"
SAMPLE = "sample.csv"
RECORD = "submission.json"
_PACKAGES = ("batteries", "numpy", "polars")


@dataclass(frozen=True)
class Submission:
    """A checked file, and where it came from."""

    path: Path
    entry: str
    sha256: str
    table: pl.DataFrame
    """What the file says, row by row as the sample; ids are texts."""
    notes: tuple[str, ...]
    """What is no error but worth a look."""
    written: str
    """How numbers are written, and what rounding changed."""

    @property
    def name(self) -> str:
        """`submission-001`."""
        return self.path.parent.name


def submit(
    entry: Entry,
    experiment: Experiment,
    root: Path | str = "runs",
    *,
    sample: Sample | pl.DataFrame | Path | str | None = None,
    digits: int | None = None,
) -> Submission:
    """Write the test predictions of an entry as the sample submission asks, and note the file in the ledger.

    A file of the same entry and the same bytes is not made twice: the first is returned.

    Parameters
    ----------
    sample
        The competition's file, or a table; by default the experiment's `sample_submission()`, and where there is
        none, the columns are the experiment's id and target.
    digits
        Significant digits of decimal numbers; by default the shortest text that reads back exactly.

    Raises
    ------
    SubmissionError
        When the entry has no test predictions, or they do not fit the sample: ids, columns, types.

    """
    predictions = entry.test()
    if predictions is None:
        raise SubmissionError(
            f"{entry.name} has no test predictions: its experiment's test_table() returned None, or it was imported"
            " without --test"
        )
    if len(entry.oof()) < entry.rows:
        warnings.warn(f"{entry.name} is trained on some folds only; its test predictions are of those", stacklevel=2)
    target = Target.of(experiment, ranks=entry.config.get("how") in ORDERS)
    asked = _sample(sample, experiment, predictions, target)
    checked = fill_sample(predictions, asked, target)
    written = write_cells(checked.table, asked, digits=digits)
    digest = sha256(written.data).hexdigest()
    twins = [known for known in submissions(root) if known["sha256"] == digest]
    for known in twins:
        folder = Path(root) / known["name"]
        if known["entry"] == entry.name and _is_whole(folder, known):
            return _noted(folder, entry, digest, checked, written)
    if others := [f"{known['name']} of {known['entry']}" for known in twins if known["entry"] != entry.name]:
        twin = f"these are the bytes of {others[0]}, too: sending both costs a try for nothing"
        checked = replace(checked, notes=(*checked.notes, twin))

    def fill(folder: Path, name: str) -> None:
        write_atomic(folder / FILE, lambda file: file.write(written.data))
        write_atomic(folder / SAMPLE, lambda file: file.write(asked.data))
        about = {"name": name, "entry": entry.name, "file": FILE, "sha256": digest, "rows": len(checked.table)}
        write_sealed(folder / RECORD, {**about, **_origin(entry, asked, target), **_form(written, checked)})

    return _noted(new_folder(Path(root), "submission", fill), entry, digest, checked, written)


def _sample(
    given: Sample | pl.DataFrame | Path | str | None, experiment: Experiment, predictions: Predictions, target: Target
) -> Sample:
    if given is not None:
        return as_sample(given)
    table = experiment.sample_submission()
    if table is None:
        return sample_without(predictions, target)
    source = f"{type(experiment).__name__}.sample_submission()"
    if not isinstance(table, pl.DataFrame):
        raise ExperimentError(f"{source} must return a polars DataFrame or None, got {type(table).__name__}")
    return Sample.of(table, source)


def _is_whole(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether a submission is what it was and can be made again; an older Batteries recorded less."""
    path = folder / FILE
    return "made_of" in record and path.exists() and digest_file(path) == record["sha256"]


def _noted(folder: Path, entry: Entry, digest: str, checked: Checked, written: Written) -> Submission:
    """Enter a submission into the ledger, unless it is there."""
    made = Submission(folder / FILE, entry.name, digest, written.table, checked.notes, written.sentence)
    with Ledger(folder.parent) as ledger:
        ledger.add_entry(entry.config)
        ledger.add_submission(
            made.name,
            entry=entry.name,
            file=FILE,
            sha256=made.sha256,
            rows=len(made.table),
            record=read_record(folder / RECORD, SubmissionRecord),
        )
    return made


def _origin(entry: Entry, sample: Sample, target: Target) -> dict[str, Any]:
    """What the file was made of."""
    return {
        "members": entry.config.get("members", {entry.name: 1.0}),
        "made_of": lineage(entry),
        "target": asdict(target),
        "sample": {"name": sample.source, "file": SAMPLE, "sha256": sample.sha256},
    }


def _form(written: Written, checked: Checked) -> dict[str, Any]:
    """How it was written."""
    return {
        "digits": written.digits,
        "notes": list(checked.notes),
        "versions": versions(),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def versions() -> dict[str, str]:
    """Return the versions that the bytes of a submission depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):  # run from a source tree that is not installed
            found[name] = metadata.version(name)
    return found
