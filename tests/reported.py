"""An experiment folder whose report has everything: the toy, really trained, and all that is made of its runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl

from batteries.cli.app import main

HERE = Path(__file__).parent

FLOW = """
study
study --augment
split
train --set batch_size=2 --set lr=0.01
train --set width=2
ledger import boosted --oof oof.csv --test test.csv
average toy-001 --best 2
blend toy-001 toy-002
blend toy-001 toy-002 boosted --fit greedy
blend blend-001 average-001
blend toy-001 toy-002 --how power --power 2
stack toy-001 toy-002 --model logistic
calibrate toy-002
submit toy-001
submit toy-002
submit boosted
submit average-001
submit blend-001
submit stack-001
leaderboard submission-001 0.91
leaderboard submission-002 0.62
leaderboard submission-003 0.80
leaderboard submission-004 0.92
leaderboard submission-005 0.89
leaderboard submission-006 0.85
leaderboard submission-001 0.90 --private
"""


def walk(folder: Path) -> Path:
    """Make the folder, which must be the working folder, and return its folder of runs; about five seconds."""
    shutil.copy(HERE / "toy.py", folder / "experiment.py")
    _other_tool(folder)
    for line in FLOW.strip().splitlines():
        assert main(line.split()) == 0, line
    return folder / "runs"


def pictures() -> pl.DataFrame:
    """The ids of the toy's table, each with an image."""
    pixels = np.random.default_rng(0).integers(0, 17, (60, 8, 8), dtype="uint8")
    return pl.DataFrame({"id": np.arange(60), "pixels": pixels})


def _other_tool(folder: Path) -> None:
    """Predictions as another tool would write them."""
    for part, rows, first in (("oof", 60, 0), ("test", 30, 1000)):
        scores = 1.5 * np.eye(3)[np.arange(rows) % 3] + np.random.default_rng(first).normal(size=(rows, 3))
        values = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        columns = {f"class_{label}": values[:, label] for label in range(3)}
        pl.DataFrame({"id": np.arange(first, first + rows), **columns}).write_csv(folder / f"{part}.csv")
