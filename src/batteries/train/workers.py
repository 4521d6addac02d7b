"""Workers: what a DataLoader's processes read, with a name for whatever goes wrong with one of them.

In:    a DataLoader whose items are whole batches.
Out:   its items in order; an error that names the worker and the rows; no process left behind.
Next:  sources read torch Datasets through it.
"""

from __future__ import annotations

import atexit
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from batteries.errors import ResourceError
from batteries.prepare.children import obey_main

_POLL = 1.0
"""Seconds between two looks at whether all workers live."""
_PATIENCE = 5.0
"""Seconds workers have to finish their sample when an epoch is left."""
_END = object()


class Marks:
    """Where each worker is, in memory they share with the main process, so that it outlives them."""

    def __init__(self, num_workers: int, what: str, dataset: Any) -> None:
        self._at = RawArray("q", [-1] * num_workers)
        self._what = what
        self._name = type(dataset).__name__

    def put(self, place: int) -> None:
        """Note, in a worker, the row or sample that it reads next; elsewhere do nothing."""
        if (info := get_worker_info()) is not None:
            self._at[info.id] = place

    def where(self, worker: int) -> str:
        """Where a worker was last, for a message."""
        place = self._at[worker]
        what = f"before the first {self._what}" if place < 0 else f"at {self._what} {place}"
        return f"{what} of {self._name}"


@dataclass
class Failed:
    """An exception on its way from a worker, as the item it was raised for."""

    error: Exception
    trace: str
    worker: int

    def again(self, num_workers: int) -> Exception:
        """The exception as it was, with a note of where it was raised."""
        self.error.add_note(f"in worker {self.worker} of {num_workers}; there:\n{self.trace}")
        return self.error


def attempted(work: Callable[[], Any]) -> Any:
    """What `work` returns in a worker, or the exception it raised as an item to send."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 raised again in the main process
        info, trace = get_worker_info(), "".join(traceback.format_exception(error))
        assert info is not None
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001 whatever its own pickling raises
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return Failed(error, trace, info.id)


def supervised(loader: DataLoader[Any], marks: Marks, *, timeout: float) -> Generator[Any]:
    """Yield the items of a DataLoader with workers; None among them means "still at work" and is dropped.

    Workers leave SIGINT and SIGTERM to the main process: those sent to the whole group would end them
    before it has saved.

    Raises
    ------
    ResourceError
        When a worker is dead, or an item took longer than `timeout` seconds of waiting.
    Exception
        What the dataset raised, as it was, with the worker and its traceback in a note.

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
        while (item := _next(items, workers, marks, timeout, number % len(workers))) is not _END:
            if isinstance(item, Failed):
                raise item.again(len(workers))
            if item is not None:
                yield item
                number += 1
    except ResourceError:
        with _child_signals_left_alone():
            kill()
        raise
    finally:
        if not sys.is_finalizing():  # else they were killed at exit, and no thread can be started any more
            _end(items, workers, kill)


def _end(items: Any, workers: Sequence[BaseProcess], kill: Callable[[], None]) -> None:
    impatience = threading.Timer(_PATIENCE, kill)
    impatience.start()
    with _child_signals_left_alone():
        items._shutdown_workers()  # not left to __del__: a traceback may hold the iterator
        kill()
        for worker in workers:
            worker.join()
    impatience.cancel()
    atexit.unregister(kill)


def _next(items: Iterator[Any], workers: Sequence[BaseProcess], marks: Marks, timeout: float, turn: int) -> Any:
    """The next item, of the worker whose turn it is: batches are dealt to them in order."""
    waited = 0.0  # by our own looks, not by the clock: a suspended machine is no hung worker
    while True:
        try:
            return next(items, _END)
        except Exception as error:
            for place, worker in enumerate(workers):
                if worker.exitcode is not None:
                    raise _death(worker, f"worker {place} of {len(workers)}", marks.where(place)) from error
            if not str(error).startswith("DataLoader timed out"):
                raise
        waited += _POLL
        if waited >= timeout:
            raise ResourceError(
                f"worker {turn} of {len(workers)} gave nothing for {timeout:g} s, {marks.where(turn)}."
                " If that may take so long, raise the loader's timeout"
            )


def _death(worker: BaseProcess, name: str, where: str) -> ResourceError:
    code = worker.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended itself with code {code}"
    return ResourceError(
        f"{name} (process {worker.pid}) {how} {where}."
        " If memory ran out: fewer num_workers or a smaller batch_size; num_workers=0 reads in the main process"
    )


def _killer(workers: Sequence[BaseProcess]) -> Callable[[], None]:
    def kill() -> None:
        for worker in workers:
            if worker.is_alive():
                worker.kill()

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
        "worker_init_fn": _begin,
        "generator": torch.Generator(),  # else the global one would lose a number to the worker seeds
    }


def _as_it_is(item: Any) -> Any:
    return item


def _begin(worker: int) -> None:
    obey_main()
