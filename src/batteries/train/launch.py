"""Launch: several processes of one command on this machine, by torchrun's own launcher.

In:    the arguments of the command, and how many processes.
Out:   an exit code: 0, or that of the process at fault; 9 where one was killed or hung.
Next:  each process finds itself in `train.distributed`.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from batteries.errors import UsageError
from batteries.train.stacks import stacks, state_of

_FOLDER = "BATTERIES_LAUNCH"
_WORDS, _STACKS, _RANKS, _LAUNCHER = "words", "stacks", "ranks", "launcher"
_DONE = "done"
_NO_TEXT = sha256(b"").hexdigest()
_GRACE = 5.0
"""Seconds that the others have to end by themselves once one has failed."""


def by_us() -> bool:
    """Whether this process is one of those that `launch` started."""
    return _FOLDER in os.environ


def meeting_file() -> Path | None:
    """Where the processes of `launch` find each other: PyTorch's port for it would be open to other machines."""
    return Path(os.environ[_FOLDER]) / _RANKS if by_us() else None


def stacks_folder() -> Path | None:
    """Where the processes of `launch` answer where they are."""
    return Path(os.environ[_FOLDER]) / _STACKS if by_us() else None


def failed(text: str) -> bool:
    """Let the launcher know that this process ends with an error, so that it does not wait long for the others.

    Return whether it is the first to say `text`: what all processes fail with is to be said once.
    """
    if by_us():
        try:
            (Path(os.environ[_FOLDER]) / _WORDS / sha256(text.encode()).hexdigest()).touch(exist_ok=False)
        except FileExistsError:
            return False
    return True


def finished() -> None:
    """Let the launcher know that all processes came to the end of their work, so that it leaves them in peace."""
    if by_us():
        (Path(os.environ[_FOLDER]) / _WORDS / _DONE).touch()


def end_with_launcher() -> None:
    """Have this process asked to save and end when the launcher is killed."""
    if by_us():
        Thread(target=_watch_launcher, args=(os.getppid(),), daemon=True).start()


def _watch_launcher(process: int) -> None:
    while os.getppid() == process:  # Linux can send a signal by itself, but sends some twice: the second one kills
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def launch(arguments: Sequence[str], processes: int, *, say: Callable[[str], object]) -> int:
    """Run `python -m batteries` with these arguments in several processes; return the exit code.

    Ctrl-C and SIGTERM are handed on; the processes save and end. When one dies or hangs the others end
    too, within seconds, and the first at fault is named.

    Raises
    ------
    UsageError
        Fewer than two processes are asked for, or this is one of several already.

    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UsageError(f"--ddp {processes} starts processes itself; leave it out under torchrun")
    if processes < 2:
        raise UsageError(f"--ddp {processes}: give 2 processes or more, or leave it out for one")
    logging.disable(logging.ERROR)  # the launcher's own reports; `_blame` says what matters
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # nothing listens: the processes meet in a file
    if loopback := [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback[0])  # else the address of the machine's name
    with TemporaryDirectory(prefix="batteries-") as folder, _Reaper(Path(folder), processes) as reaper:
        os.environ[_FOLDER] = folder
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=str(Path(folder) / _LAUNCHER),
            rdzv_configs={"store_type": "file"},
            local_addr="127.0.0.1",
            max_restarts=0,
            shutdown_timeout=120,
        )
        try:
            elastic_launch(config, sys.executable)("-m", "batteries", *arguments)
        except ChildFailedError as error:
            reaper.stop()
            return _blame(error.failures, reaper, processes, say)
        except SignalException as stop:
            return 128 + int(stop.sigval)
        finally:
            del os.environ[_FOLDER]
    return 0


def _blame(failures: Mapping[int, Any], reaper: _Reaper, processes: int, say: Callable[[str], object]) -> int:
    """Name the process at fault where it could not speak for itself; return the exit code."""
    codes = {rank: failure.exitcode for rank, failure in failures.items() if failure.pid not in reaper.killed}
    again = "Saved checkpoints are intact; the same command goes on from there"
    for rank, code in codes.items():
        if code < 0 and -code not in (signal.SIGTERM, signal.SIGINT):
            say(f"rank {rank} of {processes} was killed by {signal.Signals(-code).name}. {again}")
            return 9
    own = {rank: code for rank, code in codes.items() if code not in (9, -signal.SIGTERM, -signal.SIGINT)}
    for rank, code in own.items():
        if reaper.explained():
            return int(code)
        say(f"rank {rank} of {processes} ended itself with code {code} and said nothing. {again}")
        return 9
    hung = sorted(set(range(processes)) - {rank for rank, code in codes.items() if code == 9})
    say(f"rank {', '.join(map(str, hung)) or '?'} of {processes} hung: it was silent for too long. {again}")
    return 9


class _Reaper:
    """Kills what is left of the processes some seconds after the first of them failed."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.folder, self.processes, self.over = folder, processes, Event()
        self.words = folder / _WORDS
        self.words.mkdir()
        self.seen: set[int] = set()
        self.killed: set[int] = set()
        self.thread = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Reaper:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End with all that the processes started themselves, such as loader workers."""
        self.over.set()
        self.thread.join()
        for group in self.seen:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)

    def _watch(self) -> None:
        while not self.over.wait(0.2):
            alive = _children()
            self.seen |= alive
            if self._failed(alive):
                self.over.wait(_GRACE)
                if not self.over.is_set() and not self.explained():
                    sys.stderr.write(stacks(self.folder / _STACKS))
                for child in set() if self.over.is_set() else _children():
                    with suppress(ProcessLookupError):
                        os.killpg(child, signal.SIGKILL)  # each is a session of its own, its loader workers in it
                        self.killed.add(child)
                return

    def explained(self) -> bool:
        """Whether a process said what it failed with."""
        return bool({path.name for path in self.words.iterdir()} - {_DONE, _NO_TEXT})

    def _failed(self, alive: set[int]) -> bool:
        """Whether a process said that it failed, or is gone without a word while others are at work."""
        words = {path.name for path in self.words.iterdir()}
        return bool(words - {_DONE}) or (not words and len(alive) < len(self.seen) == self.processes)


def _children() -> set[int]:
    """Processes that this one started, that lead a group of their own and run; where the system tells."""
    found = set()
    for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with suppress(OSError):  # the thread is gone meanwhile
            found |= set(map(int, path.read_text().split()))
    return {process for process in found if _leads(process)}


def _leads(process: int) -> bool:
    try:
        state, group = state_of(process)
    except ProcessLookupError:
        return False
    return group == process and state not in "ZX"
