"""Images: flips, erased boxes, affine changes, colours and crops, each image by its own numbers."""

from __future__ import annotations

import builtins
import importlib
import math
from collections.abc import Callable
from copy import copy
from typing import Any

import kornia
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy import ndimage, stats
from torch import Tensor

from batteries.errors import UsageError
from batteries.prepare.augment import (
    SampleRandom,
    random_affine,
    random_colour,
    random_erasing,
    random_flip,
    random_resized_crop,
    random_shift,
)

CHANGES: dict[str, Callable[..., Tensor]] = {
    "shift": lambda images, random: random_shift(images, random, pixels=2),
    "flip": random_flip,
    "erasing": random_erasing,
    "affine": lambda images, random: random_affine(images, random, degrees=20, shear=5),
    "colour": lambda images, random: random_colour(images, random, hue=0.1),
    "crop": lambda images, random: random_resized_crop(images, random, size=(6, 5)),
}


def random_of(rows: Any, *, epoch: int = 0) -> SampleRandom:
    return SampleRandom(5, epoch=epoch, rows=torch.as_tensor(rows))


def photos(n: int = 12, *, height: int = 8, width: int = 10) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(1))


# --- what all promise


@pytest.mark.parametrize("change", CHANGES)
@settings(max_examples=15)
@given(order=st.permutations(range(12)), cut=st.integers(1, 11))
def test_an_image_is_changed_alike_in_any_batch(change: str, order: list[int], cut: int) -> None:
    whole = CHANGES[change](photos(), random_of(range(12)))
    parts = [CHANGES[change](photos()[rows], random_of(rows)) for rows in (order[:cut], order[cut:])]
    assert torch.equal(torch.cat(parts), whole[order])
    assert change == "crop" or not torch.equal(whole, photos())


