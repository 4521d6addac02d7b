"""Two stages in several processes that train one model (DistributedDataParallel), in a loop of your own.

torchrun --standalone --nproc-per-node 2 examples/ddp/train.py
tensorboard --logdir examples/ddp/logs
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import batteries as bt
from batteries.train.loop import predict, train

LOGS = Path(__file__).parent / "logs"


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
    with bt.pick_device("auto") as device:  # this process, its accelerator, and the other processes
        train_all(Digits(), device)


def train_all(experiment: Digits, device: bt.Device) -> None:
    table = experiment.table()
    folds = bt.make_folds(table, experiment.folds)
    training, held_out = table[folds.training(0)], table[folds.held_out(0)]
    valid = bt.Loader(experiment.dataset(held_out, training=False), batch_size=256)
    best: bt.Checkpoint | None = None
    for stage in experiment.stages():
        bt.seed_everything(bt.derive_seed(experiment.seed, stage.name))
        loader = bt.Loader(  # each process takes its part of every batch of 64
            experiment.dataset(training, training=True), batch_size=64, sampler=bt.Shuffled(), seed=experiment.seed
        )
        model = experiment.model()
        if best is not None:
            bt.load_weights(model, best)
        state = bt.TrainState.begin(experiment, stage, model, device)
        checkpoints = bt.Checkpoints(LOGS / stage.name, metric=experiment.metric) if device.is_main else None
        for epoch in train(experiment, stage, state, loader, device):
            predictions = predict(experiment, state.scored, valid, device)  # of all rows, in every process
            score = experiment.metric(experiment.targets(held_out), predictions)
            saved = state.state_dict()  # of all processes together
            if checkpoints is not None:
                checkpoints.save(saved, score=score)
                print(f"{stage.name} {epoch.number}/{stage.epochs}: loss {epoch.loss:.4f}, accuracy {score:.4f}")
        best = device.first(lambda: checkpoints.best()[0])  # noqa: B023 - called at once
        if device.is_main:
            print(f"best of {stage.name}: {best.score:.4f}, {best.path.relative_to(LOGS)}")


if __name__ == "__main__":
    main()
