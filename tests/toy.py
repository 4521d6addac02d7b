"""A toy experiment: 60 rows of two numbers, three classes, learned in well under a second. A valid experiment file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

import batteries as bt


def rows(n: int, *, first: int = 0) -> pl.DataFrame:
    """`n` rows around three centres, ids from `first` on."""
    label = np.arange(n) % 3
    noise = np.random.default_rng(first).normal(0, 0.3, (n, 2))
    angle = 2 * np.pi * label / 3
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) + noise
    return pl.DataFrame({"id": np.arange(first, first + n), "x": points[:, 0], "y": points[:, 1], "label": label})


@dataclass(kw_only=True)
class Toy(bt.Experiment):
    """Which of three centres is a point near?"""

    batch_size: int = 8
    lr: float = 0.05
    width: int = 8
    average: str | None = None
    accumulate: int = 1

    metric = bt.Metric.accuracy()
    also = (bt.Metric.log_loss(),)
    target = "label"
    folds = bt.Stratified("label", n=2)

    def table(self) -> pl.DataFrame:
        return rows(60)

    def test_table(self) -> pl.DataFrame | None:
        return rows(30, first=1000)

    def sample_submission(self) -> pl.DataFrame | None:
        return rows(30, first=1000).select("id", label=pl.lit(0))

    def dataset(self, rows: pl.DataFrame, *, training: bool) -> tuple[Tensor, Tensor]:
        points = torch.from_numpy(rows.select("x", "y").to_numpy().astype("float32"))
        return points, torch.from_numpy(self.targets(rows).copy())

    def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
        return batch._replace(inputs=batch.inputs + 0.1 * random.uniform(2))

    def model(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(2, self.width), nn.BatchNorm1d(self.width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(self.width, 3)
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def predict_step(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return model(inputs).softmax(dim=1)

    def stages(self) -> list[bt.Stage]:
        return [
            bt.Stage("head", epochs=4, lr=self.lr, accumulate=self.accumulate),
            bt.Stage("all", epochs=2, lr=self.lr / 2, start="best", average=self.average, accumulate=self.accumulate),
        ]