@pytest.mark.parametrize("change", CHANGES)
def test_another_epoch_changes_images_otherwise_and_no_generator_is_touched(change: str) -> None:
    before = torch.get_rng_state()
    first, second = (CHANGES[change](photos(), random_of(range(12), epoch=epoch)) for epoch in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_the_type_is_kept(change: str, dtype: torch.dtype) -> None:
    assert CHANGES[change](photos().to(dtype), random_of(range(12))).dtype == dtype


@pytest.mark.parametrize("change", [random_flip, random_erasing, random_affine, random_colour])
def test_with_p_0_images_stay_as_they_are(change: Any) -> None:
    assert torch.equal(change(photos(), random_of(range(12)), p=0), photos())


def test_a_mask_is_changed_as_its_image_by_a_copy_of_the_random() -> None:
    """An image that shows its mask goes on showing it."""
    masks = (photos(30, height=9, width=9)[:, :1] > 0.5).float()
    random = random_of(range(30))
    same = copy(random)
    images, masks = (
        random_flip(random_affine(seen, one, degrees=40, mode="nearest"), one)
        for seen, one in ((masks.expand(30, 3, 9, 9), random), (masks, same))
    )
    assert torch.equal(images, masks.expand(30, 3, 9, 9))


# --- flips


@pytest.mark.parametrize("axis", [-1, -2])
def test_a_flip_mirrors_half_of_the_images(axis: int) -> None:
    images = (photos(2000) * 255).to(torch.uint8)
    found = random_flip(images, random_of(range(2000)), axis=axis).numpy()
    mirrored = np.flip(images.numpy(), axis)
    same, flipped = ((found == other.reshape(found.shape)).all(axis=(1, 2, 3)) for other in (images.numpy(), mirrored))
    assert (same ^ flipped).all()
    assert stats.binomtest(int(flipped.sum()), 2000).pvalue > 1e-4  # the seed is fixed


# --- erased boxes


def boxes(erased: Tensor) -> list[tuple[int, int, int, int]]:
    """Top, left, height and width of the one box in each image, which must be full."""
    found = []
    for image in erased:
        ys, xs = image.nonzero(as_tuple=True)
        top, left = int(ys.min()), int(xs.min())
        height, width = int(ys.max()) - top + 1, int(xs.max()) - left + 1
        assert len(ys) == height * width
        found.append((top, left, height, width))
    return found


def test_erased_is_one_box_of_the_area_and_shape_asked_for_anywhere_in_the_image() -> None:
    images = torch.ones(3000, 2, 40, 60)
    found = random_erasing(images, random_of(range(3000)), p=1, area=(0.05, 0.2), aspect=(0.5, 2.0))
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(found[:, 0], found[:, 1])
    all_boxes = np.array(boxes(found[:, 0] == 0))
    height, width = all_boxes[:, 2], all_boxes[:, 3]
    shares, ratios = height * width / 2400, height / width
    assert 0.045 < shares.min() < 0.06
    assert 0.19 < shares.max() < 0.21
    assert 0.45 < ratios.min() < 0.55
    assert 1.85 < ratios.max() < 2.2
    assert np.median(ratios) == pytest.approx(1, abs=0.05)  # its logarithm is even
    assert (all_boxes[:, :2].min(axis=0) == 0).all()
    assert (all_boxes[:, :2] + all_boxes[:, 2:]).max(axis=0).tolist() == [40, 60]


def test_a_box_longer_than_the_image_is_cut_to_it() -> None:
    found = random_erasing(torch.ones(50, 1, 4, 40), random_of(range(50)), p=1, area=(0.5, 0.5), aspect=(1, 1))
    assert {box[2] for box in boxes(found[:, 0] == 0)} == {4}


def test_p_says_how_many_images_lose_a_box() -> None:
    found = random_erasing(torch.ones(5000, 1, 8, 8), random_of(range(5000)), p=0.25)
    lost = int((found == 0).flatten(1).any(dim=1).sum())
    assert stats.binomtest(lost, 5000, 0.25).pvalue > 1e-4


def test_a_box_is_filled_with_a_number_with_means_or_with_noise() -> None:
    images = photos()
    erased = random_erasing(images, random_of(range(12)), p=1, fill=7.0) == 7.0
    means = images.mean(dim=(0, 2, 3))[:, None, None]
    by_means = random_erasing(images, random_of(range(12)), p=1, fill=means)
    assert torch.equal(by_means, torch.where(erased, means, images))
    noise = random_of(range(100, 112)).uniform(*images.shape[1:])
    by_noise = random_erasing(images, random_of(range(12)), p=1, fill=noise)
    assert torch.equal(by_noise, torch.where(erased, noise, images))
    in_bytes = random_erasing((images * 255).to(torch.uint8), random_of(range(12)), p=1, fill=9)
    assert in_bytes.dtype == torch.uint8
    assert (in_bytes[erased] == 9).all()


# --- through kornia


def test_an_affine_change_equals_scipys_with_the_same_matrix() -> None:
    """Turned, scaled and moved about the centre: the inverse matrix written out, sampled by SciPy."""
    images = photos(6, height=15, width=11)
    random = random_of(range(6))
    angles, moves = random.between(-25, 25).double(), random.between(-0.2, 0.2, 2).double()
    sizes = torch.exp(random.between(math.log(0.8), math.log(1.2))).double()
    found = random_affine(images, random_of(range(6)), degrees=25, shift=0.2, scale=(0.8, 1.2))
    for i, image in enumerate(images.double().numpy()):
        turn, size = -math.radians(float(angles[i])), float(sizes[i])  # to the right, in kornia
        forward = size * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])  # of (y, x)
        back = np.linalg.inv(forward)
        centre = np.array([7.0, 5.0])
        moved = centre + np.array([float(moves[i, 1]) * 15, float(moves[i, 0]) * 11])
        offset = centre - back @ moved
        wanted = [
            ndimage.affine_transform(channel, back, offset, order=1, mode="grid-constant", cval=0.0)
            for channel in image
        ]
        np.testing.assert_allclose(found[i].double(), wanted, atol=2e-5)  # places computed in float32


def test_an_affine_change_by_nothing_changes_nothing() -> None:
    found = random_affine(photos(), random_of(range(12)), degrees=0, shift=0, scale=(1, 1))
    torch.testing.assert_close(found, photos(), atol=1e-5, rtol=0)


def test_colours_are_changed_as_pillow_does() -> None:
    images = (photos(4) * 255).round() / 255
    for name, enhancer in (("brightness", "Brightness"), ("contrast", "Contrast"), ("saturation", "Color")):
        off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
        found = random_colour(images, random_of(range(4)), **{**off, name: 0.5})
        factors = random_of(range(4)).between(0.5, 1.5).tolist()
        for image, factor, result in zip(images, factors, found, strict=True):
            picture = Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy())
            wanted = np.asarray(getattr(ImageEnhance, enhancer)(picture).enhance(factor)) / 255
            np.testing.assert_allclose(result.permute(1, 2, 0), wanted, atol=2.5 / 255)  # Pillow rounds to bytes


