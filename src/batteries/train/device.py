"""Device: where a model runs.

In:    `cpu`, `cuda:1`, `auto`; one of them or several in one process (DataParallel).
Out:   one small object that places batches, runs the training step and opens autocast.
Next:  the loop asks it; `train.distributed` is the same object over several processes.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from batteries.errors import UsageError
from batteries.experiment import Batch, Experiment, Stage
from batteries.train.layout import likes_channels_last
from batteries.train.loaders import Share

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_T = TypeVar("_T")
Step = Callable[[Batch, int], Any]
"""`step(batch, whole)` -> what `training_step` returns; `whole` counts the batch's samples over all processes."""


@dataclass(frozen=True)
class Device:
    """One device of one process. `Device.pick("auto")` takes the accelerator if there is one.

    The methods below `scaler` matter where there are several processes; here they do the obvious.
    """

    name: torch.device

    @classmethod
    def pick(cls, name: str = "auto", *, dp: bool = False) -> Device:
        """Return the device called `name`; with `dp`, all accelerators of this machine under nn.DataParallel.

        Raises UsageError when this machine does not have it.
        """
        if dp:
            return DataParallel(_accelerator(name))
        if name == "auto":
            return Device(_accelerator(name))
        device = _known(name)
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise _unusable(name, str(error).splitlines()[0]) from None
        return Device(device)

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __str__(self) -> str:
        return str(self.name)

    def place(self, data: Any) -> Any:
        """Move tensors, however nested in tuples, lists and dicts, to the device."""
        return each_tensor(data, lambda tensor: tensor.to(self.name, non_blocking=True))

    def placed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches on the device; on CUDA the next one is copied, on a stream of its own, meanwhile."""
        if self.name.type == "cuda":
            return _prefetched(self, batches)
        if self.name.type == "cpu":
            return iter(batches)
        return (self.place(batch) for batch in batches)

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """Open the forward pass in `fp32`, `bf16` or `fp16`."""
        if precision == "fp32":
            return nullcontext()
        return torch.autocast(self.name.type, dtype=_AUTOCAST[precision])

    def scaler(self, precision: str) -> torch.amp.GradScaler:
        """Return the loss scaler; it does nothing unless the precision is `fp16`."""
        return torch.amp.GradScaler(self.name.type, enabled=precision == "fp16")

    @property
    def rank(self) -> int:
        """Number of this process among those that train one model."""
        return 0

    @property
    def world(self) -> int:
        """Processes that train one model."""
        return 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """Which samples of every batch are this process's."""
        return Share(rank=self.rank, world=self.world)

    def place_model(self, model: nn.Module, stage: Stage) -> nn.Module:
        """Move a model to the device, in the memory order that the stage asks for, or else that is faster."""
        model, wanted = model.to(self.name), stage.channels_last
        if likes_channels_last(model, self.name, stage.precision) if wanted is None else wanted:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model

    def prepare(self, model: nn.Module, stage: Stage) -> nn.Module:
        """Place a model that is going to be trained, its batch norms synchronised where there are several processes."""
        return self.place_model(model, stage)

    def step(self, experiment: Experiment, model: nn.Module) -> Step:
        """Return `experiment.training_step` of one batch as it runs here; the bare model is what is saved."""
        return lambda batch, whole: experiment.training_step(model, batch)

    def no_sync(self, step: Step) -> AbstractContextManager[Any]:
        """While open, gradients are added up here only."""
        return nullcontext()

    def weight(self, own: int, whole: int) -> float:
        """Return what the mean loss over `own` samples counts in a batch of `whole`."""
        return 1.0

    def total(self, values: Tensor) -> Tensor:
        """Sum of a small tensor over the processes."""
        return values

    def gather(self, value: _T) -> list[_T]:
        """Return the value of every process, by rank."""
        return [value]

    def first(self, work: Callable[[], _T]) -> _T:
        """Let the main process do something; all return what it returned, or raise what it raised."""
        return work()

    def agree(self, level: int) -> int:
        """Return the highest level that any process gave; several learn it one call later, which saves a wait."""
        return level

    def worst(self, flag: Tensor) -> None:
        """Raise a number on the device, in place, to the highest of all processes."""

    def share_buffers(self, *models: nn.Module) -> None:
        """Give all processes rank 0's buffers, of those that are not batch norms'."""

    def beat(self) -> None:
        """Say that this process is alive."""

    def memory(self) -> dict[str, float]:
        """Return the largest memory in use so far, in MB: of the accelerator, else of the process."""
        if self.name.type != "cpu":
            return {"memory/device_mb": torch.accelerator.max_memory_allocated(self.name) / 2**20}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {"memory/process_mb": (peak if sys.platform == "darwin" else peak * 1024) / 2**20}


