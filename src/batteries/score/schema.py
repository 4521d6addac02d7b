"""Schema: the tables of the ledger, and the digest that every row carries.

In:    a row as plain data.
Out:   the row with a digest of what it says; the same row, and the same digest, from any database.
Next:  `rows` writes and reads them, `migrations` brings older tables here.

Every row belongs to a project, which is one folder of runs, so that many folders share one database. A row is
written once and never changed. `state` holds one line a project: how many rows each table has and the XOR of
their digests, so that a row that is missing is noticed too; and up to where the journal has been entered.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
)

from batteries.errors import CorruptError
from batteries.files import digest_of

SCHEMA = 3
META = MetaData()
ABOUT = Table("about", META, Column("key", String(40), primary_key=True), Column("value", String(40), nullable=False))
STATE = Table(
    "state",
    META,
    Column("project", String(120), primary_key=True),
    Column("journal", BigInteger, nullable=False),  # bytes of it that are entered here
    Column("seals", JSON, nullable=False),  # of each table: the number of rows and the XOR of their digests
)


def _events(name: str, *parts: Any) -> Table:
    return Table(
        name,
        META,
        Column("project", String(120), nullable=False),
        *parts,
        Column("at", String(40), nullable=False),
        Column("event", String(32), nullable=False),
        Column("digest", String(64), nullable=False),
        UniqueConstraint("project", "event"),
    )


def _of(column: str, table: str) -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["project", column], [f"{table}.project", f"{table}.name"])


ENTRIES = _events(
    "entries",
    Column("name", String(120), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("experiment", String(120)),
    Column("seed", BigInteger),
    Column("identity", String(64), nullable=False),
    Column("folds", String(64)),
    Column("metric", String(120), nullable=False),
    Column("higher_is_better", Boolean, nullable=False),
    Column("config", JSON, nullable=False),
    PrimaryKeyConstraint("project", "name"),
)
SUBMISSIONS = _events(
    "submissions",
    Column("name", String(120), nullable=False),
    Column("entry", String(120), nullable=False),
    Column("file", String(255), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("record", JSON(none_as_null=True)),  # what submission.json says of how it was made
    PrimaryKeyConstraint("project", "name"),
    _of("entry", "entries"),
)
SCORES = _events(
    "scores",
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("entry", String(120), nullable=False),
    Column("scope", String(40), nullable=False),  # fold, oof, test, public, private
    Column("fold", Integer),
    Column("metric", String(120), nullable=False),
    Column("higher_is_better", Boolean, nullable=False),
    Column("value", Float(53)),  # NULL where the score was not a finite number
    Column("finite", Boolean, nullable=False),
    Column("rows", BigInteger),
    Column("noise", Float(53)),
    Column("submission", String(120)),
    _of("entry", "entries"),
    Index("scores_of_entry", "project", "entry"),
)
LOOKS = _events(
    "looks",
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("entry", String(120), nullable=False),
    Column("data", String(64), nullable=False),  # digest of the test set that was looked at
    _of("entry", "entries"),
)
UPLOADS = _events(
    "uploads",
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("submission", String(120), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("target", String(255), nullable=False),  # kaggle:titanic
    Column("state", String(40), nullable=False),  # intent, sent, scored, failed, unknown
    Column("detail", JSON(none_as_null=True)),
    _of("submission", "submissions"),
)
TABLES = {table.name: table for table in (ENTRIES, SUBMISSIONS, SCORES, LOOKS, UPLOADS)}
"""All that hold rows; a table comes after those it refers to."""
PLUMBING = ("project", "event", "digest")
"""Columns that are of use to the ledger alone."""


def plain(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row of a table says, in the types that every database gives back; without its number.

    >>> plain("looks", {"entry": "toy-001", "data": "abc", "at": "2026", "event": "e"})
    {'entry': 'toy-001', 'data': 'abc', 'at': '2026', 'event': 'e'}
    """
    columns = (column for column in TABLES[name].columns if column.name not in ("project", "number", "digest"))
    return {column.name: _value(column.type, row.get(column.name)) for column in columns}


def check_row(path: Path, name: str, row: Mapping[str, Any]) -> None:
    """Refuse, as CorruptError, a row of a file that no ledger could have held: a value lacks or is of another type."""
    for column in TABLES[name].columns:
        value = row.get(column.name)
        if column.name not in ("project", "number", "digest") and not _fits(column, value):
            raise CorruptError(f"{path}: a row of {name} has {column.name} = {value!r:.40}; export the ledger again")


def _fits(column: Column[Any], value: Any) -> bool:
    if value is None:
        return bool(column.nullable)
    if isinstance(column.type, JSON):
        return isinstance(value, dict)
    if isinstance(column.type, Boolean):
        return isinstance(value, bool)
    if isinstance(column.type, Float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(column.type, Integer):
        return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63
    return isinstance(value, str)


def _value(kind: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(kind, JSON):
        return json.loads(json.dumps(value, allow_nan=False))
    if isinstance(kind, Boolean):
        return bool(value)
    if isinstance(kind, Float):
        return float(value) + 0.0  # SQLite keeps no -0.0
    return int(value) if isinstance(kind, Integer) else str(value)


def row_digest(name: str, row: Mapping[str, Any]) -> str:
    """SHA-256 of what a row of a table says, whichever project it is in and whatever number it has there."""
    return digest_of([name, plain(name, row)])


def joined(total: str, digest: str) -> str:
    """Return the XOR of two digests: that of many is the same in any order."""
    return f"{int(total, 16) ^ int(digest, 16):064x}"
