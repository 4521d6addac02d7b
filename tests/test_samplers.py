"""Samplers: rows of an epoch, a pure function of the seed and the epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from batteries.errors import ExperimentError
from batteries.train.loaders import Loader
from batteries.train.samplers import Balanced, ByLength, Sampler, Shuffled, Weighted

LEAST = 1e-4
"""Seeds are fixed, so a test below this chance would be a fault of the sampler, not bad luck."""

EVERY: dict[str, Callable[[int], Sampler]] = {
    "Shuffled": lambda size: Shuffled(),
    "Weighted": lambda size: Weighted(range(1, size + 1)),
    "Balanced": lambda size: Balanced(torch.arange(size) % 3),
    "ByLength": lambda size: ByLength(np.arange(size) % 7, window=3),
}


def rows(sampler: Sampler, size: int, *, batch_size: int = 4, epoch: int = 0, seed: int = 0) -> list[int]:
    order = sampler.order(size, batch_size=batch_size, epoch=epoch, seed=seed)
    assert order.dtype == torch.int64
    found: list[int] = order.tolist()
    return found


@pytest.mark.parametrize("name", EVERY)
def test_an_order_depends_on_seed_and_epoch_and_on_nothing_else(name: str) -> None:
    before = torch.get_rng_state()
    sampler = EVERY[name](200)
    first = rows(sampler, 200, epoch=3, seed=5)
    torch.rand(3)
    rows(sampler, 200, epoch=4)
    assert rows(EVERY[name](200), 200, epoch=3, seed=5) == first
    torch.set_rng_state(before)
    orders = {tuple(rows(sampler, 200, epoch=epoch, seed=seed)) for epoch in range(4) for seed in range(4)}
    assert len(orders) == 16
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", EVERY)
def test_a_loader_takes_any_of_them(name: str) -> None:
    loader = Loader(torch.arange(30), batch_size=4, labelled=False, seed=1, sampler=EVERY[name](30))
    batches = list(loader.epoch(2))
    assert torch.cat([batch.rows for batch in batches]).tolist() == rows(EVERY[name](30), 30, epoch=2, seed=1)
    assert [batch.size for batch in batches] == [4] * 7 + [2]


@given(size=st.integers(1, 300), batch_size=st.integers(1, 20), epoch=st.integers(0, 5), data=st.data())
def test_shuffled_and_by_length_take_every_row_once(
    size: int, batch_size: int, epoch: int, data: st.DataObject
) -> None:
    lengths = data.draw(st.lists(st.integers(0, 50), min_size=size, max_size=size))
    for sampler in (Shuffled(), ByLength(lengths, window=data.draw(st.integers(1, 5)))):
        assert sorted(rows(sampler, size, batch_size=batch_size, epoch=epoch)) == list(range(size))


@given(size=st.integers(1, 200), batch_size=st.integers(1, 12), epoch=st.integers(0, 3))
def test_batches_by_length_are_neighbours_in_length_within_their_window(size: int, batch_size: int, epoch: int) -> None:
    lengths = torch.randperm(size).double() / 3
    order = ByLength(lengths, window=1000).order(size, batch_size=batch_size, epoch=epoch, seed=0)
    full = order[: size - size % batch_size].reshape(-1, batch_size)
    by_length = lengths[full.flatten()].sort().values.reshape(-1, batch_size)
    found = lengths[full].sort(dim=1).values
    assert torch.equal(found[found[:, 0].argsort()], by_length)


def test_batches_by_length_pad_little_and_come_in_no_order_of_length() -> None:
    lengths = torch.from_numpy(np.random.default_rng(0).lognormal(4, 1, 20_000))
    order = ByLength(lengths).order(20_000, batch_size=32, epoch=0, seed=0)
    found = lengths[order].reshape(-1, 32)
    wasted = 1 - float(found.sum() / (found.max(dim=1).values * 32).sum())
    shuffled = lengths[torch.randperm(20_000)].reshape(-1, 32)
    assert wasted < 0.25 < 0.5 < 1 - float(shuffled.sum() / (shuffled.max(dim=1).values * 32).sum())
    means = found.mean(dim=1)
    assert stats.spearmanr(np.arange(len(means)), means.numpy()).pvalue > LEAST


@given(
    labels=st.lists(st.integers(-2, 4), min_size=1, max_size=80),
    epoch=st.integers(0, 30),
    text=st.booleans(),
)
def test_balanced_takes_every_class_equally_often(labels: list[int], epoch: int, text: bool) -> None:
    sampler = Balanced([f"class {label}" for label in labels] if text else labels)
    order = rows(sampler, len(labels), epoch=epoch)
    assert len(order) == len(labels)
    counts = Counter(labels[row] for row in order)
    per_class = [counts[label] for label in set(labels)]
    assert max(per_class) - min(per_class) <= 1
    for label in set(labels):
        members = [row for row in range(len(labels)) if labels[row] == label]
        times = Counter(row for row in order if labels[row] == label)
        if counts[label] % len(members) == 0 and epoch == 0:
            assert {times[row] for row in members} == {counts[label] // len(members)}
        seen = [times[row] for row in members]
        assert max(seen) - min(seen) <= 2  # an epoch may begin and end in the middle of a permutation


@given(labels=st.lists(st.sampled_from("aaaaabbc"), min_size=2, max_size=60), epochs=st.integers(1, 12))
def test_over_epochs_balanced_leaves_no_row_out_and_favours_none(labels: list[str], epochs: int) -> None:
    seen = Counter(row for epoch in range(epochs) for row in rows(Balanced(labels), len(labels), epoch=epoch))
    for label in set(labels):
        times = [seen[row] for row in range(len(labels)) if labels[row] == label]
        assert max(times) - min(times) <= 1
    totals = [sum(seen[row] for row in range(len(labels)) if labels[row] == label) for label in set(labels)]
    assert max(totals) - min(totals) <= 1


def test_weighted_draws_as_often_as_the_weights_say() -> None:
    weights = torch.tensor([0.0, 1.0, 2.0, 0.0, 5.0, 0.0])
    order = torch.tensor(rows(Weighted(weights, num_samples=80_000), 6))
    counts = order.bincount(minlength=6)
    assert counts[weights == 0].sum() == 0
    assert stats.chisquare(counts[weights > 0].numpy(), [10_000, 20_000, 50_000]).pvalue > LEAST
    assert len(rows(Weighted(weights), 6)) == 6


def test_weighted_knows_more_rows_than_torch_multinomial() -> None:
    size = 2**24 + 3
    weights = np.ones(size, dtype=np.float32)
    with pytest.raises(RuntimeError, match="number of categories cannot exceed"):
        torch.multinomial(torch.from_numpy(weights), 1)
    order = Weighted(weights, num_samples=100_000).order(size, batch_size=4, epoch=0, seed=0)
    assert stats.kstest(order.numpy() / size, "uniform").pvalue > LEAST
    weights[:-1] = 0
    assert set(rows(Weighted(weights, num_samples=100), size)) == {size - 1}


@given(
    weights=st.lists(st.floats(0, 1.7e308, allow_subnormal=False), min_size=1, max_size=30), epoch=st.integers(0, 50)
)
def test_a_row_of_weight_zero_is_never_drawn(weights: list[float], epoch: int) -> None:
    if not any(weights):
        with pytest.raises(ExperimentError, match="finite weights >= 0, at least one of them above 0"):
            Weighted(weights)
        return
    assert all(weights[row] > 0 for row in rows(Weighted(weights, num_samples=200), len(weights), epoch=epoch))


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, pl.Series])
def test_columns_of_any_kind_mean_the_same(kind: Callable[[list[int]], Any]) -> None:
    values = [3, 1, 4, 1, 5, 9, 2, 6]
    for sampler in (Weighted, Balanced, ByLength):
        assert rows(sampler(kind(values)), 8) == rows(sampler(values), 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Weighted([1.0, -1.0]), "Weighted needs finite weights >= 0"),
        (lambda: Weighted([1.0, float("nan")]), "Weighted needs finite weights >= 0"),
        (lambda: Weighted([1.0, float("inf")]), "Weighted needs finite weights >= 0"),
        (lambda: Weighted([1.0], num_samples=0), "num_samples >= 1, got 0"),
        (lambda: Weighted([[1.0]]), r"weights must be one value for each row, got shape \(1, 1\)"),
        (lambda: Balanced([]), r"labels must be one value for each row, got shape \(0,\)"),
        (lambda: ByLength(3), r"lengths must be one value for each row, got shape \(\)"),
        (lambda: ByLength([3], window=0), "ByLength needs window >= 1, got 0"),
        (lambda: Loader(torch.arange(3), batch_size=2, labelled=False, sampler=Balanced([1, 2])), "2 values for 3 sam"),
        (lambda: Loader(torch.arange(3), batch_size=2, labelled=False, sampler=Weighted([1])), "1 values for 3 sam"),
        (lambda: Loader(torch.arange(3), batch_size=2, labelled=False, sampler=ByLength([1])), "1 values for 3 sam"),
    ],
)
def test_what_cannot_be_sampled_is_refused_when_it_is_made(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        make()
