"""Split check: whether what is held out is really unseen.

In:    a table; folds of ours, or a CSV or Parquet file with ids and folds that was made elsewhere.
Out:   a line for each fold; leaks, with the rows named; notes on what could not be compared.
Next:  `batteries split` refuses a leak unless it is allowed by name.

That folds are disjoint and complete is seen to where they are read or made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.errors import FoldsError, UsageError
from batteries.experiment import Experiment
from batteries.experiment.sealed import check_seal
from batteries.prepare.alike import alike_rows
from batteries.prepare.folds import (
    Folds,
    columns_of,
    describe,
    grouped_column,
    make_folds,
    ordered_column,
    split,
    strategy_of,
)
from batteries.prepare.made_elsewhere import FromFile
from batteries.prepare.strategies import codes, column_of
from batteries.prepare.study.groups import groups_of
from batteries.prepare.study.table import looks_like_classes
from batteries.prepare.table import training_table

Kind = Literal["duplicates", "near-duplicates", "groups", "time"]

_PAIRS = 5


@dataclass(frozen=True)
class Leak:
    """Rows that are held out although the model saw as good as the same, or what came after."""

    kind: Kind
    where: str
    """The columns that tell."""
    rows: int
    """Held-out rows with such a row in training, over all folds."""
    pairs: tuple[tuple[Any, Any, int], ...]
    """Id of a held-out row, id of a training row, fold: the first five."""

    @property
    def sentence(self) -> str:
        """What leaks, with the rows named."""
        what = {
            "duplicates": f"equal a row that trains, in {self.where}",
            "near-duplicates": f"are nearly the same as a row that trains, in {self.where}",
            "groups": f"are of the same {self.where} as a row that trains",
            "time": f"are not later in {self.where} than all rows that train",
        }[self.kind]
        named = "; ".join(f"fold {fold}: {held!r} and {trains!r}" for held, trains, fold in self.pairs)
        return f"{self.kind}: {self.rows:,} held-out rows {what} ({named}{'; ...' if self.rows > _PAIRS else ''})"


@dataclass(frozen=True)
class FoldLine:
    """What a fold holds out."""

    fold: int
    rows: int
    trains: int
    """Rows that train meanwhile."""
    groups: int | None
    """Different values in the first column of groups; None without groups."""
    shares: dict[str, float] | None = None
    """Of each class of the target, where it has classes."""
    mean: float | None = None
    deviation: float | None = None
    """Of the target, where it holds numbers."""


@dataclass(frozen=True)
class SplitCheck:
    """What is known of a split."""

    strategy: str
    digest: str
    folds: tuple[FoldLine, ...]
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        leaks = [{**asdict(leak), "sentence": leak.sentence} for leak in self.leaks]
        return {**asdict(self), "leaks": leaks}

    def refuse(self, allow: Collection[str] = ()) -> None:
        """Raise FoldsError naming every leak that is not of an allowed kind."""
        check_allowed(allow)
        if leaks := [leak for leak in self.leaks if leak.kind not in allow]:
            kinds = list(dict.fromkeys(leak.kind for leak in leaks))
            told = "\n".join(f"  {leak.sentence}" for leak in leaks)
            raise FoldsError(
                f"{self.strategy} lets a model see what it is judged on.\n{told}\n{_cure(kinds, leaks)}"
                f" Or allow it: {' '.join(f'--allow {kind}' for kind in kinds)}"
            )


def check_allowed(allow: Collection[str]) -> None:
    """Refuse names that are no kind of leak."""
    if unknown := sorted(set(allow) - set(get_args(Kind))):
        raise UsageError(f"there is no leak called {unknown[0]!r} to allow; they are {', '.join(get_args(Kind))}")


def _cure(kinds: Sequence[Kind], leaks: Sequence[Leak]) -> str:
    if "groups" in kinds:
        where = next(leak.where for leak in leaks if leak.kind == "groups")
        return f"Hold groups out whole: folds = bt.Grouped({where!r})."
    if "time" in kinds:
        where = next(leak.where for leak in leaks if leak.kind == "time")
        return f"Hold later rows out: folds = bt.TimeOrdered({where!r})."
    return "Drop them, or hold them out together: a column of bt.duplicate_groups(table), and bt.Grouped on it."


def check_split(
    table: pl.DataFrame,
    folds: Folds,
    *,
    id: str = "id",
    target: str = "target",
    groups: Sequence[str] = (),
    time: str | None = None,
    skip: Collection[str] = (),
    show: bool = True,
) -> SplitCheck:
    """Look for leaks between the rows that are held out and those that train.

    Rows that are equal in all features, texts and images that are nearly the same, groups that are parted, training
    on what came later. The columns that the strategy keeps together or in order are looked at without being named.

    Parameters
    ----------
    table, folds
        Rows in the same order.
    groups, time
        More columns whose values should not be parted; the column in whose order rows should be held out.
    skip
        Kinds of leaks that are not looked for.
    show
        Whether to show a bar while texts and images are compared.

    Raises
    ------
    FoldsError
        When the folds are of other ids than the table, or a column is not there or has empty rows.

    >>> from batteries.prepare.strategies import KFold
    >>> x = [row % 19 / 10 for row in range(20)]  # the last row says what the first one says
    >>> table = pl.DataFrame({"id": range(20), "x": x, "y": [each**2 for each in x], "target": [0, 1] * 10})
    >>> found = check_split(table, make_folds(table, KFold(n=10)), show=False)
    >>> found.leaks[0].sentence
    'duplicates: 2 held-out rows equal a row that trains, in all 2 columns (x, y) (fold 1: 19 and 0; fold 8: 0 and 19)'
    """
    if len(table) != len(folds.ids) or not (table[id] == folds.ids).all():
        raise FoldsError(f"the folds are of other ids than the table, or in another order ({len(folds.ids)} rows)")
    bound = grouped_column(folds.strategy)
    groups = list(dict.fromkeys([*([bound] if bound else []), *groups]))
    time = time or ordered_column(folds.strategy)
    apart = [id, target, *groups, *columns_of(folds), *([time] if time else [])]
    leaks: list[Leak | None] = []
    notes = [*_unbalanced(table, folds, target), *_bound(table, folds, id, target, apart)]
    if "groups" not in skip:
        leaks += [_parted("groups", name, folds, codes(column_of(table, name))) for name in groups]
    if time and "time" not in skip:
        leaks.append(_too_early(time, folds, codes(column_of(table, time))))
    if not {"duplicates", "near-duplicates"} <= set(skip):
        found = alike_rows(table, apart=apart, near="near-duplicates" not in skip, show=show)
        notes += found.notes
        known = np.zeros(len(table), dtype=bool)
        for alike in found.alike:
            if alike.kind not in skip:
                leaks.append(_parted(alike.kind, alike.where, folds, alike.group, but=known))
            if alike.kind == "duplicates":
                known = _repeated(alike.group)
    lines = tuple(_line(table, folds, fold, target, groups) for fold in range(folds.n))
    return SplitCheck(folds.strategy, folds.digest, lines, tuple(filter(None, leaks)), tuple(notes))


def _repeated(group: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether another row is of the same group."""
    counts = np.unique(group, return_inverse=True, return_counts=True)
    return np.asarray(counts[2][counts[1]] > 1)


