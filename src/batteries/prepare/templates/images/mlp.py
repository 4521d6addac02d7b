"""The same digits, a second opinion: a network without convolutions. Train it with `batteries train mlp`."""

from dataclasses import dataclass

from experiment import Digits
from torch import nn

import batteries as bt


@dataclass(kw_only=True)
class Mlp(Digits):
    """Two hidden layers on the bare pixels."""

    lr: float = 3e-3
    width: int = 256

    def model(self) -> nn.Module:
        return nn.Sequential(
            *(nn.Flatten(), nn.Linear(64, self.width), nn.BatchNorm1d(self.width), nn.ReLU(), nn.Dropout(0.2)),
            *(nn.Linear(self.width, self.width), nn.BatchNorm1d(self.width), nn.ReLU(), nn.Dropout(0.2)),
            nn.Linear(self.width, 10),
        )

    def stages(self) -> list[bt.Stage]:
        return [
            bt.Stage("fast", epochs=40, lr=self.lr, warmup=0.1),
            bt.Stage("fine", epochs=15, lr=self.lr / 4, start="best", average="ema", decay=0.98),
        ]
