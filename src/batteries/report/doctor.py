"""Doctor: what of this machine and this installation may go wrong, looked at before it does.

In:    the folder of runs.
Out:   one check a line: what was found, whether it is well, what to do.
Next:  the command prints them; a run's provenance keeps what it really ran on.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from batteries.prepare.cores import usable_cores

State = Literal["well", "careful", "ill"]
_FLOORS = {
    "torch": ((2, 11), "a loaded file could run code below 2.6 (CVE-2025-32434) and below 2.10 (CVE-2026-24747)"),
    "ray": ((2, 54), "older versions start without a token"),
}
"""Lowest versions without a known hole that concerns us, and which one that is."""
_FAR = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "lustre",
    "gpfs",
    "beegfs",
    "ceph",
    "fuse.sshfs",
    "9p",
    "afs",
    "glusterfs",
}
"""File systems of other machines, whose locks and orders of writes are not always those of a disk."""
_LITTLE_DISK, _LITTLE_MEMORY, _FEW_FILES = 5 << 30, 2 << 30, 1024
_SKEW = 2.0
"""Seconds by which the clock of a file system may differ."""


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    state: State
    found: str
    advice: str = ""
    """What to do; empty where all is well."""

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


def doctor(root: Path | str = "runs") -> list[Check]:
    """Look at Python, packages, processors, memory, the disk of `root`, its file system, GPUs and the clock.

    Nothing is changed; a folder for trials is made beside the runs and removed.

    >>> [check.name for check in doctor(".")][:2]
    ['python', 'torch']
    """
    folder = _there(Path(root))
    looks: tuple[Callable[[Path], Iterator[Check]], ...] = (
        _python, _packages, _cores, _memory, _open_files, _disk, _file_system, _writes, _gpu, _clock,
    )  # fmt: skip
    return [check for look in looks for check in look(folder)]


def _there(folder: Path) -> Path:
    """The folder, or the first one above it that exists: that is where it would be made."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())


def _python(_: Path) -> Iterator[Check]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Check("python", "well", found)


def _packages(_: Path) -> Iterator[Check]:
    for name, (floor, hole) in _FLOORS.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            if name == "torch":
                yield Check(name, "ill", "not installed", "pip install torch")
            continue
        wanted = ".".join(map(str, floor))
        if tuple(int(part) for part in found.split("+")[0].split(".")[:2]) < floor:
            yield Check(name, "ill", f"{found}: {hole}", f"pip install '{name}>={wanted}'")
        else:
            yield Check(name, "well", found)


def _cores(_: Path) -> Iterator[Check]:
    there, usable = os.cpu_count() or 1, usable_cores()
    text = f"{usable} of {there} usable" if usable < there else f"{there}"
    threads = os.environ.get("OMP_NUM_THREADS", "")
    if threads.isdigit() and int(threads) > usable:
        yield Check("cores", "careful", f"{text}; OMP_NUM_THREADS={threads}", f"set OMP_NUM_THREADS={usable}")
    else:
        yield Check("cores", "well", text)


def _memory(_: Path) -> Iterator[Check]:
    lines = Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else []
    sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
    if "MemAvailable" not in sizes:
        return
    free, limit = sizes["MemAvailable"], _memory_limit()
    free = min(free, limit) if limit else free
    text = f"{_size(free)} free of {_size(sizes['MemTotal'])}" + (
        f"; this process may use {_size(limit)}" if limit else ""
    )
    if free < _LITTLE_MEMORY:
        yield Check("memory", "careful", text, "end other programs, or use smaller batches and fewer loader processes")
    else:
        yield Check("memory", "well", text)


def _memory_limit() -> int | None:
    """What a container allows."""
    path = Path("/sys/fs/cgroup/memory.max")
    text = path.read_text().strip() if path.exists() else "max"
    return int(text) if text.isdigit() else None


def _open_files(_: Path) -> Iterator[Check]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < _FEW_FILES:
        yield Check("open files", "careful", f"{soft} allowed", f"ulimit -n {min(hard, 65536)}")
    else:
        yield Check("open files", "well", f"{soft:,} allowed")


