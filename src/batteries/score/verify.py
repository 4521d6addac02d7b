"""Verify: whether files are still those that were written: of an entry, of a submission, of all in `runs/`.

In:    its folder, or that of all.
Out:   one finding a file. Nothing is changed, nothing in a file is executed.
Next:  the command shows them; what is damaged is restored from a copy or trained again.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl

from batteries.errors import CorruptError, ResumeError, UsageError
from batteries.experiment.sealed import read_table
from batteries.files import digest_file, read_sealed
from batteries.score.ledger import Ledger
from batteries.score.recover import check
from batteries.shapes import LEARNED, CheckpointRecord, Config, Fold, Shape, SubmissionRecord, read_record
from batteries.train.record import CONFIG

_WEIGHTS = "weights.json"
"""Digests of the weights of an average by file name, where they were recorded."""
_SUBMISSION = "submission.json"
_LEARNED, _DERIVED = "learned.json", ("calibrated", "decided")
"""What was fitted, of the kinds of entries that are fitted on one other entry."""
State = Literal["intact", "damaged", "missing", "leftover"]


@dataclass(frozen=True)
class Finding:
    """One file, and what became of it."""

    file: Path
    """Relative to the entry's folder."""
    state: State
    """`leftover`: of a process that was killed; harmless, and removed by the next start of the run."""
    reason: str = ""

    @property
    def bad(self) -> bool:
        """Whether something was lost."""
        return self.state in ("damaged", "missing")


def verify(folder: Path | str) -> list[Finding]:
    """Compare every file of an entry or a submission with its digest, its record or its neighbours; by name.

    Covered to the last bit: JSON records, Parquet files, checkpoints. The lines of metrics.jsonl have no
    digest: that they are JSON, and as many as the newest checkpoint knows, is checked. Weights of an average
    without recorded digests are compared with the checksums in them. TensorBoard events, train.log and
    timings.jsonl are not looked at. A lost record of a checkpoint that is neither last, best nor chosen cannot
    be told from a deletion cut short, nor a lost test.parquet of an average from one that never was.

    Raises
    ------
    UsageError
        When the folder holds neither.

    Example
    -------
    >>> [finding.file for finding in verify("runs/digits-001") if finding.bad]  # doctest: +SKIP
    [PosixPath('fold0/stage-all/checkpoint-000007.pt')]

    """
    folder = Path(folder)
    if (folder / _SUBMISSION).exists():
        found = list(_submission(folder))
    elif (folder / CONFIG).exists() or any(folder.glob("*/fold.json")) or any(folder.glob("*.parquet")):
        found = list(_entry(folder))
    else:
        raise UsageError(f"{folder} holds no entry and no submission; see what there is: batteries scores")
    by_name = {finding.file: finding for finding in found}
    return [replace(finding, file=path.relative_to(folder)) for path, finding in sorted(by_name.items())]


def verify_all(root: Path | str = "runs") -> list[Finding]:
    """Verify the folds, the ledger with its journal, every entry and every submission; files relative to `root`.

    Raises
    ------
    UsageError
        When there is nothing to verify.

    Example
    -------
    >>> {finding.state for finding in verify_all("runs")}  # doctest: +SKIP
    {'intact'}

    """
    root = Path(root)
    folders = sorted({path.parent for name in (CONFIG, _SUBMISSION) for path in root.glob(f"[!.]*/{name}")})
    if not folders and not (root / "folds.parquet").exists():
        raise UsageError(f"{root} holds nothing yet; begin with: batteries split")
    found = [_table(root / "folds.parquet")[1], *(_ledger(root) if Ledger.exists(root) else ())]
    found = [replace(finding, file=finding.file.relative_to(root)) for finding in found]
    for folder in folders:
        found += [replace(each, file=folder.relative_to(root) / each.file) for each in verify(folder)]
    return found


def _ledger(root: Path) -> Iterator[Finding]:
    checked = check(root)
    file = root / "ledger.db"
    if checked.problems:
        yield Finding(file, "damaged", "; ".join(checked.problems))
    else:
        yield Finding(file, "intact")
    if checked.notes:  # the rows are all in the database
        yield Finding(root / "ledger.jsonl", "leftover", "; ".join(checked.notes))


def _submission(folder: Path) -> Iterator[Finding]:
    record, finding = _sealed(folder / _SUBMISSION, SubmissionRecord)
    yield finding
    for made in (record, record.get("sample") or {}):
        if "file" in made:
            yield _recorded(folder / made["file"], made["sha256"])


def _entry(folder: Path) -> Iterator[Finding]:
    config, finding = _sealed(folder / CONFIG, Config)
    yield finding
    kind = config.get("kind") or ("run" if (folder / "provenance.json").exists() else "other")
    tested = config.get("data", {}).get("test") is not None
    finished = {path.parent.name for path in folder.glob("fold*/fold.json")}
    if kind == "run":
        yield _sealed(folder / "provenance.json")[1]
    if finished or kind != "run":
        oof, finding = _table(folder / "oof.parquet")
        yield finding
        finished |= {f"fold{fold}" for fold in oof["fold"].unique()} if oof is not None and "fold" in oof else set()
    if (tested and finished) or (folder / "test.parquet").exists():
        yield _table(folder / "test.parquet")[1]
    if kind in _DERIVED or (folder / _LEARNED).exists():
        yield _sealed(folder / _LEARNED, LEARNED.get(kind))[1]
    for fold in sorted({*finished, *(path.name for path in folder.glob("fold*") if path.is_dir())}):
        if kind == "run":
            yield from _fold(folder / fold, done=fold in finished, tested=tested)
    named = [folder / f"fold{fold}.pt" for fold in config.get("checkpoints", {})]
    digests: dict[str, Any] = {}
    if (folder / _WEIGHTS).exists():
        digests, finding = _sealed(folder / _WEIGHTS)
        yield finding
    for path in {*named, *folder.glob("fold*.pt")}:
        yield _recorded(path, digests[path.name]) if path.name in digests else _weights(path)
    for path in folder.rglob(".*.tmp"):
        yield Finding(path, "leftover", "half written by a process that was killed")


