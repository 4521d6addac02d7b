"""Streams: read from front to back, batches and random numbers as if every sample had been asked for by its place."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from batteries.errors import ExperimentError
from batteries.experiment import Batch
from batteries.prepare.seed import random_state
from batteries.train import stream as stream_module
from batteries.train.loaders import Loader, Share
from batteries.train.samplers import Shuffled


def sample(place: int) -> tuple[Tensor, int]:
    return torch.tensor([place, random.random(), np.random.rand(), float(torch.rand(()))]), -place


class Noisy(Dataset[Any]):
    """By row, what the stream gives by place."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return sample(row)


class Flow(IterableDataset[Any]):
    """Samples that draw from all three global generators, with or without a length."""

    def __init__(self, gives: int = 23) -> None:
        self.gives = gives
        self.read = 0

    def __iter__(self) -> Iterator[Any]:
        for place in range(self.gives):
            self.read += 1
            yield sample(place)


class Skipping(Flow):
    """Can begin later, as the datasets of Hugging Face can."""

    def __init__(self, gives: int = 23, first: int = 0) -> None:
        super().__init__(gives)
        self.first = first
        self.begun: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        for place in range(self.first, self.gives):
            self.begun.append(place)
            yield sample(place)

    def skip(self, n: int) -> Skipping:
        later = Skipping(self.gives, self.first + n)
        later.begun = self.begun
        return later


class Epochs(IterableDataset[int]):
    """Another order each epoch, drawn as set_epoch says."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        yield from np.random.default_rng(self.epoch).permutation(9).tolist()

    def __len__(self) -> int:
        return 9


class Pool(IterableDataset[float]):
    """Shuffles in a buffer of its own with the global generators, as pipelines of real code do."""

    def __iter__(self) -> Iterator[float]:
        waiting = list(range(5))
        for place in range(5, 23):
            at = random.randrange(5)
            yield waiting[at] + float(torch.rand(()))
            waiting[at] = place
        yield from map(float, waiting)


def loader(dataset: Any, **options: Any) -> Loader:
    return Loader(dataset, **{"batch_size": 4, "seed": 3, "length": 23, **options})


def plain(batches: Any) -> Any:
    """Tensors as lists, so that batches can be compared."""
    if isinstance(batches, Tensor):
        return batches.tolist()
    return [plain(part) for part in batches] if isinstance(batches, list | tuple) else batches


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_stream_gives_the_batches_of_a_dataset_of_the_same_samples(workers: int) -> None:
    for epoch in (0, 2):
        read = list(loader(Flow(), num_workers=workers).epoch(epoch))
        assert plain(read) == plain(list(loader(Noisy()).epoch(epoch)))
        assert all(isinstance(batch, Batch) for batch in read)


def test_the_samples_are_those_that_torch_reads() -> None:
    dataset = Epochs()
    dataset.set_epoch(2)
    theirs = [batch.tolist() for batch in DataLoader(dataset, batch_size=4)]
    assert [batch.inputs.tolist() for batch in loader(Epochs(), labelled=False).epoch(2)] == theirs


@pytest.mark.parametrize("kind", [Flow, Skipping, Pool])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_begun_at_a_batch_is_the_rest_of_the_whole_epoch(kind: Any, workers: int) -> None:
    def epoch(start: int = 0) -> list[Batch]:
        return list(loader(kind(), labelled=kind is not Pool, num_workers=workers).epoch(1, start=start))

    whole = epoch()
    for start in (1, 3, 5, 6):
        assert plain(epoch(start)) == plain(whole[start:])


@given(
    size=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    world=st.integers(1, 4),
    whole=st.booleans(),
    skipping=st.booleans(),
    data=st.data(),
)
def test_shares_of_a_stream_are_those_of_a_dataset(
    size: int, batch_size: int, world: int, whole: bool, skipping: bool, data: st.DataObject
) -> None:
    class Rows(Noisy):
        def __len__(self) -> int:
            return size

    def epoch(dataset: Any, share: Share) -> list[Batch]:
        return list(loader(dataset, batch_size=batch_size, length=size).epoch(0, start=start, share=share))

    start = data.draw(st.integers(0, -(-size // batch_size)))
    for rank in range(world):
        share = Share(rank=rank, world=world, whole=whole)
        flow = Skipping(size) if skipping else Flow(size)
        assert plain(epoch(flow, share)) == plain(epoch(Rows(), share))


def test_skipped_samples_are_not_read_where_the_dataset_can_skip() -> None:
    dataset = Skipping()
    list(loader(dataset).epoch(0, start=4))
    assert dataset.begun == list(range(16, 23))


def test_nothing_is_read_of_an_epoch_that_is_over() -> None:
    dataset = Flow()
    assert list(loader(dataset).epoch(0, start=6)) == []
    assert dataset.read == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_is_told_to_a_dataset_that_wants_to_know(workers: int) -> None:
    read = loader(Epochs(), labelled=False, length=None, num_workers=workers)
    for epoch in (0, 5):
        found = torch.cat([batch.inputs for batch in read.epoch(epoch)])
        assert found.tolist() == np.random.default_rng(epoch).permutation(9).tolist()
    assert (read.size, len(read), read.batch_len(2)) == (9, 3, 1)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("gives", "message"),
    [
        (22, r"Flow ended after 22 samples, 23 were expected; give one for each row"),
        (0, r"Flow ended after 0 samples, 23 were expected"),
        (24, r"Flow gives more than the 23 samples expected; give one for each row"),
    ],
)
def test_fewer_or_more_samples_than_rows_are_refused(gives: int, message: str, workers: int) -> None:
    with pytest.raises(ExperimentError, match=message):
        list(loader(Flow(gives), num_workers=workers).epoch(0))


def test_a_skip_that_goes_too_far_or_gives_nothing_is_refused() -> None:
    class Far(Skipping):
        def skip(self, n: int) -> Skipping:
            return Skipping(self.gives, n + 1)

    class Inside(Skipping):
        def skip(self, n: int) -> Any:
            self.first += n

    with pytest.raises(ExperimentError, match="Far ended after 22 samples, 23 were expected"):
        list(loader(Far()).epoch(0, start=2))
    with pytest.raises(ExperimentError, match=r"Inside.skip\(8\) must return a dataset .* 8 samples later"):
        list(loader(Inside()).epoch(0, start=2))


def test_a_stream_needs_a_length_and_has_no_sampler() -> None:
    with pytest.raises(ExperimentError, match="Flow is a stream without a length; write __len__, or give length="):
        loader(Flow(), length=None)
    with pytest.raises(ExperimentError, match="Flow is a stream and has its own order; it cannot have a sampler"):
        loader(Flow(), sampler=Shuffled())


@pytest.mark.parametrize("workers", [0, 1])
def test_reading_a_stream_leaves_the_global_generators_alone(workers: int) -> None:
    before = str(random_state())
    for _ in loader(Flow(), num_workers=workers).epoch(0, start=1):
        assert str(random_state()) == before


class Slow(Flow):
    """Takes longer to reach the fourth batch than one may wait for a batch."""

    def __iter__(self) -> Iterator[Any]:
        for place in range(self.gives):
            if place < 12:
                time.sleep(0.4)
            yield sample(place)


def test_a_worker_that_passes_over_samples_is_not_taken_for_hung() -> None:
    assert stream_module._SIGN_OF_LIFE <= 1
    read = loader(Slow(), num_workers=1, timeout=3)
    assert plain(list(read.epoch(0, start=3))) == plain(list(loader(Noisy()).epoch(0, start=3)))
