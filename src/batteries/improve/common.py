"""Common: what entries that are compared have in common: rows, targets, and what may not be torn apart.

In:    entries with complete out-of-fold predictions on one split.
Out:   their predictions in one order; a column of the training table in that order; how to resample.
Next:  `compare` scores them on the same rows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.errors import DataError, UsageError, some
from batteries.experiment.predictions import Predictions
from batteries.prepare.table import training_table
from batteries.score.entry import Entry
from batteries.score.resample import Blocks, Groups, Resampling, Rows


def aligned(entries: Sequence[Entry]) -> tuple[NDArray[Any], list[Predictions]]:
    """Return the targets and each entry's predictions, rows in the order of the first.

    Raises
    ------
    UsageError
        For fewer than two entries, or one that is named twice.
    DataError
        When folds, targets or ids differ, or rows are missing.

    """
    names = [entry.name for entry in entries]
    if len(entries) < 2:
        raise UsageError(f"a comparison needs two entries or more, got {', '.join(names) or 'none'}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{twice[0]} is named twice; compare it with others")
    for entry in entries[1:]:
        if entry.config["folds"]["digest"] != entries[0].config["folds"]["digest"]:
            raise DataError(
                f"{names[0]} and {entry.name} were trained on different folds; scores on them do not compare"
            )
    parts = [entries[0].oof(complete=True)]
    parts += [entry.oof(complete=True).align(parts[0].ids) for entry in entries[1:]]
    targets = parts[0].targets
    if targets is None:
        raise DataError(f"the out-of-fold predictions of {names[0]} hold no targets; train it again")
    for name, part in zip(names, parts, strict=True):
        if part.targets is None or not np.array_equal(part.targets, targets):
            raise DataError(
                f"{names[0]} and {name} have other targets for the same rows; scores on them do not compare"
            )
    return targets, parts


def column(entry: Entry, ids: pl.Series, name: str) -> pl.Series:
    """Return a column of the training table of an entry's experiment, in the order of `ids`.

    Raises
    ------
    UsageError
        When there is no such column.
    DataError
        When the table has no row of an id.

    """
    experiment = entry.experiment()
    table = training_table(experiment)
    if name not in table.columns:
        raise UsageError(f"the training table has no column {name!r}; it has {some(table.columns, 12)}")
    place = pl.DataFrame({"id": table[experiment.id], "row": np.arange(len(table))})
    rows = pl.DataFrame({"id": ids}).join(place, on="id", how="left", maintain_order="left")["row"]
    if missing := rows.null_count():
        raise DataError(f"the training table lacks {missing} of the {len(ids)} rows of {entry.name}; it changed since")
    return table[name].gather(rows)


def resampling(entry: Entry, ids: pl.Series, *, groups: str | None = None, block: int | None = None) -> Resampling:
    """Return what is resampled: groups or blocks as asked for, else the groups that the folds keep together, else rows.

    Raises
    ------
    UsageError
        When both groups and blocks are asked for.
    DataError
        When rows have no group.

    """
    if groups is not None and block is not None:
        raise UsageError("groups and blocks cannot be resampled at once; give one of them")
    if block is not None:
        return Blocks(block)
    groups = groups or grouped_by(entry.config["folds"].get("strategy", ""))
    if groups is None:
        return Rows()
    labels = column(entry, ids, groups)
    if empty := labels.null_count():
        raise DataError(f"{empty} of {len(labels)} rows have no {groups!r} to be grouped by; fill the column")
    return Groups(labels.to_numpy(), groups)


def grouped_by(strategy: str) -> str | None:
    """Return the column whose groups the folds keep together, from their strategy as text.

    >>> grouped_by("Grouped(column='patient', n=5, seed=0)")
    'patient'
    """
    found = re.match(r"Grouped\(column='([^']*)'", strategy)
    return found[1] if found else None
