"""Fashion-MNIST, by hand: the job that every contender does, its floor, and the loop everybody writes.

In:    60,000 images as bytes in memory.
Out:   a function that gives the logits of images, or None where nothing useful was trained.
Next:  fashion_peers and fashion_ours do the same job; fashion.py measures them all.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCH = 128
LR = 1e-3
MEAN, DEVIATION = 72.94, 90.02  # of the bytes of the 60,000

Predict = Callable[[Tensor], Tensor]
"""From images as bytes, (n, 28, 28), to logits, (n, 10)."""


@dataclass
class Work:
    """What is trained, and for how long."""

    images: Tensor
    """uint8, (n, 28, 28)."""
    labels: Tensor
    """int64, (n,)."""
    epochs: int
    seed: int
    device: str = "cpu"

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return self.epochs * -(-len(self.images) // BATCH)

    def loader(self) -> DataLoader[tuple[Tensor, ...]]:
        """The loader that everybody writes, over images made numbers once."""
        return DataLoader(TensorDataset(scaled(self.images), self.labels), batch_size=BATCH, shuffle=True)

    def new_model(self) -> nn.Sequential:
        """Two convolutions and two layers: 206,922 parameters."""
        torch.manual_seed(self.seed)
        return network().to(self.device)


def network() -> nn.Sequential:
    """The network that all train."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, 10)),
    )


def scaled(images: Tensor) -> Tensor:
    """Bytes (n, 28, 28) as numbers around zero, (n, 1, 28, 28)."""
    return images[:, None].float().sub_(MEAN).div_(DEVIATION)


def read(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images and labels of `train` or `t10k`, from gzipped idx files."""
    found = []
    for kind in ("images-idx3", "labels-idx1"):
        path = folder / f"{part}-{kind}-ubyte.gz"
        if not path.exists():
            raise SystemExit(f"{path} is missing; apt-get install dataset-fashion-mnist, or --data FOLDER")
        raw = gzip.decompress(path.read_bytes())  # two zeros, a type, the number of dimensions, their sizes, the values
        sizes = np.frombuffer(raw, ">u4", count=raw[3], offset=4)
        values = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)
        found.append(torch.from_numpy(values.copy()))
    return found[0], found[1].long()


def made_up(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images for a smoke run: the class is where the bright stripe is."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 100, (rows, 28, 28), dtype=torch.uint8, generator=generator)
    labels = torch.arange(rows) % 10
    for label in range(10):
        images[labels == label, 2 * label : 2 * label + 3] += 150
    return images, labels


def by_batches(model: nn.Module, device: str) -> Predict:
    """The logits of a model, 500 images at a time."""

    def predict(images: Tensor) -> Tensor:
        model.eval().to(device)
        with torch.no_grad():
            return torch.cat([model(part.to(device)) for part in scaled(images).split(500)]).cpu()

    return predict


def limit_fp32(work: Work) -> None:
    """One batch over and over: forward, backward and step are all there is."""
    _resident(work, work.new_model(), fused=False, bf16=False)


def limit_bf16(work: Work) -> None:
    """The same with every lever: bf16, channels last, the fused optimizer."""
    _resident(work, work.new_model().to(memory_format=torch.channels_last), fused=True, bf16=True)


def _resident(work: Work, model: nn.Module, *, fused: bool, bf16: bool) -> None:
    layout = torch.channels_last if bf16 else torch.contiguous_format
    images = scaled(work.images[:BATCH]).to(work.device).contiguous(memory_format=layout)
    labels = work.labels[:BATCH].to(work.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, fused=fused)
    for _ in range(work.steps):
        with torch.autocast(work.device, dtype=torch.bfloat16) if bf16 else nullcontext():
            loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if work.device != "cpu":
        torch.accelerator.synchronize()


def hand(work: Work) -> Predict:
    """The loop that everybody writes."""
    loader, model = work.loader(), work.new_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    for _ in range(work.epochs):
        for images, labels in loader:
            images, labels = images.to(work.device), labels.to(work.device)
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return by_batches(model, work.device)
