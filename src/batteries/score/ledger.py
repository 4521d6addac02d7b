"""Ledger: entries, scores, looks, submissions and uploads of a folder of runs. Appended, never edited.

In:    events: this entry was made, this score was seen.
Out:   tables computed from the events.
Next:  the board, the report.

It is `runs/ledger.db`, a SQLite file, or the database that `BATTERIES_LEDGER` names: a URL that SQLAlchemy takes,
such as postgresql://user:password@host/name, or the path of a file. Folders of runs that share a database keep to
their own rows: each has a name of its own in `runs/.project`, and sees only what was noted under it.

Every row is a line of `runs/ledger.jsonl`, too, on the disk before the database has it. So a database that was
away, lost, restored from an old copy or exchanged for another takes in what it lacks at the next opening, each row
once; and a row that cannot be entered now is kept there until then.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from batteries.errors import BusyError, CorruptError, UsageError
from batteries.score.database import VARIABLE, Database, place_of
from batteries.score.journal import Journal, Row
from batteries.score.migrations import keep_copy, migrate, schema_of
from batteries.score.rows import fetch, put, set_state, shown, state
from batteries.score.schema import SCHEMA, TABLES, plain

State = Literal["intent", "sent", "scored", "failed", "unknown"]
STATES: tuple[str, ...] = ("intent", "sent", "scored", "failed", "unknown")


class Ledger:
    """The events of one folder of runs.

    A row is on the disk when the call that adds it returns. Where another process writes for 30 s, or a server is
    away, rows are kept in the folder, and `close` raises BusyError with their number; reading raises it at once.

    >>> ledger = Ledger("runs")  # doctest: +SKIP
    >>> ledger.scores()[0]["value"]  # doctest: +SKIP
    0.9812

    Raises
    ------
    CorruptError
        When the database is damaged or no ledger of ours.
    ResumeError
        When a newer Batteries wrote it.
    UsageError
        When `BATTERIES_LEDGER` cannot be used.

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

    @staticmethod
    def exists(root: Path | str) -> bool:
        """Whether a folder of runs has a ledger: always where `BATTERIES_LEDGER` names a server."""
        root = Path(root)
        if not os.environ.get(VARIABLE):
            return (root / "ledger.db").exists() or (root / "ledger.jsonl").exists()
        file = place_of(root).file
        return file is None or file.exists()

    def _open(self) -> None:
        with self.database.transaction(writes=False) as connection:
            is_ready = schema_of(connection, self.place.name) == SCHEMA and (
                state(connection, self.place.project)["journal"] == self.journal.size()
            )
        if is_ready:
            return
        with self.database.transaction(writes=True) as connection:
            known = schema_of(connection, self.place.name)
            if 0 < known < SCHEMA and self.place.file is not None:
                keep_copy(self.place.file, known)
            migrate(connection, self.place.name, self.place.project)
            if 0 < known < SCHEMA:
                self._write_journal(connection)
            self._catch_up(connection)

    def _catch_up(self, connection: Connection) -> None:
        """Enter the lines of the journal that are not entered yet; write those again that it lost."""
        entered, size = state(connection, self.place.project, lock=True)["journal"], self.journal.size()
        if size == entered:
            return
        lines = self.journal.read(entered if size > entered else 0)
        refused = sum(not self._entered(connection, name, row) for name, row in lines.rows)
        if refused or lines.damaged:
            warnings.warn(
                f"{self.journal.path}: {refused} lines do not fit the ledger and {lines.damaged} are damaged;"
                " they are left out. See: batteries ledger check",
                stacklevel=4,
            )
        if size < entered:
            self._write_journal(connection)
        else:
            set_state(connection, self.place.project, journal=lines.end)

    def _entered(self, connection: Connection, name: str, row: dict[str, Any]) -> bool:
        try:
            with connection.begin_nested():
                put(connection, self.place.project, name, row)
        except (UsageError, IntegrityError):
            return False
        return True

    def write_journal(self) -> None:
        """Write the journal again: all rows of the database, and what it does not have."""
        if self._away is not None:
            raise self._away
        with self.database.transaction(writes=True) as connection:
            self._catch_up(connection)
            self._write_journal(connection)

    def _write_journal(self, connection: Connection) -> None:
        rows = [(name, row) for name in TABLES for row in fetch(connection, self.place.project, name)]
        set_state(connection, self.place.project, journal=self.journal.rewrite(rows))

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

    def __enter__(self) -> Ledger:
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
            if schema_of(connection, self.place.name) != SCHEMA:
                raise CorruptError("its tables were taken away meanwhile")
            self._catch_up(connection)
            is_new = put(connection, self.place.project, name, said)
            if is_new:
                set_state(connection, self.place.project, journal=self.journal.append([(name, said)]))
        return is_new

    def enter(self, rows: Sequence[Row]) -> int:
        """Append rows as another ledger, or this one before it was lost, has them; return how many are new.

        All of them or none. Raises UsageError when one contradicts what is known, BusyError when the database is away.
        """
        if self._away is not None:
            raise self._away
        with self.database.transaction(writes=True) as connection:
            self._catch_up(connection)
            new = [(name, row) for name, row in rows if put(connection, self.place.project, name, row)]
            if new:
                set_state(connection, self.place.project, journal=self.journal.append(new))
        return len(new)

    def add_entry(self, config: Mapping[str, Any]) -> None:
        """Note an entry from its config.json; one that is known already is left as it is.

        Raises
        ------
        UsageError
            When another entry of this name is known.

        """
        self._add(
            "entries",
            {
                "name": config["name"],
                "kind": config["kind"],
                "experiment": config["experiment"]["name"],
                "seed": config["fields"].get("seed"),
                "identity": config["identity"],
                "folds": config["folds"]["digest"],
                "metric": config["metric"]["name"],
                "higher_is_better": config["metric"]["higher_is_better"],
                "config": config,
            },
        )

    def add_score(
        self,
        entry: str,
        scope: str,
        value: float,
        *,
        metric: str,
        higher_is_better: bool,
        fold: int | None = None,
        rows: int | None = None,
        noise: float | None = None,
        submission: str | None = None,
    ) -> bool:
        """Append a score, unless it repeats the newest one of the same kind; return whether it was new.

        `scope` is `fold`, `oof`, `test`, `public` or `private`. A score that is not finite is kept as such.
        """
        finite = isfinite(value)
        row = {
            "entry": entry,
            "scope": scope,
            "fold": fold,
            "metric": metric,
            "higher_is_better": higher_is_better,
            "value": value if finite else None,
            "finite": finite,
            "rows": rows,
            "noise": noise if noise is not None and isfinite(noise) else None,
            "submission": submission,
        }
        return self._add("scores", row)

    def add_look(self, entry: str, *, data: str) -> list[dict[str, Any]]:
        """Note that an entry's score on the test set `data` was looked at; return all looks at it, oldest first.

        Where the ledger is away, this look alone.
        """
        self._add("looks", {"entry": entry, "data": data})
        if self._away is not None:
            return [{"entry": entry, "data": data}]
        return [look for look in self.looks() if look["data"] == data]

    def add_submission(
        self, name: str, *, entry: str, file: str, sha256: str, rows: int, record: Mapping[str, Any] | None = None
    ) -> None:
        """Note a submission file, and what is to be known of how it was made; one that is known is left as it is.

        Raises
        ------
        UsageError
            When another file of this name is known.

        """
        row = {"name": name, "entry": entry, "file": file, "sha256": sha256, "rows": rows, "record": record}
        self._add("submissions", row)

    def add_upload(
        self, submission: str, *, sha256: str, target: str, state: State, detail: Mapping[str, Any] | None = None
    ) -> None:
        """Note a step of sending a submission somewhere; `intent` before it is sent.

        Parameters
        ----------
        submission, sha256
            Its name and the digest of the file that is sent.
        target
            Where to: `kaggle:titanic`.
        state
            `intent`, `sent`, `scored`, `failed`, or `unknown` where no answer came.
        detail
            Plain data: what the other side said.

        Raises
        ------
        UsageError
            When there is no such submission, or no such state.

        >>> ledger.add_upload("submission-001", sha256="ab", target="kaggle:titanic", state="intent")  # doctest: +SKIP

        """
        if state not in STATES:
            raise UsageError(f"an upload is {', '.join(STATES[:-1])} or {STATES[-1]}, got {state!r}")
        row = {"submission": submission, "sha256": sha256, "target": target, "state": state, "detail": detail}
        self._add("uploads", row)

    def entries(self) -> list[dict[str, Any]]:
        """Every entry, oldest first."""
        return self._rows("entries")

    def scores(self) -> list[dict[str, Any]]:
        """Every score ever noted, oldest first; of one kind the newest counts."""
        return self._rows("scores")

    def members(self) -> list[dict[str, Any]]:
        """Blends and their members with weights, as the configs of the blends say."""
        found = [
            {"blend": entry["name"], "member": member, "weight": float(weight)}
            for entry in self.entries()
            for member, weight in entry["config"].get("members", {}).items()
        ]
        return sorted(found, key=lambda row: (row["blend"], row["member"]))

    def submissions(self) -> list[dict[str, Any]]:
        """Every submission, oldest first."""
        return self._rows("submissions")

    def looks(self) -> list[dict[str, Any]]:
        """Every time a score on a test set was looked at, oldest first."""
        return self._rows("looks")

    def uploads(self, submission: str | None = None) -> list[dict[str, Any]]:
        """Every step of sending submissions, or one of them, oldest first."""
        return [row for row in self._rows("uploads") if submission in (None, row["submission"])]

    def _rows(self, name: str) -> list[dict[str, Any]]:
        return [shown(row) for row in self.whole(name)]

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
            return fetch(connection, self.place.project, name)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
