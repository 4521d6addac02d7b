"""Rows: written with their digest, counted, and checked whenever they are read.

In:    an open transaction, a project, rows as plain data.
Out:   the same rows, or CorruptError: never others than were written, never fewer.
Next:  the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select, update

from batteries.errors import CorruptError, UsageError
from batteries.score.schema import ENTRIES, PLUMBING, SCORES, STATE, SUBMISSIONS, TABLES, joined, plain, row_digest

_NOTHING = "0" * 64
_KEY = ("entry", "scope", "fold", "metric", "submission")


class Rows:
    """All rows of a project, in one transaction.

    Parameters
    ----------
    connection, project
        The transaction, and whose rows.
    lock
        Whether other writers of the project wait until it ends, on databases that can lock a line.

    """

    def __init__(self, connection: Connection, project: str, *, lock: bool = False) -> None:
        self._connection, self._project = connection, project
        query = select(STATE.c.journal, STATE.c.seals).where(STATE.c.project == project)
        try:
            found = connection.execute(query.with_for_update() if lock else query).mappings().first()
            self._is_new = found is None
            self.journal = 0 if found is None else int(found["journal"])
            """Bytes of the journal that are entered."""
            seals = {} if found is None else found["seals"]
            self._seals: dict[str, tuple[int, str]] = {name: (int(n), str(total)) for name, (n, total) in seals.items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise CorruptError(f"the line of a project cannot be read ({error})") from error

    def put(self, name: str, row: Mapping[str, Any]) -> bool:
        """Append a row to a table, unless it says what is known already; return whether it was new.

        `save` must follow in the same transaction.

        Raises
        ------
        UsageError
            When it contradicts a row of the same name.

        """
        said = plain(name, row)
        if self._is_known(name, said):
            return False
        digest = row_digest(name, said)
        self._connection.execute(insert(TABLES[name]), {"project": self._project, **said, "digest": digest})
        rows, total = self._seals.get(name, (0, _NOTHING))
        self._seals[name] = (rows + 1, joined(total, digest))
        return True

    def enter(self, name: str, row: Mapping[str, Any]) -> bool:
        """Put a row that may be here already, as it was made before."""
        own = TABLES[name].c
        here = select(own.event).where(own.project == self._project, own.event == row["event"])
        return self._connection.execute(here).first() is None and self.put(name, row)

    def _is_known(self, name: str, row: Mapping[str, Any]) -> bool:
        """Whether an entry or a submission of this name, or as newest of its kind a score of this value, is here."""
        if name in ("entries", "submissions"):
            column = ENTRIES.c.identity if name == "entries" else SUBMISSIONS.c.sha256
            own = column.table.c
            query = select(column).where(own.project == self._project, own.name == row["name"])
            known = self._connection.execute(query).scalar()
            if known is not None and known != row[column.name]:
                raise UsageError(
                    f"the ledger knows another {row['name']!r} (made again after a delete, or elsewhere?); give"
                    " this one another name"
                )
            return known is not None
        if name != "scores":
            return False
        same = (SCORES.c[key].is_not_distinct_from(row[key]) for key in _KEY)
        newest = select(SCORES.c.value, SCORES.c.finite, SCORES.c.rows).where(SCORES.c.project == self._project, *same)
        last = self._connection.execute(newest.order_by(SCORES.c.number.desc()).limit(1)).mappings().first()
        return last is not None and all(last[key] == row[key] for key in last)

    def save(self, journal: int) -> None:
        """Note how many rows there are, and up to which byte the journal is entered."""
        values = {"journal": journal, "seals": self._seals}
        if self._is_new:
            self._connection.execute(insert(STATE), {"project": self._project, **values})
        else:
            self._connection.execute(update(STATE).where(STATE.c.project == self._project), values)
        self.journal, self._is_new = journal, False

    def fetch(self, name: str) -> list[dict[str, Any]]:
        """Return all rows of a table, oldest first, with all their columns.

        Raises
        ------
        CorruptError
            When one says something else than was written, or one is missing.

        """
        table = TABLES[name]
        order = [table.c.number] if "number" in table.c else [table.c.at, table.c.name]
        try:
            query = select(table).where(table.c.project == self._project).order_by(*order)
            found = [dict(row) for row in self._connection.execute(query).mappings()]
            wrong = [row for row in found if row_digest(name, row) != row["digest"]]
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise CorruptError(f"a row of {name} cannot be read ({error})") from error
        if wrong:
            which = wrong[0].get("name") or f"number {wrong[0].get('number')}"
            raise CorruptError(
                f"{len(wrong)} of {len(found)} rows of {name} are not as they were written (first: {which})"
            )
        total = _NOTHING
        for row in found:
            total = joined(total, row["digest"])
        written = self._seals.get(name, (0, _NOTHING))
        if (len(found), total) != written:
            raise CorruptError(f"{name} has {len(found)} rows, {written[0]} were written, or they are other rows")
        return found


def shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row without the columns that are of use to the ledger alone."""
    return {key: value for key, value in row.items() if key not in PLUMBING}
