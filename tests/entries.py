"""Entries as runs leave them, of any arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from batteries.experiment import Metric
from batteries.experiment.predictions import Predictions
from batteries.files import write_sealed
from batteries.score.entry import Entry, open_entry

FIRST_TEST_ID = 10_000


def entry_of(
    root: Path,
    name: str,
    values: np.ndarray,
    targets: np.ndarray,
    folds: np.ndarray,
    *,
    test: np.ndarray | None = None,
    metric: Metric | None = None,
    split: str = "f",
    **config: object,
) -> Entry:
    """An entry with ids 0, 1, ...; the test rows are the first 50 again unless given."""
    folder = root / name
    folder.mkdir(parents=True)
    test = values[:50] if test is None else test
    ids, test_ids = (pl.Series("id", np.arange(len(each))) for each in (values, test))
    Predictions(ids, values, targets=targets, folds=folds, about={"folds": split}).save(folder / "oof.parquet")
    Predictions(test_ids + FIRST_TEST_ID, test).save(folder / "test.parquet")
    metric = metric or Metric.log_loss()
    inherited = {
        "schema": 1,
        "kind": "run",
        "experiment": {"name": "toy"},
        "fields": {"seed": 0},
        "metric": {"name": metric.name, "higher_is_better": metric.higher_is_better},
        "columns": {"id": "id", "target": "target"},
        "folds": {"n": int(folds.max()) + 1, "digest": split},
        "rows": len(values),
    }
    write_sealed(folder / "config.json", {**inherited, "name": name, "identity": f"identity of {name}", **config})
    return open_entry(root, name)
