"""Trackers: where the numbers of a training are shown while it runs, beside the files a run keeps.

In:    a step and named numbers, as the log hands them on.
Out:   TensorBoard events; a run in Weights & Biases; whatever else two methods can reach.
Next:  people look at them; nothing in Batteries reads them back.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from batteries.errors import UsageError
from batteries.files import digest_of


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

    One event holds all numbers of a step, and is in the file when `write` returns. `hide_from` makes viewers
    forget what an earlier process noted from that step on, for a run that goes on from before it.

    >>> TensorBoard("logs/tensorboard").write(50, {"train/loss": 0.5})  # doctest: +SKIP
    """

    def __init__(self, folder: Path | str, *, hide_from: int | None = None) -> None:
        self._folder, self._hide_from = Path(folder), hide_from
        self._records: Any = None
        self._event: Any = None
        self._summary: Any = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Note the numbers of one step; the file is made with the first."""
        if self._records is None:
            self._open()
        summary = self._summary(value=[{"tag": name, "simple_value": value} for name, value in values.items()])
        self._add(step=step, summary=summary)

    def _add(self, **event: Any) -> None:
        try:
            self._records.write(self._event(wall_time=time.time(), **event).SerializeToString())
        except OSError:
            self.close()
            raise

    def _open(self) -> None:
        # what torch.utils.tensorboard stands on, whose writer is a thread that cannot say what the disk refused
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event, self._summary = Event, Summary
        self._folder.mkdir(parents=True, exist_ok=True)
        now = time.time_ns()  # viewers read files in the order of their names
        name = f"events.out.tfevents.{now // 10**9:010d}.{socket.gethostname()}.{os.getpid()}.{now}"
        self._records = RecordWriter(open(self._folder / name, "xb", buffering=0))  # noqa: SIM115
        self._add(file_version="brain.Event:2")
        if self._hide_from is not None:
            self._add(step=self._hide_from, session_log=SessionLog(status=SessionLog.START))
            self._hide_from = None

    def close(self) -> None:
        """Close the file; a later number opens another."""
        if self._records is not None:
            records, self._records = self._records, None
            records.close()


class WandB:
    """A run in Weights & Biases, kept under one id for one `project` and `name` however often it is resumed.

    Without `name` every object is a run of its own, so a stage or a resume makes another. Two people who
    share a project need names of their own, else their numbers meet in one run. `mode` is
    "online", "offline" or None for what WANDB_MODE says; offline, nothing leaves the machine and nothing
    is written outside `folder`. Sent are the numbers and `config`, no code, console output, paths or
    machine names. The key is read by wandb itself (`wandb login`) and never kept by Batteries.

    Raises
    ------
    UsageError
        When wandb is not installed.

    >>> tracker = WandB("digits", name="digits-001/fold0", mode="offline", folder="runs")  # doctest: +SKIP
    >>> MetricLog("runs/digits-001/fold0", trackers=[tracker])  # doctest: +SKIP

    """

    def __init__(
        self,
        project: str,
        *,
        name: str | None = None,
        mode: Literal["online", "offline"] | None = None,
        config: Mapping[str, Any] | None = None,
        folder: Path | str | None = None,
    ) -> None:
        found = find_spec("wandb")
        if found is None or found.origin is None:  # without origin it is a folder of that name, such as wandb leaves
            raise UsageError("wandb is not installed; run pip install 'batteries[track]'")
        self._project, self._name, self._mode, self._config = project, name, mode, config
        self._folder = Path.cwd() if folder is None else Path(folder).absolute()
        self._id = None if name is None else digest_of([project, name])[:16]
        self._run: Any = None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Send the numbers of one step; the run is begun, or gone on with, at the first."""
        if self._run is None:
            self._open()
        self._run.log({"update": step, **values})  # not as wandb's own step, which refuses to go back on resume

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with _environment(_nothing_outside(self._folder) if self._is_offline() else {}):
            import wandb

            self._run = wandb.init(
                project=self._project,
                name=self._name,
                id=self._id,
                resume="allow" if self._id and not self._is_offline() else None,  # offline it is the id that joins
                reinit="create_new",  # a run that the caller has open stays open
                config=dict(self._config or {}),
                mode=self._mode,
                settings=wandb.Settings(
                    root_dir=str(self._folder), console="off", silent=True,
                    disable_git=True, disable_code=True, save_code=False,
                    host="", x_disable_meta=True, x_disable_machine_info=True, x_save_requirements=False,
                ),
            )  # fmt: skip
        if self._id is None:
            self._id = self._run.id
        self._run.define_metric("*", step_metric="update")

    def _is_offline(self) -> bool:
        return (self._mode or os.environ.get("WANDB_MODE")) == "offline"

    def close(self) -> None:
        """Send what waits and end the process beside; a later number goes on with the same run."""
        if self._run is not None:
            run, self._run = self._run, None
            run.finish()


def _nothing_outside(folder: Path) -> dict[str, str]:
    """Return the environment in which wandb keeps to a folder; what the caller has set is left alone."""
    inside = str(folder / "wandb" / "cache")
    names = ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR")
    wanted = {**dict.fromkeys(names, inside), "WANDB_ERROR_REPORTING": "false"}
    return {name: value for name, value in wanted.items() if name not in os.environ}


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]
