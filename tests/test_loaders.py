"""Loaders: the order of a run is a function of (seed, epoch), its samples of (seed, epoch, row)."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from batteries.errors import ExperimentError, UsageError
from batteries.experiment import Batch
from batteries.prepare.seed import random_state
from batteries.train.loaders import Loader, Share, grouped
from batteries.train.samplers import Shuffled

NUMBERS = torch.arange(23.0)


class Noisy(Dataset[Any]):
    """Samples that draw from all three global generators, as augmentations of real code do."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return torch.tensor([row, random.random(), np.random.rand(), float(torch.rand(()))]), row


class Counted(Dataset[Any]):
    """Remembers what was read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 7

    def __getitem__(self, row: int) -> tuple[int, int]:
        self.read.append(row)
        return row, -row


def shuffled(*, batch_size: int = 4, seed: int = 0, dataset: Any = (NUMBERS, -NUMBERS)) -> Loader:
    return Loader(dataset, batch_size=batch_size, seed=seed, sampler=Shuffled())


def same(left: Sequence[Batch], right: Sequence[Batch]) -> bool:
    return [plain(batch) for batch in left] == [plain(batch) for batch in right]


def plain(state: Any) -> Any:
    """Tensors as lists, so that states of generators can be compared."""
    if isinstance(state, Tensor):
        return state.tolist()
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    return [plain(value) for value in state] if isinstance(state, list | tuple) else state


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else() -> None:
    first = list(shuffled().epoch(3))
    torch.rand(5)
    list(shuffled().epoch(1))
    assert same(list(shuffled().epoch(3)), first)
    orders = [tuple(shuffled(seed=seed).order(epoch).tolist()) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len(set(orders)) == len(orders)


@given(size=st.integers(1, 40), batch_size=st.integers(1, 12), epoch=st.integers(0, 5), data=st.data())
def test_an_epoch_begun_at_a_batch_is_the_rest_of_the_whole_epoch(
    size: int, batch_size: int, epoch: int, data: st.DataObject
) -> None:
    numbers = torch.arange(size)
    loader = shuffled(batch_size=batch_size, dataset=(numbers, numbers))
    whole = list(loader.epoch(epoch))
    start = data.draw(st.integers(0, len(whole)))
    assert same(list(loader.epoch(epoch, start=start)), whole[start:])
    assert len(whole) == len(loader)
    assert sorted(torch.cat([batch.rows for batch in whole]).tolist()) == list(range(size))


@given(size=st.integers(1, 60), batch_size=st.integers(1, 17), world=st.integers(1, 6), epoch=st.integers(0, 2))
def test_shares_put_together_are_the_batches_of_one_process(size: int, batch_size: int, world: int, epoch: int) -> None:
    loader = shuffled(batch_size=batch_size, dataset=(torch.arange(size), torch.arange(size)))
    whole = list(loader.epoch(epoch))
    shares = [list(loader.epoch(epoch, share=Share(rank=rank, world=world))) for rank in range(world)]
    for number, batch in enumerate(whole):
        pieces = [share[number].rows for share in shares]
        assert loader.batch_len(number) == batch.size
        if batch.size < world:
            assert all(torch.equal(piece, batch.rows) for piece in pieces)
            continue
        assert torch.equal(torch.cat(pieces), batch.rows)
        assert all(torch.equal(a, b) for a, b in zip(pieces, batch.rows.tensor_split(world), strict=True))
        lengths = [len(piece) for piece in pieces]
        assert max(lengths) - min(lengths) <= 1
    assert {len(share) for share in shares} == {len(whole)}


@given(size=st.integers(1, 60), batch_size=st.integers(1, 17), world=st.integers(1, 6), data=st.data())
def test_whole_batches_dealt_to_ranks_are_the_batches_of_one_process(
    size: int, batch_size: int, world: int, data: st.DataObject
) -> None:
    loader = shuffled(batch_size=batch_size, dataset=(torch.arange(size), torch.arange(size)))
    whole = list(loader.epoch(1))
    start = data.draw(st.integers(0, len(whole)))
    for rank in range(world):
        share = Share(rank=rank, world=world, whole=True)
        assert same(list(loader.epoch(1, share=share)), whole[rank::world])
        later = [batch for number, batch in enumerate(whole) if number >= start and number % world == rank]
        assert same(list(loader.epoch(1, start=start, share=share)), later)


@pytest.mark.parametrize("share", [Share(rank=1, world=2), Share(rank=1, world=2, whole=True)])
def test_a_rank_reads_its_own_samples_only(share: Share) -> None:
    dataset = Counted()
    batches = list(Loader(dataset, batch_size=4).epoch(0, share=share))
    assert dataset.read == torch.cat([batch.rows for batch in batches]).tolist()
    assert len(dataset.read) < 7


@pytest.mark.parametrize(("rank", "world"), [(-1, 2), (2, 2), (0, 0)])
def test_a_rank_outside_the_world_is_refused(rank: int, world: int) -> None:
    with pytest.raises(UsageError, match=f"0 <= rank < world, got rank {rank} of {world}"):
        Share(rank=rank, world=world)


def test_a_batch_past_the_end_has_no_length() -> None:
    with pytest.raises(UsageError, match="has the batches 0 to 5, got 6"):
        shuffled().batch_len(6)


def test_the_ragged_last_batch_is_kept_and_rows_name_the_samples() -> None:
    batches = list(shuffled().epoch(0))
    assert [batch.size for batch in batches] == [4, 4, 4, 4, 4, 3]
    for batch in batches:
        assert torch.equal(batch.inputs, NUMBERS[batch.rows])
        assert torch.equal(batch.targets, -NUMBERS[batch.rows])


def test_without_shuffle_rows_come_in_their_order_in_every_epoch() -> None:
    loader = Loader((NUMBERS, NUMBERS), batch_size=5, seed=3)
    assert torch.equal(torch.cat([batch.rows for batch in loader.epoch(4)]), torch.arange(23))


def test_skipped_samples_are_never_read() -> None:
    dataset = Counted()
    list(Loader(dataset, batch_size=2).epoch(0, start=2))
    assert dataset.read == [4, 5, 6]


def test_random_samples_are_the_same_with_and_without_workers_and_from_any_batch() -> None:
    def epoch(workers: int, number: int, start: int = 0) -> list[Batch]:
        loader = Loader(Noisy(), batch_size=4, seed=5, sampler=Shuffled(), num_workers=workers)
        return list(loader.epoch(number, start=start))

    here = epoch(0, 1)
    assert same(epoch(2, 1), here)
    assert same(epoch(0, 1, start=1), here[1:])
    assert not same(epoch(0, 2), here)
    drawn = torch.cat([batch.inputs for batch in here])[:, 1:]
    assert len(drawn.unique()) == drawn.numel()


@pytest.mark.parametrize("workers", [0, 2])
def test_reading_a_dataset_leaves_the_global_generators_alone(workers: int) -> None:
    before = plain(random_state())
    list(Loader(Noisy(), batch_size=4, sampler=Shuffled(), num_workers=workers).epoch(0))
    assert plain(random_state()) == before


def test_a_sample_that_fails_leaves_the_global_generators_alone() -> None:
    class Broken(Noisy):
        def __getitem__(self, row: int) -> tuple[Tensor, int]:
            raise KeyError(row)

    before = plain(random_state())
    with pytest.raises(KeyError):
        list(Loader(Broken(), batch_size=4).epoch(0))
    assert plain(random_state()) == before


def test_rows_without_targets_give_inputs_alone() -> None:
    for dataset in (NUMBERS, TensorDataset(NUMBERS), plain_numbers()):
        batch = next(Loader(dataset, batch_size=2, labelled=False).epoch(0))
        assert torch.equal(batch.inputs.float(), NUMBERS[:2])
        assert batch.targets is None


def test_a_tensor_dataset_is_gathered_like_tensors() -> None:
    assert same(list(shuffled(dataset=TensorDataset(NUMBERS, -NUMBERS)).epoch(0)), list(shuffled().epoch(0)))


def test_a_collate_of_ones_own_joins_the_samples() -> None:
    loader = Loader(Counted(), batch_size=3, collate=lambda samples: ([x for x, _ in samples], "joined"))
    first = next(loader.epoch(0))
    assert (first.inputs, first.targets, first.rows.tolist()) == ([0, 1, 2], "joined", [0, 1, 2])


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ((NUMBERS, NUMBERS[:5]), r"of one length, got shapes inputs \(23,\), targets \(5,\)"),
        (({"a": NUMBERS, "b": NUMBERS[:2]}, NUMBERS), r"inputs\['a'\] \(23,\), inputs\['b'\] \(2,\), targets \(23,\)"),
        ((NUMBERS, NUMBERS, NUMBERS), r"returned 3 parts for rows that have a target; return \(inputs, targets\)"),
        (NUMBERS, r"one Tensor for rows that have a target; return \(inputs, targets\)"),
        ({"x": NUMBERS}, r"one dict for rows that have a target; return \(inputs, targets\)"),
        ((["a"], NUMBERS), r"a torch Dataset with a length; its inputs\[0\] is str"),
        ((torch.tensor(1.0), NUMBERS), "one row a sample, or a torch Dataset with a length; its inputs is Tensor"),
        ((np.array(["a", "b"]), NUMBERS), r"dataset's inputs has type <U1, which PyTorch does not know; .*astype"),
        ((np.zeros(23, ">f4"), NUMBERS), "dataset's inputs has type >f4, which PyTorch does not know"),
        (({}, ()), "of one length, got shapes none"),
        ((NUMBERS, None), r"returned no targets for rows that have a target; return \(inputs, targets\)"),
        (iter([1, 2]), "a torch Dataset with a length, got list_iterator"),
        (None, "a torch Dataset with a length, got NoneType"),
    ],
)
def test_what_is_no_dataset_is_refused_when_the_loader_is_made(dataset: Any, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        Loader(dataset, batch_size=2)


def test_samples_that_are_no_pair_are_refused_by_their_type() -> None:
    with pytest.raises(ExperimentError, match=r"must be \(input, target\), got Tensor"):
        next(Loader(plain_numbers(), batch_size=2).epoch(0))


def plain_numbers() -> Dataset[Any]:
    class Numbers(Dataset[Any]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, row: int) -> float:
            return float(row)

    return Numbers()


@given(count=st.integers(0, 30), size=st.integers(1, 9))
def test_groups_hold_everything_in_order_and_only_the_last_is_short(count: int, size: int) -> None:
    groups = list(grouped(size, iter(range(count))))  # type: ignore[arg-type]
    assert [x for group in groups for x in group] == list(range(count))
    assert all(len(group) == size for group in groups[:-1])


class Pair(NamedTuple):
    """Two parts of one input."""

    image: Any
    length: Any


IMAGES = np.arange(23 * 6, dtype=np.uint8).reshape(23, 2, 3)


@pytest.mark.parametrize(
    "inputs",
    [
        torch.from_numpy(IMAGES),
        IMAGES,
        IMAGES[::-1],
        np.asfortranarray(IMAGES),
        {"image": IMAGES, "length": torch.arange(23)},
        (IMAGES, (torch.arange(23.0), [np.arange(23) > 3])),
        Pair(IMAGES, {"deep": NUMBERS.half()}),
    ],
)
def test_inputs_of_any_nesting_are_gathered_whole_with_their_types(inputs: Any) -> None:
    def check(taken: Any, whole: Any, rows: Tensor) -> None:
        if isinstance(whole, dict):
            assert list(taken) == list(whole)
            for key in whole:
                check(taken[key], whole[key], rows)
        elif isinstance(whole, tuple | list):
            assert type(taken) is type(whole)
            for a, b in zip(taken, whole, strict=True):
                check(a, b, rows)
        else:
            wanted = torch.as_tensor(whole.copy() if isinstance(whole, np.ndarray) else whole)[rows]
            assert taken.dtype == wanted.dtype
            assert torch.equal(taken, wanted)

    for batch in shuffled(dataset=(inputs, NUMBERS.numpy())).epoch(0):
        check(batch.inputs, inputs, batch.rows)
        check(batch.targets, NUMBERS.numpy(), batch.rows)


def test_inputs_alone_of_any_nesting_are_gathered_too() -> None:
    for inputs in ({"a": NUMBERS, "b": NUMBERS}, (NUMBERS, NUMBERS, NUMBERS), IMAGES):
        batch = next(Loader(inputs, batch_size=2, labelled=False).epoch(0))
        assert type(batch.inputs) in (type(inputs), Tensor)
        assert batch.targets is None
    with pytest.raises(ExperimentError, match="rows without a target; return inputs alone"):
        Loader((NUMBERS, NUMBERS), batch_size=2, labelled=False)


def test_what_is_gathered_can_be_written_to_and_leaves_the_source_alone(tmp_path: Path) -> None:
    IMAGES.tofile(tmp_path / "images")
    stored = np.memmap(tmp_path / "images", dtype=np.uint8, mode="r", shape=IMAGES.shape)
    frozen = IMAGES.copy()
    frozen.flags.writeable = False
    for source in (stored, frozen, torch.from_numpy(IMAGES.copy())):
        batch = next(Loader(source, batch_size=23, labelled=False).epoch(0))
        batch.inputs[:] = 0
        assert np.array_equal(np.asarray(source), IMAGES)


def test_of_a_memory_map_only_the_rows_of_a_batch_are_read(tmp_path: Path) -> None:
    row, rows = 2**16, 4096  # 256 MiB, nearly all of it a hole in the file
    with open(tmp_path / "big", "wb") as file:
        file.truncate(row * rows)
    stored = np.memmap(tmp_path / "big", dtype=np.uint8, mode="r", shape=(rows, row))
    loader = Loader(stored, batch_size=8, labelled=False, sampler=Shuffled())
    tracemalloc.start()
    try:
        for batch in islice(loader.epoch(0), 20):
            assert batch.inputs.shape == (8, row)
        assert tracemalloc.get_traced_memory()[1] < 4 * 8 * row + 2**20
    finally:
        tracemalloc.stop()


class Repeats:
    """Rows 0 to size - 1, then the even ones again, then row 0 once more."""

    def order(self, size: int, *, batch_size: int, epoch: int, seed: int) -> Tensor:
        return torch.cat([torch.arange(size), torch.arange(0, size, 2), torch.tensor([0])])


def test_a_sampler_may_repeat_rows_and_each_time_is_counted() -> None:
    loader = Loader(Noisy(), batch_size=4, sampler=Repeats())
    batches = list(loader.epoch(0))
    assert (loader.size, loader.num_samples, len(loader), loader.batch_len(4)) == (11, 18, 5, 2)
    assert torch.cat([batch.draws for batch in batches]).tolist() == [0] * 11 + [1] * 6 + [2]  # type: ignore[misc]
    drawn = torch.cat([batch.inputs for batch in batches])[:, 1:]
    assert len(drawn.unique()) == drawn.numel()
    once = list(Loader(Noisy(), batch_size=4).epoch(0))
    assert torch.equal(drawn[:11], torch.cat([batch.inputs for batch in once])[:, 1:])
    assert {batch.draws for batch in once} == {None}
    for workers in (1, 2):
        assert same(list(Loader(Noisy(), batch_size=4, sampler=Repeats(), num_workers=workers).epoch(0)), batches)
    assert same(list(loader.epoch(0, start=3)), batches[3:])
    halves = [list(loader.epoch(0, share=Share(rank=rank, world=2))) for rank in (0, 1)]
    for number, batch in enumerate(batches):
        assert torch.equal(torch.cat([half[number].draws for half in halves]), batch.draws)  # type: ignore[misc]
        assert torch.equal(torch.cat([half[number].inputs for half in halves]), batch.inputs)


@given(rows=st.lists(st.integers(0, 9), min_size=1, max_size=60), batch_size=st.integers(1, 9))
def test_draws_count_the_earlier_ones_of_the_same_row(rows: list[int], batch_size: int) -> None:
    class Given:
        def order(self, size: int, *, batch_size: int, epoch: int, seed: int) -> Tensor:
            return torch.tensor(rows)

    batches = list(Loader(torch.arange(10), batch_size=batch_size, labelled=False, sampler=Given()).epoch(0))
    found = [None if batch.draws is None else batch.draws.tolist() for batch in batches]
    expected = [rows[:place].count(row) for place, row in enumerate(rows)]
    if len(set(rows)) == len(rows):
        assert set(map(str, found)) == {"None"}
    else:
        assert [draw for draws in found for draw in draws or []] == expected


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([0, 23], "Wrong.order gave rows 0 to 23, the dataset has 0 to 22"),
        ([-1, 3], "Wrong.order gave rows -1 to 3, the dataset has 0 to 22"),
        ([0.5], r"Wrong.order must give rows, int64 \(n,\), got torch.float32 \(1,\)"),
        ([[1]], r"Wrong.order must give rows, int64 \(n,\), got torch.int64 \(1, 1\)"),
        ([], r"Wrong.order must give rows, int64 \(n,\), got torch.float32 \(0,\)"),
    ],
)
def test_a_sampler_that_gives_no_rows_of_the_dataset_is_refused_when_the_loader_is_made(
    rows: list[Any], message: str
) -> None:
    class Wrong:
        def order(self, size: int, *, batch_size: int, epoch: int, seed: int) -> Any:
            return torch.tensor(rows)

    with pytest.raises(ExperimentError, match=message):
        Loader((NUMBERS, NUMBERS), batch_size=2, sampler=Wrong())


def test_an_epoch_of_another_length_is_refused_for_updates_are_counted() -> None:
    class Growing:
        def order(self, size: int, *, batch_size: int, epoch: int, seed: int) -> Tensor:
            return torch.arange(epoch + 1)

    loader = Loader((NUMBERS, NUMBERS), batch_size=2, sampler=Growing())
    with pytest.raises(ExperimentError, match=r"Growing\.order gave 1 rows in epoch 0 and 3 in epoch 2"):
        next(loader.epoch(2))


def test_what_is_no_sampler_is_refused() -> None:
    with pytest.raises(ExperimentError, match=r"method order\(size, \*, batch_size, epoch, seed\), list has none"):
        Loader((NUMBERS, NUMBERS), batch_size=2, sampler=[1, 2])  # type: ignore[arg-type]


def test_a_random_collate_is_the_same_with_any_number_of_workers() -> None:
    def mixed(samples: list[Any]) -> Tensor:
        weight = torch.rand(()) + random.random() + float(np.random.rand())
        return torch.stack([x for x, _ in samples]) * weight

    def epoch(workers: int) -> list[Batch]:
        loader = Loader(Noisy(), batch_size=4, labelled=False, num_workers=workers, collate=mixed)
        return list(loader.epoch(0))

    assert same(epoch(2), epoch(0))
    weights = [float(batch.inputs[1, 0] / batch.rows[1]) for batch in epoch(0)]
    assert len(set(weights)) == 3


def test_an_empty_dataset_has_no_batches() -> None:
    loader = Loader(torch.zeros(0, 3), batch_size=2, labelled=False)
    assert (len(loader), list(loader.epoch(0))) == (0, [])
