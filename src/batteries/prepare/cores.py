"""Cores: how many this process may use, and how its threads share them with other programs.

In:    the machine, its control groups, environment variables.
Out:   a number; a setting that PyTorch reads when it is loaded.
Next:  `prepare_environment` takes no more threads; the command sets the rest before it loads PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def share_cores() -> None:
    """Let PyTorch's threads on the CPU sleep sooner while they wait for each other. Before `import torch` only.

    They spin for about a millisecond, in GNU's OpenMP 300,000 turns. Where another program has one of the cores,
    all wait at every operation for as long as that program likes: an epoch then took 43 s, 24 s with a tenth of the
    turns, which cost nothing on an idle machine. The command `batteries` calls it; a script may. What the
    environment says already (GOMP_SPINCOUNT, OMP_WAIT_POLICY) stays.

    >>> share_cores()
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "30000")


def usable_cores() -> int:
    """Physical cores this process may use: those it is bound to, within the share its container has.

    Two hyperthreads of a core count once: they share its arithmetic units.

    >>> 1 <= usable_cores() <= os.cpu_count()
    True
    """
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # neither macOS nor Windows binds processes so
        return os.cpu_count() or 1
    cores = {_siblings(number) for number in allowed}
    share = _container_share()
    return len(cores) if share is None else max(1, min(len(cores), int(share)))


def _siblings(number: int) -> str:
    """Return one text for all hyperthreads of a core."""
    topology = Path(f"/sys/devices/system/cpu/cpu{number}/topology")
    for name in ("core_cpus_list", "thread_siblings_list"):  # the second is what it was called before Linux 5.6
        with suppress(OSError):
            return (topology / name).read_text()
    return str(number)


def _container_share(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return the cores a control group allows, None without a limit; the narrowest of all groups above counts.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files
    """
    shares = []
    with suppress(OSError):
        for line in own.read_text().splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                shares += list(_shares(root, path, ("cpu.max",)))
            elif "cpu" in controllers.split(","):
                shares += list(_shares(root / "cpu", path, ("cpu.cfs_quota_us", "cpu.cfs_period_us")))
    return min(shares, default=None)


def _shares(root: Path, path: str, names: tuple[str, ...]) -> Iterator[float]:
    folder = root / path.strip("/")
    for group in (folder, *folder.parents):
        with suppress(OSError, ValueError):  # no such file; "max" is no number
            quota, period = (int(word) for name in names for word in (group / name).read_text().split())
            if quota > 0:
                yield quota / period
        if group == root:
            return
