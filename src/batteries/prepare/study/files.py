"""Files: figures of the image files that a column of paths points to.

In:    a table with a column of paths.
Out:   sizes, modes, damaged files, figures for normalisation, fingerprints, small copies.
Next:  advice on normalisation; near-duplicates; the contact sheet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.duplicates import Fingerprints, joined
from batteries.prepare.pictures import Picture, Unreadable, read_pictures
from batteries.prepare.study.findings import Files

MOST_FILES = 20_000  # of each table
_NAMED = 50


@dataclass(frozen=True)
class Read:
    """The files of one table that could be read: their rows, and what is known of each."""

    rows: NDArray[np.int64]
    pictures: list[Picture]
    unreadable: list[tuple[int, Unreadable]]

    def fingerprints(self) -> Fingerprints:
        """Of all, in the order of the rows."""
        return joined([(picture.hash, picture.grey) for picture in self.pictures])

    def brightness(self) -> NDArray[np.float64]:
        """Mean of each image, 0 to 1."""
        return np.array([p.total.mean() / (p.width * p.height) for p in self.pictures])


def read_files(table: pl.DataFrame, column: str, folder: Path) -> Read:
    """Read the files of the rows that name one; of many, as many as are enough, evenly spread over the rows."""
    present = np.flatnonzero(table[column].is_not_null().to_numpy())
    rows = evenly(present, MOST_FILES)
    paths = [folder / name for name in table[column].gather(rows).to_list()]
    found = list(zip(rows.tolist(), read_pictures(paths), strict=True))
    good = [(row, one) for row, one in found if isinstance(one, Picture)]
    return Read(
        rows=np.array([row for row, _ in good], dtype=np.int64),
        pictures=[one for _, one in good],
        unreadable=[(row, one) for row, one in found if isinstance(one, Unreadable)],
    )


def evenly(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many of some rows, in their order."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def describe_files(column: str, train: Read, test: Read | None, ids: Sequence[str], test_ids: Sequence[str]) -> Files:
    """Return the figures of one column; mean and deviation are those of the pixels of training."""
    pictures = [*train.pictures, *(test.pictures if test else [])]
    damaged = [(ids[row], one.path, one.reason) for row, one in train.unreadable]
    damaged += [(test_ids[row], one.path, one.reason) for row, one in (test.unreadable if test else [])]
    mean, deviation = _moments(train.pictures)
    return Files(
        column=column,
        files=len(pictures) + len(damaged),
        unreadable=tuple(damaged),
        sizes=tuple(Counter(f"{p.width} x {p.height}" for p in pictures).most_common(_NAMED)),
        modes=tuple(Counter(p.mode for p in pictures).most_common()),
        formats=tuple(Counter(p.format for p in pictures).most_common()),
        mean=mean,
        deviation=deviation,
    )


def _moments(pictures: Sequence[Picture]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of all pixels, each counted once; grey images count in all three channels where others have colour."""
    if not pictures:
        return (), ()
    channels = max(len(p.total) for p in pictures)
    count = sum(p.width * p.height for p in pictures)
    total, squares = (
        np.sum([np.broadcast_to(each, channels) for each in some], axis=0) / count
        for some in ([p.total for p in pictures], [p.squares for p in pictures])
    )
    deviation = np.sqrt(np.maximum(0, squares - total**2))
    return tuple(total.tolist()), tuple(deviation.tolist())


def small_copies(pictures: Sequence[Picture], side: int) -> NDArray[np.uint8]:
    """Shape (n, side, side, 3): each in the middle of a grey square."""
    sheet = np.full((len(pictures), side, side, 3), 128, dtype=np.uint8)
    for square, picture in zip(sheet, pictures, strict=True):
        height, width = picture.small.shape[:2]
        top, left = (side - height) // 2, (side - width) // 2
        square[top : top + height, left : left + width] = picture.small
    return sheet
