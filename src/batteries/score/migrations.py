"""Migrations: make the tables of a new ledger, or bring those of an older one to this schema.

In:    an open transaction on the database.
Out:   the tables of `schema`, with every row there was.
Next:  the ledger works on them. A process that is killed in the middle leaves the old tables as they were.

Rows are taken out as plain data, brought forward one schema at a time by functions that know no database, and put
into new tables. So the same functions serve exported files of older schemas.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, insert, inspect, select, update

import batteries
from batteries.errors import CorruptError, ResumeError
from batteries.files import digest_of
from batteries.score.rows import Rows
from batteries.score.schema import ABOUT, META, SCHEMA, TABLES

Plain = dict[str, list[dict[str, Any]]]
"""Rows of each table, oldest first."""


def schema_of(connection: Connection, name: str) -> int:
    """Return the schema of the database; 0 where it holds no ledger yet.

    Raises
    ------
    ResumeError
        When a newer Batteries wrote it.
    CorruptError
        When it says no number.

    """
    if not inspect(connection).has_table(ABOUT.name):
        return 0
    return known_schema(connection, name)


def known_schema(connection: Connection, name: str) -> int:
    """Return the schema of a database that holds a ledger. Raises as `schema_of` does."""
    about = {row.key: row.value for row in connection.execute(select(ABOUT))}
    known = about.get("schema", "")
    if not known.isdecimal() or not int(known):
        raise CorruptError(f"is damaged or no ledger (schema {known!r})")
    if int(known) > SCHEMA:
        raise ResumeError(
            f"{name} was written by Batteries {about.get('version', 'of a later version')}, this is"
            f" {batteries.__version__} (schema {known}, this one knows {SCHEMA}); install that version"
        )
    return int(known)


def migrate(connection: Connection, name: str, project: str) -> None:
    """Make or renew the tables, in the transaction of one who holds the database against all others."""
    known = schema_of(connection, name)
    if known == SCHEMA:
        return
    rows = taken_out(connection, known) if known else {}
    META.create_all(connection)
    values = {"schema": str(SCHEMA), "version": batteries.__version__}
    connection.execute(update(ABOUT).where(ABOUT.c.key == "schema").values(value=values["schema"]))
    for key in values.keys() - set(connection.execute(select(ABOUT.c.key)).scalars()):
        connection.execute(insert(ABOUT).values(key=key, value=values[key]))
    own = Rows(connection, project)
    for table, each in brought_forward(rows, known).items():
        for row in each:
            own.put(table, row)
    own.save(0)


def taken_out(connection: Connection, known: int) -> Plain:
    """Return all rows of an older ledger, and take its tables away."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    old = MetaData()
    old.reflect(connection)
    rows = {}
    for table in old.sorted_tables:
        if table.name != ABOUT.name:
            order = [column for key in ("number", "at", "name") if (column := table.columns.get(key)) is not None]
            rows[table.name] = [dict(row) for row in connection.execute(select(table).order_by(*order)).mappings()]
    change = Operations(MigrationContext.configure(connection))
    for table in reversed(old.sorted_tables):
        if table.name != ABOUT.name:
            change.drop_table(table.name)
    return rows


def brought_forward(rows: Mapping[str, list[dict[str, Any]]], known: int) -> Plain:
    """Return rows of schema `known` as those of this one."""
    found: Plain = {name: [dict(row) for row in each] for name, each in rows.items()}
    for step in range(known, SCHEMA):
        found = STEPS.get(step, dict)(found)
    return {name: found.get(name, []) for name in TABLES}


def _from_2(rows: Plain) -> Plain:
    """Rows get a name of their own, the same whenever they are brought forward; members are in the blends' configs."""
    return {
        name: [{**row, "event": digest_of([name, _texts(row)])[:32]} for row in each]
        for name, each in rows.items()
        if name != "members"
    }


def _texts(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: repr(value) if isinstance(value, float) else value for key, value in row.items()}


STEPS: dict[int, Callable[[Plain], Plain]] = {2: _from_2}
"""By the schema they start from; schema 2 only added a table."""


def keep_copy(path: Path, known: int) -> Path:
    """Keep the file of a SQLite ledger of an older schema beside it, as it is; return where."""
    kept = path.with_name(f"{path.stem}-schema-{known}{path.suffix}")
    if not kept.exists():
        half = kept.with_name(f".{kept.name}.tmp")
        half.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(half)) as copy:
            source.backup(copy)  # not by reading it: closing a plain file would drop this process's locks on it
        half.rename(kept)
    return kept
