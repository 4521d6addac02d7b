"""Augment: random changes of a batch that depend on (seed, epoch, sample) and on nothing else.

In:    a batch on any device and the rows of its samples.
Out:   the batch changed; the same sample in the same epoch is changed the same way in any batch,
       by any number of workers or processes, after any resume.
Next:  `Experiment.augment` calls these inside the training loop.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from batteries.errors import UsageError
from batteries.prepare.seed import derive_seed

_GAMMA = -7046029254386353131
_MIX = (-4658895280553007687, -7723592293110705685)  # splitmix64's constants, as signed 64-bit numbers


class SampleRandom:
    """Random numbers for each sample of a batch, counted, not drawn from a shared stream.

    Each call gives new numbers; the k-th call gives a sample the same numbers whatever the batch it
    is in. A counter through the finaliser of splitmix64 (Steele, Lea & Flood 2014). `draws`, shape (n,),
    says how often a row came before in this epoch: a row drawn again gets other numbers, the first time
    the same as without `draws`.

    >>> first = SampleRandom(1, epoch=0, rows=torch.tensor([5, 7])).uniform()
    >>> again = SampleRandom(1, epoch=0, rows=torch.tensor([7])).uniform()
    >>> bool(first[1] == again[0])
    True
    """

    def __init__(self, seed: int, *, epoch: int, rows: Tensor, draws: Tensor | None = None) -> None:
        high, low = derive_seed(seed, "sample", epoch), derive_seed(seed, "sample", epoch, "low")
        key = (high << 31) | (low >> 1)
        self._base = _mix(rows.to(torch.int64) ^ key)
        if draws is not None:
            self._base = self._base + draws.to(torch.int64) * _GAMMA
        self._calls = 0

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1): float32, shape (n, *shape), on the device of the rows."""
        self._calls += 1
        base = _mix(self._base + self._calls)
        places = torch.arange(math.prod(shape), device=base.device)
        bits = _mix(base[:, None] + _mix(places + 1)[None])
        return ((bits >> 40) & 0xFFFFFF).to(torch.float32).mul(2.0**-24).reshape(len(base), *shape)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Whole numbers from `low` to `high - 1`, at most 2**24 of them: int64, shape (n, *shape)."""
        if not 0 < high - low <= 1 << 24:
            raise UsageError(f"integers need low < high <= low + 2**24, got low {low} and high {high}")
        return (self.uniform(*shape) * (high - low)).floor().to(torch.int64) + low


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser on signed 64-bit integers; shifts are made unsigned by masks."""
    x = x + _GAMMA
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _MIX[0]
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _MIX[1]
    return x ^ ((x >> 31) & ((1 << 33) - 1))


def random_shift(images: Tensor, random: SampleRandom, pixels: int) -> Tensor:
    """Move each image by up to `pixels` in both directions, filling with zeros.

    `images` has shape (n, channels, height, width); the result has the same shape and type.
    """
    n, channels, height, width = images.shape
    moved = random.integers(-pixels, pixels + 1, 2).to(images.device) + pixels
    padded = torch.nn.functional.pad(images, (pixels, pixels, pixels, pixels))
    rows = torch.arange(height, device=images.device)[None] + moved[:, :1]
    columns = torch.arange(width, device=images.device)[None] + moved[:, 1:]
    places = rows[:, :, None] * padded.shape[-1] + columns[:, None, :]
    index = places.reshape(n, 1, height * width).expand(n, channels, height * width)
    return padded.flatten(2).gather(2, index).reshape(n, channels, height, width)
