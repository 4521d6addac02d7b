"""Pixels: one image file as bytes of one size.

In:    a path that Pillow can open.
Out:   uint8 (height, width, channels), upright.
Next:  `decoded` keeps those of many files in one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batteries.errors import DataError

if TYPE_CHECKING:
    from PIL import Image


def read_pixels(path: Path, size: tuple[int, int], mode: str) -> NDArray[np.uint8]:
    """Decode an image, turn it as its EXIF says, and stretch it to `size`, height and width.

    Raises
    ------
    DataError
        Saying why it cannot be decoded, without the path.

    """
    from PIL import Image, ImageOps

    height, width = size
    try:
        with Image.open(path) as image:
            image.draft(mode, (2 * width, 2 * height))  # a JPEG much larger than asked for is decoded smaller
            upright = ImageOps.exif_transpose(_eight_bits(image))
            resized = upright.convert(mode).resize((width, height), Image.Resampling.BILINEAR)
    except FileNotFoundError as error:
        raise DataError("no such file") from error
    except Exception as error:
        raise DataError(f"{type(error).__name__}: {error}".replace(str(path), "it")) from error
    return np.asarray(resized, dtype=np.uint8).reshape(height, width, len(resized.getbands()))


def _eight_bits(image: Image.Image) -> Image.Image:
    """An image of 16-bit values with their upper byte; Pillow would cut them off at 255."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise DataError(f"its pixels are of Pillow's mode {image.mode!r}, without a range; save it with 8 or 16 bits")
    return image
