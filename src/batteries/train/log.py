"""Log: what was measured while training, for programs (JSON lines) and for eyes (TensorBoard).

In:    a step and named numbers.
Out:   metrics.jsonl, one object a line; TensorBoard events beside it.
Next:  the report draws its curves from metrics.jsonl; TensorBoard shows them live.
"""

from __future__ import annotations

import errno
import json
import os
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

from batteries.errors import CorruptError, ResourceError


class MetricLog:
    """Append named numbers to `folder/metrics.jsonl` and to TensorBoard events in `folder/tensorboard`.

    Lines hold nothing that differs between two equal runs, so a resumed run's file equals an
    uninterrupted one's. NaN is written as null.

    >>> with MetricLog("logs") as log:  # doctest: +SKIP
    ...     log.write(step=100, **{"train/loss": 0.31, "valid/auc": 0.93})
    """

    def __init__(self, folder: Path | str, *, position: int | None = None, tensorboard: bool = True) -> None:
        """Open the log; `position` forgets everything after so many bytes, as `position()` once told."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        if position is not None:
            _cut(self._path, position)
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        self._folder = folder / "tensorboard"
        self._board: Any = None
        self._tensorboard = tensorboard

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def position(self) -> int:
        """Bytes written so far, all of them safely on the disk."""
        self._sync()
        return self._file.seek(0, os.SEEK_END)

    def _sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> ResourceError:
        return ResourceError(f"{self._path}: cannot be written ({error.strerror or error}); run again when it can")

    def write(self, *, step: int, **values: float | str | None) -> None:
        """Add one line. Texts (such as a stage's name) go to the file only; tensors of one number are read."""
        values = {name: v if v is None or isinstance(v, str | int) else float(v) for name, v in values.items()}
        plain = {name: None if isinstance(v, float) and not isfinite(v) else v for name, v in values.items()}
        line = json.dumps({"step": step, **plain}, allow_nan=False).encode() + b"\n"
        try:
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise self._refused(error) from error
        if self._tensorboard:
            self._to_tensorboard(step, values)

    def _to_tensorboard(self, step: int, values: dict[str, float | str | None]) -> None:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(name, value, step)
        self._board.flush()

    def close(self) -> None:
        """Flush and close both."""
        if self._board is not None:
            self._board.close()
            self._board = None
        if not self._file.closed:
            try:
                self._sync()
            finally:
                self._file.close()


def _cut(path: Path, position: int) -> None:
    """Forget what was written after a position."""
    path.touch()
    if path.stat().st_size < position:
        raise CorruptError(f"{path} lost lines that were written; restore it from a copy")
    os.truncate(path, position)


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
