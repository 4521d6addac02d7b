"""State: everything that changes while a stage trains, in one place.

In:    a model and a stage's declaration.
Out:   one object that saves and restores all of it: a resumed stage goes on as if never stopped.
Next:  the loop moves it forward; checkpoints keep it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from batteries.errors import ConfigError, ResumeError
from batteries.experiment import Experiment, Stage
from batteries.prepare.seed import derive_seed, random_state, seed_everything, set_random_state
from batteries.train.average import Averaged
from batteries.train.device import Device
from batteries.train.groups import freeze, parameter_groups

LEFT_OUT = " left out"
"""Among the sums: samples of updates that were left out on the device before anybody knew."""
_SAMPLES = " samples"
_COUNTS = ("epoch", "update", "step", "samples", "split", "not_finite")


@dataclass
class TrainState:
    """The one mutable thing of a stage. Its position is (epoch, update); `step` counts updates of the stage.

    Of modules it saves what their `state_dict` holds: a buffer with `persistent=False` and a plain attribute that
    changes in training begin anew in a resumed stage. Register such a buffer as persistent, or add it to the
    `state_dict` through `get_extra_state`.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaged: Averaged | None = None
    device: Device = field(default_factory=lambda: Device(torch.device("cpu")))
    epoch: int = 0
    """Finished epochs."""
    update: int = 0
    """Updates done in the epoch that is under way."""
    step: int = 0
    samples: int = 0
    """Samples seen in the epoch under way, over all processes."""
    split: int = 1
    """Pieces that a batch is computed in, since memory ran out."""
    not_finite: int = 0
    """Updates left out, or restored from, because they were not finite."""
    scores: list[float | None] = field(default_factory=list)
    """Validation scores of the finished epochs, None where not finite."""
    sums: dict[str, Tensor] = field(default_factory=dict)
    """Of the loss and what else training_step returned, over this process's samples of the epoch under way."""
    read: dict[str, float] = field(default_factory=dict)
    """The sums over all processes when they were read last, and the samples then."""
    grad_norm: Tensor | None = None
    """Of the last update at which it was measured."""
    unread: tuple[int, Tensor, torch.Event | None] | None = None
    """Accelerators: number of the last update, whether it was left out, and what comes when that is known."""

    def __post_init__(self) -> None:
        self.base_lrs = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._sum_type = torch.float32 if self.device.name.type == "mps" else torch.float64

    @classmethod
    def begin(cls, experiment: Experiment, stage: Stage, model: nn.Module, device: Device) -> TrainState:
        """Return the state at the start of `stage`, with `model` on the device and frozen as declared."""
        try:
            model = device.prepare(model, stage)
            freeze(model, stage.freeze)
            groups = parameter_groups(
                model, stage.weight_decay, lr=stage.lr, layer_decay=stage.layer_decay, lr_of=stage.lr_of
            )
        except ConfigError as error:
            raise ConfigError(f"stage {stage.name!r}: {error}") from error
        optimizer = _checked(experiment.optimizer(groups, stage), groups)
        averaged = Averaged(model, stage) if stage.average else None
        return cls(model, optimizer, device.scaler(stage.precision), averaged, device)

    @property
    def scored(self) -> nn.Module:
        """The model that is validated: the averaged one where the stage keeps one."""
        return self.averaged.module if self.averaged is not None else self.model

    def add(self, name: str, mean: Tensor | float, samples: int) -> None:
        """Add the mean over some samples to the sum of the epoch, without waiting for the device."""
        if name not in self.sums:
            self.sums[name] = torch.zeros((), dtype=self._sum_type, device=self.device.name)
        if isinstance(mean, Tensor):
            self.sums[name].add_(mean, alpha=samples)
        else:
            self.sums[name] += mean * samples

    def means(self, *, window: bool = False) -> dict[str, float]:
        """Means over the samples of the epoch under way, or of those since the last such reading, over all processes.

        Reading waits for the device and for the other processes.
        """
        names = list(self.sums)
        totals = self.device.total(torch.stack([self.sums[name] for name in names])).tolist() if names else []
        now = dict(zip(names, totals, strict=True))
        samples = self.samples - now.pop(LEFT_OUT, 0.0)
        before = self.read if window else {}
        count = samples - before.get(_SAMPLES, 0)
        means = {name: (total - before.get(name, 0.0)) / max(1, count) for name, total in now.items()}
        if window:
            self.read = {**now, _SAMPLES: samples}
        return means

    def end_epoch(self) -> None:
        """Begin the next epoch."""
        self.epoch, self.update, self.samples = self.epoch + 1, 0, 0
        self.sums, self.read = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as tensors and plain values; `model` and `average` are plain state dicts.

        Where there are several processes, all must call it together; each one's randomness and sums are in it.
        """
        own = {"random": random_state(), "sums": {name: value.cpu() for name, value in self.sums.items()}}
        state: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "position": {name: getattr(self, name) for name in _COUNTS},
            "scores": list(self.scores),
            "read": dict(self.read),
            "unread": self._unread(),
            "processes": self.device.gather(own),
        }
        if self.averaged is not None:
            state["average"] = self.averaged.module.state_dict()
            state["averaged"] = self.averaged.count
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go back to a saved state. Raises ResumeError when it is of another model, optimizer or stage."""
        try:
            self.load_weights_of(state)
            for name in _COUNTS:
                setattr(self, name, state["position"][name])
            self.scores, self.read = list(state["scores"]), dict(state["read"])
            unread = state["unread"]
            self.unread = None if unread is None else (unread[0], torch.tensor(unread[1]), None)
            self._load_own(state["processes"])
        except (KeyError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ResumeError(f"the checkpoint is of another model, optimizer or stage: {reason}") from error

    def load_weights_of(self, state: Mapping[str, Any]) -> None:
        """Take weights, optimizer and averages of a saved state; the position stays."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.averaged is not None:
            self.averaged.module.load_state_dict(state["average"])
            self.averaged.count = state["averaged"]

    def _unread(self) -> list[float] | None:
        if self.unread is None:
            return None
        update, flag, event = self.unread
        if event is not None:
            event.synchronize()
        return [update, flag.item()]

    def _load_own(self, processes: list[dict[str, Any]]) -> None:
        """Take what was this process's own; of another number of processes, rank 0 takes the sums of all."""
        rank, same = self.device.rank, len(processes) == self.device.world
        self.sums = {}
        for own in [processes[rank]] if same else processes:
            for name, value in own["sums"].items():  # every process needs every name
                self.add(name, value.to(self.device.name), int(same or self.device.is_main))
        if rank < len(processes):
            set_random_state(processes[rank]["random"])
        else:
            seed_everything(derive_seed(self.step, "process", rank))


def _checked(optimizer: Any, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Refuse what is no optimizer, or one that would train something else."""
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ConfigError(f"optimizer must return a torch.optim.Optimizer, got {type(optimizer).__name__}")
    given = {id(parameter) for group in groups for parameter in group["params"]}
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    if foreign := sum(parameter not in given for parameter in held):
        raise ConfigError(
            f"{foreign} of the {len(held)} parameters in the {type(optimizer).__name__} are not among those given to"
            " optimizer(parameters, stage); make it of `parameters`"
        )
    return optimizer
