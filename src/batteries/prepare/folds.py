"""Folds: which row is held out when.

In:    a table with an id column; a target or group column if the strategy wants one.
Out:   folds.parquet (id, fold, who trains), written once with digests of what it was made from, never recomputed.
Next:  loaders turn one fold into a training and a validation set.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.errors import CorruptError, FoldsError
from batteries.experiment import Experiment
from batteries.experiment.predictions import column_digest
from batteries.experiment.sealed import read_table, write_table
from batteries.files import digest_of
from batteries.prepare.strategies import Assigned, KFold, Strategy, Stratified, column_of
from batteries.prepare.table import training_table

MAX_CLASSES = 100
"""A whole-number target with at most this many values is taken for classes."""


def default_strategy(table: pl.DataFrame, target: str) -> Strategy:
    """Stratified on a target that looks like classes, else plain folds."""
    column = table[target]
    texts = column.dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum)
    if (texts or column.dtype.is_integer()) and column.n_unique() <= MAX_CLASSES:
        rarest = int(column.alias("value").value_counts()["count"].to_numpy().min())
        if rarest >= Stratified(target).n:
            return Stratified(target)
    return KFold()


@dataclass(frozen=True)
class Folds:
    """Row id -> fold, and what it was made from. No row is held out twice, or trains where it is held out."""

    ids: pl.Series
    fold: NDArray[np.int64]
    """Shape (n,), 0 to n - 1; -1 for rows that are never held out."""
    about: dict[str, str]
    """Strategy, and digests of the ids and of every column it depends on."""
    trains: NDArray[np.bool_] | None = None
    """Shape (n, folds): which rows train when a fold is held out; None where all others do."""

    def __post_init__(self) -> None:
        if self.fold.shape != (len(self.ids),) or self.fold.dtype.kind not in "iu":
            raise FoldsError(
                f"{len(self.ids)} rows need one whole number each, got {self.fold.dtype} {self.fold.shape}"
            )
        held_out = np.unique(self.fold[self.fold != -1])
        if not len(held_out) or held_out[0] != 0 or held_out[-1] != len(held_out) - 1:
            raise FoldsError(
                f"folds must be numbered 0 to n - 1, each with a row, and -1 for rows that are never held out;"
                f" got {np.unique(self.fold)[:12]}"
            )
        if self.trains is not None and self.trains.shape != (len(self.ids), self.n):
            raise FoldsError(f"{len(self.ids)} rows in {self.n} folds need as many flags, got {self.trains.shape}")
        if self.trains is None:
            idle = [] if held_out[-1] or (self.fold == -1).any() else [0]
        else:
            idle = np.flatnonzero(~self.trains.any(axis=0)).tolist()
            held, rows = self.fold >= 0, np.arange(len(self.fold))
            if self.trains[rows[held], self.fold[held]].any():
                raise FoldsError("rows train where they are held out; the strategy's assign must not let them")
        if idle:
            raise FoldsError(f"no row is left to train when fold {idle[0]} is held out")

    @property
    def n(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1

    @cached_property
    def digest(self) -> str:
        """Names this split: equal digests mean the same rows held out together, and the same rows trained on."""
        fold = pl.Series(self.fold.astype(np.int64))
        trains = [] if self.trains is None else [column_digest(column) for column in self._flags()]
        return digest_of([self.about, column_digest(self.ids), column_digest(fold), *trains])

    @property
    def covered(self) -> pl.Series:
        """Ids of the rows that some fold holds out, in the order of the table: what out-of-fold predictions cover."""
        return self.ids.filter(pl.Series(self.fold >= 0))

    @property
    def test_share(self) -> float | None:
        """Rows held out over rows trained on, mean of the folds, where that is not 1 / (n - 1); else None."""
        if self.trains is None and (self.fold >= 0).all():
            return None
        return float(np.mean([len(self.held_out(fold)) / len(self.training(fold)) for fold in range(self.n)]))

    def plain(self) -> dict[str, Any]:
        """What a run notes of them, as JSON-ready data."""
        share = {} if self.test_share is None else {"test_share": self.test_share}
        return {"n": self.n, "strategy": self.strategy, "digest": self.digest, **share}

    def _flags(self) -> list[pl.Series]:
        assert self.trains is not None
        return [pl.Series(f"trains_{fold}", self.trains[:, fold]) for fold in range(self.n)]

    @property
    def strategy(self) -> str:
        """For people: `Stratified(column='label', n=5, seed=0)`."""
        return self.about["strategy"]

    def training(self, fold: int) -> NDArray[np.int64]:
        """Positions in the table of the rows that train when `fold` is held out."""
        return np.flatnonzero(self.fold != fold if self.trains is None else self.trains[:, fold])

    def held_out(self, fold: int) -> NDArray[np.int64]:
        """Positions in the table of the rows of `fold`."""
        return np.flatnonzero(self.fold == fold)

    def check(self, table: pl.DataFrame, id: str) -> None:
        """Raise FoldsError unless `table` has the ids, in their order, and the columns these folds were made from."""
        for name, digest in json.loads(self.about["columns"]).items():
            if name not in table.columns or column_digest(table[name]) != digest:
                what = "ids" if name == id else f"column {name!r}"
                raise FoldsError(
                    f"the folds were made from another table: its {what} changed ({len(self.ids)} rows then,"
                    f" {len(table)} now). Put the old table back, or move runs/folds.parquet away: batteries split"
                )

    def save(self, path: Path | str) -> None:
        """Write (id, fold, who trains) as Parquet, with the strategy and the digests in its metadata."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = pl.DataFrame({"id": self.ids, "fold": self.fold})
        write_table(path, table if self.trains is None else table.with_columns(self._flags()), self.about)

    @classmethod
    def load(cls, path: Path | str) -> Folds:
        """Read what `save` wrote. Raises FoldsError when there is none, CorruptError when it was changed."""
        path = Path(path)
        if not path.exists():
            raise FoldsError(f"{path} does not exist; make the folds first: batteries split")
        try:
            frame, about = read_table(path)
        except CorruptError as error:
            raise CorruptError(f"{error}. Restore it from a copy: every run here was made on these folds") from error
        if not {"strategy", "columns"} <= set(about):
            raise CorruptError(f"{path}: holds no folds but {', '.join(frame.columns[:5])}; restore it from a copy")
        flags = frame.drop("id", "fold")
        trains = np.stack([flag.to_numpy() for flag in flags], axis=1) if flags.width else None
        return cls(frame["id"], frame["fold"].to_numpy(), about, trains)


