"""Gallery: the study as a page: charts of the target, contact sheets of the images.

In:    a Study.
Out:   what the template of the study page needs.
Next:  `page` renders it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.study.facts import Column, Examples, Study
from batteries.prepare.study.images import layout_of, pixels_of
from batteries.report import plots, study_plots
from batteries.report.view import Plot, counted, figure, percent

_MOST_BARS = 30
_SHEET_BYTES = 900_000  # of all pixels on a page, before they are compressed
_SIDE = 96  # pixels of an example at most


@dataclass(frozen=True)
class Strip:
    """Examples of one class side by side, as a data URI."""

    label: str
    count: int
    width: int
    """Of the strip, in its own pixels."""
    height: int
    uri: str


def study_context(study: Study) -> dict[str, Any]:
    """Return what the study page shows."""
    return {
        "title": f"Study: {study.experiment}",
        "study": study,
        "target": _target(study),
        "sheets": _sheets(study),
        "powers": study_plots.power_plots(study),
        "associations": study_plots.association_plots(study.associations),
        "adversarial": study_plots.adversarial_plots(study.adversarial),
        "drifts": study_plots.drift_plots(study.drift),
        "texts": {texts.column: study_plots.text_plots(texts) for texts in study.texts},
        "sparks": {column.name: _spark(column) for column in study.train.columns},
        "clear": [drift for drift in study.drift if drift.clear],
    }


def thumbnails(table: pl.DataFrame, id: str, wanted: Sequence[Any]) -> dict[Any, str]:
    """Return the images of some rows as data URIs by id, from the table's first column of images; none without one."""
    column = next((name for name, kind in table.schema.items() if layout_of(kind)), None)
    if column is None:
        return {}
    rows = table.filter(pl.col(id).is_in(list(wanted)) & pl.col(column).is_not_null())
    pixels = pixels_of(rows[column])
    if pixels is None:
        return {}
    finite = np.nan_to_num(pixels.astype(np.float64), posinf=0.0, neginf=0.0)
    low, high = float(finite.min()), float(finite.max())
    scaled = _coloured(pixels, low, high)
    small = _shrunk(scaled, max(1, -(-max(pixels.shape[1:3]) // _SIDE)))
    return {key: _data_uri(image) for key, image in zip(rows[id].to_list(), small, strict=True)}


def _target(study: Study) -> list[Plot]:
    target = study.target
    if target.kind == "classes":
        shown = target.classes
        if len(shown) > _MOST_BARS:
            shown = tuple(sorted(shown, key=lambda c: -c.rows))[:_MOST_BARS]
        rare, common = (pick(target.classes, key=lambda c: c.rows) for pick in (min, max))
        label = f"Rows of each class of {target.name}, from {rare.rows:,} ({rare.label})"
        label += f" to {common.rows:,} ({common.label})"
        caption = counted(len(target.classes), "class", "classes")
        caption += f"; the largest, {common.label}, has {percent(common.share)} of the rows"
        caption += f", {target.imbalance:.1f} times the smallest." if target.imbalance else "."
        caption += f" The {_MOST_BARS} largest are shown." if len(shown) < len(target.classes) else ""
        return [Plot(plots.bars([c.label for c in shown], [c.rows for c in shown], label, x="rows"), caption)]
    if target.kind == "number" and target.histogram is not None and len(target.quantiles) > 1:
        low, high = target.quantiles[0][1], target.quantiles[-1][1]
        label = f"Distribution of {target.name}, from {figure(low)} to {figure(high)}"
        caption = "; ".join(f"{percent(share)}: {figure(value)}" for share, value in target.quantiles if 0 < share < 1)
        caption = f"Rows in equal steps. Values that a share of the rows does not exceed: {caption}."
        return [Plot(plots.spread(target.histogram, (low, high), label, x=target.name), caption)]
    return []


def _spark(column: Column) -> Any:
    if column.histogram is None or column.role in ("id", "image"):
        return ""
    label = f"{column.name} from {figure(column.minimum)} to {figure(column.maximum)}"
    return plots.spark(column.histogram, label)


def _sheets(study: Study) -> dict[str, list[Strip]]:
    pixels = {images.column: _sheet(study, images.column, images.minimum, images.maximum) for images in study.images}
    return pixels | {files.column: _sheet(study, files.column, 0, 255) for files in study.files}


def _sheet(study: Study, column: str, low: float, high: float) -> list[Strip]:
    groups = [examples for examples in study.examples if examples.column == column]
    count = sum(len(examples.pixels) for examples in groups)
    side = min(_SIDE, int((_SHEET_BYTES / max(1, 3 * count)) ** 0.5))
    return [_strip(examples, low, high, side) for examples in groups]


def _strip(examples: Examples, low: float, high: float, side: int) -> Strip:
    pixels = _coloured(examples.pixels, low, high)
    step = max(1, -(-max(pixels.shape[1:3]) // side))
    pixels = _shrunk(pixels, step)
    gap = ((0, 0), (0, 0), (0, max(1, pixels.shape[2] // 12)), (0, 0))
    joined = np.concatenate(list(np.pad(pixels, gap)), axis=1)
    return Strip(examples.label, len(pixels), joined.shape[1], joined.shape[0], _data_uri(joined))


def _coloured(pixels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Shape (n, h, w, 4): the range from low to high becomes 0 to 255; what is no number becomes 0."""
    values = np.nan_to_num(pixels.astype(np.float64), nan=low, posinf=high, neginf=low)
    scaled = ((values - low) / (high - low or 1.0) * 255).clip(0, 255).astype(np.uint8)
    scaled = scaled[..., None] if scaled.ndim == 3 else scaled
    colours = np.repeat(scaled, 3, axis=3) if scaled.shape[3] == 1 else scaled[..., :3]
    return np.concatenate([colours, np.full((*colours.shape[:3], 1), 255, dtype=np.uint8)], axis=3)


def _shrunk(pixels: NDArray[np.uint8], step: int) -> NDArray[np.uint8]:
    """Means of blocks of `step` pixels; a rest at the border is cut off."""
    n, height, width, channels = pixels.shape
    height, width = max(1, height // step), max(1, width // step)
    cut = pixels[:, : height * step, : width * step].reshape(n, height, min(step, pixels.shape[1]), width, -1, channels)
    means: NDArray[np.float64] = cut.mean(axis=(2, 4))
    return means.astype(np.uint8)


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    from matplotlib.image import imsave

    buffer = BytesIO()
    imsave(buffer, pixels, format="png", metadata={"Software": ""})
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"
