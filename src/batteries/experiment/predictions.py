"""Predictions: an array that knows which row each of its rows belongs to.

In:    ids and values, out-of-fold or of the test table.
Out:   one Parquet file with a digest of its content; the same values in any asked order of ids.
Next:  `score` judges them, `combine` blends and submits them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.errors import CorruptError, OutOfFoldError, PredictionsError
from batteries.files import digest_of, write_atomic

_SCHEMA = 1


@dataclass(frozen=True)
class Predictions:
    """Values for rows that are named by their ids.

    >>> p = Predictions(pl.Series("id", ["b", "a"]), np.array([0.2, 0.1]))
    >>> p.align(pl.Series(["a", "b"])).values
    array([0.1, 0.2])
    """

    ids: pl.Series
    """Integers or texts, unique, shape (n,)."""
    values: NDArray[Any]
    """Finite numbers, shape (n,) or (n, columns)."""
    _: KW_ONLY
    targets: NDArray[Any] | None = None
    """What was to be predicted, shape (n,) or (n, ...), where it is known."""
    folds: NDArray[np.int64] | None = None
    """The fold that held each row out; None for a test table."""
    about: Mapping[str, str] = field(default_factory=dict)
    """Where they come from: run, digest of the folds, ..."""

    def __post_init__(self) -> None:
        ids = self.ids
        if not (ids.dtype.is_integer() or ids.dtype == pl.String):
            raise PredictionsError(f"ids must be whole numbers or texts, got {ids.dtype}")
        if len(ids) != len(self.values):
            raise PredictionsError(f"{len(ids)} ids but {len(self.values)} predictions")
        if ids.null_count():
            raise PredictionsError(f"{ids.null_count()} of {len(ids)} ids are empty")
        if ids.n_unique() != len(ids):
            twice = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
            raise PredictionsError(f"{len(twice)} ids are predicted more than once (first: {twice.head(5).to_list()})")
        if self.values.ndim not in (1, 2) or self.values.dtype.kind not in "fiub":
            raise PredictionsError(
                f"predictions must be numbers, (n,) or (n, columns), got {self.values.dtype} {self.values.shape}"
            )
        if len(bad := np.flatnonzero(~np.isfinite(self.values.reshape(len(ids), -1)).all(axis=1))):
            first = ids.gather(bad[:5]).to_list()
            raise PredictionsError(f"{len(bad)} of {len(ids)} predictions are NaN or infinite (first ids: {first})")

    def __len__(self) -> int:
        return len(self.ids)

    def align(self, ids: pl.Series) -> Predictions:
        """Return the same predictions in the order of `ids`.

        Raises
        ------
        PredictionsError
            When an id is missing, or one is there that was not asked for; the first five are named.

        """
        asked = pl.DataFrame({"id": ids})
        if asked["id"].dtype != self.ids.dtype:
            asked = _same_type(asked, self.ids.dtype)
        have = pl.DataFrame({"id": self.ids, "row": np.arange(len(self))})
        rows = asked.join(have, on="id", how="left", maintain_order="left")
        if missing := rows["row"].null_count():
            first = rows.filter(pl.col("row").is_null())["id"].head(5).to_list()
            raise PredictionsError(f"{missing} of {len(ids)} ids have no prediction (first: {first})")
        if len(ids) < len(self):
            extra = have.join(asked, on="id", how="anti")["id"]
            raise PredictionsError(f"{len(extra)} predictions belong to no asked id (first: {extra.head(5).to_list()})")
        return self.take(rows["row"].to_numpy())

    def take(self, rows: NDArray[np.int64]) -> Predictions:
        """Return the predictions at the positions `rows`."""
        return Predictions(
            self.ids.gather(rows),
            self.values[rows],
            targets=None if self.targets is None else self.targets[rows],
            folds=None if self.folds is None else self.folds[rows],
            about=self.about,
        )

    def save(self, path: Path) -> None:
        """Write one Parquet file: `id`, `fold`, `target`, `prediction` or `prediction_0`, ... and a digest."""
        frame = self.frame()
        about = {"batteries.schema": str(_SCHEMA), "batteries.about": json.dumps(dict(self.about), sort_keys=True)}
        about["batteries.sha256"] = _digest(frame, about)
        write_atomic(path, lambda file: frame.write_parquet(file, metadata=about))

    def frame(self) -> pl.DataFrame:
        """The predictions as a table: `id`, `fold` and `target` where known, one column a prediction."""
        columns: dict[str, Any] = {"id": self.ids}
        if self.folds is not None:
            columns["fold"] = self.folds.astype(np.int64)
        if self.targets is not None:
            columns["target"] = self.targets
        if self.values.ndim == 1:
            columns["prediction"] = self.values
        else:
            columns |= {f"prediction_{c}": self.values[:, c] for c in range(self.values.shape[1])}
        return pl.DataFrame(columns)

    @classmethod
    def load(cls, path: Path) -> Predictions:
        """Read what `save` wrote. Raises CorruptError when the content is not what was written."""
        try:
            about = pl.read_parquet_metadata(path)
            frame = pl.read_parquet(path)
        except FileNotFoundError:
            raise PredictionsError(f"{path} does not exist; run: batteries train") from None
        except (Exception, pl.exceptions.PanicException) as error:
            raise CorruptError(f"{path}: is not a Parquet file of predictions ({error})") from error
        seal = about.pop("batteries.sha256", "")
        about = {key: value for key, value in about.items() if key.startswith("batteries.")}
        if seal != _digest(frame, about):
            raise CorruptError(f"{path}: was changed or damaged after it was written; make it again")
        return cls._of_frame(frame, json.loads(about["batteries.about"]))

    @classmethod
    def _of_frame(cls, frame: pl.DataFrame, about: Mapping[str, str]) -> Predictions:
        names = [name for name in frame.columns if name.startswith("prediction")]
        values = frame["prediction"].to_numpy() if names == ["prediction"] else frame.select(names).to_numpy()
        return cls(
            frame["id"],
            values,
            targets=frame["target"].to_numpy() if "target" in frame.columns else None,
            folds=frame["fold"].to_numpy() if "fold" in frame.columns else None,
            about=about,
        )


def out_of_fold(parts: Iterable[Predictions], ids: pl.Series, *, complete: bool = True) -> Predictions:
    """Join the predictions of the folds into one, in the order of `ids`, every id at most once.

    Parameters
    ----------
    parts
        One for each fold, with `folds` set.
    ids
        All rows of the training table.
    complete
        Whether every id must be there.

    Raises
    ------
    OutOfFoldError
        When a row is predicted by two folds, is foreign, or (if `complete`) by none.

    """
    parts = list(parts)
    joined = pl.concat([part.ids for part in parts])
    if joined.n_unique() != len(joined):
        twice = joined.filter(joined.is_duplicated()).unique(maintain_order=True)
        raise OutOfFoldError(f"{len(twice)} rows are predicted by two folds (first: {twice.head(5).to_list()})")
    covered = ids.filter(ids.is_in(joined.implode()))
    if complete and len(covered) != len(ids):
        missing = ids.filter(~ids.is_in(joined.implode()))
        raise OutOfFoldError(
            f"{len(missing)} of {len(ids)} rows have no out-of-fold prediction (first: {missing.head(5).to_list()})"
        )
    whole = Predictions(
        joined,
        np.concatenate([part.values for part in parts]),
        targets=_concatenate([part.targets for part in parts]),
        folds=_concatenate([part.folds for part in parts]),
        about=parts[0].about,
    )
    try:
        return whole.align(covered)
    except PredictionsError as error:
        raise OutOfFoldError(str(error)) from error


def _concatenate(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    known = [array for array in arrays if array is not None]
    return np.concatenate(known) if len(known) == len(arrays) else None


def _same_type(asked: pl.DataFrame, dtype: pl.DataType) -> pl.DataFrame:
    """Whole numbers of another width compare as numbers; anything else is refused, never guessed."""
    if asked["id"].dtype.is_integer() and dtype.is_integer():
        return asked.cast({"id": dtype})
    raise PredictionsError(f"ids are {asked['id'].dtype} here and {dtype} there; read both files with the same types")


def column_digest(column: pl.Series) -> str:
    """Digest of a column's values and their order, the same on every machine."""
    digest = sha256(f"{column.dtype} {column.null_count()}".encode())
    if column.dtype.is_numeric() and not column.null_count():
        digest.update(np.ascontiguousarray(column.to_numpy()).tobytes())
    else:
        texts = [repr(value).encode() for value in column.to_list()]
        digest.update(np.array([len(text) for text in texts], dtype=np.int64).tobytes())
        digest.update(b"".join(texts))
    return digest.hexdigest()


def _digest(frame: pl.DataFrame, about: Mapping[str, str]) -> str:
    """Digest of the logical content: names, types, values, notes. Not of the bytes of the file."""
    return digest_of([sorted(about.items()), [(column.name, column_digest(column)) for column in frame]])
