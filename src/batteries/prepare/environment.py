"""Environment: the process made ready to train, and what a result was made with, kept beside it.

In:    the machine, the settings of PyTorch and of the C library.
Out:   settings made in one place; versions, hardware and the state of the source as plain data.
Next:  a run prepares its process first and writes provenance.json; on resume it says what changed since.
"""

from __future__ import annotations

import ctypes
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from batteries.errors import ConfigError
from batteries.prepare.cores import usable_cores
from batteries.prepare.seed import deterministic_only

_PACKAGES = (
    "batteries", "torch", "torchvision", "torchaudio", "triton", "torchmetrics", "numpy", "scipy", "scikit-learn",
    "polars", "pandas", "pyarrow", "pillow", "opencv-python", "opencv-python-headless", "albumentations", "kornia",
    "timm", "segmentation-models-pytorch", "monai", "einops", "transformers", "tokenizers", "datasets", "peft",
    "accelerate", "safetensors", "librosa", "lightgbm", "xgboost", "catboost", "numba",
)  # fmt: skip
_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG", "CUDA_LAUNCH_BLOCKING", "CUDA_VISIBLE_DEVICES", "GOMP_SPINCOUNT", "KMP_BLOCKTIME",
    "MKL_NUM_THREADS", "NVIDIA_TF32_OVERRIDE", "OMP_NUM_THREADS", "OMP_WAIT_POLICY", "PYTHONHASHSEED",
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)  # fmt: skip
_LONGEST_DIFF = 1_000_000  # bytes
_OPEN_FILES = 65_536
_NOISE = (
    "The given NumPy array is not writable",  # columns of polars are read-only; a dataset only reads them
    "Attempting to run cuBLAS, but there was no current CUDA context",  # the first backward; it then sets one
    "Grad strides do not match bucket view strides",  # DDP copies such gradients; nothing a user could change
    "enable_nested_tensor is True, but self.use_nested_tensor is False",  # of every norm-first nn.TransformerEncoder
)
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # <malloc.h> of glibc


def prepare_environment(
    *,
    threads: int | None = None,
    matmul: Literal["highest", "high", "medium"] = "high",
    benchmark: bool | None = None,
    deterministic: bool | None = None,
    anomalies: bool = False,
    sharing: Literal["file_descriptor", "file_system"] | None = None,
    keep_memory: bool = True,
    quiet: bool = True,
) -> dict[str, Any]:
    """Make this process ready to train and return what is set now, as JSON-ready data.

    May be called more than once, before or after `import torch`; it should come before the first
    batch. Everything holds for the whole process. None leaves a setting as it is.

    threads
        Threads of one operation on the CPU. None takes PyTorch's number, but no more than
        `usable_cores()`: a container with 4 of 64 cores would else run 64 threads on them. Sums may
        differ in the last bits for another number. OMP_NUM_THREADS is respected.
    matmul
        Precision of float32 matrix products on a GPU. "high" (TF32: 10 bits of mantissa) is several times
        as fast as "highest" (23 bits) from Ampere on; "medium" is
        bfloat16 (7 bits), on CPUs too.
    benchmark
        True lets cuDNN time its algorithms for each new shape of input: faster for equal shapes, slow for
        changing ones, and another run may choose others, so runs are no longer equal to the bit.
    deterministic
        True asks for deterministic algorithms only: some operations get slower, a few raise an error that
        names them; False allows the others again.
    anomalies
        True makes a backward pass name the operation that gave NaN, at several times the cost; for a hunt.
    sharing
        How worker processes hand over tensors. "file_descriptor" needs an open file for each tensor that
        waits, so the limit of open files is raised as far as the system lets it; "file_system" needs none,
        but processes that are killed may leave files in /dev/shm. None is the system's own.
    keep_memory
        Freed memory stays with the process and is used again, where glibc (Linux) would hand it back and
        fault it in page by page at the next step: 190 instead of 10,000 faults a step, and a fifth of the
        time, with a small convolution net on a CPU. The process stays as large as it once was.
        Elsewhere nothing is done. It cannot be undone.
    quiet
        Hide warnings known to be noise. They are named in this module; no other is hidden.

    Raises
    ------
    ConfigError
        When a value cannot be, or two contradict each other.

    >>> prepare_environment(matmul="highest")["matmul"]
    'highest'

    """
    import torch

    if deterministic and benchmark:
        raise ConfigError(
            "benchmark=True lets cuDNN choose by time, which deterministic=True forbids; give one of them"
        )
    if matmul not in (known := ("highest", "high", "medium")):
        raise ConfigError(f"matmul must be one of {', '.join(known)}, got {matmul!r}")
    kept = keep_memory and _keep_freed_memory()
    _set_threads(threads)
    torch.set_float32_matmul_precision(matmul)
    if benchmark is not None:
        torch.backends.cudnn.benchmark = benchmark
    if deterministic is not None:
        deterministic_only(deterministic)
    torch.autograd.set_detect_anomaly(anomalies)
    _share(sharing)
    if quiet:
        for message in _NOISE:
            warnings.filterwarnings("ignore", message=re.escape(message))
    return {**_settings(), "keep_memory": kept, "quiet": quiet}


