"""Images: flips, shifts and erased boxes, on tensors of any type and without further packages.

In:    images of shape (n, channels, height, width) and a `SampleRandom` for their rows.
Out:   images of the same shape, type and device.
Next:  `Experiment.augment` returns them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from batteries.errors import UsageError
from batteries.prepare.augment.sample_random import SampleRandom


class Box(NamedTuple):
    """A box in each image of a batch: floating tensors of whole numbers, shape (n,)."""

    top: Tensor
    left: Tensor
    bottom: Tensor
    """The first row below it."""
    right: Tensor
    """The first column beside it."""


def random_shift(images: Tensor, random: SampleRandom, pixels: int) -> Tensor:
    """Move each image by up to `pixels` in both directions, filling with zeros.

    `images` has shape (n, channels, height, width); the result has the same shape and type.
    """
    n, channels, height, width = images.shape
    moved = random.integers(-pixels, pixels + 1, 2).to(images.device) + pixels
    padded = torch.nn.functional.pad(images, (pixels, pixels, pixels, pixels))
    rows = torch.arange(height, device=images.device)[None] + moved[:, :1]
    columns = torch.arange(width, device=images.device)[None] + moved[:, 1:]
    places = rows[:, :, None] * padded.shape[-1] + columns[:, None, :]
    index = places.reshape(n, 1, height * width).expand(n, channels, height * width)
    return padded.flatten(2).gather(2, index).reshape(n, channels, height, width)


def random_flip(images: Tensor, random: SampleRandom, *, p: float = 0.5, axis: int = -1) -> Tensor:
    """Mirror each image with probability `p`.

    `images` has shape (n, ...) and any type; so has the result. `axis` is the one whose order is reversed: -1 mirrors
    left and right, -2 top and bottom.

    Raises
    ------
    UsageError
        When `p` is no probability.

    Example
    -------
    >>> random = SampleRandom(1, epoch=0, rows=torch.arange(3))
    >>> random_flip(torch.tensor([[1, 2], [3, 4], [5, 6]]), random, p=1.0).tolist()
    [[2, 1], [4, 3], [6, 5]]

    """
    flipped = random.chance(p).to(images.device)
    return torch.where(per_sample(flipped, images), images.flip(axis), images)


def random_erasing(
    images: Tensor,
    random: SampleRandom,
    *,
    p: float = 0.5,
    area: tuple[float, float] = (0.02, 0.4),
    aspect: tuple[float, float] = (0.3, 1 / 0.3),
    fill: float | Tensor = 0.0,
) -> Tensor:
    """Erase one box in each image, with probability `p` (Zhong, Zheng, Kang, Li & Yang 2020, AAAI; arXiv 1708.04896).

    `images` has shape (n, channels, height, width) and any type; so has the result.

    Parameters
    ----------
    area
        Least and largest share of the image; uniform in between.
    aspect
        Least and largest height over width; its logarithm is uniform, so that lying boxes are as frequent as standing
        ones. The paper draws the ratio itself. A side longer than the image is cut to it, where the paper draws again.
    fill
        What stands in the box: a number, or a tensor that broadcasts to the images: means of shape (channels, 1, 1),
        or noise, `random.uniform(*images.shape[1:])`.

    Raises
    ------
    UsageError
        When `p` is no probability, or the limits of `area` or `aspect` are none.

    Example
    -------
    >>> random = SampleRandom(1, epoch=0, rows=torch.arange(8))
    >>> random_erasing(torch.ones(8, 3, 32, 32), random, p=1.0, area=(0.25, 0.25), aspect=(1.0, 1.0)).mean().item()
    0.75

    """
    size = (images.shape[-2], images.shape[-1])
    erased = inside(random_box(random, size, area, aspect), size) & random.chance(p)[:, None, None]
    return filled(images, erased.to(images.device)[:, None], fill)


def random_box(
    random: SampleRandom, size: tuple[int, int], area: tuple[float, float], aspect: tuple[float, float]
) -> Box:
    """A box for each sample, of whole pixels and anywhere inside an image of some height and width."""
    for name, (low, high), most in (("area", area, 1.0), ("aspect", aspect, math.inf)):
        if not 0 < low <= high <= most:
            raise UsageError(f"{name} needs 0 < least <= largest <= {most:g}, got {(low, high)}")
    share = random.between(*area)
    ratio = torch.exp(random.between(math.log(aspect[0]), math.log(aspect[1])))
    pixels = share * (size[0] * size[1])
    height = torch.sqrt(pixels * ratio).round().clamp(1, size[0])
    width = torch.sqrt(pixels / ratio).round().clamp(1, size[1])
    down, across = random.uniform(2).unbind(1)
    top, left = (down * (size[0] + 1 - height)).floor(), (across * (size[1] + 1 - width)).floor()
    return Box(top, left, top + height, left + width)


def inside(box: Box, size: tuple[int, int]) -> Tensor:
    """Which pixels lie in the box of each sample: bool, shape (n, height, width)."""
    rows, columns = (torch.arange(side, device=box.top.device)[None] for side in size)
    down = (rows >= box.top[:, None]) & (rows < box.bottom[:, None])
    across = (columns >= box.left[:, None]) & (columns < box.right[:, None])
    return down[:, :, None] & across[:, None, :]


def filled(data: Tensor, where: Tensor, fill: float | Tensor) -> Tensor:
    """`data` with `fill` in some places. A number stays on the host, so that no device waits for it."""
    return torch.where(where, fill.to(data), data) if isinstance(fill, Tensor) else data.masked_fill(where, fill)


def per_sample(values: Tensor, data: Tensor) -> Tensor:
    """One value a sample, shape (n,), so that it broadcasts over `data`, shape (n, ...)."""
    return values.reshape(-1, *[1] * (data.ndim - 1))