def _parted(
    kind: Kind, where: str, folds: Folds, group: NDArray[np.int64], *, but: NDArray[np.bool_] | None = None
) -> Leak | None:
    """Groups with a row held out and another that trains; rows in `but` are told elsewhere."""
    rows, pairs = 0, []
    for fold in range(folds.n):
        held_out, training = folds.held_out(fold), folds.training(fold)
        values, first = np.unique(group[training], return_index=True)
        place = np.minimum(np.searchsorted(values, group[held_out]), len(values) - 1)
        leaking = values[place] == group[held_out]
        if but is not None:
            leaking &= ~but[held_out]
        rows += int(leaking.sum())
        twins = training[first[place[leaking]]]
        pairs += [(folds.ids[int(a)], folds.ids[int(b)], fold) for a, b in _first(held_out[leaking], twins)]
    return Leak(kind, where, rows, tuple(pairs[:_PAIRS])) if rows else None


def _too_early(where: str, folds: Folds, moment: NDArray[np.int64]) -> Leak | None:
    """Held-out rows that are not later than every row that trains."""
    rows, pairs = 0, []
    for fold in range(folds.n):
        held_out, training = folds.held_out(fold), folds.training(fold)
        last = training[moment[training].argmax()]
        early = held_out[moment[held_out] <= moment[last]]
        rows += len(early)
        pairs += [(folds.ids[int(a)], folds.ids[int(last)], fold) for a in early[:_PAIRS]]
    return Leak("time", where, rows, tuple(pairs[:_PAIRS])) if rows else None


