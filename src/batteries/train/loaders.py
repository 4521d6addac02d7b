"""Loaders: datasets into batches whose order depends on (seed, epoch) and on nothing else.

In:    what `Experiment.dataset` returned: tensors, arrays, or a torch Dataset; a sampler.
Out:   batches, from any position of any epoch; each sample with its row.
Next:  the loop trains and predicts with them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

from batteries.errors import ExperimentError, UsageError
from batteries.experiment.base import Batch
from batteries.prepare.decoded import Rows
from batteries.train.samplers import Sampler
from batteries.train.sources import Group, MapStyle, Source, gathered
from batteries.train.stream import Stream

_T = TypeVar("_T")


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

    `sampler` chooses the rows of an epoch and their order, from (seed, epoch) alone; None takes every row
    in its order. The ragged last batch is kept.

    >>> loader = Loader((torch.arange(5.0), torch.arange(5)), batch_size=2, seed=0)
    >>> [batch.size for batch in loader.epoch(0)]
    [2, 2, 1]

    Raises
    ------
    ExperimentError
        When it is made: what `dataset` is cannot be read, or the sampler does not fit it. While it reads:
        a sample is no pair; whatever the dataset raises comes as it is, with the row in a note.
    ResourceError
        When a worker died, or gave nothing for `timeout` seconds.

    """

    dataset: Any
    """`(inputs, targets)` or `inputs`: tensors or arrays, also nested in dicts and tuples; or a torch
    Dataset, also an IterableDataset, of `(input, target)` or `input`."""
    _: KW_ONLY
    batch_size: int
    seed: int = 0
    sampler: Sampler | None = None
    labelled: bool = True
    """Whether the dataset gives targets."""
    length: int | None = None
    """Samples of a stream that does not know its own length."""
    num_workers: int = 0
    """Processes that read a torch Dataset; their number changes no batch."""
    timeout: float = 300.0
    """Seconds of waiting for one batch after which a worker counts as hung; `math.inf` waits forever."""
    collate: Callable[[list[Any]], Any] | None = None
    """Joins samples of a torch Dataset; PyTorch's `default_collate` unless given."""

    def __post_init__(self) -> None:
        self._source = self._source_of(self.dataset)
        self.size = self._source.size
        self.num_samples = self.size if self.sampler is None else len(self._sampled(self.sampler, 0))

    def _source_of(self, dataset: Any) -> Source:
        if isinstance(dataset, TensorDataset):
            dataset = dataset.tensors[0] if len(dataset.tensors) == 1 else dataset.tensors
        if isinstance(dataset, Tensor | np.ndarray | Rows | tuple | list | dict):
            return gathered(dataset, labelled=self.labelled)
        collate = self.collate or torch.utils.data.default_collate
        if isinstance(dataset, IterableDataset):
            if self.sampler is not None:
                raise ExperimentError(
                    f"{type(dataset).__name__} is a stream and has its own order; it cannot have a sampler"
                )
            return Stream(dataset, self.labelled, self.num_workers, self.timeout, collate, self.length)
        if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise ExperimentError(
                "dataset must return tensors or arrays (inputs, targets), or a torch Dataset with a length,"
                f" got {type(dataset).__name__}"
            )
        return MapStyle(dataset, self.labelled, self.num_workers, self.timeout, collate)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-self.num_samples // self.batch_size)

    def batch_len(self, number: int) -> int:
        """Samples of batch `number` of an epoch, over all ranks."""
        if not 0 <= number < len(self):
            raise UsageError(f"an epoch has the batches 0 to {len(self) - 1}, got {number}")
        return min(self.batch_size, self.num_samples - number * self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Rows in the order of an epoch: int64, shape (num_samples,)."""
        if self.sampler is None:
            return torch.arange(self.size)
        order = self._sampled(self.sampler, epoch)
        if len(order) != self.num_samples:
            raise ExperimentError(
                f"{type(self.sampler).__name__}.order gave {self.num_samples} rows in epoch 0 and {len(order)} in"
                f" epoch {epoch}; give as many in every epoch"
            )
        return order

    def _sampled(self, sampler: Sampler, epoch: int) -> Tensor:
        name = type(sampler).__name__
        if not callable(getattr(sampler, "order", None)):
            raise ExperimentError(
                f"sampler must have a method order(size, *, batch_size, epoch, seed), {name} has none"
            )
        rows = torch.as_tensor(sampler.order(self.size, batch_size=self.batch_size, epoch=epoch, seed=self.seed))
        if rows.dtype != torch.int64 or rows.ndim != 1 or not len(rows):
            raise ExperimentError(f"{name}.order must give rows, int64 (n,), got {rows.dtype} {tuple(rows.shape)}")
        if not 0 <= int(rows.min()) <= int(rows.max()) < self.size:
            raise ExperimentError(
                f"{name}.order gave rows {int(rows.min())} to {int(rows.max())}, the dataset has 0 to {self.size - 1}"
            )
        return rows

    def epoch(self, epoch: int, *, start: int = 0, share: Share = Share()) -> Generator[Batch]:
        """Yield this rank's share of an epoch from batch number `start` on; nothing else is read."""
        order = self.order(epoch)
        rows = share.of(torch.split(order, self.batch_size)[start : len(self)], start)
        draws: Sequence[Tensor | None] = [None] * len(rows)
        if self.sampler is not None and (earlier := _earlier(order)) is not None:
            draws = share.of(torch.split(earlier, self.batch_size)[start:], start)
        groups = [Group(*group) for group in zip(rows, draws, strict=True)]
        read = self._source.read(groups, epoch=epoch, seed=self.seed)
        with closing(read):
            for (inputs, targets), group in zip(read, groups, strict=True):
                yield Batch(inputs, targets, group.rows, group.draws)


def _earlier(order: Tensor) -> Tensor | None:
    """How often each row came before in the order, or None if none comes twice."""
    if int(order.bincount().max()) == 1:
        return None
    rows, places = order.sort(stable=True)
    earlier = torch.empty_like(order)
    earlier[places] = torch.arange(len(order)) - torch.searchsorted(rows, rows)
    return earlier


def grouped(size: int, batches: Iterator[_T]) -> Iterator[list[_T]]:
    """Yield lists of `size` batches, the last one shorter if need be.

    >>> [len(group) for group in grouped(2, iter([1, 2, 3]))]
    [2, 1]
    """
    while group := list(islice(batches, size)):
        yield group
