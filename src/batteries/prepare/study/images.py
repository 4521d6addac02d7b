"""Images: figures for a column that holds an image in every row.

In:    a polars Array column of shape (h, w), (c, h, w) or (h, w, c).
Out:   size, range, mean and deviation, equal images, a few examples of each class.
Next:  advice on normalisation and duplicates; the contact sheet of the study page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.study.facts import Examples, Images
from batteries.prepare.study.repeats import repeats_of

Layout = Literal["hw", "chw", "hwc"]

_SMALLEST = 4  # pixels on a side; smaller arrays are tables of numbers
_CHUNK = 1 << 22  # values that are widened to float64 at once
SHEET_CLASSES, SHEET_IMAGES = 20, 8


@dataclass(frozen=True)
class Moments:
    """Figures of all pixels, and the mean of each image."""

    minimum: float
    maximum: float
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    brightness: NDArray[np.float64]


def layout_of(dtype: pl.DataType) -> Layout | None:
    """Say how a column's arrays are laid out; None where they are no images."""
    if not isinstance(dtype, pl.Array):
        return None
    inner: Any = dtype
    while isinstance(inner, pl.Array):
        inner = inner.inner
    if not (inner.is_numeric() or inner == pl.Boolean):
        return None
    return _layout(dtype.shape)


def _layout(shape: tuple[int, ...]) -> Layout | None:
    if len(shape) == 2 and min(shape) >= _SMALLEST:
        return "hw"
    if len(shape) == 3 and shape[0] in (1, 3, 4) and min(shape[1:]) >= _SMALLEST:
        return "chw"
    if len(shape) == 3 and shape[2] in (1, 3, 4) and min(shape[:2]) >= _SMALLEST:
        return "hwc"
    return None


def pixels_of(column: pl.Series) -> NDArray[Any] | None:
    """Return the images that are there, shape (n, h, w) or (n, h, w, c); None where they cannot be an array."""
    layout = layout_of(column.dtype)
    present = column.drop_nulls()
    if layout is None or not len(present):
        return None
    array = present.to_numpy()
    if array.dtype.kind not in "iufb":
        return None
    return np.moveaxis(array, 1, -1) if layout == "chw" else array


def moments(pixels: NDArray[Any]) -> Moments:
    """Mean and deviation of each channel in float64, in one pass over chunks of rows.

    Sums are taken around the first image's median, so that they lose no digits; NaN and infinity are
    left out.
    """
    channels = pixels.shape[3] if pixels.ndim == 4 else 1
    total, squares, count = np.zeros(channels), np.zeros(channels), np.zeros(channels)
    low, high, brightness = np.inf, -np.inf, []
    shift = _around(pixels[0].reshape(-1, channels).astype(np.float64))
    step = max(1, _CHUNK // max(1, pixels[0].size))
    for start in range(0, len(pixels), step):
        block = pixels[start : start + step].astype(np.float64).reshape(-1, pixels.shape[1] * pixels.shape[2], channels)
        finite = np.isfinite(block) if pixels.dtype.kind == "f" else np.True_
        low = min(low, float(block.min(where=finite, initial=np.inf)))
        high = max(high, float(block.max(where=finite, initial=-np.inf)))
        brightness.append(np.mean(block, axis=(1, 2), where=finite))
        block -= shift
        total += block.sum(axis=(0, 1), where=finite)
        count += np.broadcast_to(finite, block.shape).sum(axis=(0, 1))
        squares += np.square(block, out=block).sum(axis=(0, 1), where=finite)
    mean = total / np.maximum(count, 1)
    deviation = np.sqrt(np.maximum(0.0, squares / np.maximum(count, 1) - mean**2))
    return Moments(low, high, mean + shift, deviation, np.concatenate(brightness))


def _around(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """A number near each channel's values; 0 where there is none."""
    middle: NDArray[np.float64] = np.median(image, axis=0)
    return np.where(np.isfinite(middle), middle, 0.0)


def describe_images(
    train: pl.DataFrame, test: pl.DataFrame | None, column: str, *, id: str, target: str
) -> tuple[Images, Moments] | None:
    """Return the facts of one column of images; None where it holds none after all."""
    pixels, layout = pixels_of(train[column]), layout_of(train[column].dtype)
    if pixels is None or layout is None:
        return None
    with np.errstate(all="ignore"):
        figures = moments(pixels)
    if not np.isfinite([figures.minimum, figures.maximum, *figures.mean, *figures.deviation]).all():
        return None
    present = train.filter(train[column].is_not_null())
    others = test.filter(test[column].is_not_null()) if test is not None and column in test.columns else None
    repeats = repeats_of(present, [column], present[id], present[target], others, accidents=False)
    assert repeats is not None
    images = Images(
        column=column,
        layout=layout,
        height=pixels.shape[1],
        width=pixels.shape[2],
        channels=pixels.shape[3] if pixels.ndim == 4 else 1,
        type=str(pixels.dtype),
        missing=train[column].null_count(),
        minimum=figures.minimum,
        maximum=figures.maximum,
        mean=tuple(figures.mean.tolist()),
        deviation=tuple(figures.deviation.tolist()),
        repeats=repeats,
    )
    return images, figures


def examples_of(table: pl.DataFrame, column: str, target: str, *, by_class: bool) -> tuple[Examples, ...]:
    """Return images spread evenly over the rows, of every class if there are few."""
    present = table.filter(table[column].is_not_null()).select(column, target)
    labels = present[target].drop_nulls().unique().sort().to_list() if by_class else []
    if not 0 < len(labels) <= SHEET_CLASSES:
        return _spread(present, column, "all rows", 4 * SHEET_IMAGES)
    rows = (_spread(present.filter(pl.col(target) == label), column, str(label), SHEET_IMAGES) for label in labels)
    return tuple(example for some in rows for example in some)


def _spread(rows: pl.DataFrame, column: str, label: str, count: int) -> tuple[Examples, ...]:
    if not len(rows):
        return ()
    some = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64))
    pixels = pixels_of(rows[column].gather(some))
    return () if pixels is None else (Examples(column=column, label=label, pixels=pixels.copy()),)
