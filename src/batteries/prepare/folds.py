"""Folds: which row is held out when.

In:    a table with an id column; a target or group column if the strategy wants one.
Out:   folds.parquet (id, fold), written once with digests of what it was made from, never recomputed.
Next:  loaders turn one fold into a training and a validation set.
"""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.errors import ConfigError, CorruptError, FoldsError
from batteries.experiment import Experiment
from batteries.experiment.predictions import column_digest
from batteries.experiment.sealed import read_table, write_table
from batteries.files import digest_of
from batteries.prepare.table import training_table

MAX_CLASSES = 100
"""A whole-number target with at most this many values is taken for classes."""


class Strategy(Protocol):
    """What decides which row is held out when."""

    def assign(self, table: pl.DataFrame) -> NDArray[np.int64]:
        """Return the fold of every row, shape (n,)."""
        ...

    def columns(self) -> list[str]:
        """Return the columns the folds depend on."""
        ...


@dataclass(frozen=True)
class KFold:
    """Shuffled folds of equal size (scikit-learn's KFold)."""

    _: KW_ONLY
    n: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        _check_n(self.n)

    def columns(self) -> list[str]:
        return []

    def assign(self, table: pl.DataFrame) -> NDArray[np.int64]:
        from sklearn.model_selection import KFold as Splitter

        return _held_out(Splitter(_enough(self.n, table), shuffle=True, random_state=self.seed), table)


@dataclass(frozen=True)
class Stratified:
    """Folds with the same share of every class (scikit-learn's StratifiedKFold)."""

    column: str
    _: KW_ONLY
    n: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        _check_n(self.n)

    def columns(self) -> list[str]:
        return [self.column]

    def assign(self, table: pl.DataFrame) -> NDArray[np.int64]:
        from sklearn.model_selection import StratifiedKFold as Splitter

        column = _column(table, self.column)
        _enough(self.n, table)
        counts = column.alias("value").value_counts(sort=True)
        if (rarest := int(counts["count"].to_numpy().min())) < self.n:
            rare = counts.filter(pl.col("count") < self.n)["value"].to_list()
            raise FoldsError(
                f"{len(rare)} classes of {self.column!r} have fewer rows than the {self.n} folds (the rarest {rarest};"
                f" first: {rare[:5]}); use Stratified({self.column!r}, n={max(2, rarest)}) or KFold(n={self.n})"
            )
        return _held_out(Splitter(self.n, shuffle=True, random_state=self.seed), table, y=_codes(column))


@dataclass(frozen=True)
class Grouped:
    """Folds that never part a group: all rows of one patient, user or scene are held out together.

    Groups are shuffled by the seed and dealt to the smallest fold, largest group first (the rule of
    scikit-learn's GroupKFold); written here so that ties fall the same way on every machine.
    """

    column: str
    _: KW_ONLY
    n: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        _check_n(self.n)

    def columns(self) -> list[str]:
        return [self.column]

    def assign(self, table: pl.DataFrame) -> NDArray[np.int64]:
        groups = _codes(_column(table, self.column))
        _enough(self.n, table)
        sizes = np.bincount(groups)
        if len(sizes) < self.n:
            raise FoldsError(f"{self.column!r} has {len(sizes)} groups, fewer than {self.n} folds; lower n")
        order = np.random.default_rng(self.seed).permutation(len(sizes))
        order = order[np.argsort(-sizes[order], kind="stable")]
        rows_in, fold_of = np.zeros(self.n, dtype=np.int64), np.zeros(len(sizes), dtype=np.int64)
        for group in order:
            fold_of[group] = rows_in.argmin()
            rows_in[fold_of[group]] += sizes[group]
        return fold_of[groups]


def _held_out(splitter: Any, table: pl.DataFrame, y: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    folds = np.full(len(table), -1, dtype=np.int64)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(table)), y)):
        folds[held_out] = fold
    return folds


def _check_n(n: int) -> None:
    if not isinstance(n, int) or n < 2:
        raise ConfigError(f"folds: n must be a whole number >= 2, got {n!r}")


def _enough(n: int, table: pl.DataFrame) -> int:
    if len(table) < n:
        raise FoldsError(f"the table has {len(table)} rows, fewer than {n} folds; lower n")
    return n


def _column(table: pl.DataFrame, name: str) -> pl.Series:
    if name not in table.columns:
        raise FoldsError(f"the folds need column {name!r}; the table has {', '.join(table.columns[:12])}")
    if empty := table[name].null_count():
        raise FoldsError(f"the folds need column {name!r}, but {empty} of its rows are empty; fill them first")
    return table[name]


def _codes(column: pl.Series) -> NDArray[np.int64]:
    """Whole numbers for values, in sorted order, whatever their type."""
    return (column.rank("dense") - 1).cast(pl.Int64).to_numpy()


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
    """Row id -> fold, and what it was made from. Disjoint and complete by construction."""

    ids: pl.Series
    fold: NDArray[np.int64]
    """Shape (n,), 0 to n - 1."""
    about: dict[str, str]
    """Strategy, and digests of the ids and of every column it depends on."""

    def __post_init__(self) -> None:
        if self.fold.shape != (len(self.ids),) or self.fold.dtype.kind not in "iu":
            raise FoldsError(
                f"{len(self.ids)} rows need one whole number each, got {self.fold.dtype} {self.fold.shape}"
            )
        held_out = np.unique(self.fold)
        if len(held_out) < 2 or held_out[0] != 0 or held_out[-1] != len(held_out) - 1:
            raise FoldsError(f"folds must be numbered 0 to n - 1, each with a row, at least two; got {held_out[:12]}")

    @property
    def n(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1

    @cached_property
    def digest(self) -> str:
        """Names this split: equal digests mean the same rows held out together."""
        fold = pl.Series(self.fold.astype(np.int64))
        return digest_of([self.about, column_digest(self.ids), column_digest(fold)])

    @property
    def strategy(self) -> str:
        """For people: `Stratified(column='label', n=5, seed=0)`."""
        return self.about["strategy"]

    def training(self, fold: int) -> NDArray[np.int64]:
        """Positions in the table of the rows that train when `fold` is held out."""
        return np.flatnonzero(self.fold != fold)

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
        """Write (id, fold) as Parquet, with the strategy and the digests in its metadata."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, pl.DataFrame({"id": self.ids, "fold": self.fold}), self.about)

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
        return cls(frame["id"], frame["fold"].to_numpy(), about)


def make_folds(table: pl.DataFrame, strategy: Strategy, *, id: str = "id", target: str | None = None) -> Folds:
    """Assign every row of `table` to a fold; remember digests of ids, target and the strategy's columns.

    >>> table = pl.DataFrame({"id": range(6), "label": [0, 1] * 3})
    >>> make_folds(table, Stratified("label", n=3)).n
    3
    """
    folds = strategy.assign(table)
    named = dict.fromkeys([id, *([target] if target else []), *strategy.columns()])
    columns = {name: column_digest(_column(table, name)) for name in named}
    return Folds(table[id], folds, {"strategy": describe(strategy), "columns": json.dumps(columns)})


def describe(strategy: Strategy) -> str:
    """`Stratified(column='label', n=5, seed=0)`: what a file of folds is compared by."""
    fields = ", ".join(f"{k}={v!r}" for k, v in asdict(strategy).items())  # type: ignore[call-overload]
    return f"{type(strategy).__name__}({fields})"


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
    strategy = experiment.folds or default_strategy(table, experiment.target)
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
