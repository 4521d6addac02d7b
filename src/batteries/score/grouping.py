"""Grouping: which rows of an entry belong together, so that noise is not taken for smaller than it is.

In:    an entry, the ids of its rows, a column of its table.
Out:   the column in the order of the ids; how to resample the rows.
Next:  the board, the test set and `compare` draw rows accordingly.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from batteries.errors import DataError, UsageError, some
from batteries.experiment import Experiment
from batteries.prepare.folds import grouped_column
from batteries.prepare.table import test_table, training_table
from batteries.score.entry import Entry
from batteries.score.resample import Blocks, Groups, Resampling, Rows


def column(experiment: Experiment, ids: pl.Series, name: str) -> pl.Series:
    """Return a column of the training table of an experiment, in the order of `ids`.

    Raises
    ------
    UsageError
        When there is no such column.
    DataError
        When the table has no row of an id.

    """
    return _column(training_table(experiment), experiment.id, ids, name)


def _column(table: pl.DataFrame, id: str, ids: pl.Series, name: str) -> pl.Series:
    if name not in table.columns:
        raise UsageError(f"the training table has no column {name!r}; it has {some(table.columns, 12)}")
    place = pl.DataFrame({"id": table[id], "row": np.arange(len(table))})
    rows = pl.DataFrame({"id": ids}).join(place, on="id", how="left", maintain_order="left")["row"]
    if missing := rows.null_count():
        raise DataError(f"the table lacks {missing} of the {len(ids)} rows that are predicted; it changed since")
    return table[name].gather(rows)


def resampling(
    entry: Entry,
    ids: pl.Series,
    *,
    groups: str | None = None,
    block: int | None = None,
    experiment: Experiment | None = None,
) -> Resampling:
    """Return what is resampled: groups or blocks as asked for, else the groups that the folds keep together, else rows.

    Parameters
    ----------
    entry, ids
        What is scored, and the rows it predicts.
    groups
        A column of the training table.
    block
        Rows of a block.
    experiment
        That of the entry, where it is loaded already. The table is read only for groups.

    Raises
    ------
    UsageError
        When both groups and blocks are asked for, or there is no such column.
    DataError
        When rows have no group.

    """
    if groups is not None and block is not None:
        raise UsageError("groups and blocks cannot be resampled at once; give one of them")
    if block is not None:
        return Blocks(block)
    groups = groups or grouped_by(entry)
    return Rows() if groups is None else _groups(column(experiment or entry.experiment(), ids, groups), groups)


def test_resampling(entry: Entry, ids: pl.Series) -> Resampling:
    """Return how test rows are drawn: in the groups of the folds, where the test table has their column."""
    groups = grouped_by(entry)
    table = None if groups is None else test_table(entry.experiment())
    if groups is None or table is None or groups not in table.columns:
        return Rows()
    return _groups(_column(table, entry.config["columns"]["id"], ids, groups), groups)


def _groups(labels: pl.Series, name: str) -> Groups:
    if empty := labels.null_count():
        raise DataError(f"{empty} of {len(labels)} rows have no {name!r} to be grouped by; fill the column")
    return Groups(labels.to_numpy(), name)


def grouped_by(entry: Entry) -> str | None:
    """Return the column whose groups the folds of an entry keep together, if they do."""
    return grouped_column(entry.config["folds"].get("strategy", ""))
