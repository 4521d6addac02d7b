"""Few: the rows that a rehearsal needs.

In:    an experiment, its stages, its tables, its folds.
Out:   rows to train on and rows that are held out, of every class where so few can have them; test rows.
Next:  `train.rehearse` trains on them what the run would train on all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.experiment import Experiment, Stage
from batteries.prepare.folds import Folds
from batteries.train.record import Tables

UPDATES, MOST = 2, 8
"""Updates of a stage: as many as it takes to stop and go on; more of them, where they are quick, to measure."""
_BATCHES = 2


@dataclass(frozen=True)
class HeldOutLast:
    """Folds of a rehearsal: the first rows are trained on, the others are fold 0."""

    training: int

    def columns(self) -> list[str]:
        """None are read."""
        return []

    def assign(self, table: pl.DataFrame) -> NDArray[np.int64]:
        """Fold 1 for the rows to train on, then fold 0: int64, shape (rows,)."""
        return (np.arange(len(table)) < self.training).astype(np.int64)


@dataclass(frozen=True)
class Few:
    """The rows that a rehearsal needs."""

    stages: tuple[Stage, ...]
    """With one epoch each."""
    train: pl.DataFrame
    """Rows to train on, then rows that are held out."""
    training: int
    held_out: int
    test: pl.DataFrame | None
    complete: bool
    """Whether all rows that are held out in fold 0 are among them, so that metrics must work."""

    @classmethod
    def of(cls, experiment: Experiment, stages: Sequence[Stage], whole: Tables, folds: Folds) -> Few:
        """The first rows of fold 0, of every class where so few can have them."""
        largest = max(batch_size_of(experiment, stage) for stage in stages)
        samples = max(MOST * stage.accumulate * batch_size_of(experiment, stage) for stage in stages)
        training = _of_every_class(whole.train, folds.training(0), samples, experiment.target)
        held_out = _of_every_class(whole.train, folds.held_out(0), _BATCHES * largest, experiment.target)
        return cls(
            tuple(replace(stage, epochs=1, patience=None) for stage in stages),
            whole.train[np.concatenate([training, held_out])],
            len(training),
            len(held_out),
            None if whole.test is None else whole.test.head(_BATCHES * largest),
            complete=len(held_out) == len(folds.held_out(0)),
        )


def batch_size_of(experiment: Experiment, stage: Stage) -> int:
    """The batch size of a stage."""
    return stage.batch_size or experiment.at(stage).batch_size


def _of_every_class(table: pl.DataFrame, rows: NDArray[Any], count: int, target: str) -> NDArray[Any]:
    """Choose some rows, the classes of a target that has classes by turns."""
    values = table[target][rows]
    if values.dtype.is_nested() or values.dtype.is_float():
        return rows[:count]
    turns = pl.DataFrame({"value": values}).select(pl.int_range(pl.len()).over("value")).to_series().to_numpy()
    return np.sort(rows[np.argsort(turns, kind="stable")[:count]])
