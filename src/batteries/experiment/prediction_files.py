"""Prediction files: any CSV or Parquet with ids and numbers, ours or somebody else's.

In:    a file with one column of ids and one or more of predictions.
Out:   Predictions; or its rows some at a time, for files larger than memory.
Next:  `combine` blends and submits them.

Ids keep their bytes: those of a CSV are read as texts, and are whole numbers only if all of them are written as
whole numbers are: 7 but not 007, 1e5 or +7.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.errors import PredictionsError, some
from batteries.experiment.predictions import Predictions, about_of
from batteries.experiment.sealed import UNREADABLE, check_seal

_OURS = re.compile(r"prediction(?:_(\d+))?")
_BESIDE = ("fold", "target")
"""Columns that Predictions.frame() writes beside ids and predictions."""
_INDEX = ("", "Unnamed: 0")
"""Names that pandas gives to row numbers."""
_FIRST = 5


def read_predictions(path: Path | str, *, id: str | None = None, columns: Sequence[str] | None = None) -> Predictions:
    """Read a CSV or Parquet file of ids and predictions, of any origin.

    Parameters
    ----------
    path
        CSV in UTF-8 with commas and a line of names, or Parquet.
    id
        The column of ids; by default `id`, or else the first.
    columns
        The columns of predictions, in this order; by default all others, of our own files those that hold
        predictions. One column gives values of shape (n,), several (n, columns).

    Raises
    ------
    PredictionsError
        When the file holds no rows, an id is empty or there twice, or a value is empty, no number, NaN or infinite:
        with the column, the count and the first ids; when it is not clear which columns are meant.
    CorruptError
        When a file of ours was changed after it was written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "p.csv").write_text("id,score\\n007,0.5\\n7,0.25\\n")
    ...     p = read_predictions(Path(folder, "p.csv"))
    >>> p.ids.to_list(), p.values.tolist()
    (['007', '7'], [0.5, 0.25])

    """
    file = PredictionFile.open(path, id=id, columns=columns)
    if file.about is not None and columns is None and id in (None, "id"):
        return Predictions.load(file.path)
    ids = file.ids()
    values = np.empty((len(ids), len(file.columns)), file.dtype())
    for rows, places, part in file.parts(ids, values.size):
        values[rows, places] = part
    return Predictions(ids, values[:, 0] if file.is_flat else values)


@dataclass(frozen=True)
class PredictionFile:
    """A file whose columns are known and whose rows are not read yet."""

    path: Path
    id: str
    columns: tuple[str, ...]
    schema: Mapping[str, pl.DataType] | None
    """Of a Parquet file; None for a CSV."""
    about: Mapping[str, str] | None
    """What Predictions.save noted in a file that it wrote and nobody changed since; None for other files."""

    @classmethod
    def open(cls, path: Path | str, *, id: str | None = None, columns: Sequence[str] | None = None) -> PredictionFile:
        """Find out which columns a file has and which are meant. Raises as `read_predictions` does."""
        path = Path(path)
        if not path.is_file():
            raise PredictionsError(f"{path} is not a file; give the path of a CSV or Parquet file of predictions")
        with _refusing(path), open(path, "rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        notes = check_seal(path) if is_parquet else {}
        about = about_of(notes, path) if "about" in notes else None
        schema = _schema(path) if is_parquet else None
        names = _header(path) if schema is None else list(schema)
        key = _id_column(path, names, id)
        meant = _prediction_columns(path, [name for name in names if name != key], columns)
        for name in meant if schema is not None else ():
            dtype = schema[name]  # type: ignore[index]
            if not (dtype.is_float() or dtype.is_integer() or dtype == pl.Boolean) or "128" in str(dtype):
                raise PredictionsError(
                    f"{path}: column {name!r} holds {dtype}; predictions are numbers of 64 bits at most. Name the"
                    " columns that hold them: columns=[...]"
                )
        return cls(path, key, meant, schema, about)

    @property
    def is_flat(self) -> bool:
        """Whether values are of shape (n,): of one column, unless a file of ours says it is the first of several."""
        return len(self.columns) == 1 and not (self.about is not None and self.columns == ("prediction_0",))

    def ids(self) -> pl.Series:
        """Return the ids, each there once and none empty."""
        ids = self._frame([self.id])[self.id]
        if self.schema is None:
            ids = _whole_numbers(ids)
        elif ids.dtype in (pl.Categorical, pl.Enum):
            ids = ids.cast(pl.String)
        if not len(ids):
            raise PredictionsError(f"{self.path}: has names of columns but no rows")
        try:
            Predictions(ids, np.zeros(len(ids)))
        except PredictionsError as error:
            raise PredictionsError(f"{self.path}: column {self.id!r}: {error}") from None
        return ids.alias("id")

    def beside(self) -> pl.DataFrame:
        """Return what a file of ours holds beside ids and predictions: folds, targets."""
        return self._frame([name for name in _BESIDE if self.about is not None and name in (self.schema or ())])

    def parts(self, ids: pl.Series, size: int) -> Iterator[tuple[slice, slice, NDArray[Any]]]:
        """Yield the rows, the columns and the values of one part of the file after the other, about `size` values each.

        `ids` are those of the file. Values that are no finite numbers are refused after the last part, all at once.
        """
        faults, read = _Faults(self.path, ids), 0
        for rows, columns, frame in self._frames(len(ids), size):
            numbers = [faults.numbers(column, rows.start) for column in frame]
            read += frame.height * frame.width
            if not faults.found:
                yield rows, columns, np.stack([column.to_numpy() for column in numbers], axis=1)
        faults.refuse()
        if read != len(ids) * len(self.columns):
            raise PredictionsError(f"{self.path}: had {len(ids)} rows and has others now; it was changed meanwhile")

    def dtype(self) -> np.dtype[Any]:
        """Return the type that holds the values of all columns: float64 for a CSV."""
        if self.schema is None:
            return np.dtype(np.float64)
        return np.result_type(*(pl.Series(dtype=self.schema[name]).to_numpy().dtype for name in self.columns))

    def _lazy(self, columns: Sequence[str]) -> pl.LazyFrame:
        if self.schema is None:
            return pl.scan_csv(self.path, infer_schema=False, glob=False).select(columns)
        return pl.scan_parquet(self.path, glob=False).select(columns)

    def _frame(self, columns: Sequence[str]) -> pl.DataFrame:
        with _refusing(self.path):
            return self._lazy(columns).collect()

    def _frames(self, total: int, size: int) -> Iterator[tuple[slice, slice, pl.DataFrame]]:
        """Parquet column by column, as it is stored; CSV line by line: the end of a part begins the next.

        Of a CSV all columns are read: where only some are, polars lets lines with more fields than names pass.
        """
        with _refusing(self.path):
            if self.schema is not None:
                for place, name in enumerate(self.columns):
                    for start in range(0, total, size):
                        frame = self._lazy([name]).slice(start, size).collect()
                        yield slice(start, start + len(frame)), slice(place, place + 1), frame
                return
            start, width = 0, len(self.columns)
            lines = pl.scan_csv(self.path, infer_schema=False, glob=False)
            for frame in lines.collect_batches(chunk_size=max(1, size // width)):
                yield slice(start, start + len(frame)), slice(0, width), frame.select(self.columns)
                start += len(frame)


@contextmanager
def _refusing(path: Path | str) -> Iterator[None]:
    """What polars or the system cannot read is refused in their words."""
    try:
        yield
    except UNREADABLE as error:
        raise PredictionsError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error


def _schema(path: Path) -> dict[str, pl.DataType]:
    with _refusing(path):
        return dict(pl.read_parquet_schema(path))


def _header(path: Path) -> list[str]:
    with _refusing(path), open(path, "rb") as file:
        return csv_header(file, path)


def csv_header(file: BinaryIO, path: Path | str) -> list[str]:
    """Return the names in the first line of a CSV, each there once. Raises PredictionsError."""
    texts = TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        with _refusing(path):
            names = next(csv.reader(texts), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise PredictionsError(f"{path}: is neither Parquet nor CSV in UTF-8 ({error})") from None
    finally:
        texts.detach()  # the file is the caller's to close
    if not names:
        raise PredictionsError(f"{path}: is empty; a CSV begins with a line of names, such as id,prediction")
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise PredictionsError(f"{path}: column {twice[0]!r} is there more than once; rename it")
    if all(_is_number(name) for name in names):
        raise PredictionsError(f"{path}: the first line holds numbers, not the names of columns: {some(names, 5)}")
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _id_column(path: Path, names: Sequence[str], asked: str | None) -> str:
    if len(names) < 2:
        raise PredictionsError(
            f"{path}: has one column, {names[0]!r}; it needs ids and predictions, in a CSV with commas between them"
        )
    if asked is not None and asked not in names:
        raise PredictionsError(f"{path}: has no column {asked!r}; it has {some(names, 12)}")
    return asked if asked is not None else "id" if "id" in names else names[0]


def _prediction_columns(path: Path, names: Sequence[str], asked: Sequence[str] | None) -> tuple[str, ...]:
    if asked is not None:
        if not asked or (lacking := [name for name in asked if name not in names]) or len(set(asked)) != len(asked):
            what = f"{lacking[0]!r}" if asked and lacking else f"{list(asked)}"
            raise PredictionsError(
                f"{path}: columns asked for are not there, or twice: {what}; it has {some(names, 12)}"
            )
        return tuple(asked)
    if index := [name for name in names if name in _INDEX]:
        raise PredictionsError(
            f"{path}: column {index[0]!r} seems to be the row number that pandas writes; write the file with"
            " index=False, or name the columns of predictions: columns=[...]"
        )
    ours = our_columns(names)
    if not ours:
        return tuple(names)
    if unknown := [name for name in names if name not in ours and name not in _BESIDE]:
        raise PredictionsError(
            f"{path}: are {some(unknown, 5)} predictions, too, beside {some(ours, 5)}? Name all that are: columns=[...]"
        )
    return tuple(ours)


def our_columns(names: Sequence[str]) -> list[str]:
    """Return those that `Predictions` gives to columns of predictions, in the order of their numbers.

    >>> our_columns(["id", "prediction_1", "prediction_0"])
    ['prediction_0', 'prediction_1']
    """
    found = (match for name in names if (match := _OURS.fullmatch(name)))
    return [match[0] for match in sorted(found, key=lambda match: int(match[1] or -1))]


def _whole_numbers(texts: pl.Series) -> pl.Series:
    """The texts as numbers where that loses nothing of any of them, else as they are."""
    numbers = texts.cast(pl.Int64, strict=False)
    same = numbers.null_count() == texts.null_count() and bool((numbers.cast(pl.String) == texts).all())
    return numbers if same else texts


@dataclass
class _Fault:
    count: int
    ids: list[Any]
    example: str


class _Faults:
    """Values that cannot be used, by column and kind, counted over the whole file."""

    def __init__(self, path: Path, ids: pl.Series) -> None:
        self.found: dict[tuple[str, str], _Fault] = {}
        self._path, self._ids = path, ids

    def numbers(self, column: pl.Series, start: int) -> pl.Series:
        """Return the column as numbers; what is empty, no number or not finite is noted."""
        self._note(column, "are empty", column.is_null(), start)
        if column.dtype == pl.String:
            texts, column = column, column.str.strip_chars().cast(pl.Float64, strict=False)
            self._note(texts, "are no numbers", column.is_null() & texts.is_not_null(), start)
        if column.dtype.is_float():
            self._note(column, "are NaN or infinite", ~column.is_finite(), start)
        return column

    def _note(self, column: pl.Series, what: str, bad: pl.Series, start: int) -> None:
        if not (count := bad.sum()):
            return
        rows = bad.arg_true()
        fault = self.found.setdefault((column.name, what), _Fault(0, [], str(column[rows[0]])))
        fault.count += int(count)
        fault.ids += self._ids.gather(rows.head(_FIRST - len(fault.ids)) + start).to_list()

    def refuse(self) -> None:
        """Raise PredictionsError if anything was noted."""
        for (column, what), fault in self.found.items():
            example = f", such as {fault.example!r}" if what == "are no numbers" else ""
            raise PredictionsError(
                f"{self._path}: column {column!r}: {fault.count} of {len(self._ids)} values {what}{example}"
                f" (first ids: {fault.ids})"
            )
