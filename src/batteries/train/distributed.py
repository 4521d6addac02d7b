"""Distributed: a device of each of several processes that train one model (DistributedDataParallel).

In:    the environment that `torchrun` makes.
Out:   a Device over all of them: each batch is divided, gradients are averaged, rank 0 writes the files.
Next:  the loop is the same; only this module knows `torch.distributed`.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from inspect import signature
from math import inf
from types import TracebackType
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from batteries.errors import BatteriesError, ExperimentError, PeerError, UsageError
from batteries.experiment import Batch, Experiment, Stage
from batteries.train.averaged import averaged
from batteries.train.buffers import buffer_places
from batteries.train.device import Device, Step
from batteries.train.launch import end_with_launcher, finished, meeting_file, stacks_folder
from batteries.train.stacks import answer, silence, stacks
from batteries.train.sync_norm import SyncBatchNorm, synchronised

_T = TypeVar("_T")
TIMEOUT = 600.0
"""Seconds that a process waits for the others before it gives them up."""


def launched() -> bool:
    """Whether this process was started by `torchrun`, or by `batteries train --ddp N`, as one of several."""
    return "TORCHELASTIC_RUN_ID" in os.environ and "LOCAL_RANK" in os.environ


def pick_device(name: str = "auto", *, dp: bool = False, timeout: float = TIMEOUT) -> Device:
    """Return where to train: `Distributed` under torchrun, else `Device.pick`. Use it in a `with`.

    Parameters
    ----------
    name
        `auto`, `cpu`, `cuda`, `cuda:1`.
    dp
        All accelerators of this machine in one process, under nn.DataParallel.
    timeout
        Seconds that a process waits for another before it ends with PeerError; only under torchrun.

    Raises
    ------
    UsageError
        This machine does not have the device, or the options contradict each other.

    Example
    -------
    >>> with pick_device("cpu") as device:
    ...     print(device.world)
    1

    """
    if not 0 < timeout < inf:
        raise UsageError(f"--timeout {timeout:g}: give the seconds that a process waits for the others, above 0")
    if not launched():
        return Device.pick(name, dp=dp)
    if dp:
        raise UsageError("--dp is one process for all devices; it cannot be used under torchrun or with --ddp")
    return Distributed.join(name, timeout=timeout)


@dataclass
class _Flag:
    """The level under way: one number, reduced while the training goes on."""

    value: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int32))
    work: Any = None


@dataclass(frozen=True)
class Distributed(Device):
    """One of several processes that train one model.

    Batches keep their size whatever the number of processes: each takes its part of every batch, so a run
    gives the same result, up to rounding, on one device and on many, and goes on under another number.
    """

    _: KW_ONLY
    own_rank: int
    processes: int
    timeout: float
    talk: Any
    """Process group for small things on the CPU, apart from the gradients."""
    flag: _Flag = field(default_factory=_Flag)

    @classmethod
    def join(cls, name: str = "auto", *, timeout: float = TIMEOUT) -> Distributed:
        """Join the processes of `torchrun`; returns when all have come."""
        local = int(os.environ["LOCAL_RANK"])
        device = _own_accelerator(name, local, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        limit = timedelta(seconds=timeout)
        faulthandler.enable()
        end_with_launcher()
        if (folder := stacks_folder()) is not None:
            answer(folder, int(os.environ["RANK"]))
        try:
            own = "" if device.type == "cpu" else f",{device.type}:{dist.get_default_backend_for_device(device.type)}"
            dist.init_process_group(f"cpu:gloo{own}", timeout=limit, **_met())
            talk = dist.new_group(backend="gloo", timeout=limit)
        except RuntimeError as error:
            raise PeerError(f"the processes did not find each other: {_line(error)}") from error
        return cls(device, own_rank=dist.get_rank(), processes=dist.get_world_size(), timeout=timeout, talk=talk)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # else the others may never come; the end of the process tells them
            with self._speaking():
                self.agree(0)
                self.flag.work.wait()
            dist.destroy_process_group()
            finished()
        elif isinstance(error, PeerError):
            self._show_stacks(error)
        elif isinstance(error, RuntimeError) and not isinstance(error, BatteriesError) and lost(error):
            self._show_stacks(error)
            raise self._gone(error) from error

    def _show_stacks(self, error: BaseException) -> None:
        """Where a peer hangs, write where this process waited, and where the others of this machine are."""
        if "time" not in str(error).lower():  # as in "Timed out waiting 5000ms for recv operation"
            return
        folder = stacks_folder()
        if folder is not None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # comes once another one has ended, which waited as this one
        if folder is None or silence(folder, self.own_rank):
            waited = "".join(traceback.format_tb(error.__traceback__))
            sys.stderr.write(f"rank {self.own_rank} (pid {os.getpid()}) waited here, most recent call last:\n{waited}")
        if folder is not None:
            sys.stderr.write(stacks(folder))

    def _gone(self, error: Exception) -> PeerError:
        return PeerError(
            f"rank {self.own_rank} of {self.processes} lost another process, which ended or was silent for"
            f" {self.timeout:g} s ({_line(error)}). Saved checkpoints are intact; the same command goes on from there"
        )

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return self.own_rank

    @property
    def world(self) -> int:
        """Number of processes."""
        return self.processes

    def prepare(self, model: nn.Module, stage: Stage) -> nn.Module:
        """Place a model that is going to be trained, its batch norms synchronised."""
        return synchronised(self.place_model(model, stage), self.name)

    def step(self, experiment: Experiment, model: nn.Module) -> Step:
        """Return the training step under DistributedDataParallel.

        The whole step is wrapped, so it may call any method of the model, any number of times.
        """
        ids = None if self.name.type == "cpu" else [self.name.index]
        known = signature(DistributedDataParallel.__init__).parameters  # PyTorch 2.13 gave the option another name
        option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
        buffers: dict[str, Any] = {option: bool(_own_buffers(model))}  # those of norms are equal by themselves
        wrapped = _Parallel(_TrainingStep(experiment, model), device_ids=ids, **buffers)
        if self.processes > 2 and self.name.type == "cpu":
            wrapped.register_comm_hook(None, lambda _, bucket: averaged(bucket))
        return cast(Step, wrapped)

    def no_sync(self, step: Step) -> AbstractContextManager[Any]:
        """While open, gradients stay here; the next backward pass outside it shares them all."""
        return step.no_sync() if isinstance(step, DistributedDataParallel) else nullcontext()

    def weight(self, own: int, whole: int) -> float:
        """Return what the mean loss of this process's samples counts: gradients are averaged over processes."""
        return own * self.processes / whole if whole >= self.processes else 1.0

    def worst(self, flag: Tensor) -> None:
        """Raise a number on the device, in place, to the highest of all processes."""
        with self._speaking():
            dist.all_reduce(flag, dist.ReduceOp.MAX)

    def share_buffers(self, *models: nn.Module) -> None:
        """Give all processes rank 0's buffers, of those that are not batch norms': each follows its own samples."""
        with self._speaking():
            for model in models:
                for buffer in _own_buffers(model):
                    dist.broadcast(buffer, src=0)

    def total(self, values: Tensor) -> Tensor:
        """Sum of a small tensor over the processes, on the CPU."""
        with self._speaking():
            summed = values.detach().cpu().clone()
            dist.all_reduce(summed, group=self.talk)
            return summed

    def gather(self, value: _T) -> list[_T]:
        """Return the value of every process, by rank; any that pickles."""
        values: list[Any] = [None] * self.processes
        with self._speaking():
            dist.all_gather_object(values, value, group=self.talk)
        return values

    def first(self, work: Callable[[], _T]) -> _T:
        """Let rank 0 do something; all return what it returned, or raise what it raised.

        An error that others raise too is marked `told`: rank 0 says it for all.
        """
        outcome: list[Any] = [None]
        if self.is_main:
            try:
                value = work()
                outcome, raised = [pickle.dumps((value, None))], None
            except Exception as error:  # noqa: BLE001 - of any kind; all processes raise it
                outcome, raised = [pickle.dumps((None, _travels(error)))], error
        with self._speaking():
            dist.broadcast_object_list(outcome, src=0, group=self.talk)
        if self.is_main:
            if raised is not None:
                raise raised
            return value
        value, told = pickle.loads(outcome[0])
        if told is not None:
            told.told = True
            raise told
        return cast(_T, value)

    def agree(self, level: int) -> int:
        """Return the highest level that any process gave one call ago; meanwhile this one is on its way."""
        with self._speaking():
            agreed = 0
            if self.flag.work is not None:
                self.flag.work.wait()
                agreed = int(self.flag.value)
            self.flag.value = torch.tensor([level], dtype=torch.int32)
            self.flag.work = dist.all_reduce(self.flag.value, dist.ReduceOp.MAX, group=self.talk, async_op=True)
            return agreed

    def beat(self) -> None:
        """Put off the moment at which, all silent, the stack of this process is printed, if nobody else asks for it."""
        if stacks_folder() is None:
            _Watch.beat(self.timeout)

    @contextmanager
    def _speaking(self) -> Any:
        try:
            yield
        except RuntimeError as error:
            if isinstance(error, BatteriesError):
                raise
            raise self._gone(error) from error


