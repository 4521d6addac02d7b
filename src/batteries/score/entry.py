"""Entry: anything that has out-of-fold and test predictions: a run, an average of checkpoints, a blend.

In:    a folder in `runs/`.
Out:   its predictions, its metric, what it was made of.
Next:  the board ranks entries; blends are made of entries; submissions of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batteries.errors import PredictionsError, UsageError, some
from batteries.experiment import Experiment, Metric, load_experiment
from batteries.experiment.predictions import Predictions
from batteries.files import inside, new_folder, write_sealed
from batteries.train.record import CONFIG, configs, read_config

INHERITED = ("schema", "experiment", "fields", "metric", "columns", "folds", "rows")
"""What an average or a blend takes over from the config of what it is made of."""


@dataclass(frozen=True)
class Entry:
    """One line of the board, in its folder."""

    folder: Path
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """`digits-001`, `average-001`, `blend-002`."""
        return self.folder.name

    @property
    def kind(self) -> str:
        """`run`, `average` or `blend`."""
        return str(self.config["kind"])

    @property
    def direction(self) -> Metric:
        """The metric's name and direction, without its function."""
        return Metric(self.config["metric"]["name"], higher_is_better=self.config["metric"]["higher_is_better"])

    @property
    def rows(self) -> int:
        """Rows that some fold holds out, all of which out-of-fold predictions should cover."""
        return int(self.config["rows"])

    def oof(self, *, complete: bool = False) -> Predictions:
        """Out-of-fold predictions. With `complete`, raises PredictionsError when rows are missing."""
        path = self.folder / "oof.parquet"
        if not path.exists():
            raise PredictionsError(f"{self.name} has no finished fold yet; run: batteries train --resume {self.name}")
        oof = Predictions.load(path)
        if complete and len(oof) != self.rows:
            raise PredictionsError(
                f"{self.name} predicts {len(oof)} of {self.rows} training rows, {self.rows - len(oof)} are missing;"
                f" train its other folds first: batteries train --resume {self.name}"
            )
        return oof

    def test(self) -> Predictions | None:
        """Predictions for the test table, or None where there is no test table."""
        path = self.folder / "test.parquet"
        return Predictions.load(path) if path.exists() else None

    def experiment(self) -> Experiment:
        """The experiment as its file says now, with the fields this entry was made with."""
        return load_experiment(
            self.folder.resolve().parent.parent, self.config["experiment"]["file"], values=self.config["fields"]
        )

    def metric(self) -> Metric:
        """The metric with its function, from the experiment's file; refused when it is another one by now."""
        return self.metric_of(self.experiment())

    def metric_of(self, experiment: Experiment) -> Metric:
        """The metric of `experiment`, refused unless it is the one this entry is scored by."""
        metric, own = experiment.metric, self.direction
        if (metric.name, metric.higher_is_better) != (own.name, own.higher_is_better):
            raise UsageError(
                f"{self.name} is scored by {own.name}, {self.config['experiment']['file']} says {metric.name} now;"
                " put the metric back, or train a new run"
            )
        return metric


def open_entry(root: Path | str, name: str) -> Entry:
    """Return an entry by name. Raises UsageError naming those there are."""
    root = Path(root)
    folder = inside(root, name, "entry")
    if not (folder / CONFIG).exists():
        raise UsageError(f"there is no {name!r} in {root}; entries: {some(names(root), 12) or 'none yet'}")
    return Entry(folder, read_config(folder))


def all_entries(root: Path) -> list[Entry]:
    """Return every entry that has predictions, by name."""
    return [Entry(folder, config) for folder, config in configs(root) if (folder / "oof.parquet").exists()]


def names(root: Path) -> list[str]:
    """Names of all entries, with predictions or not yet."""
    return [folder.name for folder, _ in configs(root)]


def find_entry(root: Path, identity: str) -> Entry | None:
    """Return the entry made of exactly the same parts before, if there is one."""
    return next((entry for entry in all_entries(root) if entry.config["identity"] == identity), None)


def write_entry(
    root: Path,
    kind: str,
    config: Mapping[str, Any],
    oof: Predictions,
    test: Predictions | None,
    *,
    more: Callable[[Path], object] = bool,
) -> Entry:
    """Make a new entry of a kind, whole or not at all; `more(folder)` may write other files of it."""

    def fill(folder: Path, name: str) -> None:
        about = {"run": name, "folds": oof.about.get("folds", "")}
        replace(oof, about=about).save(folder / "oof.parquet")
        if test is not None:
            replace(test, about=about).save(folder / "test.parquet")
        more(folder)
        made = datetime.now(UTC).isoformat(timespec="seconds")
        write_sealed(folder / CONFIG, {**config, "kind": kind, "name": name, "made": made})

    folder = new_folder(root, kind, fill)
    return Entry(folder, read_config(folder))
