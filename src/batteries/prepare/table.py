"""Table: the training and test tables of an experiment, checked before anything is built on them.

In:    an Experiment.
Out:   polars tables whose id column names every row once.
Next:  folds, study and loaders read them.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from batteries.errors import DataError
from batteries.experiment import Experiment


def training_table(experiment: Experiment) -> pl.DataFrame:
    """Return `experiment.table()`, refused when ids are missing or repeated or the target is not there."""
    table = _checked(experiment, experiment.table(), "table")
    if experiment.target not in table.columns:
        raise DataError(
            f"{_name(experiment)}.table() has no target column {experiment.target!r}; it has {_list(table.columns)}."
            f" Add the column, or name another: target = {table.columns[-1]!r}"
        )
    return table


def test_table(experiment: Experiment) -> pl.DataFrame | None:
    """Return `experiment.test_table()`, checked like the training table; its target is optional."""
    table = experiment.test_table()
    return None if table is None else _checked(experiment, table, "test_table")


def _checked(experiment: Experiment, table: Any, method: str) -> pl.DataFrame:
    where = f"{_name(experiment)}.{method}()"
    if isinstance(table, pl.LazyFrame):
        table = table.collect()
    if not isinstance(table, pl.DataFrame):
        raise DataError(
            f"{where} must return a polars DataFrame, got {type(table).__name__}; pl.DataFrame(...) makes one"
        )
    if not len(table):
        raise DataError(f"{where} has no rows")
    if experiment.id not in table.columns:
        raise DataError(
            f"{where} has no id column {experiment.id!r}; it has {_list(table.columns)}."
            f" Name another: id = {table.columns[0]!r}, or number the rows: table.with_row_index({experiment.id!r})"
        )
    _check_ids(table[experiment.id], where)
    return table


def _check_ids(ids: pl.Series, where: str) -> None:
    if not (ids.dtype.is_integer() or ids.dtype == pl.String):
        raise DataError(
            f"{where}: ids in {ids.name!r} must be whole numbers or texts, got {ids.dtype}; cast the column"
        )
    if empty := ids.null_count():
        raise DataError(f"{where}: {empty} of {len(ids)} ids in {ids.name!r} are empty")
    if ids.n_unique() != len(ids):
        twice = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
        raise DataError(
            f"{where}: {len(twice)} ids in {ids.name!r} occur more than once (first: {twice.head(5).to_list()})."
            " Make them unique: table.unique(subset=...) or another id column"
        )


def _name(experiment: Experiment) -> str:
    return type(experiment).__name__


def _list(names: list[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
