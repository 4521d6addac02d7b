"""Sources: where samples come from, behind one method. Arrays are gathered, torch Datasets are read.

In:    what `Experiment.dataset` returned.
Out:   for groups of rows, the inputs and targets of each group, in order.
Next:  `loaders` decides the groups; `stream` is the source for iterable datasets.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from batteries.errors import ExperimentError
from batteries.prepare.decoded import Rows
from batteries.prepare.seed import derive_seed
from batteries.train.workers import Marks, attempted, supervised, worker_options

_AT_ONCE = 1 << 18
"""Bytes that are taken at once from tensors and arrays."""


class Group(NamedTuple):
    """The samples of one batch, before they are read."""

    rows: Tensor
    """int64, shape (n,)."""
    draws: Tensor | None = None
    """int64, shape (n,): how often each row came before in the epoch."""


class Source(Protocol):
    """Where samples come from."""

    size: int
    """Samples there are."""

    def read(self, groups: Sequence[Group], *, epoch: int, seed: int) -> Generator[tuple[Any, Any]]:
        """Yield (inputs, targets) of each group; only its rows are read. Randomness is from (seed, row, draw)."""


@dataclass
class Gathered:
    """Tensors or arrays, nested in dicts and tuples; whole groups are taken from them at once.

    Arrays may be memory maps, or `Rows` of one: only the rows of groups are read. What is taken are tensors of the
    same type; those of a few small groups are taken at once, which costs hardly more than one group.
    """

    inputs: Any
    targets: Any

    def __post_init__(self) -> None:
        leaves = list(leaves_of(self.inputs, "inputs")) + list(leaves_of(self.targets, "targets"))
        for where, leaf in leaves:
            _check_leaf(where, leaf)
        if len({len(leaf) for _, leaf in leaves}) != 1:
            shapes = ", ".join(f"{where} {tuple(leaf.shape)}" for where, leaf in leaves)
            raise ExperimentError(
                f"dataset must return inputs and targets of one length, got shapes {shapes or 'none'}"
            )
        self.size = len(leaves[0][1])
        self._row_bytes = sum(leaf.nbytes for _, leaf in leaves) // max(1, self.size)

    def read(self, groups: Sequence[Group], *, epoch: int, seed: int) -> Generator[tuple[Any, Any]]:
        """Yield (inputs, targets) of each group."""
        if not groups:
            return
        together = max(1, _AT_ONCE // max(1, self._row_bytes * len(groups[0].rows)))
        for first in range(0, len(groups), together):
            rows = [group.rows for group in groups[first : first + together]]
            joined = rows[0] if len(rows) == 1 else torch.cat(rows)
            taken, start = _taken((self.inputs, self.targets), joined), 0
            for length in map(len, rows):
                inputs, targets = _each(taken, partial(torch.narrow, dim=0, start=start, length=length))
                yield inputs, targets
                start += length


@dataclass
class MapStyle:
    """A torch Dataset read by row, here or in workers."""

    dataset: Any
    labelled: bool
    num_workers: int
    timeout: float
    collate: Callable[[list[Any]], Any]

    def __post_init__(self) -> None:
        self.size = len(self.dataset)

    def read(self, groups: Sequence[Group], *, epoch: int, seed: int) -> Generator[tuple[Any, Any]]:
        """Yield (inputs, targets) of each group."""
        marks = Marks(max(1, self.num_workers), "row", self.dataset)
        read = _Read(self.dataset, self.collate, derive_seed(seed, "sample", epoch), marks)
        tasks = ((rows.tolist(), None if draws is None else draws.tolist()) for rows, draws in groups)
        batches = (read(task) for task in tasks)
        if self.num_workers:
            loader = DataLoader(_Tasks(read), batch_sampler=tasks, **worker_options(self.num_workers))  # type: ignore[arg-type]
            batches = supervised(loader, marks, timeout=self.timeout)
        with closing(batches):  # not left to chance: a traceback may hold this frame, and with it the workers
            for data in batches:
                yield pair(data, labelled=self.labelled)


class _Read:
    """Reads batches of a dataset whose samples draw from generators seeded by (seed, row, draw), in any process."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any], seed: int, marks: Marks) -> None:
        self.dataset = dataset
        self.collate = collate
        self.seed = seed
        self.marks = marks

    def __call__(self, task: tuple[list[int], list[int] | None]) -> Any:
        rows, draws = task
        with generators_kept():
            samples = [self._sample(row, draw) for row, draw in zip(rows, draws or [0] * len(rows), strict=True)]
            seed_generators(derive_seed(self.seed, "collate", rows[0], draws[0] if draws else 0))
            return self.collate(samples)

    def _sample(self, row: int, draw: int) -> Any:
        self.marks.put(row)
        seed_generators(derive_seed(self.seed, row, draw) if draw else derive_seed(self.seed, row))
        try:
            return self.dataset[row]
        except Exception as error:
            error.add_note(f"while reading row {row} of {type(self.dataset).__name__}")
            raise


