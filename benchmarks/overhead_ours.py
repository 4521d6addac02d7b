"""Overhead, by batteries: the loop alone, and a run with everything that `batteries train` keeps.

In:    the work of overhead_loops.
Out:   a trained model, and a mark at the end of each epoch.
Next:  overhead.py measures them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch
from overhead_loops import BATCH, LR, Work, accuracy_of
from torch import Tensor, nn

import batteries as bt
from batteries.train.device import Device
from batteries.train.loaders import Loader
from batteries.train.loop import train
from batteries.train.run import train_run
from batteries.train.samplers import Shuffled
from batteries.train.state import TrainState


def _score(targets: Any, predictions: Any) -> float:
    """Accuracy of the one batch that is held out. It is asked for once an epoch: there the epoch is over."""
    Synthetic.work.mark()
    return float((predictions.argmax(axis=1) == targets).mean())


@dataclass(kw_only=True)
class Synthetic(bt.Experiment):
    """Rows that can be learned, ten classes."""

    batch_size: int = BATCH
    epochs: int
    steps: int

    metric = bt.Metric("accuracy", _score, higher_is_better=True)
    work: ClassVar[Work]
    built: ClassVar[list[nn.Module]] = []

    def table(self) -> pl.DataFrame:
        _, targets = self.work.data(more=BATCH)
        return pl.DataFrame({"id": np.arange(len(targets)), "target": targets.numpy()})

    def dataset(self, rows: pl.DataFrame, *, training: bool) -> tuple[Tensor, Tensor]:
        inputs, targets = self.work.data(more=BATCH)
        wanted = torch.tensor(rows["id"].to_numpy())
        return inputs[wanted], targets[wanted]

    def model(self) -> nn.Module:
        self.built.append(self.work.new_model())
        return self.built[-1]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def optimizer(self, parameters: list[dict[str, Any]], stage: bt.Stage) -> torch.optim.Optimizer:
        """One group of parameters, as everybody else has here; ours by default decays no biases, in a second one."""
        return torch.optim.AdamW([each for group in parameters for each in group["params"]], lr=stage.lr, fused=True)

    def stages(self) -> list[bt.Stage]:
        return [bt.Stage("train", epochs=self.epochs, lr=LR, schedule="constant")]


class Typical(Synthetic):
    """The same with a running accuracy beside the running loss; one batch of rows is held out."""

    def training_step(self, model: nn.Module, batch: bt.Batch) -> dict[str, Tensor]:
        outputs = model(batch.inputs)
        return {"loss": self.loss(outputs, batch.targets), "accuracy": accuracy_of(outputs, batch.targets)}


def batteries(work: Work) -> nn.Module:
    """Lean: `train`, the loop. Typical: `train_run`, with exact resume and the guard against NaN."""
    Synthetic.work = work
    if work.typical:
        Typical.folds = bt.KFold(n=work.steps + 1)
        train_run(Typical(epochs=work.epochs, steps=work.steps), work.folder, device=work.device, folds=[0])
        return Synthetic.built[0]
    experiment = Synthetic(epochs=work.epochs, steps=work.steps)
    (stage,), device = experiment.stages(), Device.pick(work.device)
    state = TrainState.begin(experiment, stage, experiment.model(), device)
    loader = Loader(work.data(), batch_size=BATCH, sampler=Shuffled())
    for _ in train(experiment, stage, state, loader, device):
        work.mark()
    return state.model
