"""Reproduce: a submission made again, from what it was made of.

In:    a submission's record; the prediction files of its entries.
Out:   the same bytes, or an error that names what differs.
Next:  send it with confidence, or keep it with the code that won.

Blends are blended again from their members' predictions, down to entries that are no blends: runs, averages, stacks,
calibrated and decided ones, whose test predictions are taken from their files. Every file must have the digest that
was recorded. The experiment's file is not read, so it may have changed since.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from batteries.combine.blend import Blend, blend_predictions
from batteries.combine.cells import parse_cells
from batteries.combine.fill import Target, fill_sample
from batteries.combine.lineage import names_in
from batteries.combine.sample import Sample
from batteries.combine.submission import FILE, RECORD, versions
from batteries.combine.written import write_cells
from batteries.errors import CorruptError, SubmissionError, UsageError, some
from batteries.experiment.predictions import Predictions
from batteries.files import digest_file, safe_name, write_atomic
from batteries.shapes import SubmissionRecord, WholeSubmission, check_shape, read_record


@dataclass(frozen=True)
class Reproduced:
    """The bytes that were recorded, made again."""

    name: str
    data: bytes
    sha256: str
    entries: tuple[str, ...]
    """What it was made of, from the runs up."""
    file: Path
    fault: str | None
    """What is wrong with the submission's file on disk, if it is not these bytes."""


def reproduce(name: str, root: Path | str = "runs", *, out: Path | str | None = None) -> Reproduced:
    """Make a submission again and compare it with the recorded digest. Nothing is overwritten.

    Parameters
    ----------
    out
        Where to write the file, if anywhere; it must not exist.

    Raises
    ------
    UsageError
        When there is no such submission, or `out` exists.
    CorruptError
        When a file that it was made of is missing or changed, or the bytes are others: which file, or which ids.

    """
    root = Path(root)
    record = _record(root, name)
    if out is not None and Path(out).exists():
        raise UsageError(f"{out} exists already; choose another name, nothing is overwritten")
    sample = _sample(root / name / record["sample"]["file"], record["sample"])
    tree = record["made_of"]
    checked = fill_sample(_remade(root, tree), sample, Target.from_plain(record["target"]))
    data = write_cells(checked.table, sample, digits=record["digits"]).data
    file = root / name / FILE
    if sha256(data).hexdigest() != record["sha256"]:
        raise CorruptError(_other_bytes(data, file, record))
    if out is not None:
        write_atomic(Path(out), lambda target: target.write(data))
    return Reproduced(name, data, record["sha256"], tuple(names_in(tree)), file, _fault(data, file))


def _record(root: Path, name: str) -> dict[str, Any]:
    path = root / safe_name(name, "submission") / RECORD
    if not path.exists():
        there = sorted((file.parent.name for file in root.glob(f"*/{RECORD}")), reverse=True)
        raise UsageError(f"there is no submission {name!r} in {root}; submissions: {some(there, 12) or 'none yet'}")
    record = read_record(path, SubmissionRecord)
    if "made_of" not in record:
        raise UsageError(f"{name} was made by an older Batteries, which did not record enough; submit the entry again")
    return check_shape(path, record, WholeSubmission)


def _sample(path: Path, noted: Mapping[str, str]) -> Sample:
    _check_file(path, noted["sha256"])
    return Sample.parse(path.read_bytes(), noted["name"])


def _check_file(path: Path, digest: str) -> None:
    if not path.exists():
        raise CorruptError(f"{path} is no longer there; restore it from a copy")
    if (found := digest_file(path)) != digest:
        raise CorruptError(
            f"{path}: is not the file that the submission was made of (SHA-256 {found[:12]}, recorded {digest[:12]});"
            " restore it from a copy"
        )


def _remade(root: Path, tree: Mapping[str, Any]) -> Predictions:
    """The test predictions of an entry: of a blend from its members', of others from their file."""
    path = root / tree["entry"] / "test.parquet"
    _check_file(path, tree["test"])
    kept = Predictions.load(path)
    members = tree["members"]
    if "blend" not in tree or any(member["test"] is None for member in members):
        return kept
    options: dict[str, Any] = {**tree["blend"]}
    if "power" in options:
        options["power"] = float(options["power"])  # JSON knows no infinity
    blended = Blend(**options, weights=tuple(member["weight"] for member in members))
    again = blend_predictions([_remade(root, member) for member in members], blended)
    if not np.array_equal(again.values, kept.values):
        wrong = (again.values != kept.values).reshape(len(kept), -1).any(axis=1)
        ids = kept.ids.filter(pl.Series(wrong)).head(5).to_list()
        raise CorruptError(
            f"{tree['entry']}: blending {', '.join(member['entry'] for member in members)} again gives other"
            f" predictions for {int(wrong.sum()):,} of {len(kept):,} rows (first ids: {ids})"
        )
    return again


def _other_bytes(data: bytes, file: Path, record: Mapping[str, Any]) -> str:
    then, now = record["versions"], versions()
    changed = [f"{name} {then[name]} then, {now.get(name)} now" for name in then if then[name] != now.get(name)]
    return (
        f"{record['name']}: all that it was made of is unchanged, but the file comes out otherwise"
        f" (SHA-256 {sha256(data).hexdigest()[:12]}, recorded {record['sha256'][:12]});"
        f" beside {file}, {_difference(data, file)}. Versions: {', '.join(changed) or 'the same'}"
    )


def _fault(data: bytes, file: Path) -> str | None:
    if not file.exists():
        return f"{file} is no longer there"
    return None if file.read_bytes() == data else f"{file} was changed since: {_difference(data, file)}"


def _difference(data: bytes, file: Path) -> str:
    """What the file on disk says otherwise, by id."""
    try:
        there = parse_cells(file.read_bytes(), str(file))
        made = parse_cells(data, "the new file")
        key = made.columns[0]
        same = there.select(made.columns).join(made, on=made.columns, how="semi", nulls_equal=True)
        ids = made.join(same, on=key, how="anti", maintain_order="left")[key]
    except (OSError, SubmissionError, pl.exceptions.PolarsError) as error:
        return f"it cannot be compared with {file} ({error})"
    if len(ids):
        return f"{len(ids):,} of {len(made):,} ids have other values (first: {ids.head(5).to_list()})"
    if more := len(there) - len(made):
        first = there.join(made, on=made.columns, how="anti", nulls_equal=True, maintain_order="left")[key].head(5)
        return f"it has {more:,} row{'s' * (more != 1)} more (first: {first.to_list()})"
    return "it says the same in other bytes"
