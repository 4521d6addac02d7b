"""Fashion-MNIST, 60,000 images of clothes: `apt-get install dataset-fashion-mnist`, then `batteries train --fold 0`."""

import gzip
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn

import batteries as bt
from batteries.errors import DataError


@cache
def idx(path: Path) -> np.ndarray:
    """The array in an idx file: two zeros, a type, the number of dimensions, their sizes, the values."""
    if not path.exists():
        raise DataError(f"{path} is missing; install it (apt-get install dataset-fashion-mnist) or --set data=FOLDER")
    raw = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


class Scale(nn.Module):
    """Bytes to numbers around zero, on the device: a quarter of the memory traffic of floats."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, None].float().sub(72.94).div(90.02)


@dataclass(kw_only=True)
class Fashion(bt.Experiment):
    """Ten classes of clothes, 28x28 pixels."""

    data: str = "/usr/share/datasets/fashion-mnist"
    batch_size: int = 128
    lr: float = 3e-3
    width: int = 32

    metric = bt.Metric.accuracy()
    also = (bt.Metric.log_loss(),)
    target = "label"
    folds = bt.Stratified("label", n=5)

    def table(self) -> pl.DataFrame:
        return self.labels("train")

    def test_table(self) -> pl.DataFrame:
        return self.labels("t10k")

    def labels(self, part: str) -> pl.DataFrame:
        labels = idx(Path(self.data) / f"{part}-labels-idx1-ubyte.gz")
        return pl.DataFrame({"label": labels, "part": [part] * len(labels)}).with_row_index("id")

    def dataset(self, rows: pl.DataFrame, *, training: bool) -> tuple[Tensor, Tensor]:
        images = idx(Path(self.data) / f"{rows['part'][0]}-images-idx3-ubyte.gz")
        return torch.from_numpy(images[rows["id"].to_numpy()]), torch.from_numpy(self.targets(rows).astype("int64"))

    def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
        images = bt.random_shift(batch.inputs[:, None], random, pixels=1)[:, 0]
        mirrored = random.uniform(1, 1) < 0.5
        return batch._replace(inputs=torch.where(mirrored, images.flip(-1), images))

    def model(self) -> nn.Module:
        w = self.width
        return nn.Sequential(
            Scale(),
            *(nn.Conv2d(1, w, 3, padding=1), nn.BatchNorm2d(w), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(w, 2 * w, 3, padding=1), nn.BatchNorm2d(2 * w), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(2 * w, 4 * w, 3, padding=1), nn.BatchNorm2d(4 * w), nn.ReLU(), nn.AdaptiveAvgPool2d(3)),
            *(nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * w * 9, 10)),
        )

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets, label_smoothing=0.05)

    def predict_step(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return model(inputs).softmax(dim=1)

    def stages(self) -> list[bt.Stage]:
        return [
            bt.Stage("fast", epochs=5, lr=self.lr, warmup=0.1, precision="bf16"),
            bt.Stage("fine", epochs=3, lr=self.lr / 5, start="best", precision="bf16", average="ema", decay=0.998),
        ]
