"""Stacks: where each of several processes is, when one of them is silent for too long.

In:    a folder that the processes of one machine share.
Out:   the stack of each; of one that cannot answer, such as a stopped one, that it did not.
Next:  `train.distributed` asks when it gives up waiting, `train.launch` before it ends what is left.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

_SIGNAL = signal.SIGUSR2
_PATIENCE = 2.0
"""Seconds; a process answers in milliseconds, even one that waits or that holds Python's lock."""


def answer(folder: Path, rank: int) -> None:
    """Have the stack of this process written whenever `stacks` asks for it, unless the user has taken the signal."""
    if signal.getsignal(_SIGNAL) is signal.SIG_DFL:
        folder.mkdir(parents=True, exist_ok=True)
        faulthandler.register(_SIGNAL, file=open(_file(folder, rank, os.getpid()), "w"))  # noqa: SIM115 - stays open


def silence(folder: Path, rank: int) -> bool:
    """Have nobody ask this process any more; return whether nobody has."""
    try:
        _file(folder, rank, os.getpid()).unlink()
    except FileNotFoundError:
        return False
    return True


def stacks(folder: Path) -> str:
    """Ask the processes that answer, each once whoever asks, and return what they say; `` where none is left."""
    asked = _asked(folder)
    end, sizes = time.monotonic() + _PATIENCE, [0]
    while time.monotonic() < end and (not all(sizes) or sizes != _sizes(asked)):  # until all are there, and whole
        sizes = _sizes(asked)
        time.sleep(0.1)
    return "".join(_said(rank, process, file.read_text()) for rank, process, file in asked)


def _file(folder: Path, rank: int, process: int) -> Path:
    return folder / f"{rank}-{process}"


def _asked(folder: Path) -> list[tuple[int, int, Path]]:
    """Rank, process and file of those that run and that nobody has asked yet."""
    found = []
    for path in sorted(folder.glob("[0-9]*")):
        rank, process = map(int, path.name.split("-"))
        taken = path.with_name(f"asked-{path.name}")
        with suppress(FileNotFoundError, ProcessLookupError):  # another one asks it; it has ended
            path.rename(taken)
            if not _is(process, "ZX"):
                os.kill(process, _SIGNAL)
                found.append((rank, process, taken))
    return found


def _sizes(asked: list[tuple[int, int, Path]]) -> list[int]:
    """Bytes of each answer; -1 of what cannot answer."""
    return [file.stat().st_size or (-1 if _is(process, "TtZX") else 0) for _, process, file in asked]


def _said(rank: int, process: int, stack: str) -> str:
    who = f"rank {rank} (pid {process})"
    if stack:
        return f"{who} is here:\n{stack}"
    return f"{who} did not answer{'; it is stopped' if _is(process, 'Tt') else ''}\n"


def _is(process: int, states: str) -> bool:
    try:
        return state_of(process)[0] in states
    except ProcessLookupError:
        return "X" in states


def state_of(process: int) -> tuple[str, int]:
    """The state of a process, `Z` if it has ended, `T` if it is stopped, and its group; `?` where nobody tells.

    Raises ProcessLookupError when there is none.
    """
    if not Path("/proc/self").exists():
        return "?", os.getpgid(process)
    try:
        state, _, group = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:3]
    except FileNotFoundError:
        raise ProcessLookupError(process) from None
    return state, int(group)
