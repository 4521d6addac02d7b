"""Ledger: the database of entries, scores, blends and submissions. Appended, never edited.

In:    events: this entry was made, this score was seen.
Out:   tables computed from the events.
Next:  the board, the report; the run folders are enough to write it again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    URL,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from batteries.errors import BusyError, CorruptError, ResourceError, UsageError

SCHEMA = 2
_WAIT = 30.0  # seconds for another writer

_meta = MetaData()
_about = Table("about", _meta, Column("key", String, primary_key=True), Column("value", String, nullable=False))
_entries = Table(
    "entries",
    _meta,
    Column("name", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("experiment", String),
    Column("seed", Integer),
    Column("identity", String, nullable=False),
    Column("folds", String),
    Column("metric", String, nullable=False),
    Column("higher_is_better", Boolean, nullable=False),
    Column("config", JSON, nullable=False),
    Column("at", String, nullable=False),
)
_scores = Table(
    "scores",
    _meta,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("entry", String, ForeignKey("entries.name"), nullable=False),
    Column("scope", String, nullable=False),  # fold, oof, test, public, private
    Column("fold", Integer),
    Column("metric", String, nullable=False),
    Column("higher_is_better", Boolean, nullable=False),
    Column("value", Float),  # NULL where the score was not a finite number
    Column("finite", Boolean, nullable=False),
    Column("rows", Integer),
    Column("noise", Float),
    Column("submission", String),
    Column("at", String, nullable=False),
)
_members = Table(
    "members",
    _meta,
    Column("blend", String, ForeignKey("entries.name"), nullable=False),
    Column("member", String, nullable=False),
    Column("weight", Float, nullable=False),
    UniqueConstraint("blend", "member"),
)
_submissions = Table(
    "submissions",
    _meta,
    Column("name", String, primary_key=True),
    Column("entry", String, ForeignKey("entries.name"), nullable=False),
    Column("file", String, nullable=False),
    Column("sha256", String, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("at", String, nullable=False),
)
_looks = Table(
    "looks",
    _meta,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("entry", String, ForeignKey("entries.name"), nullable=False),
    Column("data", String, nullable=False),  # digest of the test set that was looked at
    Column("at", String, nullable=False),
)


class Ledger:
    """The events of one folder of runs, in SQLite.

    >>> ledger = Ledger("runs")  # doctest: +SKIP
    >>> ledger.scores()[0]["value"]  # doctest: +SKIP
    0.9812

    Raises
    ------
    CorruptError
        When the file is no database of ours.
    UsageError
        When a newer Batteries wrote it.

    """

    def __init__(self, root: Path | str) -> None:
        self.path = Path(root) / "ledger.db"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._engine = _engine(self.path)
        with self._transaction() as connection:
            _meta.create_all(connection)
            known = connection.execute(select(_about.c.value).where(_about.c.key == "schema")).scalar()
            if known is None:
                connection.execute(insert(_about).values(key="schema", value=str(SCHEMA)))
            elif int(known) > SCHEMA:
                raise UsageError(
                    f"{self.path} was written by a newer Batteries (schema {known}, this one knows {SCHEMA})"
                )
            elif int(known) < SCHEMA:  # tables it lacked were just made; none of its rows changes
                connection.execute(update(_about).where(_about.c.key == "schema").values(value=str(SCHEMA)))

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except OperationalError as error:
            text = str(error.orig)
            if "locked" in text:
                raise BusyError(
                    f"{self.path}: another process has been writing for {_WAIT:.0f} s; run again"
                ) from error
            if "full" in text or "readonly" in text or "unable to open" in text:
                raise ResourceError(f"{self.path}: cannot be written ({text}); nothing was changed") from error
            raise CorruptError(f"{self.path}: {text}") from error
        except IntegrityError as error:
            raise UsageError(f"{self.path}: refused a row that fits no entry, or repeats one ({error.orig})") from error
        except DatabaseError as error:
            raise CorruptError(
                f"{self.path}: is damaged or no ledger ({error.orig}). The run folders hold all that was in it but"
                " leaderboard scores: move it away and run train, average and blend again; nothing is made twice"
            ) from error

    def add_entry(self, config: Mapping[str, Any]) -> None:
        """Note an entry from its config.json; one that is known already is left as it is."""
        row = {
            "name": config["name"],
            "kind": config["kind"],
            "experiment": config["experiment"]["name"],
            "seed": config["fields"].get("seed"),
            "identity": config["identity"],
            "folds": config["folds"]["digest"],
            "metric": config["metric"]["name"],
            "higher_is_better": config["metric"]["higher_is_better"],
            "config": json.loads(json.dumps(config)),
            "at": _now(),
        }
        with self._transaction() as connection:
            known = connection.execute(select(_entries.c.identity).where(_entries.c.name == row["name"])).scalar()
            if known is None:
                connection.execute(insert(_entries).values(**row))
                for member, weight in config.get("members", {}).items():
                    connection.execute(insert(_members).values(blend=row["name"], member=member, weight=weight))
            elif known != row["identity"]:
                raise UsageError(
                    f"{self.path} knows another {row['name']!r} than the one in the folder (made again after a"
                    " delete?); rename the folder"
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
        key = ("entry", "scope", "fold", "metric", "submission")
        newest = (
            select(_scores)
            .where(*(_scores.c[name].is_not_distinct_from(row[name]) for name in key))
            .order_by(_scores.c.number.desc())
            .limit(1)
        )
        with self._transaction() as connection:
            known = connection.execute(newest).mappings().first()
            if known is not None and all(known[name] == row[name] for name in ("value", "finite", "rows")):
                return False
            connection.execute(insert(_scores).values(**row, at=_now()))
        return True

    def add_look(self, entry: str, *, data: str) -> list[dict[str, Any]]:
        """Note that an entry's score on the test set `data` was looked at; return all looks at it, oldest first."""
        of_data = select(_looks).where(_looks.c.data == data).order_by(_looks.c.number)
        with self._transaction() as connection:
            connection.execute(insert(_looks).values(entry=entry, data=data, at=_now()))
            return [dict(row) for row in connection.execute(of_data).mappings()]

    def add_submission(self, name: str, *, entry: str, file: str, sha256: str, rows: int) -> None:
        """Note a submission file; one that is known already is left as it is."""
        row = {"name": name, "entry": entry, "file": file, "sha256": sha256, "rows": rows}
        with self._transaction() as connection:
            known = connection.execute(select(_submissions.c.sha256).where(_submissions.c.name == name)).scalar()
            if known is None:
                connection.execute(insert(_submissions).values(**row, at=_now()))
            elif known != sha256:
                raise UsageError(f"{self.path} knows another {name!r} than the file in the folder; rename the folder")

    def entries(self) -> list[dict[str, Any]]:
        """Every entry, oldest first."""
        return self._rows(select(_entries).order_by(_entries.c.at, _entries.c.name))

    def scores(self) -> list[dict[str, Any]]:
        """Every score ever noted, oldest first; of one kind the newest counts."""
        return self._rows(select(_scores).order_by(_scores.c.number))

    def members(self) -> list[dict[str, Any]]:
        """Blends and their members with weights."""
        return self._rows(select(_members).order_by(_members.c.blend, _members.c.member))

    def submissions(self) -> list[dict[str, Any]]:
        """Every submission, oldest first."""
        return self._rows(select(_submissions).order_by(_submissions.c.at, _submissions.c.name))

    def looks(self) -> list[dict[str, Any]]:
        """Every time a score on a test set was looked at, oldest first."""
        return self._rows(select(_looks).order_by(_looks.c.number))

    def _rows(self, query: Any) -> list[dict[str, Any]]:
        with self._transaction() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


def _engine(path: Path) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)), connect_args={"timeout": _WAIT, "isolation_level": None}
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # waits for other writers; a deferred one would fail at once

    return engine


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
