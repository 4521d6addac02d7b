"""Sample random: numbers of a sample depend on (seed, epoch, row, call) alone, and look random in every direction."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from batteries.errors import UsageError
from batteries.prepare import augment
from batteries.prepare.augment import SampleRandom, random_shift
from batteries.prepare.seed import derive_seed

LEAST = 1e-4
"""Seeds are fixed, so a test below this chance would be a fault of the generator, not bad luck."""


def mixed(x: int) -> int:
    """One step of splitmix64 as published, in whole numbers without limits."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


def numbers(
    rows: Any, *, seed: int = 1, epoch: int = 0, calls: int = 1, shape: tuple[int, ...] = (), draws: Any = None
) -> torch.Tensor:
    random = SampleRandom(
        seed, epoch=epoch, rows=torch.as_tensor(rows), draws=None if draws is None else torch.as_tensor(draws)
    )
    return torch.stack([random.uniform(*shape) for _ in range(calls)])


def test_the_numbers_never_change() -> None:
    bits = (numbers([0, 1, 2**40], seed=42, epoch=3, calls=2) * 2**24).long()
    assert bits.tolist() == [[10827314, 5627220, 15553691], [12446631, 11411960, 7836335]]


def test_the_numbers_are_those_of_the_published_mixer() -> None:
    key = derive_seed(5, "sample", 2) << 31 | derive_seed(5, "sample", 2, "low") >> 1
    bits = (numbers([0, 9], seed=5, epoch=2, calls=2, shape=(3,)) * 2**24).long()
    for row, call, place in np.ndindex(2, 2, 3):
        base = mixed((mixed([0, 9][row] ^ key) + call + 1) % 2**64)
        assert int(bits[call, row, place]) == mixed((base + mixed(place + 1)) % 2**64) >> 40


@settings(max_examples=30, deadline=None)
@given(order=st.permutations(range(20)), cut=st.integers(1, 19))
def test_a_sample_has_its_numbers_in_any_batch(order: list[int], cut: int) -> None:
    whole = numbers(range(20), calls=3, shape=(2, 3))
    parts = [numbers(rows, calls=3, shape=(2, 3)) for rows in (order[:cut], order[cut:])]
    assert torch.equal(torch.cat(parts, dim=1), whole[:, order])


def test_every_call_epoch_seed_and_place_gives_other_numbers() -> None:
    drawn = [
        numbers(range(100), seed=seed, epoch=epoch, calls=3, shape=(4,)).flatten()
        for seed in (1, 2)
        for epoch in (0, 1)
    ]
    values = torch.cat(drawn)
    assert len(values.unique()) > 0.999 * len(values)  # 24 bits: 4,800 draws have 0.7 pairs by chance


def test_the_kind_of_the_rows_tensor_does_not_matter() -> None:
    assert torch.equal(numbers(torch.tensor([3, 5], dtype=torch.int32)), numbers([3, 5]))


def test_shapes_and_types_are_as_promised() -> None:
    random = SampleRandom(1, epoch=0, rows=torch.arange(5))
    assert random.uniform().shape == (5,)
    assert random.uniform(2, 3).shape == (5, 2, 3)
    assert random.uniform(0).shape == (5, 0)
    assert random.uniform().dtype == torch.float32
    assert random.integers(0, 3, 2).shape == (5, 2)
    assert random.integers(0, 3).dtype == torch.int64
    assert SampleRandom(1, epoch=0, rows=torch.arange(0)).uniform(2).shape == (0, 2)


def test_a_row_drawn_again_has_other_numbers_and_the_first_time_those_of_a_row_drawn_once() -> None:
    once = numbers([5, 6], calls=3, shape=(2,))
    drawn = numbers([5, 6, 5, 5, 6], draws=[0, 0, 1, 2, 1], calls=3, shape=(2,))
    assert torch.equal(drawn[:, :2], once)
    assert len(drawn.unique()) == drawn.numel()
    assert torch.equal(numbers([5, 6], draws=[2, 1], calls=3, shape=(2,)), drawn[:, 3:])


def test_drawing_leaves_the_global_generators_alone() -> None:
    before = torch.get_rng_state()
    numbers(range(10))
    assert torch.equal(torch.get_rng_state(), before)


WAYS = {
    "rows": lambda: numbers(range(200_000)),
    "rows far apart": lambda: numbers(torch.arange(200_000) * 2**32),
    "draws": lambda: numbers([7] * 200_000, draws=range(200_000)),
    "calls": lambda: numbers([7], calls=2_000),
    "places": lambda: numbers([7], shape=(200_000,)),
    "epochs": lambda: torch.cat([numbers(range(20), epoch=epoch) for epoch in range(1_000)]),
    "seeds": lambda: torch.cat([numbers(range(20), seed=seed) for seed in range(1_000)]),
}


