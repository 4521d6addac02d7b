"""Loaders: datasets into batches whose order depends on (seed, epoch) and on nothing else.

In:    what `Experiment.dataset` returned: tensors, or a torch Dataset.
Out:   batches, from any position of any epoch; each sample with its row.
Next:  the loop trains and predicts with them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from batteries.errors import ExperimentError, UsageError
from batteries.experiment.base import Batch
from batteries.prepare.seed import derive_seed


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """Which part of an epoch one of several processes reads.

    The batches of an epoch are the same for any number of processes; only who reads what differs.
    To train, each rank reads its own piece of every batch: pieces lie side by side in the order of
    the ranks and differ by at most one sample, as `torch.tensor_split` cuts. A batch with fewer
    samples than there are ranks goes to every rank whole, so that none is left without a step; the
    loop weighs it. To evaluate, `whole=True` deals whole batches out in turn: rank, rank + world, ...

    >>> loader = Loader(torch.arange(7), batch_size=4, labelled=False)
    >>> [batch.rows.tolist() for batch in loader.epoch(0, share=Share(rank=1, world=2))]
    [[2, 3], [6]]
    >>> [batch.rows.tolist() for batch in loader.epoch(0, share=Share(rank=1, world=2, whole=True))]
    [[4, 5, 6]]
    """

    rank: int = 0
    world: int = 1
    """Number of processes."""
    whole: bool = False
    """Whole batches in turn, not a piece of each."""

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise UsageError(f"a share needs 0 <= rank < world, got rank {self.rank} of {self.world}")

    def of(self, groups: Sequence[Tensor], first: int = 0) -> list[Tensor]:
        """This rank's rows of the batches `first`, `first + 1`, ... of an epoch; batch numbers decide whose it is."""
        if self.whole:
            return [rows for number, rows in enumerate(groups, first) if number % self.world == self.rank]
        return [rows if len(rows) < self.world else rows.tensor_split(self.world)[self.rank] for rows in groups]


@dataclass
class Loader:
    """Batches of a dataset.

    `shuffle` draws a new order for each epoch from (seed, epoch); the ragged last batch is kept.

    >>> loader = Loader((torch.arange(5.0), torch.arange(5)), batch_size=2, seed=0)
    >>> [batch.size for batch in loader.epoch(0)]
    [2, 2, 1]
    """

    dataset: Any
    """`(inputs, targets)` or `inputs` as tensors, or a torch Dataset of `(input, target)` or `input`."""
    _: KW_ONLY
    batch_size: int
    seed: int = 0
    shuffle: bool = False
    labelled: bool = True
    """Whether the dataset gives targets."""
    num_workers: int = 0
    collate: Callable[[list[Any]], Any] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.dataset, TensorDataset):
            tensors = self.dataset.tensors
            self.dataset = tensors[0] if len(tensors) == 1 else tensors
        self._tensors = _as_tensors(self.dataset, labelled=self.labelled)
        self.size = len(self._tensors[0]) if self._tensors else len(self.dataset)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-self.size // self.batch_size)

    def batch_len(self, number: int) -> int:
        """Samples of batch `number` of an epoch, over all ranks."""
        if not 0 <= number < len(self):
            raise UsageError(f"an epoch has the batches 0 to {len(self) - 1}, got {number}")
        return min(self.batch_size, self.size - number * self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Rows in the order of an epoch: int64, shape (size,)."""
        if not self.shuffle:
            return torch.arange(self.size)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "shuffle", epoch))
        return torch.randperm(self.size, generator=generator)

    def epoch(self, epoch: int, *, start: int = 0, share: Share = Share()) -> Iterator[Batch]:
        """Yield this rank's share of an epoch from batch number `start` on; nothing else is read."""
        groups = share.of(torch.split(self.order(epoch), self.batch_size)[start:], start)
        if self._tensors:
            yield from map(self._gather, groups)
        else:
            yield from self._load(epoch, groups)

    def _gather(self, rows: Tensor) -> Batch:
        assert self._tensors is not None
        inputs, targets = self._tensors
        return Batch(inputs[rows], None if targets is None else targets[rows], rows)

    def _load(self, epoch: int, groups: list[Tensor]) -> Iterator[Batch]:
        loader = DataLoader(
            _Seeded(self.dataset, derive_seed(self.seed, "sample", epoch)),
            batch_sampler=[rows.tolist() for rows in groups],
            num_workers=self.num_workers,
            collate_fn=partial(_collate, self.collate),
            generator=torch.Generator(),  # else the global one would lose a number to the worker seeds
        )
        for data, rows in zip(loader, groups, strict=True):
            inputs, targets = _pair(data, self.labelled)
            yield Batch(inputs, targets, rows)


class _Seeded(Dataset[Any]):
    """A dataset whose samples draw from generators seeded by (seed, epoch, row), in any worker."""

    def __init__(self, dataset: Any, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __getitems__(self, rows: list[int]) -> list[Any]:
        # not random_state_kept: it reads the generators of GPUs, which a forked worker cannot
        before = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            return [self._sample(row) for row in rows]
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])
            torch.set_rng_state(before[2])

    def _sample(self, row: int) -> Any:
        seed = derive_seed(self.seed, row)
        random.seed(seed)
        np.random.seed(seed)
        torch.default_generator.manual_seed(seed)
        return self.dataset[row]


def _collate(collate: Callable[[list[Any]], Any] | None, samples: list[Any]) -> Any:
    return (collate or torch.utils.data.default_collate)(samples)


def _as_tensors(dataset: Any, *, labelled: bool) -> tuple[Tensor, Tensor | None] | None:
    """The (inputs, targets) tensors to gather from, or None for a torch Dataset."""
    if isinstance(dataset, Tensor):
        if labelled:
            raise ExperimentError("dataset returned one tensor for rows that have a target; return (inputs, targets)")
        return dataset, None
    if isinstance(dataset, tuple | list) and all(isinstance(part, Tensor) for part in dataset):
        if len(dataset) != 2 or len(dataset[0]) != len(dataset[1]):
            shapes = [tuple(part.shape) for part in dataset]
            raise ExperimentError(
                f"dataset must return (inputs, targets) of one length, got tensors of shapes {shapes}"
            )
        if not labelled:
            raise ExperimentError("dataset returned (inputs, targets) for rows without a target; return inputs alone")
        return dataset[0], dataset[1]
    if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")) or isinstance(
        dataset, tuple | list | dict
    ):
        raise ExperimentError(
            "dataset must return tensors (inputs, targets) or a torch Dataset with a length,"
            f" got {type(dataset).__name__}"
        )
    return None


def _pair(data: Any, labelled: bool) -> tuple[Any, Any]:
    if not labelled:
        return data, None
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ExperimentError(f"a sample of the dataset must be (input, target), got {type(data).__name__}")
    return data[0], data[1]


def grouped(size: int, batches: Iterator[Batch]) -> Iterator[list[Batch]]:
    """Yield lists of `size` batches, the last one shorter if need be.

    >>> [len(group) for group in grouped(2, iter([1, 2, 3]))]
    [2, 1]
    """
    while group := list(islice(batches, size)):
        yield group