class DataParallel(Device):
    """All accelerators of one machine under `nn.DataParallel`: each batch is split over them, in one process.

    Simple to start, and good for a quick look. `Distributed` (`--ddp N`) is faster: it has a process for each
    accelerator, copies no model at every step, and batch norms see the whole batch. Without accelerators, as
    PyTorch does, the model runs as it is.
    """

    def step(self, experiment: Experiment, model: nn.Module) -> Step:
        """Return the training step with the model wrapped in `nn.DataParallel`."""
        return super().step(experiment, nn.DataParallel(model))


def _accelerator(name: str) -> torch.device:
    """The machine's accelerator, else the CPU; `name` may insist on a kind."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return found or torch.device("cpu")
    kind = _known(name).type
    if kind != "cpu" and (found is None or found.type != kind):
        raise UsageError(f"there is no {kind} device here: --device auto")
    return torch.device(kind if kind == "cpu" else f"{kind}:0")


def _known(name: str) -> torch.device:
    """The device of a name. Raises UsageError for what is none, or holds no numbers."""
    try:
        device = torch.device(name)
    except RuntimeError:  # whose text lists all the kinds that there are on any machine
        raise _unusable(name, "PyTorch knows no such device") from None
    if device.type == "meta":
        raise _unusable(name, "it holds shapes, no numbers")
    return device


def _unusable(name: str, reason: str) -> UsageError:
    has = f"{torch.accelerator.device_count()} accelerators" if torch.accelerator.is_available() else "only cpu"
    return UsageError(f"device {name!r} cannot be used ({reason}); this machine has {has}: --device auto")


def _prefetched(device: Device, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Copy the next batch on a stream of its own while the present one is computed."""
    side = torch.cuda.Stream(device.name)  # type: ignore[no-untyped-call]
    with torch.cuda.device(device.name):
        waiting: Batch | None = None
        for batch in batches:
            with torch.cuda.stream(side):
                coming = device.place(each_tensor(batch, Tensor.pin_memory))
            if waiting is not None:
                yield waiting
            here = torch.cuda.current_stream(device.name)
            here.wait_stream(side)
            waiting = each_tensor(coming, partial(_used_on, here))
        if waiting is not None:
            yield waiting


def _used_on(stream: torch.cuda.Stream, tensor: Tensor) -> Tensor:
    """Keep the memory of a tensor until the stream that computes with it is done."""
    tensor.record_stream(stream)
    return tensor


def each_tensor(data: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change every tensor in nested tuples, lists and dicts; all else stays."""
    if isinstance(data, Tensor):
        return change(data)
    if isinstance(data, Mapping):
        changed = {key: each_tensor(value, change) for key, value in data.items()}
        return _refilled(data, changed) if isinstance(data, MutableMapping) and type(data) is not dict else changed
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(each_tensor(value, change) for value in data))
    if isinstance(data, tuple | list):
        return type(data)(each_tensor(value, change) for value in data)
    return data


def _refilled(data: MutableMapping[Any, Any], changed: dict[Any, Any]) -> MutableMapping[Any, Any]:
    """A mapping of its own kind, such as a tokenizer's batch, with other values."""
    new = copy(data)
    new.update(changed)
    return new