def _first(*columns: NDArray[np.int64]) -> Iterator[tuple[int, ...]]:
    return zip(*(column[:_PAIRS].tolist() for column in columns), strict=True)


def _line(table: pl.DataFrame, folds: Folds, fold: int, target: str, groups: Sequence[str]) -> FoldLine:
    held_out = folds.held_out(fold)
    line = FoldLine(
        fold, len(held_out), len(folds.training(fold)), table[groups[0]][held_out].n_unique() if groups else None
    )
    values = table[target][held_out] if target in table.columns else pl.Series([[0]])
    if values.dtype.is_nested():
        return line
    if looks_like_classes(table[target]):
        shares = {str(name): float((values == name).mean()) for name in table[target].unique().sort()}
        return replace(line, shares=shares)
    if not values.dtype.is_numeric():
        return line
    numbers = values.cast(pl.Float64).to_numpy()
    return replace(line, mean=float(numbers.mean()), deviation=float(numbers.std()))


def _unbalanced(table: pl.DataFrame, folds: Folds, target: str) -> Iterator[str]:
    """Classes that some fold does not hold out or does not train on."""
    if target not in table.columns or not looks_like_classes(table[target]):
        return
    values = table[target]
    classes = values.unique()
    for fold in range(folds.n):
        for what, rows in (("holds out", folds.held_out(fold)), ("trains on", folds.training(fold))):
            lacking = classes.filter(~classes.is_in(values[rows].unique().implode())).sort().to_list()
            if lacking:
                yield f"fold {fold} {what} no row of {len(lacking)} of {len(classes)} classes (first: {lacking[:3]})"


def _bound(table: pl.DataFrame, folds: Folds, id: str, target: str, apart: Sequence[str]) -> Iterator[str]:
    """Columns that look like groups and are parted, though nobody said that they are any."""
    if target not in table.columns:
        return
    for group in groups_of(table, None, id=id, target=target):
        if group.column not in apart and (leak := _parted("groups", group.column, folds, _dense(table[group.column]))):
            yield (
                f"{group.column!r} looks like groups, and {leak.rows:,} held-out rows share theirs with rows that"
                f" train; if such rows belong together: --groups {group.column}"
            )


def _dense(column: pl.Series) -> NDArray[np.int64]:
    """A number for each value; empty rows are a group each."""
    numbers = column.rank("dense").cast(pl.Int64).fill_null(0).to_numpy(writable=True)
    numbers[column.is_null().to_numpy()] = -1 - np.arange(column.null_count())
    return numbers


def check_split_of(
    experiment: Experiment,
    root: Path | str = "runs",
    *,
    file: Path | None = None,
    groups: Sequence[str] = (),
    time: str | None = None,
    show: bool = True,
) -> SplitCheck:
    """Check the folds of an experiment, written or as they would be, or those that another file gives its rows.

    The columns that the declared strategy keeps together or in order are looked at in any case. Nothing is written.

    Raises
    ------
    FoldsError
        When the file has an id twice, lacks some or has others; when `root/folds.parquet` is of other rows or of
        another strategy.

    """
    table = training_table(experiment)
    path = Path(root) / "folds.parquet"
    strategy = strategy_of(experiment, table)
    common: dict[str, Any] = {"id": experiment.id, "target": experiment.target}
    if file is not None:
        folds = _of_file(file, table, experiment)
    else:
        folds = split(experiment, root, table=table) if path.exists() else make_folds(table, strategy, **common)
    declared = describe(strategy)
    bound = [name for name in [grouped_column(declared)] if name]
    time = time or ordered_column(declared)
    return check_split(table, folds, **common, groups=[*bound, *groups], time=time, show=show)


def _of_file(file: Path, table: pl.DataFrame, experiment: Experiment) -> Folds:
    """Folds of ours as they were written, or those that another file gives."""
    if file.is_file() and check_seal(file):
        folds = Folds.load(file)
        folds.check(table, experiment.id)
        return folds
    return make_folds(table, FromFile(str(file), id=experiment.id), id=experiment.id, target=experiment.target)
