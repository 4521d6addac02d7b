"""Staging: a copy of a state in memory that nothing changes while it is written.

In:    nested tensors and plain values, anywhere.
Out:   the same on the CPU, in buffers that are kept for the next copy.
Next:  `train.checkpoint` writes the copy behind the training.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from copy import deepcopy
from threading import Thread
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.serialization import get_crc32_options, set_crc32_options

from batteries.errors import UsageError

_Key = tuple[torch.device, int, int]
_Buffer = tuple[Tensor, bool]
"""Bytes, and whether they are pinned."""
_PIECE = 8 << 20
_OF_NUMPY = (torch.float16, torch.float32, torch.float64)


class Staging:
    """Buffers for copies of one training's state. A copy is good until the next one is made.

    Storages are copied whole, each once: views keep their strides and stay views, tied tensors stay
    tied, and the copy takes the file size of the original. Tensors that are not plain memory (sparse,
    quantized, subclasses, devices other than CUDA's) are cloned instead. Gradients are not copied.

    >>> staging, weight = Staging(), torch.ones(2)
    >>> copy = staging.copy({"a": weight, "b": weight})
    >>> weight.zero_()
    tensor([0., 0.])
    >>> copy["a"]
    tensor([1., 1.])
    >>> copy["a"].data_ptr() == copy["b"].data_ptr()
    True
    """

    def __init__(self) -> None:
        self._buffers: list[_Buffer] = []
        self._events: list[torch.cuda.Event] = []

    def copy(self, state: Any) -> Any:
        """Return a copy of `state` on the CPU. On CUDA it is only begun: call `ready` before it is read.

        The copies are queued on the current streams, so later work on those cannot change them.
        """
        with torch.inference_mode(False), torch.no_grad():
            making = _Copy(self._buffers)
            copied = making.value(state)
            _move(making.moves)
            self._buffers = making.used
            self._events = [_queued(device) for device in making.devices]
        return copied

    def ready(self) -> None:
        """Wait, on any thread, until the copy is there."""
        for event in self._events:
            event.synchronize()

    def clear(self) -> None:
        """Give the memory back."""
        self._buffers, self._events = [], []


class _Copy:
    """One pass over a state: which buffer holds which storage."""

    def __init__(self, buffers: list[_Buffer]) -> None:
        self._free: dict[tuple[int, bool], list[Tensor]] = defaultdict(list)
        for memory, pinned in buffers:
            self._free[memory.nbytes, pinned].append(memory)
        self._of: dict[_Key, Tensor] = {}
        self.used: list[_Buffer] = []
        self.moves: list[tuple[int, int, int]] = []
        """Where to, where from, how many bytes: what is on the CPU, still to be copied."""
        self.devices: set[torch.device] = set()

    def value(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._tensor(value)
        if type(value) in (dict, OrderedDict):
            copied = type(value)((key, self.value(part)) for key, part in value.items())
            if type(value) is OrderedDict:  # a module's notes on its state: versions of its layers
                copied.__dict__.update(deepcopy(value.__dict__))
            return copied
        if type(value) in (list, tuple):
            return type(value)(self.value(part) for part in value)
        return deepcopy(value)

    def _tensor(self, tensor: Tensor) -> Tensor:
        if not _is_plain(tensor):
            return tensor.detach().to("cpu", copy=True)
        storage = tensor.untyped_storage()
        key = (tensor.device, storage.data_ptr(), storage.nbytes())
        if key not in self._of:
            self._of[key] = self._storage(storage, tensor.device)
        empty = torch.empty(0, dtype=tensor.dtype, device="cpu")
        copied = self._of[key].untyped_storage()
        return empty.set_(copied, tensor.storage_offset(), tensor.size(), tensor.stride())

    def _storage(self, storage: torch.UntypedStorage, device: torch.device) -> Tensor:
        pinned = device.type == "cuda"
        free = self._free[storage.nbytes(), pinned]
        size = storage.nbytes()
        buffer = free.pop() if free else torch.empty(size, dtype=torch.uint8, device="cpu", pin_memory=pinned)
        self.used.append((buffer, pinned))
        if pinned:
            buffer.copy_(torch.empty(0, dtype=torch.uint8, device=device).set_(storage), non_blocking=True)
            self.devices.add(device)
        else:
            self.moves.append((buffer.data_ptr(), storage.data_ptr(), storage.nbytes()))
        return buffer


def _move(moves: list[tuple[int, int, int]]) -> None:
    """Copy memory with two threads that take piece after piece.

    PyTorch's own threads wait for each other after every tensor: where loaders keep the cores busy,
    that took ten times as long as one thread needs.
    """
    pieces = iter(
        [(to + at, of + at, min(_PIECE, size - at)) for to, of, size in moves for at in range(0, size, _PIECE)]
    )
    helper = Thread(target=_move_pieces, args=(pieces,), name="staging")
    helped = sum(size for _, _, size in moves) > 4 * _PIECE
    if helped:
        helper.start()
    try:
        _move_pieces(pieces)
    finally:  # also when interrupted: the buffers must be at rest before they are used again
        if helped:
            helper.join()


def _move_pieces(pieces: Iterator[tuple[int, int, int]]) -> None:
    for piece in pieces:
        ctypes.memmove(*piece)  # without the interpreter's lock


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is fully described by its storage, type, shape, strides and offset."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout is torch.strided
        and tensor.device.type in ("cpu", "cuda")
        and not (tensor.is_quantized or tensor.is_conj() or tensor.is_neg())
    )


def _queued(device: torch.device) -> torch.cuda.Event:
    """An event that comes when all that is queued on the device's current stream is done."""
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def plain_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """The states of objects that have one, and other values as `torch.load(weights_only=True)` takes them back."""
    return {name: _plain(value, name) for name, value in state.items()}


def _plain(value: Any, name: str) -> Any:
    """The state of an object that has one, else the value as `torch.load(weights_only=True)` takes it back."""
    state_dict = getattr(value, "state_dict", None)
    if callable(state_dict):
        return state_dict()
    if value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        plain = {key: _plain(part, f"{name}.{key}") for key, part in value.items()}
        return plain if type(value) is dict else _same_kind(value, plain)
    if isinstance(value, list | tuple):
        return type(value)([_plain(part, name) for part in value]) if type(value) in (list, tuple) else list(value)
    raise UsageError(
        f"checkpoint: {name!r} holds {type(value).__name__}, which cannot be loaded safely;"
        " save tensors, arrays, numbers, texts, lists, dicts, or objects with state_dict()"
    )


def _same_kind(value: Mapping[Any, Any], plain: dict[Any, Any]) -> Mapping[Any, Any]:
    """A state dict keeps its class and its notes where nothing in it had to change."""
    return value if all(plain[key] is value[key] for key in plain) and type(value) is OrderedDict else plain


def write_state(state: Mapping[str, Any], file: IO[bytes]) -> None:
    """`torch.save` without its checksums, which cost as much as the writing: the record has a digest of the file."""
    before = get_crc32_options()
    set_crc32_options(False)  # of this thread only
    try:
        torch.save(state, file)
    finally:
        set_crc32_options(before)


def non_finite(weights: object) -> str | None:
    """The name of the first weight with a NaN or an infinity in it, or None."""
    if not isinstance(weights, Mapping):
        return None
    floating = {n: t for n, t in weights.items() if isinstance(t, Tensor) and t.is_floating_point()}
    return next((name for name, tensor in floating.items() if not _is_finite(tensor)), None)


def _is_finite(tensor: Tensor) -> bool:
    """On one core: this runs beside the training, which needs the others."""
    if _is_plain(tensor) and tensor.device.type == "cpu" and tensor.dtype in _OF_NUMPY:
        return bool(np.isfinite(tensor.detach().numpy()).all())
    return bool(torch.isfinite(tensor).all())