@pytest.mark.parametrize("way", WAYS)
def test_numbers_are_uniform_in_every_direction(way: str) -> None:
    drawn = WAYS[way]().flatten().double().numpy()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert stats.kstest(drawn, "uniform").pvalue > LEAST


@pytest.mark.parametrize("way", WAYS)
def test_neighbours_are_uncorrelated_in_every_direction(way: str) -> None:
    drawn = WAYS[way]().flatten().double().numpy()
    for lag in (1, 2, 20):
        assert stats.pearsonr(drawn[:-lag], drawn[lag:]).pvalue > LEAST


def test_pairs_of_rows_epochs_calls_and_places_fill_the_square() -> None:
    n = 100_000
    here = numbers(range(n), calls=2, shape=(2,))
    pairs = [
        (here[0, :-1, 0], here[0, 1:, 0]),
        (here[0, :, 0], here[1, :, 0]),
        (here[0, :, 0], here[0, :, 1]),
        (here[0, :, 0], numbers(range(n), draws=[1] * n, shape=(2,))[0, :, 0]),
        (here[1, :, 0], numbers(range(n), draws=[1] * n, shape=(2,))[0, :, 0]),
        (here[0, :, 0], numbers(range(n), epoch=1, shape=(2,))[0, :, 0]),
        (here[0, :, 0], numbers(range(n), seed=2, shape=(2,))[0, :, 0]),
    ]
    for x, y in pairs:
        cells = ((x * 16).long() * 16 + (y * 16).long()).bincount(minlength=256)
        assert stats.chisquare(cells.numpy()).pvalue > LEAST


def test_every_bit_of_a_number_is_one_half_of_the_time() -> None:
    bits = (numbers(range(100_000)).flatten() * 2**24).long()
    for place in range(24):
        ones = int((bits >> place & 1).sum())
        assert stats.binomtest(ones, 100_000).pvalue > LEAST


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 4), (5, 105)])
def test_whole_numbers_are_even_between_their_limits(low: int, high: int) -> None:
    drawn = SampleRandom(1, epoch=0, rows=torch.arange(100_000)).integers(low, high)
    counts = (drawn - low).bincount(minlength=high - low)
    assert len(counts) == high - low
    assert stats.chisquare(counts.numpy()).pvalue > LEAST or high - low == 1


@pytest.mark.parametrize(("low", "high"), [(0, 0), (3, 2), (0, 2**24 + 1)])
def test_limits_without_numbers_between_them_are_refused(low: int, high: int) -> None:
    with pytest.raises(UsageError, match=rf"integers need low < high <= low \+ 2\*\*24, got low {low} and high {high}"):
        SampleRandom(1, epoch=0, rows=torch.arange(3)).integers(low, high)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5, 1.0, 2.0, 30.0])
def test_beta_numbers_have_the_distribution_that_scipy_has(alpha: float) -> None:
    drawn = SampleRandom(3, epoch=0, rows=torch.arange(100_000)).beta(alpha)
    assert drawn.dtype == torch.float32
    assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
    places = np.linspace(0.001, 0.999, 200)  # further out, float32 rounds to 0 and 1
    shares = np.searchsorted(np.sort(drawn.double().numpy()), places) / 100_000
    assert np.abs(shares - stats.beta(alpha, alpha).cdf(places)).max() < 0.006  # Kolmogorov's limit for 0.1 %
    assert float(drawn.double().var()) == pytest.approx(stats.beta(alpha, alpha).var(), rel=0.02)


def test_beta_numbers_are_finite_for_the_smallest_and_largest_uniform_ones() -> None:
    class Extreme(SampleRandom):
        def uniform(self, *shape: int) -> torch.Tensor:
            edge = torch.tensor([0.0, 2.0**-24, 0.25, 0.5, 0.75, 1 - 2.0**-24])
            return torch.cartesian_prod(edge, edge)

    for alpha in (1e-4, 0.2, 1.0, 1e4):
        drawn = Extreme(0, epoch=0, rows=torch.arange(36)).beta(alpha)
        assert bool(((drawn >= 0) & (drawn <= 1)).all())


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_beta_without_a_distribution_is_refused(alpha: float) -> None:
    with pytest.raises(UsageError, match="needs a finite alpha > 0"):
        SampleRandom(1, epoch=0, rows=torch.arange(3)).beta(alpha)


def test_a_chance_is_never_at_0_always_at_1_and_as_frequent_as_said_between() -> None:
    random = SampleRandom(1, epoch=0, rows=torch.arange(50_000))
    assert not random.chance(0).any()
    assert random.chance(1).all()
    assert stats.binomtest(int(random.chance(0.3).sum()), 50_000, 0.3).pvalue > LEAST
    for p in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match=r"p must be a probability between 0 and 1, got"):
            random.chance(p)


def test_numbers_between_limits_are_uniform() -> None:
    drawn = SampleRandom(1, epoch=0, rows=torch.arange(50_000)).between(-3, 5).double().numpy()
    assert stats.kstest(drawn, stats.uniform(-3, 8).cdf).pvalue > LEAST


