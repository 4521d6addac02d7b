"""Several processes that train one model, made from a fork server in milliseconds. For tests of distributed training.

`Ranks` are joined once and then do one piece of work after another; `command` runs `batteries` once in each of
several processes, as under torchrun.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import killing
from batteries.train.device import Device

PATIENCE = 45.0
"""Seconds after which a test calls a process hung; on a quiet machine all take a few."""


class RankError(AssertionError):
    """What failed in one of the ranks, with its traceback."""


class Ranks:
    """Processes of one job, joined and waiting for work: `ranks(work, 1, 2)` is [work(place, 1, 2) of each]."""

    def __init__(self, world: int = 2) -> None:
        self.world = world
        self._start()

    def _start(self) -> None:
        port, pipes = free_port(), [_context().Pipe() for _ in range(self.world)]
        self.pipes: list[Connection] = [ours for ours, _ in pipes]
        self.processes = [_start(_serve, rank, self.world, port, theirs) for rank, (_, theirs) in enumerate(pipes)]
        for _, theirs in pipes:
            theirs.close()

    def __call__(self, work: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Do the work in every rank at once; return what each returned. RankError if one raised."""
        for pipe in self.pipes:
            pipe.send_bytes(pickle.dumps((work, arguments)))  # not as shared memory
        results: dict[int, Any] = {}
        while len(results) < self.world:
            ready = wait([pipe for rank, pipe in enumerate(self.pipes) if rank not in results], PATIENCE)
            for pipe in ready:
                rank = self.pipes.index(pipe)  # type: ignore[arg-type]
                try:
                    done, results[rank] = pickle.loads(pipe.recv_bytes())  # type: ignore[union-attr]
                except EOFError:
                    done, results[rank] = False, "it is dead"
                if not done:
                    self._again(f"rank {rank}: {results[rank]}")
            if not ready:
                self._again(f"ranks {sorted(set(range(self.world)) - set(results))} hang in {work.__name__}")
        return [results[rank] for rank in range(self.world)]

    def _again(self, reason: str) -> None:
        """The others may wait for the one that failed: begin anew, for the next test."""
        self.close()
        self._start()
        raise RankError(reason)

    def close(self) -> None:
        """Let the processes end."""
        for process in self.processes:
            process.kill()
            process.join()


@contextmanager
def ranks_of(world: int) -> Iterator[Ranks]:
    ranks = Ranks(world)
    try:
        yield ranks
    finally:
        ranks.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(killing.HEAVY)
    return context


def _start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    process: BaseProcess = _context().Process(target=target, args=arguments)
    process.start()
    return process


def _as_under_torchrun(rank: int, world: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }
    import torch

    torch.set_num_threads(1)
    multiprocessing.set_start_method("fork", force=True)  # as in a process started from a shell


def _serve(rank: int, world: int, port: int, pipe: Connection) -> None:
    _as_under_torchrun(rank, world, port)
    from batteries.train.distributed import Distributed, _Flag

    place: Device = Distributed.join("cpu", timeout=PATIENCE)
    while True:
        work, arguments = pickle.loads(pipe.recv_bytes())
        assert isinstance(place, Distributed)
        place = replace(place, flag=_Flag())  # of a job of its own
        try:
            answer = (True, work(place, *arguments))
        except Exception:  # noqa: BLE001 - the test raises it
            answer = (False, traceback.format_exc())
        pipe.send_bytes(pickle.dumps(answer))


def command(folder: Path, world: int, *arguments: str, **variables: str) -> list[tuple[int, str]]:
    """Run `batteries -C folder ...` in several processes; return the exit code of each and what it printed.

    A negative exit code is the signal that killed it; when one is killed, so are the others, at once.
    """
    port = free_port()
    started = [_start(_command, rank, world, port, folder, arguments, variables) for rank in range(world)]
    by_sentinel = {process.sentinel: process for process in started}
    while by_sentinel:
        ended = wait(list(by_sentinel), PATIENCE)
        assert ended, f"{len(by_sentinel)} of {world} processes hang"
        if any((by_sentinel.pop(sentinel).exitcode or 0) == -9 for sentinel in ended):  # type: ignore[arg-type]
            for process in by_sentinel.values():
                process.kill()
    for process in started:
        process.join()
    printed = [(folder / f"printed-{rank}.txt").read_text() for rank in range(world)]
    return [(int(process.exitcode or 0), text) for process, text in zip(started, printed, strict=True)]


def _command(
    rank: int, world: int, port: int, folder: Path, arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    os.environ |= variables
    printed = os.open(folder / f"printed-{rank}.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    if world > 1:
        _as_under_torchrun(rank, world, port)
    else:
        import torch

        torch.set_num_threads(1)
        multiprocessing.set_start_method("fork", force=True)
    kill_at = int(os.environ.get("KILL_AT", "0")) if str(rank) == os.environ.get("KILL_RANK", "0") else 0
    count = killing._counted(kill_at or None, signal.SIGKILL)
    from batteries.cli.app import main

    code = main(["-C", str(folder), *arguments])
    print(f"moments: {count()}")
    sys.stdout.flush()
    os._exit(code)
