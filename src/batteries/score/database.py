"""Database: where the ledger is, transactions on it, and what its errors mean.

In:    a folder of runs; `BATTERIES_LEDGER`, where it is set.
Out:   transactions on SQLite, PostgreSQL or another server; every failure as an error that says what to do.
Next:  the ledger. A password is in no message.
"""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError

from batteries.errors import BusyError, CorruptError, ResourceError, UsageError
from batteries.files import room, write_text

VARIABLE = "BATTERIES_LEDGER"
WAIT = 30.0
"""Seconds for another writer."""
_CONNECT = 10
"""Seconds for a server to answer."""
_LOCK = int.from_bytes(sha256(b"batteries ledger").digest()[:7], "big")
"""The number of PostgreSQL's advisory lock: one writer at a time, as on SQLite."""
_PROJECT = ".project"
_REFUSED = (
    *(sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_NOLFS),
)
"""SQLite's codes where the system or the disk refuses, and the file is what it was."""


@dataclass(frozen=True)
class Place:
    """A database, and which of its rows are those of a folder of runs."""

    url: URL
    project: str

    @property
    def file(self) -> Path | None:
        """The file of a SQLite database; None of a server."""
        return Path(self.url.database or "") if self.url.get_backend_name() == "sqlite" else None

    @property
    def name(self) -> str:
        """What messages call it: never with its password."""
        where = self.url
        port = f":{where.port}" if where.port else ""
        return str(self.file or f"{where.get_backend_name()}://{where.host or ''}{port}/{where.database or ''}")

    def clean(self, error: BaseException | None) -> str:
        """Return the first line of a driver's error, without the password."""
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        password = self.url.password
        return said.replace(str(password), "***") if password else said


def place_of(root: Path) -> Place:
    """Return where the ledger of a folder of runs is: as `BATTERIES_LEDGER` says, else `ledger.db` in it.

    Raises
    ------
    UsageError
        When the variable holds no URL that SQLAlchemy takes, or a URL of an unknown database.

    """
    own, said = root / "ledger.db", os.environ.get(VARIABLE, "").strip()
    if not said:
        return Place(URL.create("sqlite", database=str(own)), "")
    url = _url(said)
    file = Path(url.database or "") if url.get_backend_name() == "sqlite" else None
    if file is not None and file.absolute() == own.absolute():
        return Place(url, "")
    return Place(url, _project(root))


def _url(said: str) -> URL:
    if "://" not in said:
        return URL.create("sqlite", database=str(Path(said).expanduser()))
    kind, _, rest = said.partition("://")
    kind = "postgresql+psycopg" if kind in ("postgres", "postgresql") else kind
    try:
        url = make_url(f"{kind}://{rest}")
        url.get_dialect()
    except (ArgumentError, ValueError, NoSuchModuleError):  # their texts may hold parts of a password
        raise UsageError(
            f"{VARIABLE} is no URL of a database; write postgresql://user:password@host:5432/name, with %40 for an @"
            " in the password, or the path of a SQLite file"
        ) from None
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise UsageError(f"{VARIABLE}: a ledger in memory is gone with the process; give the path of a file")
    return url


def _project(root: Path) -> str:
    """The name of a folder's rows in a shared database: made once, from its own name and a random part."""
    path = root / _PROJECT
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        made = root / f"{_PROJECT}.{uuid4().hex}.tmp"
        write_text(made, f"{root.resolve().parent.name[:80]}-{uuid4().hex[:12]}\n")
        try:
            os.link(made, path)  # of two processes, the second finds the name of the first
        except FileExistsError:
            pass
        finally:
            made.unlink()
    return path.read_text(encoding="utf-8").strip()


