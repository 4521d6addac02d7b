"""Sample random: numbers that depend on (seed, epoch, sample) and on nothing else.

In:    the rows of the samples of a batch, on any device.
Out:   random numbers for each, the same in any batch, by any number of workers or processes, after any resume.
Next:  the changes of images, tables and texts are made of them.
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

    def between(self, low: float, high: float, *shape: int) -> Tensor:
        """Uniform numbers from `low` to `high`: float32, shape (n, *shape)."""
        return self.uniform(*shape) * (high - low) + low

    def chance(self, p: float, *shape: int) -> Tensor:
        """True with probability `p`, from 0 (never) to 1 (always): bool, shape (n, *shape)."""
        if not 0 <= p <= 1:
            raise UsageError(f"p must be a probability between 0 and 1, got {p}")
        return self.uniform(*shape) < p

    def beta(self, alpha: float) -> Tensor:
        """Numbers of the distribution Beta(alpha, alpha): float32, shape (n,).

        From two uniform numbers each, however small or large `alpha` is. Bailey (1994, Mathematics of Computation
        62:779) makes a T of Student's distribution with 2 alpha degrees of freedom as the root of
        2 alpha (U^(-1/alpha) - 1), times cos(2 pi V), and (1 + T / root of (2 alpha + T^2)) / 2 is Beta(alpha, alpha).
        """
        if not 0 < alpha < math.inf:
            raise UsageError(f"Beta(alpha, alpha) needs a finite alpha > 0, got {alpha}")
        first, second = self.uniform(2).unbind(1)
        part = torch.expm1(-torch.log1p(-first) / alpha).reciprocal()  # 1 / (U^(-1/alpha) - 1), from 0 to infinity
        cosine = torch.cos(second * (2 * math.pi))
        return (1 + cosine / torch.sqrt(cosine.square() + part)) / 2


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser on signed 64-bit integers; shifts are made unsigned by masks."""
    x = x + _GAMMA
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _MIX[0]
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _MIX[1]
    return x ^ ((x >> 31) & ((1 << 33) - 1))
