"""Workers: what a DataLoader's processes read, with a name for whatever goes wrong with one of them.

In:    a DataLoader whose items are whole batches.
Out:   its items in order; an error that names the worker and the rows; no process left behind.
Next:  sources read torch Datasets through it.
"""

from __future__ import annotations

import atexit
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader

from batteries.errors import ResourceError

_POLL = 1.0
"""Seconds between two looks at whether all workers live."""
_END = object()


@dataclass
class Failed:
    """An exception on its way from a worker, as the item it was raised for."""

    error: Exception
    trace: str

    def again(self, where: str) -> Exception:
        """The exception as it was, with a note of where it was raised."""
        self.error.add_note(f"in {where}; there:\n{self.trace}")
        return self.error


def attempted(work: Callable[[], Any]) -> Any:
    """What `work` returns, or the exception it raised as an item to send."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 raised again in the main process
        trace = "".join(traceback.format_exception(error))
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001 whatever its own pickling raises
            return Failed(RuntimeError(f"{type(error).__name__}: {error}"), trace)
        return Failed(error, trace)


def supervised(loader: DataLoader[Any], *, timeout: float, reading: Callable[[int], str]) -> Iterator[Any]:
    """Yield the items of a DataLoader with workers; None among them means "still at work" and is dropped.

    `reading` says what item number k holds. Workers leave SIGINT and SIGTERM to the main process: those
    sent to the whole group would end them before it has saved.

    Raises
    ------
    ResourceError
        When a worker is dead, or an item took longer than `timeout` seconds of waiting.
    Exception
        What the dataset raised, as it was, with the worker and the rows in a note.

    """
    with _child_signals_left_alone():
        try:
            items: Any = iter(loader)
        except OSError as error:
            raise ResourceError(f"{loader.num_workers} workers could not be started: {error}") from error
    workers: Sequence[BaseProcess] = items._workers  # there is no public way to them
    kill = _killer(workers)
    atexit.register(kill)
    number = 0
    try:
        while (item := _next(items, workers, timeout, number, reading)) is not _END:
            if isinstance(item, Failed):
                raise item.again(f"worker {number % len(workers)} of {len(workers)}, reading {reading(number)}")
            if item is not None:
                yield item
                number += 1
    except ResourceError:
        with _child_signals_left_alone():
            kill()
        raise
    finally:
        with _child_signals_left_alone():
            items._shutdown_workers()  # not left to __del__: a traceback may hold the iterator
            kill()
        atexit.unregister(kill)


def _next(
    items: Iterator[Any],
    workers: Sequence[BaseProcess],
    timeout: float,
    number: int,
    reading: Callable[[int], str],
) -> Any:
    waited = 0.0  # by our own looks, not by the clock: a suspended machine is no hung worker
    while True:
        try:
            return next(items, _END)
        except Exception as error:
            if dead := [place for place, worker in enumerate(workers) if worker.exitcode is not None]:
                raise _death(workers, dead[0], number, reading) from error
            if not str(error).startswith("DataLoader timed out"):
                raise
        waited += _POLL
        if waited >= timeout:
            raise ResourceError(
                f"worker {number % len(workers)} of {len(workers)} gave nothing for {timeout:g} s while reading"
                f" {reading(number)}. If that may take so long, raise the loader's timeout"
            )


def _death(workers: Sequence[BaseProcess], dead: int, number: int, reading: Callable[[int], str]) -> ResourceError:
    ahead = (dead - number) % len(workers)  # batches are dealt to the workers in turn
    when = "while reading" if not ahead else "at or after"
    code = workers[dead].exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended itself with code {code}"
    return ResourceError(
        f"worker {dead} of {len(workers)} (process {workers[dead].pid}) {how} {when} {reading(number + ahead)}."
        " If memory ran out: fewer num_workers or a smaller batch_size; num_workers=0 reads in the main process"
    )


def _killer(workers: Sequence[BaseProcess]) -> Callable[[], None]:
    def kill() -> None:
        for worker in workers:
            if worker.is_alive():
                worker.kill()
                worker.join()

    return kill


@contextmanager
def _child_signals_left_alone() -> Iterator[None]:
    """Keep PyTorch's SIGCHLD handler out: it raises in whatever the main thread does when a worker dies."""
    before = signal.getsignal(signal.SIGCHLD)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def worker_options(num_workers: int) -> dict[str, Any]:
    """What a supervised DataLoader is made with."""
    return {
        "num_workers": num_workers,
        "timeout": _POLL,
        "collate_fn": _as_it_is,
        "worker_init_fn": _deaf,
        "generator": torch.Generator(),  # else the global one would lose a number to the worker seeds
    }


def _as_it_is(item: Any) -> Any:
    return item


def _deaf(worker: int) -> None:
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_IGN)
