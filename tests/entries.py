"""Entries as runs leave them, of any arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from batteries.experiment import Metric
from batteries.experiment.predictions import Predictions
from batteries.files import write_sealed
from batteries.score.entry import Entry, open_entry

FIRST_TEST_ID = 10_000


def whole_config(name: str = "toy-001", **more: Any) -> dict[str, Any]:
    """All that config.json of a run holds; others may hold more."""
    return {
        "schema": 1,
        "kind": "run",
        "name": name,
        "experiment": {"name": "toy", "class": "Toy", "file": "experiment.py"},
        "fields": {"seed": 0},
        "stages": [{"name": "head", "epochs": 2, "start": "last"}, {"name": "all", "epochs": 2, "start": "last"}],
        "metric": {"name": "accuracy", "higher_is_better": True},
        "also": ["log_loss"],
        "columns": {"id": "id", "target": "target"},
        "folds": {"n": 2, "strategy": "Stratified(column='target', n=2, seed=0)", "digest": "f"},
        "data": {"train": "a", "test": "b"},
        "code": "c",
        "rows": 4,
        "identity": f"identity of {name}",
        **more,
    }


def whole_fold(fold: int, **more: Any) -> dict[str, Any]:
    """All that fold.json holds."""
    ended = {"stage": "all", "checkpoint": "checkpoint-000002.pt", "epoch": 2, "weights": "model", "rows": 2}
    return {"fold": fold, **ended, "scores": {"accuracy": 0.9}, **more}


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
    plain = whole_config(
        name,
        metric={"name": metric.name, "higher_is_better": metric.higher_is_better},
        folds={"n": int(folds.max()) + 1, "strategy": "", "digest": split},
        rows=len(values),
    )
    write_sealed(folder / "config.json", {**plain, **config})
    return open_entry(root, name)