def test_a_hue_turned_by_a_third_makes_red_green() -> None:
    class Third(SampleRandom):
        def uniform(self, *shape: int) -> Tensor:
            return torch.full((len(self._base), *shape), (1 / 3 + 0.5))

    red = torch.tensor([1.0, 0.0, 0.0])[None, :, None, None].expand(2, 3, 4, 4)
    same = Third(1, epoch=0, rows=torch.arange(2))
    found = random_colour(red, same, brightness=0, contrast=0, saturation=0, hue=0.5)
    torch.testing.assert_close(found, red.roll(1, dims=1), atol=1e-5, rtol=0)


def test_a_crop_of_the_whole_image_in_its_size_is_the_image() -> None:
    images = photos(height=9, width=9)
    found = random_resized_crop(images, random_of(range(12)), size=(9, 9), area=(1, 1), aspect=(1, 1))
    torch.testing.assert_close(found, images, atol=1e-5, rtol=0)


def test_a_crop_shows_a_box_of_the_image_and_of_nothing_else() -> None:
    """Pixels hold their own place, so that the corners of a crop tell where it lies."""
    ys, xs = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    places = torch.stack([ys, xs]).expand(500, 2, 30, 40)
    found = random_resized_crop(places, random_of(range(500)), size=(7, 7), area=(0.1, 0.5), aspect=(1, 1))
    first, last = found[:, :, 0, 0], found[:, :, -1, -1]
    sides = last - first + 1
    torch.testing.assert_close(sides, sides.round(), atol=1e-3, rtol=0)
    shares = sides.prod(dim=1) / 1200
    assert 0.09 < float(shares.min()) < 0.12
    assert 0.45 < float(shares.max()) < 0.52
    assert float(first.min()) == pytest.approx(0, abs=1e-3)
    assert last.amax(dim=0).tolist() == pytest.approx([29, 39], abs=1e-3)


def test_kornias_own_random_numbers_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kornia.__version__ >= "0.8"
    for name in ("rand", "randn", "randint", "bernoulli"):
        monkeypatch.setattr(torch, name, None)
    images = torch.ones(4, 3, 8, 8)
    for change in (CHANGES["affine"], CHANGES["colour"], CHANGES["crop"]):
        change(images, random_of(range(4)))


# --- what is refused


def test_without_kornia_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without(name: str, package: str | None = None) -> Any:
        if name == "kornia":
            raise builtins.ImportError(name)
        return real(name, package)

    monkeypatch.setattr("batteries.prepare.augment.vision.import_module", without)
    for change in ("affine", "colour", "crop"):
        with pytest.raises(UsageError, match=r"needs kornia, which is not installed; run pip install 'batteries\[vis"):
            CHANGES[change](photos(), random_of(range(12)))


def test_images_and_numbers_that_make_no_sense_are_refused() -> None:
    random = random_of(range(12))
    for change in ("affine", "colour", "crop"):
        with pytest.raises(UsageError, match=r"got torch.uint8 \(12, 3, 8, 10\); convert whole numbers with"):
            CHANGES[change](photos().to(torch.uint8), random)
    with pytest.raises(UsageError, match=r"area needs 0 < least <= largest <= 1, got \(0.5, 1.2\)"):
        random_erasing(photos(), random, area=(0.5, 1.2))
    with pytest.raises(UsageError, match=r"aspect needs 0 < least <= largest <= inf, got \(2, 1\)"):
        random_erasing(photos(), random, aspect=(2, 1))
    with pytest.raises(UsageError, match=r"scale needs 0 < least <= largest, got \(0, 1\)"):
        random_affine(photos(), random, scale=(0, 1))
    with pytest.raises(UsageError, match=r"hue must be between 0 and 0.5, got 0.6"):
        random_colour(photos(), random, hue=0.6)
    with pytest.raises(UsageError, match=r"saturation and hue need 3 channels, got images \(12, 1, 8, 10\); set both"):
        random_colour(photos()[:, :1], random)
    random_colour(photos()[:, :1], random, saturation=0)
