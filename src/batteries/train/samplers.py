"""Samplers: which rows an epoch has, and in which order.

In:    the number of rows, the batch size, the seed, the epoch.
Out:   rows, which may repeat or leave some out; the same for the same arguments, always.
Next:  loaders cut them into batches. Nothing is drawn from a shared stream, so nothing is replayed
       on resume.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batteries.errors import ExperimentError
from batteries.prepare.seed import derive_seed


class Sampler(Protocol):
    """What chooses the rows of an epoch. Write one of your own with this method.

    It must give the same rows for the same arguments, and the same number of them in every epoch.
    """

    def order(self, size: int, *, batch_size: int, epoch: int, seed: int) -> Tensor:
        """Return rows of a dataset of `size` samples in the order of an epoch: int64, shape (any,)."""


@dataclass(frozen=True)
class Shuffled:
    """Every row once, in a new order each epoch.

    >>> sorted(Shuffled().order(4, batch_size=2, epoch=0, seed=1).tolist())
    [0, 1, 2, 3]
    """

    def order(self, size: int, *, batch_size: int, epoch: int, seed: int) -> Tensor:
        """Return a permutation: int64, shape (size,)."""
        return torch.randperm(size, generator=_generator(seed, "shuffle", epoch))


@dataclass(frozen=True, eq=False)
class Weighted:
    """Rows drawn with replacement, each as often as its weight says.

    `weights` has shape (size,) and need not sum to one; a row of weight 0 is never drawn. An epoch has
    `num_samples` rows, as many as the dataset unless given. Drawn by inversion: uniform numbers are
    looked up in the running sum, in float64, so any number of rows will do.

    >>> Weighted([0.0, 1.0]).order(2, batch_size=2, epoch=0, seed=1).tolist()
    [1, 1]
    """

    weights: Any
    """Tensor, array or list of finite numbers >= 0."""
    num_samples: int | None = None

    def __post_init__(self) -> None:
        weights = _column("weights", self.weights).astype(np.float64)
        if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
            raise ExperimentError("Weighted needs finite weights >= 0, at least one of them above 0")
        if self.num_samples is not None and self.num_samples < 1:
            raise ExperimentError(f"Weighted needs num_samples >= 1, got {self.num_samples}")
        object.__setattr__(self, "weights", torch.from_numpy(weights / weights.max()))  # or the sum might overflow

    def order(self, size: int, *, batch_size: int, epoch: int, seed: int) -> Tensor:
        """Return drawn rows: int64, shape (num_samples,)."""
        _same_length("Weighted", len(self.weights), size)
        sums = self.weights.cumsum(0)
        generator = _generator(seed, "weighted", epoch)
        places = torch.rand(self.num_samples or size, generator=generator, dtype=torch.float64) * sums[-1]
        last = int(self.weights.nonzero()[-1])  # a product rounded up to the whole sum is still inside
        return torch.searchsorted(sums, places, right=True).clamp_(max=last)


@dataclass(frozen=True, eq=False)
class Balanced:
    """Every class equally often; an epoch has as many rows as the dataset.

    Where they do not divide evenly, some classes get one row more, others in the next epoch. Each
    class goes through a permutation of its rows before any of them comes again, from one epoch into
    the next: small classes repeat evenly, large ones are seen whole over several epochs.

    >>> labels = torch.tensor([0, 0, 0, 0, 0, 1])
    >>> labels[Balanced(labels).order(6, batch_size=2, epoch=0, seed=1)].bincount().tolist()
    [3, 3]
    """

    labels: Any
    """Tensor, array or list of numbers or texts, shape (size,)."""

    def __post_init__(self) -> None:
        codes = np.unique(_column("labels", self.labels), return_inverse=True)[1]
        object.__setattr__(self, "labels", torch.from_numpy(codes.astype(np.int64)))

    def order(self, size: int, *, batch_size: int, epoch: int, seed: int) -> Tensor:
        """Return rows, shuffled: int64, shape (size,)."""
        _same_length("Balanced", len(self.labels), size)
        counts = self.labels.bincount()
        classes = self.labels.argsort(stable=True).split(counts.tolist())
        before, after = epoch * size, (epoch + 1) * size  # the rows of all epochs, dealt to the classes in turn
        rows = torch.cat(
            [
                _cycled(members, _turns(before, code, len(classes)), _turns(after, code, len(classes)), seed, code)
                for code, members in enumerate(classes)
            ]
        )
        return rows[torch.randperm(size, generator=_generator(seed, "shuffle", epoch))]


@dataclass(frozen=True, eq=False)
class ByLength:
    """Every row once, in batches of similar length, in a new order each epoch.

    Rows are shuffled and sorted by length within windows of `window` batches; the batches are shuffled
    again. The ragged last batch holds rows of any length and stays last.

    >>> order = ByLength([9, 1, 8, 2]).order(4, batch_size=2, epoch=0, seed=0)
    >>> sorted(sorted(batch.tolist()) for batch in order.reshape(2, 2))
    [[0, 2], [1, 3]]
    """

    lengths: Any
    """Tensor, array or list of numbers, shape (size,)."""
    window: int = 50
    """Batches sorted together: more make lengths more alike, fewer make the order more random."""

    def __post_init__(self) -> None:
        lengths = _column("lengths", self.lengths)
        if self.window < 1:
            raise ExperimentError(f"ByLength needs window >= 1, got {self.window}")
        object.__setattr__(self, "lengths", torch.from_numpy(lengths.astype(np.float64)))

    def order(self, size: int, *, batch_size: int, epoch: int, seed: int) -> Tensor:
        """Return a permutation: int64, shape (size,)."""
        _same_length("ByLength", len(self.lengths), size)
        generator = _generator(seed, "length", epoch)
        rows = torch.randperm(size, generator=generator)
        even = size - size % batch_size
        windows = torch.split(rows[:even], self.window * batch_size)
        ordered = torch.cat([part[self.lengths[part].argsort(stable=True)] for part in windows])
        batches = ordered.reshape(-1, batch_size)
        return torch.cat([batches[torch.randperm(len(batches), generator=generator)].flatten(), rows[even:]])


def _turns(total: int, code: int, num_classes: int) -> int:
    """How many of the first `total` rows went to a class, dealt in turn."""
    return (total - code + num_classes - 1) // num_classes


def _cycled(members: Tensor, start: int, stop: int, seed: int, code: int) -> Tensor:
    """The places `start` to `stop` of one permutation of the members after another."""
    if start == stop:
        return members[:0]
    first, last = start // len(members), (stop - 1) // len(members)
    rounds = [
        members[torch.randperm(len(members), generator=_generator(seed, "balanced", code, number))]
        for number in range(first, last + 1)
    ]
    return torch.cat(rounds)[start - first * len(members) : stop - first * len(members)]


def _generator(seed: int, *names: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, *names))


def _column(name: str, values: Any) -> NDArray[Any]:
    column = np.asarray(values)
    if column.ndim != 1 or not len(column):
        raise ExperimentError(f"{name} must be one value for each row, got shape {column.shape}")
    return column


def _same_length(name: str, given: int, size: int) -> None:
    if given != size:
        raise ExperimentError(f"{name} was given {given} values for {size} samples; give one each, in order")
