"""Watch: the report made again whenever the folder of runs changes.

In:    the folder of runs; files are looked at, never held open and never listened to.
Out:   a fresh report.html after every change.
Next:  the page in the browser loads itself again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

State = frozenset[tuple[str, int, int]]

_READ = (".db", ".json", ".jsonl", ".parquet")
"""What the report reads; checkpoints are not among it."""


def state_of(root: Path) -> State:
    """Return path, size and time of change of every file that the report reads."""
    return frozenset(_files(str(root)))


def _files(folder: str) -> Iterator[tuple[str, int, int]]:
    try:
        with os.scandir(folder) as found:
            for item in found:
                if item.name.startswith("."):
                    continue
                if item.is_dir(follow_symlinks=False):
                    yield from _files(item.path)
                elif item.name.endswith(_READ):
                    seen = item.stat()
                    yield item.path, seen.st_size, seen.st_mtime_ns
    except FileNotFoundError:  # a folder or file that was there a moment ago
        return


def changes(root: Path, seconds: float, *, sleep: Callable[[float], None] = time.sleep) -> Iterator[None]:
    """Yield at once, then after every change, looking every so many seconds; it never ends.

    What changes while a report is made counts as a change after it.
    """
    before: State | None = None
    while True:
        now = state_of(root)
        if now != before:
            before = now
            yield
        sleep(seconds)
