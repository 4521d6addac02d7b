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
from batteries.experiment.sealed import read_table, write_table

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
        if not isinstance(ids, pl.Series) or not isinstance(self.values, np.ndarray):
            raise PredictionsError(
                "predictions are made of ids in a polars Series and values in a NumPy array,"
                f" got {type(ids).__name__} and {type(self.values).__name__}"
            )
        if not (ids.dtype.is_integer() or ids.dtype == pl.String):
            raise PredictionsError(f"ids must be whole numbers or texts, got {ids.dtype}")
        for what in ("values", "targets", "folds"):
            array = getattr(self, what)
            if array is not None and np.shape(array)[:1] != (len(ids),):
                raise PredictionsError(f"{len(ids)} ids but {what} of shape {np.shape(array)}")
        if ids.null_count():
            raise PredictionsError(f"{ids.null_count()} of {len(ids)} ids are empty")
        if ids.n_unique() != len(ids):
            twice = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
            raise PredictionsError(f"{len(twice)} ids are predicted more than once (first: {twice.head(5).to_list()})")
        if self.values.ndim not in (1, 2) or self.values.dtype.kind not in "fiub" or self.values.itemsize > 8:
            raise PredictionsError(
                f"predictions must be numbers, (n,) or (n, columns), got {self.values.dtype} {self.values.shape}"
            )
        finite = np.isfinite(self.values)
        if len(bad := np.flatnonzero(~(finite if finite.ndim == 1 else finite.all(axis=1)))):
            first = ids.gather(bad[:5]).to_list()
            raise PredictionsError(f"{len(bad)} of {len(ids)} predictions are NaN or infinite (first ids: {first})")

    def __len__(self) -> int:
        return len(self.ids)

    def align(self, ids: pl.Series) -> Predictions:
        """Return the same predictions in the order of `ids`.

        Raises
        ------
        PredictionsError
            When an id is missing, asked twice, or there without being asked for; the first five are named.

        """
        asked = pl.DataFrame({"id": ids})
        if ids.n_unique() != len(ids):
            twice = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
            raise PredictionsError(f"{len(twice)} ids are asked for more than once (first: {twice.head(5).to_list()})")
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

    def save(self, path: Path | str) -> None:
        """Write one Parquet file: `id`, `fold`, `target`, `prediction` or `prediction_0`, ... and a digest."""
        write_table(Path(path), self.frame(), self.notes())

    def notes(self) -> dict[str, str]:
        """The texts that stand in the file beside the table."""
        return {"schema": str(_SCHEMA), "about": json.dumps(dict(self.about), sort_keys=True)}

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
    def load(cls, path: Path | str) -> Predictions:
        """Read what `save` wrote. Raises CorruptError when the content is not what was written."""
        path = Path(path)
        if not path.exists():
            raise PredictionsError(f"{path} does not exist; run: batteries train")
        frame, notes = read_table(path)
        if "about" not in notes:
            raise CorruptError(f"{path}: holds no predictions but {', '.join(frame.columns[:5])}")
        return cls._of_frame(frame, about_of(notes, path))

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


def about_of(notes: Mapping[str, str], path: Path) -> dict[str, str]:
    """Return `about` from the texts in a file. Raises PredictionsError for a file of a later version."""
    if int(notes["schema"]) > _SCHEMA:
        raise PredictionsError(f"{path}: was written by a newer Batteries; install that version to read it")
    about: dict[str, str] = json.loads(notes["about"])
    return about


def out_of_fold(parts: Iterable[Predictions], ids: pl.Series, *, complete: bool = True) -> Predictions:
    """Join the predictions of the folds into one, in the order of `ids`, every id at most once.

    Parameters
    ----------
    parts
        One for each fold, with `folds` set.
    ids
        All rows that some fold holds out.
    complete
        Whether every id must be there.

    Raises
    ------
    OutOfFoldError
        When a row is predicted by two folds, or (if `complete`) by none; when a part holds rows that
        are not in the table, or differs from the others in its split, its columns or the type of its ids.

    """
    parts = list(parts)
    _check_parts(parts, ids)
    joined = pl.concat([part.ids for part in parts])
    if joined.dtype != ids.dtype:
        joined = _same_type(pl.DataFrame({"id": joined}), ids.dtype)["id"]
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