class _Watch:
    """When was the watchdog of this process last put off; it costs a thread, so not at every update."""

    last = 0.0

    @classmethod
    def beat(cls, timeout: float) -> None:
        now = time.monotonic()
        if now - cls.last > timeout / 4:
            cls.last = now
            faulthandler.dump_traceback_later(timeout, file=sys.__stderr__ or sys.stderr)


class _Parallel(DistributedDataParallel):
    """DistributedDataParallel that says in our words which parameters it waited for in vain."""

    def forward(self, *arguments: Any) -> Any:
        try:
            return super().forward(*arguments)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            found = re.search(r"did not receive grad for rank \d+: ([\d ]+)", str(error))
            if found is None:
                raise
            names = [name.removeprefix("model.") for name, p in self.module.named_parameters() if p.requires_grad]
            raise unused([names[int(place)] for place in found[1].split()]) from error


def unused(names: Sequence[str]) -> ExperimentError:
    """Return the error that says which parameters got no gradient in an update."""
    some = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return ExperimentError(
        f"{some} got no gradient in an update; several processes need one for every parameter that learns. Freeze what"
        f" is not used, Stage(freeze=[{names[0]!r}, ...]), or add 0 * parameter.sum() to the loss"
    )


class _TrainingStep(nn.Module):
    """A training step as a module, for DistributedDataParallel to follow."""

    def __init__(self, experiment: Experiment, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._experiment = experiment
        self._norms = [module for module in model.modules() if isinstance(module, SyncBatchNorm)]

    def forward(self, batch: Batch, whole: int) -> Any:
        copies = 1 if whole >= dist.get_world_size() else dist.get_world_size()
        for norm in self._norms:
            norm.copies = copies
        return self._experiment.training_step(self.model, batch)


def _met() -> dict[str, Any]:
    """How the processes find each other, where PyTorch's way, the environment, is not to be taken."""
    if (file := meeting_file()) is None:
        return {}
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store = dist.FileStore(str(file), world)  # type: ignore[attr-defined]
    return {"store": store, "rank": rank, "world_size": world}


def _own_buffers(model: nn.Module) -> list[Tensor]:
    """Buffers that may follow the samples of one process; those of batch norms are equal by themselves."""
    places = [place for place in buffer_places(model) if not isinstance(place.module, _BatchNorm)]
    return [place.tensor for place in places if place.tensor is not None]


def _own_accelerator(name: str, local_rank: int, local_world: int) -> torch.device:
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "cpu" or (name == "auto" and found is None):
        return torch.device("cpu")
    if ":" in name:
        raise UsageError(f"--device {name}: each process takes a device of its own; say --device auto, cpu or cuda")
    if found is None or (name not in ("auto", found.type)):
        raise UsageError(f"there is no {name} device here: --device auto")
    if torch.accelerator.device_count() < local_world:
        raise UsageError(
            f"{local_world} processes on {torch.accelerator.device_count()} {found.type} devices;"
            " give as many processes as there are devices, or --device cpu"
        )
    torch.accelerator.set_device_index(local_rank)
    return torch.device(found.type, local_rank)


def lost(error: RuntimeError) -> bool:
    """Whether a RuntimeError is PyTorch's way to say that another process is gone."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error)
    return any(word in text for word in ("gloo/transport", "Connection closed by peer", "Connection reset", "NCCL"))


def _travels(error: Exception) -> Exception:
    """The error if it survives a pickle, else one that says the same."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - whatever its __reduce__ does
        return ExperimentError(f"rank 0: {type(error).__name__}: {error}")
    return error


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
