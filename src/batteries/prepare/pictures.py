"""Pictures: image files read once, many at a time; a file that is damaged is named, never fatal.

In:    paths.
Out:   for each its size, mode, sums of pixels, fingerprint and a small copy; or why it cannot be read.
Next:  the study counts them; `split` groups near-duplicates by their fingerprints.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from batteries.prepare.cores import usable_cores
from batteries.prepare.duplicates import fingerprint
from batteries.progress import Progress

if TYPE_CHECKING:
    from PIL.Image import Image

SMALL = 48
"""Pixels on a side of the small copy at most."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Ends of the names of image files."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image file that could be read whole."""

    width: int
    height: int
    mode: str
    """As Pillow names it: L is grey, RGB colour, RGBA with transparency, P a palette, I;16 sixteen bits."""
    format: str
    total: NDArray[np.float64]
    """Shape (channels,): sums of its values, scaled to 0 to 1; three channels, or one for grey."""
    squares: NDArray[np.float64]
    """The same of their squares."""
    hash: int
    grey: NDArray[np.uint8]
    """`batteries.prepare.duplicates.fingerprint`."""
    small: NDArray[np.uint8]
    """Shape (height, width, 3), `SMALL` pixels on the longer side."""


@dataclass(frozen=True)
class Unreadable:
    """One image file that could not."""

    path: str
    reason: str


def read_pictures(paths: Sequence[Path], *, show: bool = True) -> list[Picture | Unreadable]:
    """Read image files, in their order, with as many threads as there are cores.

    Every file is decoded to its end, so that one cut short is noticed.

    >>> read_pictures([Path("not-there.png")])
    [Unreadable(path='not-there.png', reason='no such file')]
    """
    found = []
    with (
        warnings.catch_warnings(),
        Progress("images", total=len(paths), show=show) as progress,
        ThreadPoolExecutor(usable_cores()) as pool,
    ):
        warnings.simplefilter("ignore")  # of odd metadata and large sizes
        for picture in pool.map(read_picture, paths):
            found.append(picture)
            progress.advance()
    return found


def read_picture(path: Path) -> Picture | Unreadable:
    """Read one image file."""
    from PIL import Image, UnidentifiedImageError

    try:
        if not path.stat().st_size:
            return Unreadable(str(path), "empty")
        with Image.open(path) as image:
            image.load()
            return _described(image)
    except FileNotFoundError:
        return Unreadable(str(path), "no such file")
    except UnidentifiedImageError:
        return Unreadable(str(path), "not an image")
    except (
        OSError,
        SyntaxError,
        ValueError,
        LookupError,
        EOFError,
        struct.error,
        Image.DecompressionBombError,
    ) as error:
        return Unreadable(str(path), _short(error, path))


def _short(error: BaseException, path: Path) -> str:
    """Pillow's words without the path, which stands beside them."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).replace(str(path), "").strip(" '\"") or type(error).__name__


def _described(image: Image) -> Picture:
    from PIL.Image import Resampling

    plain = _eight_bits(image)
    total, squares = _sums(plain)
    bits, grey = fingerprint(plain)
    small = plain.convert("RGB")
    small.thumbnail((SMALL, SMALL), Resampling.BILINEAR)
    return Picture(
        width=image.width,
        height=image.height,
        mode=image.mode,
        format=image.format or "",
        total=total,
        squares=squares,
        hash=bits,
        grey=grey,
        small=np.asarray(small),
    )


def _eight_bits(image: Image) -> Image:
    """Return a grey or colour image of eight bits; sixteen bits are divided by 256, other numbers by their largest."""
    from PIL.Image import fromarray

    if image.mode in ("L", "RGB"):
        return image
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image).astype(np.float64)
        top = 65535.0 if image.mode.startswith("I;16") else float(values.max()) or 1.0
        return fromarray((values.clip(0, top) / top * 255).round().astype(np.uint8))
    return image.convert("L" if image.mode in ("1", "LA", "La") else "RGB")


def _sums(image: Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exact, from how often each of the 256 values occurs."""
    counts = np.array(image.histogram(), dtype=np.float64).reshape(-1, 256)
    values = np.arange(256) / 255
    return counts @ values, counts @ values**2
