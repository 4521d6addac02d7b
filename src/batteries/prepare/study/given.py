"""Given: what the user hands over, as polars tables whose rows have names.

In:    an Experiment; or a table of polars or pandas, or the path of a CSV or Parquet file.
Out:   a Given: two tables that always have an id and a target column, made up where there is none.
Next:  the survey looks at them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.errors import DataError, some
from batteries.experiment import Experiment
from batteries.experiment.load import experiment_name
from batteries.experiment.sealed import UNREADABLE
from batteries.prepare.folds import describe as describe_folds
from batteries.prepare.pictures import SUFFIXES
from batteries.prepare.table import test_table, training_table

NO_ID, NO_TARGET = "row number", "no target"


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a study looks at."""

    name: str
    train: pl.DataFrame
    test: pl.DataFrame | None
    id: str
    target: str
    images: tuple[str, ...] = ()
    """Columns that hold paths of image files."""
    text: tuple[str, ...] = ()
    """Columns that hold texts, beside those that look like it."""
    folder: Path = Path()
    """Where relative paths begin."""
    metric: str = ""
    folds: str | None = None
    classes: tuple[str, ...] | None = None
    oof: NDArray[Any] | None = None
    """Out-of-fold predictions of the rows, in their order; NaN where there is none."""

    @property
    def features(self) -> list[str]:
        """Columns of the training table without id and target."""
        return [name for name in self.train.columns if name not in (self.id, self.target)]

    @property
    def made_up(self) -> tuple[str, ...]:
        """Columns that the user's table does not have."""
        return tuple(name for name in (self.id, self.target) if name in (NO_ID, NO_TARGET))


def given_by(experiment: Experiment, oof: NDArray[Any] | None, folder: Path) -> Given:
    """Return the tables of an experiment and what it declares."""
    train, test = training_table(experiment), test_table(experiment)
    return Given(
        name=experiment_name(experiment),
        train=train,
        test=test,
        id=experiment.id,
        target=experiment.target,
        images=_path_columns(train, (experiment.id, experiment.target)),
        folder=folder,
        metric=experiment.metric.name,
        folds=None if experiment.folds is None else describe_folds(experiment.folds),
        classes=experiment.classes,
        oof=_checked(oof, train),
    )


def given_tables(
    train: Any,
    test: Any = None,
    *,
    target: str | None,
    id: str | None,
    images: str | Sequence[str] | None,
    text: str | Sequence[str] | None,
    folder: Path,
    oof: NDArray[Any] | None,
) -> Given:
    """Return tables of any kind with the names that the user gave; see `study`."""
    first, second = read_table(train, "train"), None if test is None else read_table(test, "test")
    if id is None:
        id = next((name for name in first.columns if name.lower() == "id"), None)
    paths = _names(images) or _path_columns(first, (id, target))
    for name in (id, target, *paths, *_names(text)):
        _present(first, name)
    if id is None:
        first, second = first.with_row_index(NO_ID), None if second is None else second.with_row_index(NO_ID)
    elif second is not None and id not in second.columns:
        second = second.with_row_index(id)
    if target is None:
        first = first.with_columns(pl.lit(None).alias(NO_TARGET))
    return Given(
        name=Path(train).name if isinstance(train, str | Path) else "table",
        train=first,
        test=second,
        id=NO_ID if id is None else id,
        target=NO_TARGET if target is None else target,
        images=paths,
        text=_names(text),
        folder=folder,
        oof=_checked(oof, first),
    )


def read_table(source: Any, what: str) -> pl.DataFrame:
    """Return a table as polars. Raises DataError for what is none, cannot be read or has no rows."""
    if isinstance(source, str | Path):
        table = _read_file(Path(source))
    elif isinstance(source, pl.LazyFrame):
        table = source.collect()
    elif type(source).__module__.split(".")[0] == "pandas" and hasattr(source, "columns"):
        table = pl.DataFrame([_from_pandas(str(name), source[name]) for name in source.columns])
    elif isinstance(source, pl.DataFrame):
        table = source
    else:
        raise DataError(
            f"{what} must be a table of polars or pandas, or the path of a CSV or Parquet file; got"
            f" {type(source).__name__}"
        )
    if not len(table):
        raise DataError(f"{what} has no rows")
    return table


def _read_file(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise DataError(f"{path} does not exist, or is no file; give the path of a CSV or Parquet file")
    suffix = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    try:
        if suffix == "parquet":
            return pl.read_parquet(path, glob=False)
        if suffix in ("csv", "tsv", "txt"):
            separator = "\t" if suffix == "tsv" else ","
            return pl.read_csv(path, separator=separator, infer_schema_length=10_000, try_parse_dates=True, glob=False)
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    raise DataError(f"{path} is neither CSV (.csv, .tsv, .txt, also .gz) nor Parquet (.parquet)")


def _from_pandas(name: str, column: Any) -> pl.Series:
    """Without pyarrow, which polars' own conversion wants for texts."""
    values = column.to_numpy()
    if values.dtype.kind in "iufbM":
        return pl.Series(name, values)
    empty = column.isna().to_numpy()
    return pl.Series(name, [None if gone else value for value, gone in zip(values, empty, strict=True)], strict=False)


def _names(names: str | Sequence[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


def _present(table: pl.DataFrame, name: str | None) -> None:
    if name is not None and name not in table.columns:
        raise DataError(f"the training table has no column {name!r}; it has {some(table.columns, 12)}")


def _path_columns(table: pl.DataFrame, others: tuple[str | None, ...]) -> tuple[str, ...]:
    """Columns of texts nearly all of which end like the name of an image file."""
    texts = [c for c in table if c.dtype == pl.String and c.name not in others and c.null_count() < len(c)]
    ends = "(?i)(" + "|".join(suffix.replace(".", r"\.") for suffix in SUFFIXES) + ")$"
    return tuple(c.name for c in texts if float(c.drop_nulls().str.contains(ends).mean() or 0) > 0.95)  # type: ignore[arg-type]


def _checked(oof: NDArray[Any] | None, train: pl.DataFrame) -> NDArray[Any] | None:
    if oof is None:
        return None
    oof = np.asarray(oof)
    if len(oof) != len(train) or oof.ndim > 2 or oof.dtype.kind not in "iufb":
        raise DataError(
            f"out-of-fold predictions must be numbers, one row for each of the {len(train):,} training rows in their"
            f" order; got shape {oof.shape} of {oof.dtype}"
        )
    return oof