def _check_parts(parts: Sequence[Predictions], ids: pl.Series) -> None:
    """Refuse parts that cannot be of one split of one table."""
    if not parts:
        raise OutOfFoldError("there are no predictions of any fold to join; run: batteries train")
    for part in parts:
        if part.values.shape[1:] != parts[0].values.shape[1:]:
            shapes = sorted({str(p.values.shape[1:]) for p in parts})
            raise OutOfFoldError(f"folds predict different numbers of columns: {' and '.join(shapes)}")
        if part.about.get("folds") != parts[0].about.get("folds"):
            raise OutOfFoldError("folds of two splits cannot be joined; train all of them on one: batteries train")
        if part.ids.dtype != parts[0].ids.dtype or part.ids.dtype.is_integer() != ids.dtype.is_integer():
            raise OutOfFoldError(f"ids are {ids.dtype} in the table and {part.ids.dtype} in the predictions")


def _concatenate(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any] | None:
    known = [array for array in arrays if array is not None]
    return np.concatenate(known) if len(known) == len(arrays) else None


def _same_type(asked: pl.DataFrame, dtype: pl.DataType) -> pl.DataFrame:
    """Whole numbers of another width compare as numbers; anything else is refused, never guessed."""
    if asked["id"].dtype.is_integer() and dtype.is_integer():
        narrowed = asked.cast({"id": dtype}, strict=False)
        if outside := asked.filter(narrowed["id"].is_null())["id"].head(5).to_list():
            raise PredictionsError(f"ids {outside} have no prediction: none of the predicted ids is so large or small")
        return narrowed
    raise PredictionsError(f"ids are {asked['id'].dtype} here and {dtype} there; read both files with the same types")


def column_digest(column: pl.Series) -> str:
    """Digest of a column's type, its values and their order, the same on every machine and for any chunks."""
    digest = sha256()
    _feed(digest, column)
    return digest.hexdigest()


def _feed(digest: Any, column: pl.Series) -> None:
    """Type and lengths go before the values, so that no two columns give the same bytes."""
    kind = column.dtype.base_type()
    flat = not column.dtype.is_nested() and kind not in (pl.Categorical, pl.Enum)  # their texts differ with polars
    digest.update(f"{column.dtype if flat else kind.__name__} {len(column)} {column.null_count()};".encode())
    if column.null_count():
        digest.update(np.packbits(column.is_null().to_numpy()).tobytes())
    kept = column.drop_nulls()
    if kind == pl.List:
        lengths = kept.list.len().cast(pl.Int64)
        _feed(digest, lengths)
        _feed(digest, kept.filter(lengths > 0).explode())
    elif kind == pl.Array:
        _feed(digest, kept.explode())
    elif kind == pl.Struct:
        for part in kept.struct.unnest():
            digest.update(f"{part.name!r};".encode())
            _feed(digest, part)
    elif kind == pl.Binary or kind == pl.Object:
        _feed_pieces(digest, [value if kind == pl.Binary else repr(value).encode() for value in kept.to_list()])
    elif kind in (pl.String, pl.Categorical, pl.Enum, pl.Decimal, pl.Int128) or kind.__name__ == "UInt128":
        _feed_pieces(digest, [text.encode() for text in kept.cast(pl.String).to_list()])
    elif len(kept):
        values = kept.to_physical().to_numpy()
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())


def _feed_pieces(digest: Any, pieces: list[bytes]) -> None:
    digest.update(np.fromiter(map(len, pieces), dtype="<i8", count=len(pieces)).tobytes())
    digest.update(b"".join(pieces))
