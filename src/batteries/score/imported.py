"""Imported: predictions that another tool made, as an entry beside those trained here.

In:    out-of-fold and test predictions as CSV or Parquet; the experiment, its table and its folds.
Out:   `runs/NAME/` with config.json, oof.parquet and test.parquet, scored by the experiment's metric.
Next:  it blends, stacks, compares and submits like any entry.

The other tool must have predicted each row by a model that did not see the row's fold: write its folds with
`batteries split` first, and let it train by `runs/folds.parquet`. That cannot be checked from predictions.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import polars as pl

from batteries.config import to_plain
from batteries.errors import DataError, PredictionsError, UsageError
from batteries.experiment import Experiment
from batteries.experiment.load import experiment_name, source_file
from batteries.experiment.prediction_files import read_predictions
from batteries.experiment.predictions import Predictions
from batteries.files import digest_file, digest_of, safe_name, write_sealed
from batteries.prepare.folds import Folds
from batteries.prepare.table import test_table, training_table
from batteries.score.entry import Entry, open_entry
from batteries.train.record import CONFIG

KIND = "imported"
_OOF, _TEST = "_oof", "_test"


@dataclass(frozen=True)
class Outside:
    """Files of predictions of one model of another tool."""

    name: str
    """What the entry is called."""
    oof: Path
    test: Path | None = None


def outside_in(folder: Path | str) -> list[Outside]:
    """Return the pairs `NAME_oof` and `NAME_test` (.csv or .parquet) of a folder, by name; a test file may lack.

    Raises
    ------
    UsageError
        When there is none, or a test file without its pair.

    """
    folder = Path(folder)
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in (".csv", ".parquet")}
    names = [stem.removesuffix(_OOF) for stem in files if stem.endswith(_OOF)]
    alone = [stem for stem in files if stem.endswith(_TEST) and stem.removesuffix(_TEST) not in names]
    if alone or not names:
        what = f"{files[alone[0]].name} has no {alone[0].removesuffix(_TEST)}_oof.csv beside it" if alone else "none"
        raise UsageError(f"{folder}: predictions are pairs NAME_oof.csv and NAME_test.csv, found {what}")
    return [Outside(name, files[name + _OOF], files.get(name + _TEST)) for name in names]


def import_entry(
    outside: Outside, experiment: Experiment, root: Path | str = "runs", *, id: str | None = None
) -> Entry:
    """Make an entry of another tool's predictions, or return the one that was made of the same before.

    Rows are joined by id with the tables of the experiment, in any order. Rows that no fold holds out need no
    prediction; one that is there is left out, as no model can have predicted it unseen.

    Parameters
    ----------
    outside
        Its name and files. Columns of numbers as the experiment's metric takes them: one, or one a class.
    experiment, root
        Whose tables, folds and metric they are of; where entries are.
    id
        The column of ids; `id` or the first one by default.

    Raises
    ------
    PredictionsError
        When ids are missing, foreign or there twice; when a value is no finite number; when the number of columns of
        both files differs.
    FoldsError
        When there are no folds yet, or they are of another table.
    UsageError
        When there is another entry of this name, or the metric cannot score such predictions.

    >>> import_entry(Outside("xgboost", Path("oof.csv"), Path("test.csv")), experiment)  # doctest: +SKIP
    Entry(folder=PosixPath('runs/xgboost'), ...)

    """
    root, name = Path(root), safe_name(outside.name, "entry")
    table, tested = training_table(experiment), test_table(experiment)
    folds = Folds.load(root / "folds.parquet")
    folds.check(table, experiment.id)
    covered = folds.fold >= 0
    beside = table[experiment.id].filter(pl.Series(~covered))
    oof = _joined(outside.oof, id, table.filter(pl.Series(covered)), experiment, beside=beside)
    oof = Predictions(
        oof.ids, oof.values, targets=oof.targets, folds=folds.fold[covered], about={"folds": folds.digest}
    )
    test = None if outside.test is None else _test(outside.test, id, tested, experiment, oof)
    assert oof.targets is not None
    experiment.metric(oof.targets, oof.values)
    config = _config(outside, experiment, folds)
    folder = root / name
    if folder.exists():
        made = open_entry(root, name)
        if made.config["identity"] == config["identity"]:
            return made
        raise UsageError(f"{folder} is there already and holds something else; give the predictions another name")
    _write(folder, {**config, "name": name}, oof, test)
    return open_entry(root, name)


def _joined(
    path: Path, id: str | None, table: pl.DataFrame, experiment: Experiment, *, beside: pl.Series | None = None
) -> Predictions:
    """The predictions of a file in the order of a table, with its targets where it has them; without ids `beside`."""
    found, ids = read_predictions(path, id=id), table[experiment.id]
    if ids.dtype == pl.String and found.ids.dtype.is_integer():
        found = Predictions(found.ids.cast(pl.String), found.values)  # read as numbers because all are written so
    if beside is not None and len(beside):
        spare = found.ids.is_in(beside.cast(found.ids.dtype, strict=False).implode())
        found = found.take(np.flatnonzero(~spare.to_numpy()))
    try:
        found = found.align(ids)
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error}") from None
    targets = experiment.targets(table) if experiment.target in table.columns else None
    return Predictions(ids, found.values, targets=targets)


def _test(
    path: Path, id: str | None, table: pl.DataFrame | None, experiment: Experiment, oof: Predictions
) -> Predictions:
    if table is None:
        raise DataError(f"{path}: {type(experiment).__name__}.test_table() returns None; leave the test file out")
    test = _joined(path, id, table, experiment)
    if test.values.shape[1:] != oof.values.shape[1:]:
        raise PredictionsError(
            f"{path}: has predictions of shape {test.values.shape}, the out-of-fold ones are {oof.values.shape}"
        )
    return test


def _config(outside: Outside, experiment: Experiment, folds: Folds) -> dict[str, Any]:
    files = {"oof": outside.oof, **({} if outside.test is None else {"test": outside.test})}
    decides: dict[str, Any] = {
        "schema": 1,
        "kind": KIND,
        "experiment": {
            "name": experiment_name(experiment),
            "class": type(experiment).__name__,
            "file": source_file(type(experiment)).name,
        },
        "fields": to_plain(experiment),
        "metric": {"name": experiment.metric.name, "higher_is_better": experiment.metric.higher_is_better},
        "columns": {"id": experiment.id, "target": experiment.target},
        "folds": folds.plain(),
        "source": {part: {"file": path.name, "sha256": digest_file(path)} for part, path in files.items()},
        "rows": len(folds.covered),
    }
    source = {part: about["sha256"] for part, about in decides["source"].items()}
    return {**decides, "identity": digest_of({**decides, "source": source, "name": outside.name})}


def _write(folder: Path, config: Mapping[str, Any], oof: Predictions, test: Predictions | None) -> None:
    """Write an entry's folder whole or not at all."""
    half_made = folder.with_name(f".{folder.name}.{uuid4().hex}.tmp")
    half_made.mkdir(parents=True)
    try:
        oof.save(half_made / "oof.parquet")
        if test is not None:
            test.save(half_made / "test.parquet")
        write_sealed(half_made / CONFIG, config)
        half_made.rename(folder)
    finally:
        shutil.rmtree(half_made, ignore_errors=True)
