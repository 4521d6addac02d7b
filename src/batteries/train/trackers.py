"""Trackers: where the numbers of a training are shown while it runs, beside the files a run keeps.

In:    a step and named numbers, as the log hands them on.
Out:   TensorBoard events; a run in Weights & Biases; whatever else two methods can reach.
Next:  people look at them; nothing in Batteries reads them back.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

_QUEUE = 1000  # events that may wait for TensorBoard's own writing thread


class Tracker(Protocol):
    """Anything that can be told numbers: two methods, no base class.

    Both are called on the training's thread, so what is slow belongs into a thread of the tracker's
    own. One that raises is named in a warning and left out for the rest of the run.

    >>> class Loudly:
    ...     def write(self, step: int, values: Mapping[str, float]) -> None:
    ...         print(step, dict(values))
    ...     def close(self) -> None: ...
    >>> tracker: Tracker = Loudly()
    >>> tracker.write(50, {"train/loss": 0.5})
    50 {'train/loss': 0.5}
    """

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one step; they may be NaN. Steps come again after a resume."""

    def close(self) -> None:
        """Send what waits. Each stage closes its trackers; `write` may be called again after it."""


class TensorBoard:
    """Scalars in `folder`, for `tensorboard --logdir`; every log has one unless told otherwise.

    Events are written by a thread of TensorBoard's own and flushed every `flush_seconds`; one event
    holds all numbers of a step. `hide_from` makes viewers forget what an earlier process noted from that
    step on, for a run that goes on from before it.

    >>> TensorBoard("logs/tensorboard").write(50, {"train/loss": 0.5})  # doctest: +SKIP
    """

    def __init__(self, folder: Path | str, *, hide_from: int | None = None, flush_seconds: int = 10) -> None:
        self._folder, self._hide_from, self._flush_seconds = Path(folder), hide_from, flush_seconds
        self._writer: Any = None
        self._event: Any = None
        self._summary: Any = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Note the numbers of one step; the file is made with the first."""
        if self._writer is None:
            self._open()
        summary = self._summary(value=[{"tag": name, "simple_value": value} for name, value in values.items()])
        self._writer.add_event(self._event(step=step, wall_time=time.time(), summary=summary))

    def _open(self) -> None:
        # what torch.utils.tensorboard stands on; its SummaryWriter makes one event of every number
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(self._folder), _QUEUE, self._flush_seconds)
        if self._hide_from is not None:
            start = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(step=self._hide_from, wall_time=time.time(), session_log=start))
            self._hide_from = None

    def close(self) -> None:
        """Flush and close the file; a later number opens another."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()
