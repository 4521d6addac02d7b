"""State: everything that changes while a stage trains, in one place.

In:    a model and a stage's declaration.
Out:   one object that saves and restores all of it: a resumed stage goes on as if never stopped.
Next:  the loop moves it forward; checkpoints keep it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from batteries.errors import ResumeError
from batteries.experiment import Experiment, Stage
from batteries.prepare.seed import random_state, set_random_state
from batteries.train.average import averaged
from batteries.train.device import Device
from batteries.train.weights import freeze, parameter_groups


@dataclass
class TrainState:
    """The one mutable thing of a stage. Its position is (epoch, update); `step` counts updates of the stage."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaged: AveragedModel | None = None
    epoch: int = 0
    """Finished epochs."""
    update: int = 0
    """Updates done in the epoch that is under way."""
    step: int = 0
    loss: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    """Sum of the losses of the samples seen in the epoch under way."""
    samples: int = 0

    def __post_init__(self) -> None:
        self.base_lrs = [float(group["lr"]) for group in self.optimizer.param_groups]

    @classmethod
    def begin(cls, experiment: Experiment, stage: Stage, model: nn.Module, device: Device) -> TrainState:
        """Return the state at the start of `stage`, with `model` on the device and frozen as declared."""
        model = model.to(device.name)
        freeze(model, stage.freeze)
        optimizer = experiment.optimizer(parameter_groups(model, stage.weight_decay), stage)
        state = cls(model, optimizer, device.scaler(stage.precision), averaged(model, stage))
        if device.name.type == "mps":  # it has no float64
            state.loss = state.loss.float()
        state.loss = state.loss.to(device.name)
        return state

    @property
    def scored(self) -> nn.Module:
        """The model that is validated: the averaged one where the stage keeps one."""
        return self.averaged.module if self.averaged is not None else self.model

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as tensors and plain values; `model` and `average` are plain state dicts."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "position": {"epoch": self.epoch, "update": self.update, "step": self.step, "samples": self.samples},
            "loss": self.loss,
            "random": random_state(),
        }
        if self.averaged is not None:
            state["average"] = self.averaged.module.state_dict()
            state["averaged"] = self.averaged.n_averaged
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state. Raises ResumeError when it is of another model, optimizer or stage."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            if self.averaged is not None:
                self.averaged.module.load_state_dict(state["average"])
                self.averaged.n_averaged.copy_(state["averaged"])
            position = state["position"]
            self.loss.copy_(state["loss"])
            set_random_state(state["random"])
        except (KeyError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ResumeError(f"the checkpoint is of another model, optimizer or stage: {reason}") from error
        self.epoch, self.update = position["epoch"], position["update"]
        self.step, self.samples = position["step"], position["samples"]
