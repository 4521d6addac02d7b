"""Vision: rotations, crops and colours through kornia (the extra `vision`), each image with its own numbers.

In:    floating images of shape (n, channels, height, width) and a `SampleRandom` for their rows.
Out:   images of the same type and device.
Next:  `Experiment.augment` returns them.

kornia's own random classes draw from PyTorch's global generator, one batch after another. Here the numbers come from
the sample, and kornia's functions apply them.
"""

from __future__ import annotations

import math
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from batteries.errors import UsageError
from batteries.prepare.augment.images import per_sample, random_box
from batteries.prepare.augment.sample_random import SampleRandom

Mode = Literal["bilinear", "nearest"]


def random_affine(
    images: Tensor,
    random: SampleRandom,
    *,
    degrees: float = 10.0,
    shift: float = 0.1,
    scale: tuple[float, float] = (0.9, 1.1),
    shear: float = 0.0,
    p: float = 1.0,
    mode: Mode = "bilinear",
    padding: Literal["zeros", "border", "reflection"] = "zeros",
) -> Tensor:
    """Turn, move, scale and shear each image about its centre, with probability `p`.

    Parameters
    ----------
    images
        Floating, shape (n, channels, height, width); the result has the same shape and type.
    degrees, shear
        The largest angle in either direction; uniform. Shear is in both axes.
    shift
        The largest move in either direction, as a share of height and of width.
    scale
        Least and largest size; its logarithm is uniform.
    mode
        `nearest` for masks; give them a copy of `random` to be changed as their images.
    padding
        What comes in from outside.

    Raises
    ------
    UsageError
        When kornia is not installed, images are not floating, or a number is out of range.

    Example
    -------
    >>> random = SampleRandom(1, epoch=0, rows=torch.arange(4))
    >>> random_affine(torch.rand(4, 3, 32, 32), random, degrees=30).shape
    torch.Size([4, 3, 32, 32])

    """
    kornia = _kornia("random_affine", images)
    if not 0 < scale[0] <= scale[1]:
        raise UsageError(f"random_affine: scale needs 0 < least <= largest, got {scale}")
    height, width = images.shape[-2:]
    angle = random.between(-degrees, degrees)
    across, down = random.between(-shift, shift, 2).unbind(1)
    size = torch.exp(random.between(math.log(scale[0]), math.log(scale[1])))
    sheared = random.between(-shear, shear, 2) * (math.pi / 180)
    matrix = kornia.geometry.get_affine_matrix2d(
        torch.stack([across * width, down * height], dim=1),
        torch.stack([torch.full_like(angle, (side - 1) / 2) for side in (width, height)], dim=1),
        torch.stack([size, size], dim=1),
        angle,
        sx=sheared[:, 0],
        sy=sheared[:, 1],
    )
    warped = kornia.geometry.warp_affine(
        images, matrix[:, :2].to(images), (height, width), mode=mode, padding_mode=padding
    )
    return _some(random, p, warped, images)


def random_resized_crop(
    images: Tensor,
    random: SampleRandom,
    *,
    size: tuple[int, int],
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    mode: Mode = "bilinear",
) -> Tensor:
    """Cut a box out of each image and bring it to one size (Szegedy et al. 2015, CVPR).

    Parameters
    ----------
    images
        Floating, shape (n, channels, height, width).
    size
        Height and width of the result, shape (n, channels, *size).
    area, aspect
        As in `random_erasing`: shares of the image, and height over width.
    mode
        `nearest` for masks; give them a copy of `random`.

    Raises
    ------
    UsageError
        When kornia is not installed, images are not floating, or a number is out of range.

    Example
    -------
    >>> random = SampleRandom(1, epoch=0, rows=torch.arange(4))
    >>> random_resized_crop(torch.rand(4, 3, 48, 64), random, size=(32, 32)).shape
    torch.Size([4, 3, 32, 32])

    """
    kornia = _kornia("random_resized_crop", images)
    top, left, below, beside = random_box(random, (images.shape[-2], images.shape[-1]), area, aspect)
    bottom, right = below - 1, beside - 1
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    boxes = torch.stack([torch.stack(corner, dim=1) for corner in corners], dim=1)
    cropped: Tensor = kornia.geometry.crop_and_resize(images, boxes.to(images), size, mode=mode)
    return cropped


def random_colour(
    images: Tensor,
    random: SampleRandom,
    *,
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    hue: float = 0.0,
    p: float = 1.0,
) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image, in this order, with probability `p`.

    Parameters
    ----------
    images
        Red, green and blue from 0 to 1, floating, shape (n, 3, height, width); with `saturation=0, hue=0`, any number
        of channels. The result has the same shape and type, from 0 to 1.
    brightness, contrast, saturation
        Factors are uniform from 1 - this to 1 + this. Brightness multiplies; contrast and saturation blend with the
        mean grey of the image and with each pixel's grey, as in Pillow.
    hue
        The largest turn in either direction, as a share of the whole circle: 0.5 at most.

    Raises
    ------
    UsageError
        When kornia is not installed, images are not floating or not RGB, or a number is out of range.

    Example
    -------
    >>> random = SampleRandom(1, epoch=0, rows=torch.arange(4))
    >>> random_colour(torch.rand(4, 3, 32, 32), random, hue=0.05).shape
    torch.Size([4, 3, 32, 32])

    """
    kornia = _kornia("random_colour", images)
    for name, value, most in (
        ("brightness", brightness, 1),
        ("contrast", contrast, 1),
        ("saturation", saturation, 1),
        ("hue", hue, 0.5),
    ):
        if not 0 <= value <= most:
            raise UsageError(f"random_colour: {name} must be between 0 and {most}, got {value}")
    if (saturation or hue) and images.shape[1] != 3:
        raise UsageError(
            f"random_colour: saturation and hue need 3 channels, got images {tuple(images.shape)}; set both to 0"
        )
    enhance, changed = kornia.enhance, images
    if brightness:
        changed = enhance.adjust_brightness_accumulative(changed, random.between(1 - brightness, 1 + brightness))
    if contrast:
        factor = random.between(1 - contrast, 1 + contrast)
        changed = enhance.adjust_contrast_with_mean_subtraction(changed, factor)
    if saturation:
        factor = random.between(1 - saturation, 1 + saturation)
        changed = enhance.adjust_saturation_with_gray_subtraction(changed, factor)
    if hue:
        changed = enhance.adjust_hue(changed, random.between(-hue, hue) * (2 * math.pi))
    return _some(random, p, changed, images)


def _kornia(what: str, images: Tensor) -> Any:
    """kornia, once it is sure that it can take the images."""
    if images.ndim != 4 or not images.is_floating_point():
        raise UsageError(
            f"{what} needs floating images (n, channels, height, width), got {images.dtype} {tuple(images.shape)};"
            " convert whole numbers with .float() / 255"
        )
    try:
        return import_module("kornia")
    except ImportError:
        raise UsageError(f"{what} needs kornia, which is not installed; run pip install 'batteries[vision]'") from None


def _some(random: SampleRandom, p: float, changed: Tensor, images: Tensor) -> Tensor:
    """Changed images with probability `p`, else the images as they are."""
    return torch.where(per_sample(random.chance(p).to(images.device), images), changed, images)
