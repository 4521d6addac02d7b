"""Runs of the command in processes of their own that can be killed at an exact moment. For test_resume.py.

A fork server that has imported everything makes a process in milliseconds instead of seconds.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

HEAVY = [
    "batteries.cli.app",
    "batteries.config",
    "batteries.score.board",
    "batteries.train.run",
    "pydantic",
    "sklearn.model_selection",
    "sqlalchemy.dialects.sqlite",
    "torch._dynamo",
    "torch.utils.tensorboard",
]
MOMENTS = ("fsync", "replace", "link", "unlink")


def train(folder: Path, *arguments: str, **how: Any) -> tuple[int, str]:
    """Run `batteries train` in `folder`; return its exit code and what it printed."""
    process = start(folder, *arguments, **how)
    process.join(60)
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode, (folder / f"printed-{process.name}.txt").read_text()


def start(
    folder: Path,
    *arguments: str,
    kill_at: int | None = None,
    variable: str = "",
    signum: signal.Signals = signal.SIGKILL,
) -> BaseProcess:
    """Start `batteries train` in `folder`, with the environment variable TOY_SIGNAL as given.

    With `kill_at` it is killed (or sent `signum`) just before its n-th moment: a write to the disk made sure of, a
    file renamed, linked or deleted, a gradient computed. Without, the printed text ends with how many there were.
    Saves are written behind the training, so that the n-th moment is not always the same one.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    process = context.Process(target=_child, args=(folder, arguments, kill_at, variable, signum))
    process.start()
    return process


def _child(
    folder: Path, arguments: tuple[str, ...], kill_at: int | None, variable: str, signum: signal.Signals
) -> None:
    os.environ["TOY_SIGNAL"] = variable
    name = f"printed-{multiprocessing.current_process().name}.txt"
    printed = os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    import torch

    from batteries.cli.app import main

    multiprocessing.set_start_method("fork", force=True)  # as in a process started from a shell
    torch.set_num_threads(1)
    count = _counted(kill_at, signum)
    code = main(["-C", str(folder), "train", *arguments])
    print(f"moments: {count()}")
    sys.stdout.flush()
    os._exit(code)


def _counted(kill_at: int | None, signum: signal.Signals) -> Callable[[], int]:
    """Count calls of the operating system's and PyTorch's functions; die before the one asked for."""
    import torch.autograd

    passed = 0

    def counting(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal passed
            passed += 1
            if passed == kill_at:
                os.kill(os.getpid(), signum)
            return real(*arguments, **named)

        return call

    for name in MOMENTS:
        setattr(os, name, counting(getattr(os, name)))
    torch.autograd.backward = counting(torch.autograd.backward)
    return lambda: passed