class Database:
    """Transactions on the database of a place, one writer at a time."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._engine = _engine(place)

    def close(self) -> None:
        """Let go of it."""
        self._engine.dispose()

    @contextmanager
    def transaction(self, *, writes: bool) -> Iterator[Connection]:
        """Open a transaction that sees one state of the database, and ends whole or not at all.

        Raises
        ------
        BusyError
            When another process has been writing for 30 s, or the server cannot be reached.
        ResourceError
            When the disk is full or not writable.
        CorruptError
            When the database is damaged or no ledger.
        UsageError
            When a row fits no entry.

        """
        try:
            with self._engine.connect() as connection:
                server = self.place.file is None
                level = {} if writes or not server else {"isolation_level": "REPEATABLE READ"}
                connection = connection.execution_options(writes=writes, **level)
                with connection.begin():
                    yield connection
        except CorruptError as error:
            raise CorruptError(f"{self.place.name}: {error}; run: batteries ledger recover") from error
        except DBAPIError as error:
            raise self._meaning(error) from None  # its traceback could show what the driver was given
        except (sqlite3.Error, UnicodeDecodeError) as error:  # as SQLite opened the file
            raise self._of_file(error) from error

    def _meaning(self, error: DBAPIError) -> Exception:
        if isinstance(error, IntegrityError):
            said = self.place.clean(error.orig)
            return UsageError(f"{self.place.name}: refused a row that fits no entry, or repeats one ({said})")
        return self._of_server(error) if self.place.file is None else self._of_file(error.orig)

    def _of_file(self, error: BaseException | None) -> Exception:
        """What SQLite means, by its code: its words for a disk that fails and for a damaged file are much alike."""
        name, said = self.place.name, self.place.clean(error)
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
            return BusyError(f"{name}: {_holder(Path(name))} has been writing for {WAIT:.0f} s")
        if code in _REFUSED:
            said = f"{said}; {room(Path(name).parent)}"  # SQLite keeps the reason to itself, such as a quota
            return ResourceError(
                f"{name}: cannot be used ({said}); its rows are untouched. Next: make room on the disk, or the file and"
                " its folder writable, and run again"
            )
        return CorruptError(f"{name}: is damaged or no ledger ({said}); run: batteries ledger recover")

    def _of_server(self, error: DBAPIError) -> Exception:
        said = self.place.clean(error.orig)
        state = str(getattr(error.orig, "sqlstate", None) or "")
        if state == "55P03":  # lock_not_available
            return BusyError(f"{self.place.name}: {self._writer()} has been writing for {WAIT:.0f} s")
        if state[:2] in ("", "08", "28", "3D", "53", "57", "40"):  # away, refused, no such database, full, shut down
            return BusyError(f"{self.place.name}: cannot be used now ({said})")
        if state == "42501":
            return ResourceError(f"{self.place.name}: the user may not do that ({said}); grant it, then run again")
        return CorruptError(f"{self.place.name}: holds no ledger, or another one ({said})")

    def _writer(self) -> str:
        """Who holds PostgreSQL's advisory lock."""
        query = text(
            "SELECT a.application_name, a.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.granted AND ((l.classid::bigint << 32) | l.objid::bigint) = :number"
        )
        try:
            with self._engine.connect() as connection:
                found = connection.execute(query, {"number": _LOCK}).first()
        except DBAPIError:
            found = None
        return f"{found[0] or 'another program'} (server process {found[1]})" if found else "another process"


def _engine(place: Place) -> Engine:
    kind = place.url.get_backend_name()
    arguments: dict[str, Any] = {}
    if kind == "sqlite":
        arguments = {"timeout": WAIT, "isolation_level": None}
        place.file.parent.mkdir(parents=True, exist_ok=True)  # type: ignore[union-attr]
    elif kind == "postgresql" and place.url.get_driver_name() == "psycopg":
        name = f"batteries on {socket.gethostname()[:30]}, process {os.getpid()}"
        arguments = {"connect_timeout": _CONNECT, "application_name": name}
    try:
        engine = create_engine(place.url, connect_args=arguments, hide_parameters=True)
    except ModuleNotFoundError as error:
        package = "'batteries[postgres]'" if error.name == "psycopg" else str(error.name)
        raise UsageError(
            f"{place.name}: needs the package {error.name!r}, which is not installed: pip install {package}"
        ) from None
    listen = {"sqlite": _listen_to_sqlite, "postgresql": _listen_to_postgres}.get(kind)
    if listen is not None:
        listen(engine)
    return engine


def _listen_to_sqlite(engine: Engine) -> None:
    """SQLite's rollback journal: unlike its write-ahead log it works on network file systems, too.

    A commit that a power cut takes back is entered again from `ledger.jsonl`.
    """

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")  # the first waits for other writers


def _listen_to_postgres(engine: Engine) -> None:
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("writes"):
            wait = f"set_config('lock_timeout', '{int(WAIT * 1000)}', true)"
            connection.exec_driver_sql(f"SELECT {wait}, pg_advisory_xact_lock({_LOCK})")


def _holder(path: Path) -> str:
    """Who holds a lock on a file, as Linux tells; `another process` where it does not."""
    try:
        found = path.stat()
        key = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
        lines = [line.split() for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines()]
        owners = [line[4] for line in lines if key in line and line[4] != str(os.getpid())]
        return f"process {owners[0]} ({Path('/proc', owners[0], 'comm').read_text().strip()})"
    except (OSError, IndexError):
        return "another process"
