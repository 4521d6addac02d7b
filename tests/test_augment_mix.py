"""Mix: MixUp, CutMix and smoothed labels equal what is computed by hand, sample by sample."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor
from torch.nn import functional

from batteries.errors import UsageError
from batteries.prepare.augment import SampleRandom, cutmix, mixup, smooth


def random_of(rows: Any, *, epoch: int = 0) -> SampleRandom:
    return SampleRandom(5, epoch=epoch, rows=torch.as_tensor(rows))


def batch(n: int = 7, *, classes: int = 3, side: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 2, side, side, generator=generator), torch.randint(classes, (n,), generator=generator)


def neighbours(n: int) -> list[int]:
    """By hand: pairs from the front; an odd one out takes the one before it."""
    pairs = [place + 1 if place % 2 == 0 else place - 1 for place in range(n)]
    if n % 2:
        pairs[-1] = max(0, n - 2)
    return pairs


def log_softmax(outputs: NDArray[Any]) -> NDArray[Any]:
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def loss_by_hand(outputs: Tensor, own: Tensor, partner: Tensor, share: NDArray[Any]) -> float:
    """The papers' loss, sample by sample: share x cross entropy with the own class, the rest x with the partner's."""
    logs = log_softmax(outputs.double().numpy())
    total = 0.0
    for i, part in enumerate(share):
        total += part * -logs[i, own[i]] + (1 - part) * -logs[i, partner[i]]
    return total / len(share)


# --- MixUp


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_mixup_and_its_loss_equal_those_computed_by_hand(n: int) -> None:
    inputs, targets = batch(n)
    random = random_of(range(n))
    random.uniform()  # which samples are mixed: all
    share = random.beta(0.4).double().numpy()
    mixed, soft = mixup(inputs, targets, random_of(range(n)), alpha=0.4, classes=3)
    for i, partner in enumerate(neighbours(n)):
        wanted = share[i] * inputs[i].double() + (1 - share[i]) * inputs[partner].double()
        torch.testing.assert_close(mixed[i].double(), wanted, rtol=1e-6, atol=1e-7)  # float32's digits
    outputs = torch.randn(n, 3, generator=torch.Generator().manual_seed(2))
    found = functional.cross_entropy(outputs.double(), soft.double())
    wanted_loss = loss_by_hand(outputs, targets, targets[neighbours(n)], share)
    assert float(found) == pytest.approx(wanted_loss, rel=1e-6)


def test_the_loss_of_mixed_labels_equals_the_mixed_losses_under_binary_cross_entropy_too() -> None:
    inputs, _ = batch(8)
    labels = (torch.rand(8, 4, generator=torch.Generator().manual_seed(3)) > 0.5).float()
    _, soft = mixup(inputs, labels, random_of(range(8)), alpha=1.0)
    random = random_of(range(8))
    random.uniform()
    share = random.beta(1.0)[:, None]
    outputs = torch.randn(8, 4)
    each = functional.binary_cross_entropy_with_logits
    own, other = (each(outputs, part, reduction="none") for part in (labels, labels[neighbours(8)]))
    torch.testing.assert_close(each(outputs, soft), (share * own + (1 - share) * other).mean())


def test_numbers_to_predict_are_averaged_with_the_share_of_the_inputs() -> None:
    numbers = torch.arange(6.0)
    mixed, targets = mixup(numbers[:, None], numbers, random_of(range(6)), alpha=1.0)
    assert torch.equal(mixed[:, 0], targets)
    assert not torch.equal(targets, numbers)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_mixup_keeps_the_type(dtype: torch.dtype) -> None:
    inputs, targets = batch()
    mixed, soft = mixup(inputs.to(dtype), targets, random_of(range(7)), classes=3)
    assert (mixed.dtype, soft.dtype, mixed.shape, soft.shape) == (dtype, torch.float32, inputs.shape, (7, 3))


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_with_p_0_nothing_changes_but_the_form_of_the_targets(mix: Any) -> None:
    inputs, targets = batch()
    inputs[1] = float("nan")  # of a partner that is not used
    mixed, soft = mix(inputs, targets, random_of(range(7)), p=0, classes=3)
    assert torch.equal(mixed.nan_to_num(9), inputs.nan_to_num(9))
    assert torch.equal(soft, functional.one_hot(targets, 3).float())


def test_p_says_how_many_are_mixed() -> None:
    numbers = torch.arange(20_000.0)
    mixed, _ = mixup(numbers[:, None], numbers, random_of(range(20_000)), alpha=1.0, p=0.3)
    assert float((mixed[:, 0] != numbers).float().mean()) == pytest.approx(0.3, abs=0.01)


# --- CutMix


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_cutmix_and_its_loss_equal_those_computed_pixel_by_pixel(n: int) -> None:
    images, targets = batch(n, side=9)
    random = random_of(range(n))
    drawn, centre = random.beta(1.0).tolist(), random.uniform(2).tolist()
    cut, soft = cutmix(images, targets, random_of(range(n)), classes=3)
    share = np.zeros(n)
    for i, partner in enumerate(neighbours(n)):
        side = int(9 * (1 - drawn[i]) ** 0.5)
        middle = [int(place * 9) for place in centre[i]]
        rows, columns = (range(max(0, m - side // 2), min(9, m + side // 2)) for m in middle)
        wanted = images[i].clone()
        for y in rows:
            for x in columns:
                wanted[:, y, x] = images[partner][:, y, x]
        assert torch.equal(cut[i], wanted)
        share[i] = 1 - len(rows) * len(columns) / 81
    assert n < 7 or len(set(share)) > 3
    outputs = torch.randn(n, 3, generator=torch.Generator().manual_seed(2))
    found = functional.cross_entropy(outputs.double(), soft.double())
    assert float(found) == pytest.approx(loss_by_hand(outputs, targets, targets[neighbours(n)], share), rel=1e-6)


def test_the_share_of_a_target_is_the_share_of_its_pixels() -> None:
    """Images of one colour each, so that the mean over the pixels tells who they belong to."""
    n = 200
    colours = torch.eye(n)[:, :, None, None].expand(n, n, 13, 10)
    cut, soft = cutmix(colours, torch.arange(n), random_of(range(n)), classes=n)
    torch.testing.assert_close(cut.mean(dim=(2, 3)), soft)
    assert 0.55 < float(soft.diagonal().mean()) < 0.75  # half, and what was cut off at the borders


def test_cutmix_takes_bytes() -> None:
    images = (batch()[0] * 255).to(torch.uint8)
    cut, _ = cutmix(images, batch()[1], random_of(range(7)), classes=3)
    assert cut.dtype == torch.uint8
    assert not torch.equal(cut, images)


def test_classes_of_pixels_become_shares_of_classes_along_axis_1() -> None:
    images, _ = batch(4)
    masks = (images[:, 0] * 3).long()
    _, soft = mixup(images, masks, random_of(range(4)), alpha=1.0, classes=3)
    assert soft.shape == (4, 3, 6, 6)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(4, 6, 6))


# --- partners


@given(order=st.permutations(range(12)), cut=st.integers(1, 11))
def test_with_given_partners_a_sample_is_mixed_alike_in_any_batch(order: list[int], cut: int) -> None:
    inputs, targets = batch(12)
    pool = batch(40)
    for mix in (mixup, cutmix):
        whole = mix(inputs, targets, random_of(range(12)), classes=3, among=pool)
        parts = [
            mix(inputs[rows], targets[rows], random_of(rows), classes=3, among=pool)
            for rows in (order[:cut], order[cut:])
        ]
        for side in (0, 1):
            assert torch.equal(torch.cat([part[side] for part in parts]), whole[side][order])


def test_given_partners_are_all_drawn_equally_often() -> None:
    pool = torch.eye(5)
    mixed, _ = mixup(torch.zeros(2000, 5), torch.zeros(2000, 5), random_of(range(2000)), alpha=1.0, among=(pool, pool))
    counts = (mixed > 0).sum(dim=0)
    assert int(counts.sum()) == 2000
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4  # the seed is fixed


@pytest.mark.parametrize("cut", [2, 4, 6])
@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_neighbours_stay_neighbours_in_batches_of_an_even_size(mix: Any, cut: int) -> None:
    inputs, targets = batch(11)
    whole = mix(inputs, targets, random_of(range(11)), classes=3)
    parts = [
        mix(inputs[part], targets[part], random_of(range(11)[part]), classes=3)
        for part in (slice(cut), slice(cut, None))
    ]
    for side in (0, 1):
        assert torch.equal(torch.cat([part[side] for part in parts]), whole[side])


def test_several_tensors_are_mixed_alike_by_copies_of_the_random() -> None:
    inputs, targets = batch(8)
    random = random_of(range(8))
    first, soft = mixup(inputs, targets, copy(random), alpha=1.0, classes=3)
    second, again = mixup(2 * inputs, targets, random, alpha=1.0, classes=3)
    torch.testing.assert_close(second, 2 * first)
    assert torch.equal(soft, again)


@pytest.mark.parametrize("mix", [mixup, cutmix])
def test_another_epoch_mixes_otherwise(mix: Any) -> None:
    inputs, targets = batch(8)
    first, second = (mix(inputs, targets, random_of(range(8), epoch=epoch), classes=3)[1] for epoch in (0, 1))
    assert not torch.equal(first, second)


# --- smoothed labels


@pytest.mark.parametrize("by", [0.0, 0.1, 1.0])
def test_the_loss_of_smoothed_labels_equals_label_smoothing_of_pytorch(by: float) -> None:
    targets = torch.tensor([0, 2, 4, 4])
    outputs = torch.randn(4, 5)
    found = functional.cross_entropy(outputs, smooth(targets, classes=5, by=by))
    torch.testing.assert_close(found, functional.cross_entropy(outputs, targets, label_smoothing=by))
    shares = functional.one_hot(targets, 5).float()
    assert torch.equal(smooth(shares, classes=5, by=by), smooth(targets, classes=5, by=by))


def test_smoothing_before_and_after_mixing_is_the_same() -> None:
    inputs, targets = batch(8)
    before = mixup(inputs, smooth(targets, classes=3), random_of(range(8)), alpha=1.0)[1]
    after = smooth(mixup(inputs, targets, random_of(range(8)), alpha=1.0, classes=3)[1], classes=3)
    torch.testing.assert_close(before, after)


# --- what is refused


def test_what_cannot_be_mixed_is_refused_with_what_to_write() -> None:
    inputs, targets = batch()
    random = random_of(range(7))
    with pytest.raises(UsageError, match=r"torch.uint8 cannot hold averages; convert them with \.float\(\)"):
        mixup(inputs.to(torch.uint8), targets, random, classes=3)
    for mix in (mixup, cutmix):
        with pytest.raises(UsageError, match=r"targets are torch.int64: .* classes=10; convert numbers"):
            mix(inputs, targets, random)
        with pytest.raises(UsageError, match=r"class numbers from 0 to 1 \(classes=2\)"):
            mix(inputs, targets, random, classes=2)
        with pytest.raises(UsageError, match=r"must be one tensor, got dict; .* copy\(random\)"):
            mix({"images": inputs}, targets, random)
        for pool in ((inputs[:, :1], targets), (inputs, targets[:3]), (inputs[:0], targets[:0])):
            with pytest.raises(UsageError, match=r"like those of the batch, \(7, 2, 6, 6\), got \("):
                mix(inputs, targets, random, classes=3, among=pool)
        with pytest.raises(UsageError, match="alpha > 0, got 0"):
            mix(inputs, targets, random, classes=3, alpha=0)
        with pytest.raises(UsageError, match="probability between 0 and 1, got 2"):
            mix(inputs, targets, random, classes=3, p=2)
    with pytest.raises(UsageError, match=r"by must be a share between 0 and 1, got 1\.5"):
        smooth(targets, classes=3, by=1.5)
