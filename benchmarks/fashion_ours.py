"""Fashion-MNIST, by batteries: its loop, as it is and with one word more in the stage.

In:    the work of fashion_loops.
Out:   a function that gives the logits of images.
Next:  fashion.py measures them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from fashion_loops import BATCH, DEVIATION, LR, MEAN, Predict, Work, network
from torch import Tensor, nn

import batteries as bt
from batteries.prepare.environment import prepare_environment
from batteries.train.device import Device
from batteries.train.loaders import Loader
from batteries.train.loop import predict, train
from batteries.train.outcome import build_model
from batteries.train.samplers import Shuffled
from batteries.train.state import TrainState


class Scale(nn.Module):
    """Bytes to numbers around zero, a batch at a time: no copy of the whole set is made."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, None].float().sub_(MEAN).div_(DEVIATION)


@dataclass(kw_only=True)
class Fashion(bt.Experiment):
    """Ten classes of clothes, 28x28 pixels."""

    batch_size: int = BATCH
    epochs: int
    precision: str

    metric = bt.Metric.accuracy()

    def model(self) -> nn.Module:
        return nn.Sequential(Scale(), *network())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def stages(self) -> list[bt.Stage]:
        return [bt.Stage("train", epochs=self.epochs, lr=LR, schedule="constant", precision=self.precision)]


def fp32(work: Work) -> Predict:
    """As it is."""
    return _train(work, "fp32")


def bf16(work: Work) -> Predict:
    """With `Stage(precision="bf16")`."""
    return _train(work, "bf16")


def _train(work: Work, precision: str) -> Predict:
    prepare_environment()
    experiment = Fashion(seed=work.seed, epochs=work.epochs, precision=precision)
    (stage,), device = experiment.stages(), Device.pick(work.device)
    loader = Loader((work.images, work.labels), batch_size=BATCH, seed=work.seed, sampler=Shuffled())
    state = TrainState.begin(experiment, stage, build_model(experiment, 0), device)
    for _ in train(experiment, stage, state, loader, device):
        pass

    def logits(images: Tensor) -> Tensor:
        rows = Loader(images, batch_size=500, labelled=False)
        return torch.from_numpy(predict(experiment, state.scored, rows, device, precision=precision))

    return logits
