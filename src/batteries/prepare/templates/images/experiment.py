"""Handwritten digits, 8x8 pixels (scikit-learn's copy of the UCI set): a small convolutional network.

To beat, accuracy on the same folds: 0.102 by the largest class, 0.960 by logistic regression on the pixels.
"""

from dataclasses import dataclass

import polars as pl
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import batteries as bt


def digits(*, test: bool) -> pl.DataFrame:
    """1,437 images to train on, or 360 to test on: id, label, pixels."""
    data = load_digits()
    table = pl.DataFrame({"label": data.target, "pixels": data.images.astype("uint8")}).with_row_index("id")
    rows = train_test_split(range(len(table)), test_size=360, stratify=data.target, random_state=0)[test]
    return table[sorted(rows)]


@dataclass(kw_only=True)
class Digits(bt.Experiment):
    """Ten classes of handwritten digits."""

    lr: float = 4e-3
    width: int = 32

    metric = bt.Metric.accuracy()
    also = (bt.Metric.log_loss(),)
    target = "label"
    folds = bt.Stratified("label", n=5)

    def table(self) -> pl.DataFrame:
        return digits(test=False)

    def test_table(self) -> pl.DataFrame:
        return digits(test=True)

    def sample_submission(self) -> pl.DataFrame:
        return self.test_table().select("id", label=pl.lit(0))

    def dataset(self, rows: pl.DataFrame, *, training: bool) -> tuple[Tensor, Tensor]:
        images = torch.from_numpy(rows["pixels"].to_numpy().copy()).float() / 16
        return images[:, None], torch.from_numpy(self.targets(rows).copy())

    def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
        return batch._replace(inputs=bt.random_shift(batch.inputs, random, pixels=1))

    def model(self) -> nn.Module:
        w = self.width
        return nn.Sequential(
            *(nn.Conv2d(1, w, 3, padding=1), nn.BatchNorm2d(w), nn.ReLU()),
            *(nn.Conv2d(w, 2 * w, 3, padding=1), nn.BatchNorm2d(2 * w), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Dropout(0.3), nn.Linear(2 * w * 16, 10)),
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def predict_step(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return model(inputs).softmax(dim=1)

    def stages(self) -> list[bt.Stage]:
        return [
            bt.Stage("fast", epochs=10, lr=self.lr, warmup=0.1),
            bt.Stage("fine", epochs=6, lr=self.lr / 4, start="best", average="ema", decay=0.98),
        ]
