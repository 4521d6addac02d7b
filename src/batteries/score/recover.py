"""Recover: look for damage in the ledger, and make it whole again.

In:    a folder of runs.
Out:   what is wrong; a ledger with every row that its journal, the damaged file or the folders hold.
Next:  `batteries ledger check` and `recover` print them. A damaged file is kept.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import JSON, Boolean, text

from batteries.errors import CorruptError
from batteries.files import locked
from batteries.score.board import restore
from batteries.score.database import place_of
from batteries.score.journal import Journal, Row
from batteries.score.ledger import Ledger
from batteries.score.schema import TABLES, plain, row_digest


@dataclass(frozen=True)
class Checked:
    """What a ledger holds, and what is wrong with it."""

    place: str
    """Its file, or the server's address."""
    rows: dict[str, int]
    """Of each table that can be read."""
    problems: tuple[str, ...]
    """One text for each; none where every row is as it was written."""
    notes: tuple[str, ...]
    """What is wrong with the journal alone: nothing is lost as long as the database is whole."""


def check(root: Path | str = "runs") -> Checked:
    """Read every row of the ledger and of its journal, and compare both.

    Raises
    ------
    BusyError
        When the database is away.
    ResumeError
        When a newer Batteries wrote it.

    >>> check("runs").problems  # doctest: +SKIP
    ()

    """
    root = Path(root)
    rows: dict[str, int] = {}
    problems: list[str] = []
    known: set[str] = set()
    try:
        with Ledger(root) as ledger:
            for name in TABLES:
                try:
                    found = ledger.whole(name)
                except CorruptError as error:
                    problems.append(str(error))
                    continue
                rows[name] = len(found)
                known |= {row["event"] for row in found}
            problems += _inside(ledger)
    except CorruptError as error:
        problems.append(str(error))
    place = place_of(root).name
    notes = () if problems else _beside(Journal(root), known)
    return Checked(place, rows, tuple(problems), notes)


def _inside(ledger: Ledger) -> list[str]:
    """What SQLite's own check says of the file: damage to what finds rows, not to the rows."""
    if ledger.place.file is None:
        return []
    with ledger.database.transaction(writes=False) as connection:
        found = connection.execute(text("PRAGMA integrity_check")).scalars().all()
    return [] if found == ["ok"] else [f"{ledger.place.name}: {found[0]}; run: batteries ledger recover"]


def _beside(journal: Journal, known: set[str]) -> tuple[str, ...]:
    lines = journal.read()
    lacking = len(known - {row["event"] for _, row in lines.rows})
    notes = []
    if lines.damaged:
        notes.append(f"{journal.path}: {lines.damaged} lines are damaged")
    if lacking:
        notes.append(f"{journal.path}: {lacking} rows of the ledger are not in it; recover writes them there")
    return tuple(notes)


@dataclass(frozen=True)
class Recovered:
    """What was done to make a ledger whole."""

    kept: Path | None
    """Where the damaged file is now; None where there was none."""
    rows: dict[str, int]
    """Of each table, now."""
    salvaged: int
    """Rows that only the damaged file had."""
    entries: int
    """Entries that the folders hold, all of which are in the ledger."""


def recover(root: Path | str = "runs") -> Recovered:
    """Make the ledger whole: from its journal, the intact rows of a damaged file, and the folders of entries.

    A damaged SQLite file is moved to `ledger-damaged-1.db` beside it, never deleted. Each row comes back once.

    Raises
    ------
    CorruptError
        When a database on a server is damaged: it is not ours to replace.

    >>> recover("runs").rows["scores"]  # doctest: +SKIP
    3200

    """
    root = Path(root)
    with locked(root, wait=True):
        found, place = check(root), place_of(root)
        kept, saved = None, []
        if found.problems and place.file is None:
            raise CorruptError(
                f"{found.problems[0]}. Restore that database from its backup, or name an empty one: it takes in all"
                f" that {root / 'ledger.jsonl'} holds"
            )
        if found.problems and place.file is not None:
            kept = _set_aside(place.file)
            saved = list(_salvaged(kept, place.project))
        with Ledger(root) as ledger:
            salvaged = ledger.enter(saved)
            ledger.write_journal()
    entries = restore(root)
    with Ledger(root) as ledger:
        rows = {name: len(ledger.whole(name)) for name in TABLES}
    return Recovered(kept, rows, salvaged, entries)


def _set_aside(path: Path) -> Path:
    """Move a file and what SQLite wrote beside it to the first free name."""
    number = 1
    while (kept := path.with_name(f"{path.stem}-damaged-{number}{path.suffix}")).exists():
        number += 1
    for ending in ("-journal", "-wal", "-shm"):
        if (beside := path.with_name(path.name + ending)).exists():
            beside.rename(kept.with_name(kept.name + ending))
    path.rename(kept)
    return kept


def _salvaged(path: Path, project: str) -> Iterator[Row]:
    """Rows of a damaged file that are as they were written; the file itself is only read."""
    with TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        for ending in ("", "-journal", "-wal"):
            if (part := path.with_name(path.name + ending)).exists():
                shutil.copyfile(part, copy.with_name(copy.name + ending))
        for name in TABLES:
            with closing(sqlite3.connect(copy)) as connection:
                connection.row_factory = sqlite3.Row
                connection.text_factory = lambda data: data.decode("utf-8", "replace")
                yield from ((name, row) for row in _intact(connection, name, project))


def _intact(connection: sqlite3.Connection, name: str, project: str) -> Iterator[dict[str, Any]]:
    try:
        for found in connection.execute(f"SELECT * FROM {name} ORDER BY rowid"):
            row = _typed(name, dict(found))
            if row is not None and row["project"] == project and row_digest(name, row) == row["digest"]:
                yield plain(name, row)
    except (sqlite3.Error, ValueError, TypeError, KeyError, OverflowError):
        return  # what comes after the damage cannot be reached; the journal and the folders may have it


def _typed(name: str, row: dict[str, Any]) -> dict[str, Any] | None:
    """A row as SQLite stores it, in the types that it was written with; None where it cannot be."""
    try:
        for column in TABLES[name].columns:
            if row[column.name] is not None and isinstance(column.type, JSON):
                row[column.name] = json.loads(row[column.name])
            elif row[column.name] is not None and isinstance(column.type, Boolean):
                row[column.name] = bool(row[column.name])
        row_digest(name, row)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return row
