"""Environment: what a result was made with, kept beside it.

In:    the machine.
Out:   versions, hardware and the state of the source as plain data.
Next:  a run writes it as provenance.json; the report shows it.
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("batteries", "torch", "numpy", "polars", "scikit-learn", "scipy", "torchmetrics", "kornia", "timm")


def provenance(folder: Path) -> dict[str, Any]:
    """Return Python, packages, hardware and git commit, as JSON-ready data.

    `folder` is where the experiment lies; `git` is None outside a repository.
    """
    import torch

    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "cpu": {"machine": platform.machine(), "cores": os.cpu_count(), "torch_threads": torch.get_num_threads()},
        "gpu": cuda,
        "git": _git(folder),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path) -> dict[str, Any] | None:
    commit = _run(folder, "git", "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed_files": (_run(folder, "git", "status", "--porcelain") or "").splitlines()}


def _run(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip("\n")