def _fold(folder: Path, *, done: bool, tested: bool) -> Iterator[Finding]:
    result: Mapping[str, Any] = {}
    if done:
        result, finding = _sealed(folder / "fold.json", Fold)
        yield finding
    for name, expected in (("oof.parquet", done), ("test.parquet", done and tested)):
        if expected or (folder / name).exists():
            yield _table(folder / name)[1]
    lines = 0
    for stage in sorted(folder.glob("stage-*")):
        chosen = result.get("checkpoint") if stage.name == f"stage-{result.get('stage')}" else None
        records = {path: _sealed(path, CheckpointRecord) for path in stage.glob("checkpoint-*.json")}
        known = (record["info"].get("log") for record, _ in records.values() if record)
        lines = max([lines, *(line for line in known if isinstance(line, int))])
        yield from _stage(stage, records, chosen)
    if lines or (folder / "metrics.jsonl").exists():
        yield _lines(folder / "metrics.jsonl", lines)


def _stage(
    folder: Path, records: Mapping[Path, tuple[dict[str, Any], Finding]], chosen: str | None
) -> Iterator[Finding]:
    digests = {}
    for path, (record, finding) in sorted(records.items()):
        yield finding
        if record:
            digests[path.with_suffix(".pt")] = record["sha256"]
            yield _recorded(path.with_suffix(".pt"), record["sha256"])
    links = [folder / "last.pt", folder / "best.pt"]
    for file in sorted({*folder.glob("checkpoint-*.pt"), *([folder / chosen] if chosen else [])}):
        if (lost := file.with_suffix(".json")) in records:
            continue
        if file.name == chosen or any(_same_file(link, file) for link in links):
            yield Finding(lost, "missing", f"{file.name} is in use, so its record was there")
        if file.exists():
            yield Finding(file, "leftover", "has no record: its save or its deletion was cut short")
    scored = any(record.get("score") is not None for record, _ in records.values())
    for link, expected in zip(links, (bool(digests), scored), strict=True):
        if expected or link.is_symlink() or link.exists():
            yield _link(link, digests, records)


def _recorded(path: Path, sha256: str) -> Finding:
    if not path.exists():
        return Finding(path, "missing", "its record is there")
    try:
        same = digest_file(path) == sha256
    except OSError as error:
        return Finding(path, "damaged", f"cannot be read ({error.strerror or error})")
    return Finding(path, "intact") if same else Finding(path, "damaged", "its digest is not that of its record")


def _link(link: Path, digests: Mapping[Path, str], records: Mapping[Path, Any]) -> Finding:
    """A link is judged by where it points; what is in that file is the finding of the file itself."""
    if not link.is_symlink() and not link.exists():
        return Finding(link, "missing", "a link for people; training does not need it, and makes it again")
    file = link.parent / link.readlink().name if link.is_symlink() else None
    if file in digests or any(_same_file(link, path) for path in link.parent.glob("checkpoint-*.pt")):
        return Finding(link, "intact")
    if link.is_file() and digest_file(link) in digests.values():
        return Finding(link, "intact")
    if link.is_file() and len(digests) < len(records):
        return Finding(link, "intact", "of a checkpoint whose record is damaged")
    return Finding(link, "damaged", "is none of the recorded checkpoints")


def _same_file(link: Path, file: Path) -> bool:
    return link.exists() and file.exists() and link.samefile(file)


def _sealed(path: Path, shape: type[Shape] | None = None) -> tuple[dict[str, Any], Finding]:
    if not path.exists():
        return {}, Finding(path, "missing")
    try:
        return read_record(path, shape) if shape else read_sealed(path), Finding(path, "intact")
    except CorruptError as error:
        return {}, Finding(path, "damaged", _reason(error, path))
    except ResumeError:
        return {}, Finding(path, "intact", "of a newer Batteries, which alone can look further")


def _table(path: Path) -> tuple[pl.DataFrame | None, Finding]:
    if not path.exists():
        return None, Finding(path, "missing")
    try:
        return read_table(path)[0], Finding(path, "intact")
    except CorruptError as error:
        return None, Finding(path, "damaged", _reason(error, path))


def _reason(error: CorruptError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


def _lines(path: Path, known: int) -> Finding:
    """The first `known` bytes were on the disk before a checkpoint said so; after them a line may be half written."""
    if not path.exists():
        return Finding(path, "missing", f"the checkpoints know {known:,} bytes of it")
    data = path.read_bytes()
    if len(data) < known:
        return Finding(path, "damaged", f"has {len(data):,} bytes; the checkpoints know {known:,}")
    whole = data if data.endswith(b"\n") else data[: max(known, data.rfind(b"\n") + 1)]
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            is_row = isinstance(json.loads(line), dict)
        except ValueError:
            is_row = False
        if not is_row:
            return Finding(path, "damaged", f"line {number} is not JSON")
    return Finding(path, "intact", "" if whole == data else "the last line is half written; training goes on before it")


def _weights(path: Path) -> Finding:
    """Weights without a record: a zip whose parts carry checksums."""
    if not path.exists():
        return Finding(path, "missing", "config.json names it")
    try:
        with zipfile.ZipFile(path) as parts:
            bad = parts.testzip()
    except (OSError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        return Finding(path, "damaged", f"cannot be read ({error})")
    return Finding(path, "damaged", f"part {bad} is not what was written") if bad else Finding(path, "intact")
