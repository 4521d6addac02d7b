"""Store: rows of a folder of runs in the database and in the journal, whichever of the two is away.

In:    rows as plain data.
Out:   the same rows, checked; those that a database lacks are entered as it is opened.
Next:  the ledger gives each kind of row a name.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from batteries.errors import BusyError, CorruptError, UsageError
from batteries.score.database import Database, place_of
from batteries.score.journal import Journal, Row
from batteries.score.migrations import keep_copy, known_schema, migrate, schema_of
from batteries.score.rows import Rows
from batteries.score.schema import SCHEMA, TABLES, plain


class Store:
    """A database and the journal beside the runs, kept equal.

    A row goes into the open transaction, then into the journal, and the transaction ends: a process that dies in
    between leaves a line that the next opening enters. A row carries a name of its own, so it is entered once.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root)
        self.root.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(self.root)
        self.place = place_of(self.root)
        self.database = Database(self.place)
        self._kept = 0
        self._away: BusyError | None = None
        try:
            self._open()
        except BusyError as error:
            self._away = error
        except BaseException:
            self.database.close()
            raise

    def _open(self) -> None:
        name, project = self.place.name, self.place.project
        with self.database.transaction(writes=False) as connection:
            if schema_of(connection, name) == SCHEMA and Rows(connection, project).journal == self.journal.size():
                return
        with self.database.transaction(writes=True) as connection:
            known = schema_of(connection, name)
            if 0 < known < SCHEMA and self.place.file is not None:
                keep_copy(self.place.file, known)
            migrate(connection, name, project)
            rows = Rows(connection, project, lock=True)
            if 0 < known < SCHEMA:
                self._write_journal(rows)
            self._catch_up(connection, rows)

    def _catch_up(self, connection: Connection, rows: Rows) -> None:
        """Enter the lines of the journal that are not entered yet; write those again that it lost."""
        size = self.journal.size()
        if size == rows.journal:
            return
        lines = self.journal.read(rows.journal if size > rows.journal else 0)
        refused = sum(not _entered(connection, rows, name, row) for name, row in lines.rows)
        if refused or lines.damaged:
            warnings.warn(
                f"{self.journal.path}: {refused} lines do not fit the ledger and {lines.damaged} are damaged;"
                " they are left out. See: batteries ledger check",
                stacklevel=4,
            )
        if size < rows.journal:
            self._write_journal(rows)
        else:
            rows.save(lines.end)

    def write_journal(self) -> None:
        """Write the journal again: all rows of the database, and what it does not have."""
        if self._away is not None:
            raise self._away
        with self.database.transaction(writes=True) as connection:
            rows = Rows(connection, self.place.project, lock=True)
            self._catch_up(connection, rows)
            self._write_journal(rows)

    def _write_journal(self, rows: Rows) -> None:
        rows.save(self.journal.rewrite([(name, row) for name in TABLES for row in rows.fetch(name)]))

    def close(self) -> None:
        """Let go of the database.

        Raises
        ------
        BusyError
            When rows could not be entered and are kept in `ledger.jsonl`.

        """
        self.database.close()
        if self._kept:
            kept, self._kept = self._kept, 0
            raise BusyError(
                f"{self._away}. {kept} new row{'s are' if kept > 1 else ' is'} kept in {self.journal.path}; the next"
                " command enters what is there"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if error is None or isinstance(error, BusyError):
            self.close()
        else:
            self.database.close()

    def _add(self, name: str, row: Mapping[str, Any]) -> bool:
        """Append a row, here or, while the database is away, in the folder; return whether it is new."""
        said = plain(name, {**row, "at": _now(), "event": uuid4().hex})
        if self._away is None:
            try:
                return self._put(name, said)
            except BusyError as error:
                self._away = error
        self.journal.append([(name, said)])
        self._kept += 1
        return True

    def _put(self, name: str, said: dict[str, Any]) -> bool:
        with self.database.transaction(writes=True) as connection:
            if known_schema(connection, self.place.name) != SCHEMA:
                raise CorruptError("its tables were taken away meanwhile")
            rows = Rows(connection, self.place.project, lock=True)
            self._catch_up(connection, rows)
            is_new = rows.put(name, said)
            if is_new:
                self._note(connection, rows, [(name, said)])
        return is_new

    def _note(self, connection: Connection, rows: Rows, new: Sequence[Row]) -> None:
        """Write rows into the journal, and enter what another process kept there since it was looked at."""
        start, end = self.journal.append(new)
        if start == rows.journal:
            rows.save(end)
        else:
            self._catch_up(connection, rows)

    def enter(self, rows: Sequence[Row]) -> int:
        """Append rows as another ledger, or this one before it was lost, has them; return how many are new.

        All of them or none. Raises UsageError when one contradicts what is known, BusyError when the database is away.
        """
        if self._away is not None:
            raise self._away
        with self.database.transaction(writes=True) as connection:
            own = Rows(connection, self.place.project, lock=True)
            self._catch_up(connection, own)
            new = [(name, row) for name, row in rows if own.enter(name, row)]
            if new:
                self._note(connection, own, new)
        return len(new)

    def whole(self, name: str) -> list[dict[str, Any]]:
        """Every row of a table with all its columns, each checked.

        Raises
        ------
        CorruptError
            When one is not as it was written, or is missing.
        BusyError
            When the database is away.

        """
        if self._away is not None:
            raise self._away
        with self.database.transaction(writes=False) as connection:
            return Rows(connection, self.place.project).fetch(name)


def _entered(connection: Connection, rows: Rows, name: str, row: Mapping[str, Any]) -> bool:
    """Whether a row is in the database now; not if it fits nothing there."""
    try:
        with connection.begin_nested():
            rows.enter(name, row)
    except (UsageError, IntegrityError):
        return False
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
