"""Log: what was measured while training, for programs (JSON lines) and for eyes (TensorBoard, trackers).

In:    a step and named numbers.
Out:   metrics.jsonl, one object a line; timings.jsonl, what depends on the machine; TensorBoard events.
Next:  the report draws its curves from both; TensorBoard and trackers show them live.
"""

from __future__ import annotations

import errno
import json
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

from batteries.errors import ConfigError, CorruptError
from batteries.files import refusing
from batteries.prepare.seed import random_state_kept
from batteries.train.trackers import TensorBoard, Tracker

_encode = json.JSONEncoder(allow_nan=False).encode
_PIECE = 1 << 12

Value = float | str | None


class MetricLog:
    """Append named numbers to `folder/metrics.jsonl`, to TensorBoard events in `folder/tensorboard`, to trackers.

    Lines of `write` hold nothing that differs between two equal runs, so a resumed run's file equals an
    uninterrupted one's; what depends on the machine's mood goes through `measure` to `timings.jsonl`.
    NaN is written as null. The line is in the file before TensorBoard or a tracker hears of it; one of
    them that fails is named in a warning and left out from there on.

    >>> with MetricLog("logs") as log:  # doctest: +SKIP
    ...     log.write(step=100, **{"train/loss": 0.31, "valid/auc": 0.93})
    ...     log.measure(step=100, **{"speed/samples_per_second": 5210.0})
    """

    def __init__(
        self,
        folder: Path | str,
        *,
        position: int | None = None,
        tensorboard: bool = True,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        """Open the log; `position` forgets everything after so many bytes, as `position()` once told.

        A last line that a crash left half written is cut off in any case. `trackers` are closed with the log.
        """
        self._trackers: list[Tracker] = [_checked(tracker) for tracker in trackers]
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        hide_from = _cut(self._folder / "metrics.jsonl", position)
        self._lines = _Lines(self._folder / "metrics.jsonl")
        self._timings: _Lines | None = None
        if tensorboard:
            self._trackers.insert(0, TensorBoard(self._folder / "tensorboard", hide_from=hide_from))

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def position(self) -> int:
        """Bytes of metrics.jsonl so far. They are safely on the disk once `sync` has returned."""
        return self._lines.position

    def sync(self) -> None:
        """Wait until all lines are safely on the disk; any thread may call it, also after `close`."""
        self._lines.sync()

    def write(self, *, step: int, **values: Value) -> None:
        """Add one line. Texts (such as a stage's name) go to the file only; tensors of one number are read."""
        plain = _plain(values)
        self._lines.append(step, plain)
        self._show(step, plain)

    def measure(self, *, step: int, **values: Value) -> None:
        """Add one line on speed or memory to timings.jsonl, where lines of a resumed run come twice."""
        if self._timings is None:
            _cut(self._folder / "timings.jsonl", None)
            self._timings = _Lines(self._folder / "timings.jsonl")
        plain = _plain(values)
        self._timings.append(step, plain)
        self._show(step, plain)

    def _show(self, step: int, values: Mapping[str, Value]) -> None:
        if self._trackers:
            numbers = {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
            for tracker in tuple(self._trackers):
                self._try(tracker, partial(tracker.write, step, numbers))

    def _try(self, tracker: Tracker, call: Callable[[], None]) -> None:
        try:
            with nullcontext() if isinstance(tracker, TensorBoard) else random_state_kept():
                call()  # it may draw a name at random, in a resumed run once more
        except Exception as error:  # noqa: BLE001 - a display of any kind must not end the training
            self._trackers.remove(tracker)
            warnings.warn(
                f"{type(tracker).__name__} failed ({type(error).__name__}: {error}); it is left out for the rest of"
                f" this run. Training goes on, and {self._lines.path} has every line",
                stacklevel=4,
            )

    def close(self) -> None:
        """Close the files, the trackers and TensorBoard; all lines are safely on the disk."""
        try:
            self._lines.close()
            if self._timings is not None:
                self._timings.close()
        finally:
            for tracker in tuple(self._trackers):
                self._try(tracker, tracker.close)


class _Lines:
    """A file of JSON lines, each written with one call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        self._closing = threading.Lock()
        self.position = self._file.seek(0, os.SEEK_END)

    def append(self, step: int, values: Mapping[str, Value]) -> None:
        try:
            text = _encode({"step": step, **values})
        except ValueError:  # looked at only then: a line costs less than a step of the smallest model
            text = _encode({"step": step, **{name: _finite(value) for name, value in values.items()}})
        line = text.encode() + b"\n"
        with refusing(self.path):
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.position += len(line)

    def sync(self) -> None:
        with self._closing:
            if not self._file.closed:
                self._sync()

    def _sync(self) -> None:
        with refusing(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        with self._closing:
            if not self._file.closed:
                try:
                    self._sync()
                finally:
                    self._file.close()


def _plain(values: Mapping[str, Any]) -> dict[str, Value]:
    return {name: v if v is None or isinstance(v, float | int | str) else float(v) for name, v in values.items()}


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not isfinite(value) else value


def _cut(path: Path, position: int | None) -> int | None:
    """Forget what was written after a position, or else a half-written last line.

    Return the step after the last one kept if whole lines were cut, so that viewers hide those too.
    """
    path.touch()
    size = path.stat().st_size
    if position is None:
        os.truncate(path, _end_of_last_line(path, size))
        return None
    if size < position:
        raise CorruptError(f"{path} lost lines that were written; restore it from a copy")
    if size == position:
        return None
    os.truncate(path, position)
    rows = read_metrics(path)
    return int(rows[-1]["step"]) + 1 if rows else 0


def _end_of_last_line(path: Path, size: int) -> int:
    """Bytes up to and with the last newline, read from the end."""
    with open(path, "rb") as file:
        while size:
            start = max(0, size - _PIECE)
            file.seek(start)
            found = file.read(size - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            size = start
    return 0


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics.jsonl; a half-written last line, of a run still going, is left out."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise CorruptError(f"{path}, line {number}: is not JSON") from None
    return rows


def _checked(tracker: Tracker) -> Tracker:
    """Refuse what has not the two methods of a tracker, before anything is logged."""
    for name in ("write", "close"):
        if not callable(getattr(tracker, name, None)):
            wanted = "give it write(step, values) and close()"
            raise ConfigError(f"tracker {type(tracker).__name__} has no {name}(); {wanted}")
    return tracker
