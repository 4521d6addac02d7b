"""Log: what was measured while training, for programs (JSON lines) and for eyes (TensorBoard).

In:    a step and named numbers.
Out:   metrics.jsonl, one object a line; TensorBoard events beside it.
Next:  the report draws its curves from metrics.jsonl; TensorBoard shows them live.
"""

from __future__ import annotations

import json
import os
from math import isfinite
from pathlib import Path
from types import TracebackType
from typing import Any

from batteries.errors import CorruptError


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
        self._file = open(folder / "metrics.jsonl", "ab")  # noqa: SIM115 - closed by close()
        if position is not None:
            if self.position() < position:
                self._file.close()
                raise CorruptError(f"{folder / 'metrics.jsonl'} lost lines that were written; restore it from a copy")
            self._file.truncate(position)
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
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def write(self, *, step: int, **values: float | str | None) -> None:
        """Add one line. Texts (such as a stage's name) go to the file only."""
        plain = {name: None if isinstance(v, float) and not isfinite(v) else v for name, v in values.items()}
        self._file.write(json.dumps({"step": step, **plain}, allow_nan=False).encode() + b"\n")
        self._file.flush()
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
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()
        if self._board is not None:
            self._board.close()
            self._board = None


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
