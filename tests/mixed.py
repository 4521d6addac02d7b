"""Digits under MixUp, CutMix, erased boxes and smoothed labels, with dropout. A valid experiment file."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any, ClassVar

import polars as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset

import batteries as bt
from batteries.prepare.augment import View, Views, cutmix, mixup, random_erasing, smooth


@dataclass
class Samples(Dataset[Any]):
    """The same samples one by one, as a torch Dataset that workers read."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        return self.images[row], self.labels[row]


@dataclass(kw_only=True)
class Mixed(bt.Experiment):
    """A small network on 400 digits."""

    batch_size: int = 32
    one_by_one: bool = False

    metric = bt.Metric.accuracy()
    target = "label"
    folds = bt.Stratified("label", n=2)
    save_every = 0.0
    log_every = 2
    views: ClassVar[Views] = Views([View.same(), View.flip(-2)], how="geometric")
    batches: ClassVar[int] = 0

    def table(self) -> pl.DataFrame:
        data = load_digits()
        table = pl.DataFrame({"label": data.target, "pixels": data.images.astype("uint8")}).with_row_index("id")
        return table[:400]

    def dataset(self, rows: pl.DataFrame, *, training: bool) -> Any:
        images = torch.from_numpy(rows["pixels"].to_numpy().copy()).float()[:, None] / 16
        labels = torch.from_numpy(self.targets(rows).copy())
        return Samples(images, labels) if self.one_by_one else (images, labels)

    def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
        images = random_erasing(bt.random_shift(batch.inputs, random, pixels=1), random, p=0.5)
        images, targets = cutmix(images, smooth(batch.targets, classes=10), random, p=0.5)
        images, targets = mixup(images, targets, random, alpha=0.4)
        return batch._replace(inputs=images, targets=targets)

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def training_step(self, model: nn.Module, batch: bt.Batch) -> Any:
        """Do to ourselves what the test asks for at the n-th batch of this process."""
        Mixed.batches += 1
        name, _, number = os.environ.get("TOY_SIGNAL", "").partition(":")
        if name and Mixed.batches == int(number):
            os.kill(os.getpid(), getattr(signal, name))
        return super().training_step(model, batch)

    def predict_step(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return self.views(lambda images: model(images).softmax(dim=1), inputs)

    def stages(self) -> list[bt.Stage]:
        return [bt.Stage("only", epochs=3, lr=0.01, average="ema", decay=0.9)]
