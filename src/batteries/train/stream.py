"""Stream: datasets that can only be read from front to back.

In:    a torch IterableDataset; one pass is one epoch, samples are numbered by their place in it.
Out:   the batches that are wanted; samples before and between them are passed over.
Next:  `loaders` treats it like any other source, with one order: its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from batteries.errors import ExperimentError
from batteries.prepare.seed import derive_seed
from batteries.train.sources import Group, generators_kept, pair, seed_generators
from batteries.train.workers import Marks, attempted, supervised, worker_options

_SIGN_OF_LIFE = 1.0
"""Seconds a worker passes over samples before it says that it is still at work."""


@dataclass
class Stream:
    """A torch IterableDataset.

    Its length is `len(dataset)` where it has one, else `length`; one that gives fewer or more samples is
    refused. Before each pass `dataset.set_epoch(epoch)` is called where there is such a method. To go on
    in the middle, `dataset.skip(n)` is asked for a dataset that begins n samples later, as those of
    Hugging Face do; without such a method samples are read and dropped. Each sample draws from global
    generators seeded by (seed, epoch, place), so with `skip` an order drawn at random must come from
    `set_epoch`.

    With workers, one process reads ahead: a stream cannot be divided without knowing what is in it. Of
    several ranks, each reads the stream and keeps its share; the dataset must not divide itself by rank.
    """

    dataset: Any
    labelled: bool
    num_workers: int
    timeout: float
    collate: Callable[[list[Any]], Any]
    length: int | None = None

    def __post_init__(self) -> None:
        try:
            self.size = len(self.dataset)
        except TypeError:
            if self.length is None:
                raise ExperimentError(
                    f"{type(self.dataset).__name__} is a stream without a length; write __len__, or give length="
                ) from None
            self.size = self.length

    def read(self, groups: Sequence[Group], *, epoch: int, seed: int) -> Generator[tuple[Any, Any]]:
        """Yield (inputs, targets) of each group; rows must rise from group to group."""
        if not groups:
            return
        marks = Marks(1, "sample", self.dataset)
        rows = [group.rows.tolist() for group in groups]
        passage = _Passage(self, rows, epoch, derive_seed(seed, "sample", epoch), marks)
        batches = passage.batches()
        if self.num_workers:
            batches = supervised(DataLoader(passage, batch_size=None, **worker_options(1)), marks, timeout=self.timeout)
        with closing(batches):
            for data in batches:
                yield pair(data, labelled=self.labelled)


class _Passage(IterableDataset[Any]):
    """One pass over a stream, as batches of the wanted rows."""

    def __init__(self, stream: Stream, groups: list[list[int]], epoch: int, seed: int, marks: Marks) -> None:
        self.stream = stream
        self.groups = groups
        self.epoch = epoch
        self.seed = seed
        self.marks = marks

    def __iter__(self) -> Iterator[Any]:
        """As a worker reads: batches, None as a sign of life, a failure as an item."""
        batches = self.batches()
        end = object()
        while (item := attempted(lambda: next(batches, end))) is not end:
            yield item

    def batches(self) -> Generator[Any]:
        """Collated batches; in a worker also None now and then, while samples are passed over."""
        with generators_kept():
            samples = self._begun()
        for rows in self.groups:
            while not samples.passed_to(rows[0]):
                if get_worker_info() is not None:
                    yield None
            with generators_kept():
                batch = [samples.at(row) for row in rows]
                if rows[-1] == self.stream.size - 1:
                    samples.check_end()
                seed_generators(derive_seed(self.seed, "collate", rows[0]))
                data = self.stream.collate(batch)
            yield data

    def _begun(self) -> _Samples:
        dataset, name, first = self.stream.dataset, type(self.stream.dataset).__name__, self.groups[0][0]
        seed_generators(derive_seed(self.seed, "stream"))
        if callable(set_epoch := getattr(dataset, "set_epoch", None)):
            set_epoch(self.epoch)
        if first and callable(skip := getattr(dataset, "skip", None)):
            dataset = skip(first)
            if not isinstance(dataset, Iterable):
                raise ExperimentError(
                    f"{name}.skip({first}) must return a dataset that begins {first} samples later,"
                    f" got {type(dataset).__name__}"
                )
            return _Samples(iter(dataset), first, self.stream.size, self.seed, name, self.marks)
        return _Samples(iter(dataset), 0, self.stream.size, self.seed, name, self.marks)


@dataclass
class _Samples:
    """Samples of a stream by their place; places must rise."""

    iterator: Iterator[Any]
    place: int
    """Of the next sample."""
    size: int
    seed: int
    name: str
    marks: Marks

    def passed_to(self, place: int) -> bool:
        """Read and drop samples, for a while; whether the next one is at `place`."""
        until = time.monotonic() + _SIGN_OF_LIFE
        with generators_kept():
            while self.place < place and time.monotonic() < until:
                self.at(self.place)
        return self.place == place

    def at(self, place: int) -> Any:
        """The sample at a place; those before it are dropped."""
        while True:
            sample = self._next()
            if sample is _END:
                raise ExperimentError(
                    f"{self.name} ended after {self.place} samples, {self.size} were expected; give one for each row"
                )
            self.place += 1
            if self.place > place:
                return sample

    def check_end(self) -> None:
        """Refuse a sample after the last."""
        if self._next() is not _END:
            raise ExperimentError(
                f"{self.name} gives more than the {self.size} samples expected; give one for each row"
            )

    def _next(self) -> Any:
        self.marks.put(self.place)
        seed_generators(derive_seed(self.seed, self.place))
        try:
            return next(self.iterator, _END)
        except Exception as error:
            error.add_note(f"while reading sample {self.place} of {self.name}")
            raise


_END = object()