class _Tasks(Dataset[Any]):
    """A dataset of whole batches: a task in, its batch or its failure out."""

    def __init__(self, read: _Read) -> None:
        self.read = read

    def __getitems__(self, task: tuple[list[int], list[int] | None]) -> Any:
        return attempted(lambda: self.read(task))


@contextmanager
def generators_kept() -> Iterator[None]:
    """Leave the global generators of the CPU as they were; those of GPUs cannot be read in a forked worker."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


def seed_generators(seed: int) -> None:
    """Seed the global generators of the CPU."""
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


def pair(data: Any, *, labelled: bool) -> tuple[Any, Any]:
    """A collated batch as (inputs, targets)."""
    if not labelled:
        return data, None
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ExperimentError(f"a sample of the dataset must be (input, target), got {type(data).__name__}")
    return data[0], data[1]


def gathered(dataset: Any, *, labelled: bool) -> Gathered:
    """Tensors and arrays as a source: `(inputs, targets)`, or `inputs` for rows without a target."""
    two = isinstance(dataset, tuple | list) and len(dataset) == 2
    if labelled and (not two or dataset[1] is None):
        parts = f"{len(dataset)} parts" if isinstance(dataset, tuple | list) else f"one {type(dataset).__name__}"
        parts = "no targets" if two else parts
        raise ExperimentError(f"dataset returned {parts} for rows that have a target; return (inputs, targets)")
    if two and not labelled:
        raise ExperimentError(
            "dataset returned (inputs, targets) for rows without a target; return inputs alone,"
            " inputs of two parts as a dict"
        )
    return Gathered(*dataset) if labelled else Gathered(dataset, None)


def leaves_of(data: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Walk through nested dicts and sequences: where each part stands, and what it is. Missing targets have none."""
    if data is None and where == "targets":
        return
    if isinstance(data, Mapping):
        for key, part in data.items():
            yield from leaves_of(part, f"{where}[{key!r}]")
    elif isinstance(data, tuple | list):
        for place, part in enumerate(data):
            yield from leaves_of(part, f"{where}[{place}]")
    else:
        yield where, data


def _check_leaf(where: str, leaf: Any) -> None:
    if not isinstance(leaf, Tensor | np.ndarray | Rows) or leaf.ndim == 0:
        raise ExperimentError(
            "dataset must return tensors or arrays of one row a sample, or a torch Dataset with a length;"
            f" its {where} is {type(leaf).__name__}"
        )
    if isinstance(leaf, np.ndarray):
        try:
            torch.from_numpy(np.empty(0, leaf.dtype))
        except (TypeError, ValueError):
            raise ExperimentError(
                f"dataset's {where} has type {leaf.dtype}, which PyTorch does not know; convert it with .astype(...)"
            ) from None


def _taken(data: Any, rows: Tensor) -> Any:
    """Some rows of tensors and arrays, as tensors of their own."""

    def take(leaf: Any) -> Tensor:
        if isinstance(leaf, Tensor):
            return leaf.index_select(0, rows)
        return torch.from_numpy(np.ascontiguousarray(leaf[rows.numpy()]))

    return _each(data, take)


def _each(data: Any, change: Callable[[Any], Tensor]) -> Any:
    """Nested tuples, lists and dicts with every leaf changed; None stays."""
    if isinstance(data, Tensor | np.ndarray | Rows):
        return change(data)
    if data is None:
        return None
    if isinstance(data, Mapping):
        return {key: _each(part, change) for key, part in data.items()}
    parts = [_each(part, change) for part in data]
    if isinstance(data, tuple):
        return type(data)(*parts) if hasattr(data, "_fields") else tuple(parts)
    return parts
