"""Rows: written with their digest, counted, and checked whenever they are read.

In:    an open transaction, a project, rows as plain data.
Out:   the same rows, or CorruptError: never others than were written, never fewer.
Next:  the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from batteries.errors import CorruptError, UsageError
from batteries.score.schema import ENTRIES, PLUMBING, SCORES, STATE, SUBMISSIONS, TABLES, joined, plain, row_digest

NOTHING = "0" * 64
_KEY = ("entry", "scope", "fold", "metric", "submission")


def put(connection: Connection, project: str, name: str, row: Mapping[str, Any]) -> bool:
    """Append a row to a table, unless it is there or says what is known already; return whether it was new.

    Raises
    ------
    UsageError
        When it contradicts a row of the same name.

    """
    table, said = TABLES[name], plain(name, row)
    event = select(table.c.event).where(table.c.project == project, table.c.event == said["event"])
    if connection.execute(event).first() is not None or _known(connection, project, name, said):
        return False
    digest = row_digest(name, said)
    connection.execute(insert(table).values(project=project, **said, digest=digest))
    _count(connection, project, name, digest)
    return True


def _known(connection: Connection, project: str, name: str, row: Mapping[str, Any]) -> bool:
    """Whether an entry or a submission of this name, or as newest of its kind a score of this value, is there."""
    if name in ("entries", "submissions"):
        column = ENTRIES.c.identity if name == "entries" else SUBMISSIONS.c.sha256
        own = column.table.c
        known = connection.execute(select(column).where(own.project == project, own.name == row["name"])).scalar()
        if known is not None and known != row[column.name]:
            raise UsageError(
                f"the ledger knows another {row['name']!r} than the one in the folder (made again after a delete?);"
                " rename the folder"
            )
        return known is not None
    if name != "scores":
        return False
    newest = select(SCORES).where(
        SCORES.c.project == project, *(SCORES.c[key].is_not_distinct_from(row[key]) for key in _KEY)
    )
    last = connection.execute(newest.order_by(SCORES.c.number.desc()).limit(1)).mappings().first()
    return last is not None and all(last[key] == row[key] for key in ("value", "finite", "rows"))


def _count(connection: Connection, project: str, name: str, digest: str) -> None:
    seals = state(connection, project)["seals"]
    rows, total = seals.get(name, (0, NOTHING))
    set_state(connection, project, seals={**seals, name: (rows + 1, joined(total, digest))})


def state(connection: Connection, project: str, *, lock: bool = False) -> dict[str, Any]:
    """Return the line of a project: `journal`, the bytes of it that are entered, and `seals`.

    With `lock` other writers of the project wait until the transaction ends, on databases that can lock a line.
    """
    query = select(STATE.c.journal, STATE.c.seals).where(STATE.c.project == project)
    try:
        found = connection.execute(query.with_for_update() if lock else query).mappings().first()
        if found is None:
            return {"journal": 0, "seals": {}}
        return {"journal": int(found["journal"]), "seals": {key: tuple(found["seals"][key]) for key in found["seals"]}}
    except (ValueError, TypeError) as error:
        raise CorruptError(f"the line of a project cannot be read ({error})") from error


def set_state(connection: Connection, project: str, **values: Any) -> None:
    """Change the line of a project, or write its first."""
    changed = connection.execute(update(STATE).where(STATE.c.project == project).values(**values))
    if not changed.rowcount:
        connection.execute(insert(STATE).values(**{"project": project, "journal": 0, "seals": {}, **values}))


def fetch(connection: Connection, project: str, name: str) -> list[dict[str, Any]]:
    """Return all rows of a table, oldest first, with all their columns.

    Raises
    ------
    CorruptError
        When one says something else than was written, or one is missing.

    """
    table = TABLES[name]
    order = [table.c.number] if "number" in table.c else [table.c.at, table.c.name]
    try:
        query = select(table).where(table.c.project == project).order_by(*order)
        found = [dict(row) for row in connection.execute(query).mappings()]
        wrong = [row for row in found if row_digest(name, row) != row["digest"]]
        seal = state(connection, project)["seals"].get(name, (0, NOTHING))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise CorruptError(f"a row of {name} cannot be read ({error})") from error
    if wrong:
        which = wrong[0].get("name") or f"number {wrong[0].get('number')}"
        raise CorruptError(f"{len(wrong)} of {len(found)} rows of {name} are not as they were written (first: {which})")
    total = NOTHING
    for row in found:
        total = joined(total, row["digest"])
    if (len(found), total) != seal:
        raise CorruptError(f"{name} has {len(found)} rows, {seal[0]} were written, or they are other rows")
    return found


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without the columns that are of use to the ledger alone."""
    return {key: value for key, value in row.items() if key not in PLUMBING}
