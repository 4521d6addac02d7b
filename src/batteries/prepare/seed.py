"""Seed: one seed, and a name for every use of it.

In:    the experiment's seed.
Out:   seeds that are unrelated to each other; the state of all generators, to save and restore.
Next:  loaders, augmentation and initialisation each derive their own.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import numpy as np


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a stable 32-bit seed for one named use, unrelated to every other use.

    >>> derive_seed(42, "shuffle", 0) == derive_seed(42, "shuffle", 0)
    True
    >>> derive_seed(42, "shuffle", 1) == derive_seed(43, "shuffle", 0)
    False
    """
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(sha256(text.encode()).digest()[:4], "big")


def seed_everything(seed: int, *, deterministic: bool = False) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators, PyTorch's on every device: CPU, CUDA, MPS, XPU.

    `deterministic=True` also asks PyTorch for deterministic algorithms only, from here to the end of the
    process: some operations get slower (scatter and index sums on a GPU by a multiple), a few raise an
    error that names them. Python's hash seed can only be set before Python starts
    (`PYTHONHASHSEED=0 python ...`); nothing in Batteries depends on it, an order taken from a set of
    texts does.

    >>> seed_everything(7)
    >>> first = random.random()
    >>> seed_everything(7)
    >>> random.random() == first
    True
    """
    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)  # NumPy takes no more bits; the others do
    torch.manual_seed(seed)  # all devices, also those that are first used later
    if deterministic:
        deterministic_only(True)


def deterministic_only(wanted: bool, /) -> None:
    """Ask PyTorch for deterministic algorithms only, or allow the others again."""
    import torch

    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it
        torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(wanted)


def random_state() -> dict[str, Any]:
    """Return the state of all global generators as plain data that `torch.load(weights_only=True)` accepts."""
    import torch

    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, torch.tensor(internal), gauss],  # 625 numbers are saved faster as one tensor
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "xpu": torch.xpu.get_rng_state_all() if torch.xpu.is_available() else [],
        "mps": [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else [],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the global generators into a state that `random_state` returned.

    The state of GPUs of each kind is restored where there are as many as there were; elsewhere it is left alone.
    """
    import torch

    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    if torch.xpu.is_available() and len(state["xpu"]) == torch.xpu.device_count():
        torch.xpu.set_rng_state_all(state["xpu"])
    if torch.backends.mps.is_available() and state["mps"]:
        torch.mps.set_rng_state(state["mps"][0])


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Leave the global generators as they were, whatever happens inside."""
    state = random_state()
    try:
        yield
    finally:
        set_random_state(state)