def _disk(folder: Path) -> Iterator[Check]:
    usage, inodes = shutil.disk_usage(folder), os.statvfs(folder)
    text = f"{_size(usage.free)} free of {_size(usage.total)}"
    if inodes.f_files and inodes.f_favail < 10_000:
        yield Check("disk", "careful", f"{text}; {inodes.f_favail:,} files more", "remove files, or take another disk")
    elif usage.free < _LITTLE_DISK:
        yield Check("disk", "careful", text, "free some, or work on another disk: batteries -C FOLDER")
    else:
        yield Check("disk", "well", text)


def _file_system(folder: Path) -> Iterator[Check]:
    kind = file_system(folder)
    if kind in _FAR:
        yield Check(
            "file system", "careful", f"{kind}, of another machine",
            "keep the ledger on a server (BATTERIES_LEDGER=postgresql://...) or the runs on a disk of this machine",
        )  # fmt: skip
    else:
        yield Check("file system", "well", kind or "unknown")


def file_system(folder: Path) -> str:
    """Return the kind of file system a folder lies on, such as `ext4` or `nfs4`; empty where nobody says."""
    mounts = Path("/proc/self/mountinfo")
    best, kind = -1, ""
    for line in mounts.read_text().splitlines() if mounts.exists() else []:
        before, _, after = line.partition(" - ")
        place = Path(before.split()[4].replace("\\040", " "))
        if folder.resolve().is_relative_to(place) and len(place.parts) >= best:
            best, kind = len(place.parts), after.split()[0]
    return kind


def _writes(folder: Path) -> Iterator[Check]:
    """Try what every save needs: a file, flushed and renamed; a hard link; a lock."""
    try:
        with TemporaryDirectory(prefix=".batteries-doctor-", dir=folder) as trial:
            yield from _tried(Path(trial))
    except OSError as error:
        yield Check("writing", "ill", f"{folder}: {error.strerror}", "make it writable, or work elsewhere: -C FOLDER")


def _tried(trial: Path) -> Iterator[Check]:
    began = time.perf_counter()
    with open(trial / "a", "wb") as file:
        file.write(b"x" * 4096)
        file.flush()
        os.fsync(file.fileno())
    (trial / "a").replace(trial / "b")
    seconds = time.perf_counter() - began
    yield Check("writing", "well", f"flushed and renamed in {1000 * seconds:.1f} ms")
    try:
        os.link(trial / "b", trial / "c")
        yield Check("hard links", "well", "last and best take no space")
    except OSError:
        yield Check(
            "hard links", "careful", "none here", "last.pt and best.pt are symbolic links; copy them with cp -L"
        )
    skew = (trial / "b").stat().st_mtime - time.time()
    if abs(skew) > _SKEW:
        text = f"the file system's clock is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}"
        yield Check("clocks", "careful", text, "set both by NTP; make and rsync go wrong, Batteries does not")
    yield _locking(trial / "b")


def _locking(path: Path) -> Check:
    """Whether a second opening of a locked file is refused; some network file systems grant every lock."""
    with open(path, "rb") as first, open(path, "rb") as second:
        fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return Check("locks", "well", "a second process is held off")
            raise
    return Check(
        "locks", "ill", "are granted twice here", "never train one run from two processes, or use a local disk"
    )


def _gpu(_: Path) -> Iterator[Check]:
    import torch

    if not torch.cuda.is_available():
        if torch.version.cuda is None:
            yield Check("gpu", "well", "none used: this PyTorch is built for CPUs")
        else:
            yield Check("gpu", "careful", f"none found; PyTorch wants CUDA {torch.version.cuda}", "look at nvidia-smi")
        return
    for place in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(place)
        state: State = "well" if free > 0.5 * total else "careful"
        text = f"{torch.cuda.get_device_name(place)}, {_size(free)} free of {_size(total)}"
        yield Check(f"gpu {place}", state, text, "" if state == "well" else "someone else uses it: nvidia-smi")


def _clock(folder: Path) -> Iterator[Check]:
    newest = max((path.stat().st_mtime for path in folder.glob("*/*") if path.exists()), default=0.0)
    ahead = newest - time.time()
    now = time.strftime("%Y-%m-%d %H:%M:%S %z")
    if ahead > 60:
        yield Check("clock", "careful", f"{now}, but a file here is {ahead / 60:.0f} min newer", "set it: timedatectl")
    else:
        yield Check("clock", "well", now)


def _size(count: float) -> str:
    return f"{count / 2**30:,.1f} GiB"