def make_folds(table: pl.DataFrame, strategy: Strategy, *, id: str = "id", target: str | None = None) -> Folds:
    """Assign every row of `table` to a fold; remember digests of ids, target and the strategy's columns.

    >>> table = pl.DataFrame({"id": range(6), "label": [0, 1] * 3})
    >>> make_folds(table, Stratified("label", n=3)).n
    3
    """
    assigned = strategy.assign(table)
    fold, trains = (assigned.fold, assigned.trains) if isinstance(assigned, Assigned) else (assigned, None)
    named = dict.fromkeys([id, *([target] if target else []), *strategy.columns()])
    columns = {name: column_digest(column_of(table, name)) for name in named}
    return Folds(table[id], np.asarray(fold), {"strategy": describe(strategy), "columns": json.dumps(columns)}, trains)


def describe(strategy: Strategy) -> str:
    """`Stratified(column='label', n=5, seed=0)`: what a file of folds is compared by.

    A field that is None by default and by choice is left out.
    """
    values = [(each, getattr(strategy, each.name)) for each in fields(strategy)]  # type: ignore[arg-type]
    told = ", ".join(
        f"{each.name}={value!r}" for each, value in values if value is not None or each.default is not None
    )
    return f"{type(strategy).__name__}({told})"


_NAME = r"('[^']*'|\"[^\"]*\")"


def grouped_column(strategy: str) -> str | None:
    """Return the column whose groups a strategy, as `describe` tells it, keeps together; None if there is none.

    >>> grouped_column("Grouped(column='patient', n=5, seed=0)")
    'patient'
    """
    found = re.search(rf"(?:^Grouped\(column|[(, ]groups)={_NAME}", strategy)
    return str(ast.literal_eval(found[1])) if found else None


def columns_of(folds: Folds) -> list[str]:
    """Return the columns that folds were made from, the id among them."""
    return list(json.loads(folds.about["columns"]))


def ordered_column(strategy: str) -> str | None:
    """Return the column of time in whose order a strategy holds rows out; None for any other strategy."""
    found = re.match(rf"TimeOrdered\(column={_NAME}", strategy)
    return str(ast.literal_eval(found[1])) if found else None


def strategy_of(experiment: Experiment, table: pl.DataFrame) -> Strategy:
    """Return the strategy that an experiment declares, or the one that its target suggests."""
    declared: Strategy | None = experiment.folds
    return declared or default_strategy(table, experiment.target)


def split(experiment: Experiment, root: Path | str = "runs", *, table: pl.DataFrame | None = None) -> Folds:
    """Make the folds of an experiment once, and return the same ones ever after.

    Reads `root/folds.parquet` if it is there and fits the table and the declared strategy; else writes it.

    Raises
    ------
    FoldsError
        When the table or the strategy changed since.

    """
    path = Path(root) / "folds.parquet"
    table = training_table(experiment) if table is None else table
    strategy = strategy_of(experiment, table)
    if not path.exists():
        make_folds(table, strategy, id=experiment.id, target=experiment.target).save(path)
    folds = Folds.load(path)
    folds.check(table, experiment.id)
    if describe(strategy) != folds.strategy:
        raise FoldsError(
            f"{path} holds {folds.strategy}, the experiment asks for {describe(strategy)}; scores on two splits"
            " cannot be compared. Put the declared strategy back, or move the file away with the runs made on it"
        )
    return folds
