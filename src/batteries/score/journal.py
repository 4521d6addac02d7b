"""Journal: every row of the ledger once more, as lines of text beside the runs.

In:    rows as plain data.
Out:   `runs/ledger.jsonl`: a line a row, appended and made durable before the database is told that it is there.
Next:  a database that was lost, was away or is another one takes in the lines that it lacks.

A line carries the digest of its row. A process that dies while it writes leaves a part of a line, which the next
one steps over.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batteries.files import refusing, write_text
from batteries.score.schema import TABLES, plain, row_digest

Row = tuple[str, dict[str, Any]]
"""The name of a table, and what a row of it says."""


@dataclass(frozen=True)
class Lines:
    """What was read of a journal."""

    rows: tuple[Row, ...]
    damaged: int
    """Lines that are not as they were written."""
    end: int
    """Where the file ended."""


class Journal:
    """The file `ledger.jsonl` of a folder of runs.

    >>> Journal(Path("runs")).read().rows  # doctest: +SKIP
    (('entries', {'name': 'toy-001', ...}), ...)
    """

    def __init__(self, root: Path) -> None:
        self.path = root / "ledger.jsonl"

    def size(self) -> int:
        """Return the bytes it has; 0 where there is none."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def append(self, rows: Iterable[Row]) -> tuple[int, int]:
        """Write rows at the end, make them durable; return where the file ended before, and where it ends now.

        Raises
        ------
        ResourceError
            When the disk is full or not writable; then the file is as it was.

        """
        text = "".join(_line(name, row) for name, row in rows).encode()
        with refusing(self.path), self._locked("a+") as file:
            if start := file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                text = text if file.read(1) == b"\n" else b"\n" + text
            try:
                _write(file, text)
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), start)
                raise
            return start, start + len(text)

    def read(self, start: int = 0) -> Lines:
        """Return the rows from byte `start` on; lines that are damaged are counted."""
        if not self.path.exists():
            return Lines((), 0, 0)
        with self._locked("r") as file:
            file.seek(start)
            data = file.read()
        return _lines(data, start)

    def rewrite(self, rows: Iterable[Row]) -> int:
        """Replace the file by `rows` and, after them, its lines that are not among them; return where `rows` end."""
        rows = list(rows)
        events = {row["event"] for _, row in rows}
        with self._locked("a+") as file:
            file.seek(0)
            others = [each for each in _lines(file.read(), 0).rows if each[1]["event"] not in events]
            text, more = ("".join(_line(name, row) for name, row in each) for each in (rows, others))
            write_text(self.path, text + more)
            return len(text.encode())

    @contextmanager
    def _locked(self, mode: str) -> Iterator[io.FileIO]:
        """Open the file and keep others from writing; one that was replaced meanwhile is opened again.

        Without a buffer: what could not be written would be tried again as the file is closed.
        """
        while True:
            with io.FileIO(self.path, mode) as file:
                fcntl.flock(file, fcntl.LOCK_SH if mode == "r" else fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                    yield file
                    return


def _write(file: io.FileIO, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]


def _lines(data: bytes, start: int) -> Lines:
    found = [_row(line) for line in data.split(b"\n") if line]
    rows = tuple(row for row in found if row is not None)
    return Lines(rows, len(found) - len(rows), start + len(data))


def _line(name: str, row: dict[str, Any]) -> str:
    said = {"table": name, "row": plain(name, row), "digest": row_digest(name, row)}
    return json.dumps(said, ensure_ascii=True, allow_nan=False) + "\n"


def _row(line: bytes) -> Row | None:
    """The row of a line; None where it is not the one that was written."""
    try:
        said = json.loads(line)
        name, row = said["table"], said["row"]
        intact = name in TABLES and row_digest(name, row) == said["digest"]
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    return (name, row) if intact else None
