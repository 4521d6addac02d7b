"""Decoded: images decoded once into one file of bytes, that loaders read a batch at a time.

In:    paths of images, one size for all.
Out:   a memory map uint8 (n, height, width, channels), sealed with what it was made from.
Next:  `Experiment.dataset` returns rows of it; nothing is read before a batch asks for it.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.errors import BatteriesError, ConfigError, CorruptError, DataError, ResourceError, some
from batteries.files import digest_file, digest_of, locked, read_sealed, write_sealed
from batteries.prepare.children import obey_main
from batteries.prepare.cores import usable_cores
from batteries.prepare.pixels import read_pixels
from batteries.progress import Progress

Mode = Literal["RGB", "L"]
_CHUNK = 64
"""Images that a process decodes before it says so."""


@dataclass(frozen=True)
class Rows:
    """Some rows of a memory map, in an order: what a loader gathers whole batches from.

    >>> rows = Rows(np.arange(4, dtype=np.uint8)[:, None], np.array([3, 1]))
    >>> rows[np.array([0])].tolist()
    [[3]]
    """

    pixels: NDArray[np.uint8]
    """Shape (m, ...): all there are."""
    places: NDArray[np.int64]
    """Shape (n,): which of them, in order."""

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.pixels[self.places[rows]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array it stands for."""
        return (len(self.places), *self.pixels.shape[1:])

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.pixels.ndim

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Type of the values."""
        return self.pixels.dtype

    @property
    def nbytes(self) -> int:
        """Bytes it would take in memory."""
        return len(self.places) * self.pixels[:1].nbytes


@dataclass(frozen=True)
class Decoded:
    """Images as `decoded` wrote them."""

    path: Path
    """A NumPy file."""
    paths: tuple[str, ...]
    """The image of each row."""
    digest: str
    """SHA-256 of the file."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """Paths that could not be decoded, and why; their rows are black."""

    @cached_property
    def pixels(self) -> NDArray[np.uint8]:
        """The memory map, uint8 (n, height, width, channels); it is read where it is looked at."""
        mapped: NDArray[np.uint8] = np.load(self.path, mmap_mode="r")
        return mapped

    @cached_property
    def _places(self) -> dict[str, int]:
        return {path: place for place, path in enumerate(self.paths)}

    def of(self, paths: pl.Series | Sequence[str | Path]) -> Rows:
        """Return the images of some paths, in their order; raises DataError where one is not among them."""
        asked = [str(path) for path in paths]
        if missing := [path for path in asked if path not in self._places]:
            raise DataError(
                f"{len(missing)} of {len(asked)} images are not among the {len(self.paths)} that were decoded"
                f" (first: {some(missing, 3)}); give `decoded` the paths of every table"
            )
        return Rows(self.pixels, np.array([self._places[path] for path in asked], dtype=np.int64))

    def verify(self) -> None:
        """Read the whole file; raises CorruptError unless it is to the last bit the one that was written."""
        if digest_file(self.path) != self.digest:
            raise CorruptError(f"{self.path}: was changed or damaged after it was written; remove it and run again")


def decoded(
    paths: pl.Series | Sequence[str | Path],
    *,
    size: tuple[int, int],
    mode: Mode = "RGB",
    cache: Path | str = "cache",
    allow_unreadable: bool = False,
    workers: int | None = None,
) -> Decoded:
    """Decode images once, in processes, and return them; the next call opens what is there.

    The file is written whole or not at all, in `cache/HEIGHTxWIDTH-MODE.npy`, its record beside it. It is made
    anew when a path, or the size or time of a file, is another; several processes may ask at once: one decodes,
    the others wait. Images are turned as their EXIF says, and stretched to the size by an antialiased bilinear
    filter; 16-bit values keep their upper byte.

    Parameters
    ----------
    paths
        Of the images of all tables; each once.
    size
        Height and width.
    mode
        `RGB` or `L`, grey.
    cache
        Folder for the result.
    allow_unreadable
        Keep a black row for what cannot be decoded, and list it in `unreadable`.
    workers
        Processes; as many as there are cores unless given.

    Raises
    ------
    DataError
        When an image is missing or cannot be decoded, naming the first; when a path comes twice.
    ConfigError
        When the size or the mode is none.
    CorruptError
        When the file has not the length of the one that was written.
    ResourceError
        When a process died, or the disk is full.

    Example
    -------
    >>> images = decoded(table["path"], size=(64, 64), cache="runs/images")  # doctest: +SKIP
    >>> images.of(rows["path"]).shape  # doctest: +SKIP
    (1437, 64, 64, 3)

    """
    names, size = tuple(str(path) for path in paths), (int(size[0]), int(size[1]))
    if min(size) < 1 or mode not in get_args(Mode):
        raise ConfigError(f"decoded needs a size above 0 and a mode RGB or L, got {size} and {mode!r}")
    if not names or len(set(names)) < len(names):
        raise DataError(f"decoded needs different paths, got {len(names)}, {len(set(names))} of them different")
    cache = Path(cache)
    array = cache / f"{size[0]}x{size[1]}-{mode}.npy"
    record = array.with_suffix(".json")
    with locked(cache, wait=True):
        missing = {name: "no such file" for name in names if not Path(name).is_file()}
        if missing and not allow_unreadable:
            raise _refused(missing, len(names))
        made_from = {"size": list(size), "mode": mode, "files": digest_of([_mark(name) for name in names])}
        if (known := _known(record, made_from)) is None:
            record.unlink(missing_ok=True)  # first, so that it never speaks of another file than there is
            known = _make(array, names, size, mode, allow_unreadable=allow_unreadable, workers=workers)
            write_sealed(record, {**made_from, **known})
    if known["unreadable"] and not allow_unreadable:
        raise _refused(known["unreadable"], len(names))
    if not array.is_file() or array.stat().st_size != known["bytes"]:
        raise CorruptError(f"{array}: is not the file that was written; remove {record} and run again")
    return Decoded(array, names, known["sha256"], known["unreadable"])


def _mark(name: str) -> list[Any]:
    """What changes when a file does."""
    try:
        found = Path(name).stat()
    except OSError:
        return [name]
    return [name, found.st_size, found.st_mtime_ns]


def _known(record: Path, made_from: dict[str, Any]) -> dict[str, Any] | None:
    """The record of the same images, if they were decoded before; None also where it is damaged."""
    try:
        known = read_sealed(record)
    except CorruptError:
        return None
    return known if all(known.get(key) == value for key, value in made_from.items()) else None


def _refused(unreadable: dict[str, str], of: int) -> DataError:
    first = "; ".join(f"{name}: {why}" for name, why in list(unreadable.items())[:3])
    return DataError(
        f"{len(unreadable)} of {of} images cannot be read ({first}). Mend or drop them, or keep black ones in their"
        " place: allow_unreadable=True"
    )


def _make(
    array: Path, names: Sequence[str], size: tuple[int, int], mode: Mode, *, allow_unreadable: bool, workers: int | None
) -> dict[str, Any]:
    """Decode into a temporary file, and give it its name when it is whole; return what to note of it."""
    for left in array.parent.glob(f".{array.name}.*.tmp"):  # a killed process's
        left.unlink()
    temporary = array.with_name(f".{array.name}.{os.getpid()}.tmp")
    channels = 3 if mode == "RGB" else 1
    try:
        shape = (len(names), *size, channels)
        _check_space(array, math.prod(shape))
        np.lib.format.open_memmap(temporary, "w+", np.uint8, shape).flush()
        chunks = [range(first, min(first + _CHUNK, len(names))) for first in range(0, len(names), _CHUNK)]
        work = [(temporary, chunk.start, [names[row] for row in chunk], size, mode) for chunk in chunks]
        unreadable: dict[str, str] = {}
        with Progress("decoding images", total=len(names)) as progress:
            for done, failures in _worked(work, usable_cores() if workers is None else workers):
                unreadable |= failures
                progress.advance(done)
        if unreadable and not allow_unreadable:
            raise _refused(unreadable, len(names))
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        noted = {"bytes": temporary.stat().st_size, "sha256": digest_file(temporary), "unreadable": unreadable}
        os.replace(temporary, array)
    except OSError as error:
        raise ResourceError(
            f"{array}: cannot be written ({error.strerror or error}); free some space and run again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return noted


def _check_space(array: Path, needed: int) -> None:
    """Refuse before a process writes to a map that the disk has no room for, and is killed by a bus error."""
    if (free := shutil.disk_usage(array.parent).free) < needed:
        raise ResourceError(f"{array} needs {needed:,} bytes, {free:,} are free; make room, or choose another cache")


Work = tuple[Path, int, list[str], tuple[int, int], Mode]


def _worked(work: Sequence[Work], workers: int) -> Iterator[tuple[int, dict[str, str]]]:
    """Do all the work, here or in processes, and yield how many images each part had and which failed."""
    if min(workers, len(work)) < 2:
        for each in work:
            yield _decode(each)
        return
    pool = ProcessPoolExecutor(min(workers, len(work)), initializer=obey_main)
    try:
        waiting: set[Future[tuple[int, dict[str, str]]]] = {pool.submit(_decode, each) for each in work}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BrokenProcessPool as error:
        raise ResourceError("a process that decodes images died; if memory ran out: decoded(..., workers=1)") from error
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(work: Work) -> tuple[int, dict[str, str]]:
    """Decode some images into their rows; return how many, and why those failed that did."""
    file, first, names, size, mode = work
    pixels, unreadable = np.lib.format.open_memmap(file, "r+"), {}
    for row, name in enumerate(names, first):
        try:
            pixels[row] = read_pixels(Path(name), size, mode)
        except BatteriesError as error:
            unreadable[name] = str(error)
    pixels.flush()
    return len(names), unreadable
