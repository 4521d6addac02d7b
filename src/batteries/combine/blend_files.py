"""Blend files: prediction files of any origin into one, also where they are larger than memory.

In:    CSV or Parquet files of the same ids, in any order.
Out:   a file with the bytes that the blend of the same predictions in memory would be saved with.
Next:  `read_predictions` reads it, `submit` writes what the leaderboard takes.

Each member is read once, some rows at a time, and laid down column by column in the order of the first one's ids, in
a folder beside the result that is gone afterwards. Blends are the same code for arrays in memory and on the disk.
In memory are the ids, one column for `rank`, and a few megabytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.combine.blend import Blend
from batteries.combine.blocks import pieces
from batteries.errors import BlendError, PredictionsError, ResourceError, some
from batteries.experiment.prediction_files import PredictionFile
from batteries.experiment.predictions import Predictions
from batteries.experiment.sealed import write_parts
from batteries.files import write_atomic

_PART = 1 << 18
"""Values that are read or written at once."""


def blend_files(
    paths: Sequence[Path | str],
    out: Path | str,
    combine: Blend,
    *,
    within_folds: bool = False,
    id: str | None = None,
    columns: Sequence[str] | None = None,
) -> Path:
    """Blend prediction files into the file `out`, rows joined by id in the order of the first file.

    Parameters
    ----------
    paths
        Files as `read_predictions` takes them. Several columns are matched by name.
    out
        `.parquet`: as `Predictions.save` writes it; `.csv`: the same table as text.
    combine
        The formula and the weights, one a file.
    within_folds
        Whether to rank rows among those of their fold; the first file must be ours and hold folds.
    id, columns
        The names of columns, where the files do not say which are meant.

    Raises
    ------
    PredictionsError
        When a file cannot be read, or ids are missing from one, as `read_predictions` says.
    BlendError
        When columns of files differ, or as `blend` says.
    ResourceError
        When the disk has no room for the members.

    >>> with TemporaryDirectory() as folder:
    ...     for name, rows in {"a": "x,0.2\\ny,0.4\\n", "b": "y,0.6\\nx,0.4\\n"}.items():
    ...         _ = Path(folder, f"{name}.csv").write_text(f"id,score\\n{rows}")
    ...     mean = Blend(how="mean", weights=(1.0, 1.0))
    ...     blend_files([f"{folder}/a.csv", f"{folder}/b.csv"], f"{folder}/out.csv", mean).read_text()
    'id,prediction\\nx,0.30000000000000004\\ny,0.5\\n'

    """
    out = Path(out)
    if out.suffix not in (".parquet", ".csv"):
        raise BlendError(f"{out}: a blend is written as .parquet or .csv")
    files = [PredictionFile.open(path, id=id, columns=columns) for path in paths]
    if len(files) != len(combine.weights):
        raise BlendError(f"{len(files)} files need {len(files)} weights, got {len(combine.weights)}")
    files = [_matched(file, files[0]) for file in files]
    ids, beside = files[0].ids(), files[0].beside()
    folds = beside["fold"].to_numpy() if "fold" in beside.columns else None
    if within_folds and folds is None:
        raise BlendError(f"{files[0].path} knows no folds to rank within; blend without within_folds")
    with TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.", suffix=".tmp") as folder:
        _check_room(files, len(ids), Path(folder))
        members = [_laid_down(file, ids, Path(folder, f"member{number}")) for number, file in enumerate(files)]
        result = _array(Path(folder, "result"), np.dtype(np.float64), len(ids), files[0])
        combine(members, folds=folds if within_folds else None, out=result)
        targets = beside["target"].to_numpy() if "target" in beside.columns else None
        _write(out, Predictions(ids, result, targets=targets, folds=folds, about=files[0].about or {}))
    return out


def _matched(file: PredictionFile, first: PredictionFile) -> PredictionFile:
    """The file with its columns in the order of the first one's; one column alone may have any name."""
    if len(file.columns) == len(first.columns) == 1:
        return file
    if sorted(file.columns) != sorted(first.columns):
        raise BlendError(
            f"{file.path} has the columns {some(file.columns, 5)} and {first.path} {some(first.columns, 5)};"
            " name those to blend, or rename them"
        )
    return replace(file, columns=first.columns)


def _check_room(files: Sequence[PredictionFile], rows: int, folder: Path) -> None:
    width = sum(len(file.columns) * file.dtype().itemsize for file in files) + 8 * len(files[0].columns)
    free = shutil.disk_usage(folder).free
    if rows * width > free:
        raise ResourceError(
            f"{folder.parent}: blending lays {rows * width:,} bytes down beside the result, and {free:,} are free;"
            " free some, or write to another disk"
        )


def _array(path: Path, dtype: np.dtype[Any], rows: int, file: PredictionFile) -> NDArray[Any]:
    """An array on the disk, each column in one piece, of the shape that predictions from the file have."""
    array: NDArray[Any] = np.memmap(path, dtype, mode="w+", shape=(len(file.columns), rows))
    return array[0] if file.is_flat else array.T


def _laid_down(file: PredictionFile, ids: pl.Series, path: Path) -> NDArray[Any]:
    """The values of a file on the disk, in the order of `ids`."""
    own = file.ids()
    places = None if own.equals(ids) else _places(own, ids, file.path)
    array = _array(path, file.dtype(), len(ids), file)
    wide = array.reshape(len(ids), -1)
    for rows, columns, values in file.parts(own, _PART):
        wide[rows if places is None else places[rows], columns] = values
    return array


def _places(own: pl.Series, ids: pl.Series, path: Path) -> NDArray[np.int64]:
    """Where in `ids` each id of a file is. Raises PredictionsError when they are not the same ids."""
    try:
        rows = Predictions(own, np.arange(len(own))).align(ids).values
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error}") from None
    places = np.empty(len(rows), np.int64)
    places[rows] = np.arange(len(rows))
    return places


def _write(out: Path, blended: Predictions) -> None:
    """The same bytes as the whole table at once would give."""
    frames = _frames(blended)
    if out.suffix == ".parquet":
        schema = blended.take(np.zeros(1, np.int64)).frame().schema
        write_parts(out, schema, frames, blended.notes())
    else:
        write_atomic(out, lambda file: [file.write(text) for text in _texts(frames)])


def _frames(blended: Predictions) -> Iterator[pl.DataFrame]:
    for a, b in pieces(0, len(blended), max(1, _PART // blended.values[0].size)):
        yield blended.take(np.arange(a, b)).frame()


def _texts(frames: Iterator[pl.DataFrame]) -> Iterator[bytes]:
    for number, frame in enumerate(frames):
        yield frame.write_csv(include_header=number == 0).encode()
