"""Pseudo: confident test rows as further training rows, without a leak into validation.

In:    the test predictions of each fold's model, and the test table.
Out:   one table of test rows with a target and the fold in whose training they may be used.
Next:  the training of fold f takes its own training rows and those of the table with `pseudo_fold` f.

A model that saw the rows of fold f carries their targets into every label it gives; a training with these labels
is then validated on rows whose targets it has seen. So the labels of `pseudo_fold` f come from the models that
held fold f out, and from nothing else: not from a blend's or an average's test predictions, nor from the mean over
the folds. The same test row may have another label in another fold, or none. Pseudo rows have no fold of
their own: they are never held out and never scored.

What stays: a model's best checkpoint was chosen on the fold that it held out, and a stage that starts from a file
knows what that file knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.combine.reliability import class_rows
from batteries.errors import DataError, UsageError, some
from batteries.experiment.predictions import Predictions
from batteries.experiment.sealed import write_table
from batteries.files import digest_of, new_folder, read_sealed, write_sealed
from batteries.prepare.folds import Folds
from batteries.prepare.table import test_table, training_table
from batteries.score.entry import Entry
from batteries.train.record import Run, Tables

FOLD = "pseudo_fold"
"""Column: the fold that is held out in the training which may use the row."""
CONFIDENCE = "pseudo_confidence"
"""Column: the probability of the label."""
FILE, RECORD = "pseudo.parquet", "pseudo.json"


def confident(
    values: NDArray[Any], *, at_least: float = 0.95, per_class: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return positions, class codes and probabilities of the rows whose most probable class is probable enough.

    Parameters
    ----------
    values
        Probabilities of class 1, shape (n,), or of all classes, (n, classes).
    at_least
        Least probability of the label, above 0 and at most 1.
    per_class
        At most so many rows of each class, the most probable first; all unless given.

    Raises
    ------
    DataError
        When values are no probabilities.
    UsageError
        When `at_least` or `per_class` is out of range.

    >>> [each.tolist() for each in confident(np.array([0.97, 0.5, 0.01]))]
    [[0, 2], [1, 0], [0.97, 0.99]]

    """
    if not 0 < at_least <= 1:
        raise UsageError(f"at_least must be above 0 and at most 1, got {at_least}")
    if per_class is not None and per_class < 1:
        raise UsageError(f"per_class must be 1 or more, got {per_class}")
    rows = class_rows(values)
    codes, stated = rows.argmax(axis=1), rows.max(axis=1)
    kept = stated >= at_least
    if per_class is not None:
        order = np.argsort(-stated, kind="stable")
        for code in np.unique(codes[kept]):
            kept[order[kept[order] & (codes[order] == code)][per_class:]] = False
    places = np.flatnonzero(kept)
    return places, codes[places], stated[places]


def pseudo_table(
    predictions: Mapping[int, Sequence[Predictions]],
    test: pl.DataFrame,
    *,
    id: str = "id",
    target: str = "target",
    classes: Sequence[str] | None = None,
    at_least: float = 0.95,
    per_class: int | None = None,
) -> pl.DataFrame:
    """Return confident rows of the test table for each fold, labelled by models that never saw the fold.

    Parameters
    ----------
    predictions
        Fold -> test predictions of models that held it out; of several the mean is taken.
    test
        The rows that were predicted; a target column of theirs is not read, and replaced.
    id, target
        Names of columns.
    classes
        Names of the class codes, where the target holds names.
    at_least, per_class
        As in `confident`.

    Returns
    -------
    The columns of `test`, the target, `pseudo_fold` and `pseudo_confidence`; an id at most once in a fold.

    Raises
    ------
    DataError
        When predictions and test rows differ, are no probabilities, or none is confident.

    """
    if taken := [name for name in (FOLD, CONFIDENCE) if name in test.columns]:
        raise DataError(f"the test table has a column {taken[0]!r} already; rename it")
    parts, highest = [], 0.0
    for fold, members in sorted(predictions.items()):
        values = _mean(fold, members, test[id])
        if classes is not None and len(classes) != values.shape[1]:
            raise DataError(f"{len(classes)} classes are named, fold {fold} predicts {values.shape[1]}")
        places, codes, stated = confident(values, at_least=at_least, per_class=per_class)
        highest = max(highest, float(values.max()))
        columns = {target: _labels(codes, classes), FOLD: np.full(len(places), fold), CONFIDENCE: stated}
        parts.append(test[places].with_columns(pl.Series(name, column) for name, column in columns.items()))
    if not sum(map(len, parts)):
        raise DataError(f"no test row reaches a probability of {at_least:g}, the highest is {highest:.4f}; lower it")
    return pl.concat(parts)


