"""Commands run in processes whose every act on a file of one folder is counted, and may fail or be the last.

`inject.c` is preloaded into a fork server that has imported everything; a process made from it takes milliseconds.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import killing

PATIENCE = 90.0
"""Seconds after which a test calls a process hung."""


def preload() -> None:
    """Compile the shim and start the fork server anew with it."""
    library = Path(tempfile.mkdtemp(prefix="batteries-faults-")) / "inject.so"
    source = Path(__file__).with_name("inject.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    os.environ["LD_PRELOAD"] = str(library)
    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # it may have been started without
    _context()


def _context() -> Any:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(killing.HEAVY)
    return context


@dataclass
class Ended:
    """How a command ended."""

    code: int
    """Negative: the signal that killed it."""
    text: str
    """What it printed, errors too."""
    acts: int
    """On files below its folder; 0 where it was killed."""


def command(
    folder: Path, *arguments: str, at: int = 0, errno: int = 0, lasting: bool = False, **variables: str
) -> Ended:
    """Run `batteries -C folder ...`; its n-th act fails with `errno`, or kills it; `lasting`: later ones fail too."""
    return run(folder, _batteries, [str(folder), list(arguments)], at=at, errno=errno, lasting=lasting, **variables)


def _batteries(folder: str, arguments: Sequence[str]) -> int:
    from batteries.cli.app import main

    return main(["-C", folder, *arguments])


def run(
    folder: Path,
    work: Callable[..., Any],
    arguments: Sequence[Any] = (),
    *,
    at: int = 0,
    errno: int = 0,
    lasting: bool = False,
    **variables: str,
) -> Ended:
    """Call `work(*arguments)`, which returns an exit code, in a process of its own."""
    process = start(folder, work, arguments, at=at, errno=errno, lasting=lasting, **variables)
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"{work.__name__} {arguments} hangs")
    printed = _printed(folder, process.name).read_text(errors="replace")
    text, ended, acts = printed.rpartition("\nacts: ")
    return Ended(process.exitcode, text, int(acts)) if ended else Ended(process.exitcode, printed, 0)


def start(
    folder: Path,
    work: Callable[..., Any],
    arguments: Sequence[Any] = (),
    *,
    at: int = 0,
    errno: int = 0,
    lasting: bool = False,
    **variables: str,
) -> Any:
    """Start the process that `run` waits for."""
    process = _context().Process(target=_child, args=(folder, work, arguments, at, errno, lasting, variables))
    process.start()
    return process


def set_clock(seconds: int) -> None:
    """Make the clock of this process wrong by so many seconds from now on."""
    ctypes.CDLL(None).faults_clock(ctypes.c_long(seconds))


def _printed(folder: Path, name: str) -> Path:
    return folder.with_name(f"{folder.name}-printed-{name}.txt")  # beside, since what lies below is counted


def _child(
    folder: Path,
    work: Callable[..., Any],
    arguments: Sequence[Any],
    at: int,
    errno: int,
    lasting: bool,
    variables: dict[str, str],
) -> None:
    os.environ |= variables
    printed = os.open(_printed(folder, multiprocessing.current_process().name), os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    import torch

    multiprocessing.set_start_method("fork", force=True)  # as in a process started from a shell
    torch.set_num_threads(1)
    library = ctypes.CDLL(None)
    library.faults_arm(str(folder).encode(), ctypes.c_long(at), errno, int(lasting))
    code = work(*arguments)
    library.faults_seen.restype = ctypes.c_long
    print(f"\nacts: {library.faults_seen()}", end="")
    sys.stdout.flush()
    os._exit(code or 0)
