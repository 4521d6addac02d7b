"""Two stages on all GPUs of a machine in one process (DataParallel), recorded as a run by one call.

python examples/dp/train.py
tensorboard --logdir examples/dp/runs
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import batteries as bt

RUNS = Path(__file__).parent / "runs"


@dataclass(kw_only=True)
class Digits(bt.Experiment):
    """1,797 handwritten digits, 8x8 pixels."""

    metric = bt.Metric.accuracy()
    folds = bt.Stratified("label", n=5)
    target = "label"

    def table(self) -> pl.DataFrame:
        return pl.DataFrame({"label": load_digits().target}).with_row_index("id")

    def dataset(self, rows: pl.DataFrame, *, training: bool) -> tuple[Tensor, Tensor]:
        images = torch.tensor(load_digits().images[rows["id"]], dtype=torch.float32) / 16
        return images[:, None], torch.tensor(self.targets(rows))

    def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
        return batch._replace(inputs=bt.random_shift(batch.inputs, random, pixels=1))

    def model(self) -> nn.Module:
        return nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(128, 10)),
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def predict_step(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return model(inputs).softmax(dim=1)

    def stages(self) -> list[bt.Stage]:
        return [
            bt.Stage("first", epochs=5, lr=5e-3, warmup=0.1),
            bt.Stage("second", epochs=3, lr=5e-4, start="best", average="ema", decay=0.99),
        ]


def main() -> None:
    bt.prepare_environment()
    device = bt.Device.pick("auto", dp=True)
    run = bt.train_run(Digits(), RUNS, device=device, folds=[0], say=print)
    result = run.fold_result(0)
    print(f"{run.name}: accuracy {result['scores']['accuracy']:.4f} of epoch {result['epoch']} of {result['stage']}")


if __name__ == "__main__":
    main()