def _mean(fold: int, members: Sequence[Predictions], ids: pl.Series) -> NDArray[np.float64]:
    if not members:
        raise DataError(f"fold {fold} has no predictions; give those of a model that held it out")
    rows = [class_rows(member.align(ids).values) for member in members]
    if len({each.shape for each in rows}) > 1:
        raise DataError(f"fold {fold}: members predict {' and '.join(str(each.shape[1]) for each in rows)} classes")
    mean: NDArray[np.float64] = reduce(add, rows) / len(rows)
    return mean


def _labels(codes: NDArray[np.int64], classes: Sequence[str] | None) -> Any:
    if classes is None:
        return codes
    return pl.Series([classes[code] for code in codes], dtype=pl.String)


def training_rows(
    table: pl.DataFrame, folds: Folds, pseudo: pl.DataFrame, fold: int, *, id: str = "id"
) -> pl.DataFrame:
    """Return what trains when `fold` is held out: its training rows, then its pseudo rows.

    Raises
    ------
    DataError
        When pseudo rows lack a column of the table, or carry ids of it.

    """
    if lacking := [name for name in table.columns if name not in pseudo.columns]:
        raise DataError(f"the test table lacks columns that training rows have: {some(lacking, 5)}")
    extra = pseudo.filter(pl.col(FOLD) == fold)
    if both := extra.filter(pl.col(id).is_in(table[id].implode()))[id].head(5).to_list():
        raise DataError(f"pseudo rows have ids of training rows (first: {both}); give test rows ids of their own")
    rows = table[folds.training(fold)]
    return pl.concat([rows, extra.select(table.columns).cast(table.schema)])


@dataclass(frozen=True)
class Pseudo:
    """A table of pseudo rows in its folder."""

    folder: Path
    table: pl.DataFrame
    record: Mapping[str, Any]

    @property
    def name(self) -> str:
        """`pseudo-001`."""
        return self.folder.name


def pseudo_label(
    entries: Sequence[Entry], root: Path | str = "runs", *, at_least: float = 0.95, per_class: int | None = None
) -> Pseudo:
    """Write the confident test rows of runs as `runs/pseudo-001/pseudo.parquet`, or return what was written before.

    The runs share folds and data, and every fold of theirs is trained; fold by fold their models' test
    predictions are averaged.

    Raises
    ------
    DataError
        An entry is no run, has folds to train, other folds or no test predictions; or as `pseudo_table`.

    """
    runs = _runs(entries)
    experiment = entries[0].experiment()
    tables = Tables(training_table(experiment), test_table(experiment))
    for run in runs:
        if run.config["data"] != tables.digests():
            raise DataError(f"{run.name} was trained on other data than {type(experiment).__name__} gives now")
    assert tables.test is not None
    settings = {"of": [run.name for run in runs], "at_least": at_least, "per_class": per_class}
    identity = digest_of({**settings, "runs": [run.config["identity"] for run in runs]})
    predictions = {
        fold: [Predictions.load(run.fold_folder(fold) / "test.parquet") for run in runs]
        for fold in range(runs[0].num_folds)
    }
    table = pseudo_table(
        predictions, tables.test, id=experiment.id, target=experiment.target, classes=experiment.classes,
        at_least=at_least, per_class=per_class,
    )  # fmt: skip
    counts = {str(fold): int((table[FOLD] == fold).sum()) for fold in predictions}
    record = {**settings, "identity": identity, "folds": runs[0].config["folds"], "rows": counts}
    for path in sorted(Path(root).glob(f"pseudo-*/{RECORD}")):
        if read_sealed(path)["identity"] == identity:
            return Pseudo(path.parent, table, read_sealed(path))

    def fill(folder: Path, name: str) -> None:
        write_table(folder / FILE, table, {"name": name, "folds": record["folds"]["digest"]})
        write_sealed(folder / RECORD, {**record, "name": name})

    folder = new_folder(Path(root), "pseudo", fill)
    return Pseudo(folder, table, read_sealed(folder / RECORD))


def _runs(entries: Sequence[Entry]) -> list[Run]:
    if not entries:
        raise DataError("there is nothing to take labels from: name at least one run")
    for entry in entries:
        if entry.kind != "run":
            raise DataError(
                f"{entry.name} is of kind {entry.kind}: its test predictions come from models of all folds, so that"
                " their labels leak into every validation; name runs"
            )
    runs = [Run(entry.folder, entry.config) for entry in entries]
    for run in runs:
        if run.config["folds"]["digest"] != runs[0].config["folds"]["digest"]:
            raise DataError(f"{run.name} and {runs[0].name} were trained on different folds; train both on one split")
        if missing := [fold for fold in range(run.num_folds) if fold not in run.finished_folds()]:
            raise DataError(f"{run.name} has no model of fold {missing[0]} yet: batteries train --resume {run.name}")
        if not (run.fold_folder(0) / "test.parquet").exists():
            raise DataError(f"{run.name} has no test predictions: its experiment's test_table() returns None")
    return runs