def test_a_copy_goes_on_with_the_same_numbers() -> None:
    random = SampleRandom(1, epoch=0, rows=torch.arange(5))
    random.uniform()
    same = copy(random)
    assert torch.equal(random.uniform(2), same.uniform(2))


def shifted_slowly(images: np.ndarray[Any, Any], moves: list[list[int]]) -> np.ndarray[Any, Any]:
    """Pixel by pixel: what lies at (y + down, x + right), zero outside."""
    result = np.zeros_like(images)
    n, channels, height, width = images.shape
    for i, c, y, x in np.ndindex(n, channels, height, width):
        from_y, from_x = y + moves[i][0], x + moves[i][1]
        if 0 <= from_y < height and 0 <= from_x < width:
            result[i, c, y, x] = images[i, c, from_y, from_x]
    return result


@pytest.mark.parametrize("shape", [(6, 1, 5, 7), (3, 3, 4, 4), (1, 2, 1, 1), (0, 1, 3, 3)])
@pytest.mark.parametrize("pixels", [0, 1, 3, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_a_shift_equals_moving_pixel_by_pixel(shape: tuple[int, ...], pixels: int, dtype: torch.dtype) -> None:
    images = (torch.arange(1.0, 1 + int(np.prod(shape))) % 251).reshape(shape).to(dtype)
    rows = torch.arange(10, 10 + shape[0])
    moves = SampleRandom(5, epoch=2, rows=rows).integers(-pixels, pixels + 1, 2).tolist()
    result = random_shift(images, SampleRandom(5, epoch=2, rows=rows), pixels)
    assert result.dtype == dtype
    assert result.is_contiguous()
    assert np.array_equal(result.numpy(), shifted_slowly(images.numpy(), moves))


def test_shifts_go_both_ways_equally_often() -> None:
    images = torch.zeros(5000, 1, 5, 5)
    images[:, :, 2, 2] = 1
    found = random_shift(images, SampleRandom(0, epoch=0, rows=torch.arange(5000)), 2).sum(dim=(0, 1))
    assert stats.chisquare(found.flatten().numpy()).pvalue > LEAST


def test_a_shift_of_an_image_does_not_depend_on_its_batch() -> None:
    images = torch.rand(8, 1, 6, 6)
    whole = random_shift(images, SampleRandom(0, epoch=0, rows=torch.arange(8)), 2)
    alone = random_shift(images[5:6], SampleRandom(0, epoch=0, rows=torch.tensor([5])), 2)
    assert torch.equal(whole[5:6], alone)


META = {"device": "meta"}
IMAGES, LABELS = torch.rand(8, 3, 16, 16, **META), torch.zeros(8, dtype=torch.int64, **META)
POOL = torch.rand(50, 3, 16, 16, **META), torch.zeros(50, dtype=torch.int64, **META)
WITHOUT_NUMBERS: dict[str, Callable[[SampleRandom], Any]] = {
    "random_shift": lambda random: random_shift(IMAGES, random, pixels=4),
    "random_flip": lambda random: augment.random_flip(IMAGES, random),
    "random_erasing": lambda random: augment.random_erasing(IMAGES, random, fill=IMAGES[0].mean(dim=0)),
    "random_affine": lambda random: augment.random_affine(IMAGES, random, shear=5),
    "random_colour": lambda random: augment.random_colour(IMAGES, random, hue=0.1),
    "random_resized_crop": lambda random: augment.random_resized_crop(IMAGES, random, size=(8, 8)),
    "mixup": lambda random: augment.mixup(IMAGES, LABELS, random, classes=3),
    "cutmix": lambda random: augment.cutmix(IMAGES, LABELS, random, classes=3, among=POOL),
    "smooth": lambda random: augment.smooth(LABELS, classes=3),
    "swap_noise": lambda random: augment.swap_noise(IMAGES[:, 0, 0], random, among=POOL[0][:, 0, 0]),
    "feature_dropout": lambda random: augment.feature_dropout(IMAGES, random),
    "token_drop": lambda random: augment.token_drop(LABELS[:, None].expand(8, 9), random, keep=(1, 2)),
}


def test_every_change_is_among_those_without_numbers() -> None:
    assert {name for name in augment.__all__ if name[0].islower()} == WITHOUT_NUMBERS.keys()


@pytest.mark.parametrize("change", WITHOUT_NUMBERS)
def test_no_change_reads_a_number_back_from_the_device(change: str) -> None:
    """A device without numbers fails where one is asked for, which is where a step would wait for an accelerator."""
    changed = WITHOUT_NUMBERS[change](SampleRandom(1, epoch=0, rows=LABELS))
    assert all(tensor.is_meta for tensor in (changed if isinstance(changed, tuple) else (changed,)))
    with pytest.raises(RuntimeError, match="meta"):
        LABELS[0].item()