def _settings() -> dict[str, Any]:
    """Read back what PyTorch says is set."""
    import torch

    return {
        "threads": torch.get_num_threads(),
        "matmul": torch.get_float32_matmul_precision(),
        "benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
        "sharing": torch.multiprocessing.get_sharing_strategy(),  # type: ignore[no-untyped-call]
    }


def _set_threads(threads: int | None) -> None:
    import torch

    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be >= 1, got {threads}")
    if threads is None and "OMP_NUM_THREADS" in os.environ:
        return
    wanted = threads or min(torch.get_num_threads(), usable_cores())
    if wanted != torch.get_num_threads():
        torch.set_num_threads(wanted)


def _share(strategy: str | None) -> None:
    from torch import multiprocessing

    if strategy is not None:
        known = sorted(multiprocessing.get_all_sharing_strategies())  # type: ignore[no-untyped-call]
        if strategy not in known:
            raise ConfigError(f"sharing must be one of {', '.join(known)} here, got {strategy!r}")
        multiprocessing.set_sharing_strategy(strategy)  # type: ignore[no-untyped-call]
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS refuses what it said it would allow
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _keep_freed_memory() -> bool:
    """Tell glibc to map nothing singly and to give nothing back; return whether it did (mallopt(3))."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # either alone faults as often as none: blocks are mapped and unmapped, or the heap is trimmed
    return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))


def provenance(folder: Path, *, prepared: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return Python, packages, hardware, settings and the state of the source, as JSON-ready data.

    `folder` is where the experiment lies; `git` is None outside a repository. `prepared` is what
    `prepare_environment` returned. Neither the machine's name nor the user's is in it.
    """
    import torch

    installed = {each.name: each.version for each in metadata.distributions() if each.metadata["Name"]}
    return {
        "python": platform.python_version(),
        "executable": _without_home(sys.executable),
        "system": platform.platform(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "installed": dict(sorted(installed.items())),
        "cpu": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "usable_cores": usable_cores(),
            "torch_threads": torch.get_num_threads(),
        },
        "gpu": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": _cuda(),
        "settings": {**_settings(), **(prepared or {})},
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "git": _git(folder),
    }


def changed_versions(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two provenances and can change results, one text each.

    Python, the packages that were there, CUDA, the driver, the GPUs and the number of threads.

    >>> changed_versions({"packages": {"torch": "2.11.0"}}, {"packages": {"torch": "2.13.0"}})
    ['torch 2.11.0 then, 2.13.0 now']
    """
    before, after, packages = _what_counts(then), _what_counts(now), then.get("packages", {})
    return [
        f"{name} {value} then, {after.get(name, 'not installed')} now"
        for name, value in before.items()
        if value != after.get(name) and (name in after or name in packages)
    ]


def _what_counts(made: Mapping[str, Any]) -> dict[str, str]:
    """Name every part of a provenance that counts; what it does not hold is left out."""
    cuda, cpu = made.get("cuda") or {}, made.get("cpu") or {}
    found = {"Python": made.get("python"), **made.get("packages", {})}
    found |= {"CUDA": cuda.get("version"), "cuDNN": cuda.get("cudnn"), "GPU driver": cuda.get("driver")}
    if "gpu" in made:
        found["GPU"] = ", ".join(made["gpu"]) or "none"
    found["CPU threads"] = cpu.get("torch_threads")
    return {name: str(value) for name, value in found.items() if value is not None}


def _cuda() -> dict[str, Any] | None:
    """Return versions, driver and memory of the GPUs, None without any."""
    import torch

    if not torch.cuda.is_available():
        return None
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "version": torch.version.cuda or torch.version.hip,
        "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
        "driver": _driver(),
        "memory": [each.total_memory for each in devices],
        "capability": [f"{each.major}.{each.minor}" for each in devices],
    }


def _driver() -> str | None:
    with suppress(OSError):
        found = re.search(r"Module.*?\s(\d+(?:\.\d+)+)\s", Path("/proc/driver/nvidia/version").read_text())
        if found:
            return found[1]
    said = _run(Path.cwd(), "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return said.splitlines()[0] if said else None


def _without_home(path: str) -> str:
    """Shorten a path inside the user's home, whose name is a person's."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    return f"~{path.removeprefix(home)}" if len(home) > 1 and path.startswith(f"{home}/") else path


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path) -> dict[str, Any] | None:
    commit = _run(folder, "git", "rev-parse", "HEAD")
    if commit is None:
        return None
    return {
        "commit": commit,
        "changed_files": (_run(folder, "git", "status", "--porcelain") or "").splitlines(),
        "diff": _diff(folder),
    }


def _diff(folder: Path) -> str | dict[str, Any] | None:
    """Return the changes since the commit as a patch; of a patch over a megabyte its SHA-256 and bytes."""
    command = ("git", "--no-pager", "diff", "--no-ext-diff", "--no-textconv", "--no-color", "HEAD")
    digest, kept, size = sha256(), b"", 0
    with suppress(OSError), subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:  # fmt: skip
        assert process.stdout is not None
        while piece := process.stdout.read(1 << 16):
            digest.update(piece)
            size += len(piece)
            kept = kept + piece if size <= _LONGEST_DIFF else b""
        if process.wait() == 0:
            text = kept.decode(errors="replace")
            return text if size <= _LONGEST_DIFF else {"sha256": digest.hexdigest(), "bytes": size}
    return None


def _run(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip("\n")
