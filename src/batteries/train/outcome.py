"""Outcome: what a trained model says of rows, and how good that is.

In:    a model, rows of a table.
Out:   predictions with their ids, scores, the files that say a fold is done.
Next:  the run joins the folds; `combine.average` writes the same for averaged weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import IterableDataset

from batteries.errors import BatteriesError, ExperimentError, NonFiniteError
from batteries.experiment import Experiment, Stage
from batteries.experiment.predictions import Predictions
from batteries.files import write_sealed
from batteries.prepare.folds import Folds
from batteries.prepare.seed import derive_seed, random_state_kept, seed_everything
from batteries.shapes import CheckpointOfRun, check_shape
from batteries.train.checkpoint import Checkpoints
from batteries.train.device import Device
from batteries.train.loaders import Loader
from batteries.train.loop import predict
from batteries.train.record import Run, Tables
from batteries.train.samplers import Shuffled


def checkpoints_of(run: Run, experiment: Experiment, fold: int, stage: Stage) -> Checkpoints:
    """The checkpoints of a stage. Raises CorruptError where one notes what no training does."""
    found = Checkpoints(run.stage_folder(fold, stage.name), metric=experiment.metric, keep=experiment.keep)
    for checkpoint in found.all():
        check_shape(checkpoint.path.with_suffix(".json"), {"info": checkpoint.info}, CheckpointOfRun)
    return found


def build_model(experiment: Experiment, fold: int) -> nn.Module:
    """Return `experiment.model()` as its seed initialises it for a fold."""
    seed_everything(derive_seed(experiment.seed, "init", fold))
    model = experiment.model()
    if not isinstance(model, nn.Module):
        raise ExperimentError(f"{type(experiment).__name__}.model must return an nn.Module, got {type(model).__name__}")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise ExperimentError(
                f"{type(experiment).__name__}.model returned {name} on the meta device, which holds no numbers; make"
                " the model without device='meta', or give it memory, model.to_empty(device='cpu'), and weights"
            )
    return model


def loader_of(experiment: Experiment, table: pl.DataFrame, stage: Stage, *, training: bool, seed: int) -> Loader:
    """Return the loader of some rows: shuffled for training, in the order of the rows otherwise."""
    own_collate = type(experiment).collate is not Experiment.collate
    with random_state_kept():  # a dataset that draws while it is made draws the same again after a resume
        seed_everything(derive_seed(seed, "dataset"))
        dataset = experiment.dataset(table, training=training)
        ordered = training and not isinstance(dataset, IterableDataset)
        sampler = experiment.sampler(table) or Shuffled() if ordered else None
    loader = Loader(
        dataset,
        batch_size=stage.batch_size or experiment.batch_size,
        seed=seed,
        sampler=sampler,
        length=len(table),
        labelled=experiment.target in table.columns,
        num_workers=experiment.num_workers,
        timeout=experiment.timeout,
        collate=experiment.collate if own_collate else None,
    )
    if loader.size != len(table):
        raise ExperimentError(
            f"dataset returned {loader.size} samples for {len(table)} rows; return one each, in order"
        )
    return loader


@dataclass
class Predictor:
    """Predictions of a model for the rows of tables, under the precision of a stage."""

    experiment: Experiment
    device: Device
    stage: Stage
    after_batch: Callable[[], object] = bool
    """Called between batches; what it raises ends the prediction."""

    def __post_init__(self) -> None:
        self.experiment = self.experiment.at(self.stage)

    def loader(self, table: pl.DataFrame) -> Loader:
        """The rows of a table in their order."""
        return loader_of(self.experiment, table, self.stage, training=False, seed=self.experiment.seed)

    def values(self, model: nn.Module, loader: Loader) -> NDArray[Any]:
        """One prediction for each row of the loader, in its order."""
        return predict(
            self.experiment, model, loader, self.device, precision=self.stage.precision, after_batch=self.after_batch
        )

    def fold(self, model: nn.Module, folds: Folds, tables: Tables, fold: int) -> tuple[Predictions, Predictions | None]:
        """Predictions of the held-out rows of a fold, and of the test table if there is one."""
        model = self.device.place_model(model, self.stage)
        experiment, held_out = self.experiment, tables.train[folds.held_out(fold)]
        oof = Predictions(
            held_out[experiment.id],
            self.values(model, self.loader(held_out)),
            targets=experiment.targets(held_out),
            folds=np.full(len(held_out), fold, dtype=np.int64),
            about={"folds": folds.digest},
        )
        if tables.test is None:
            return oof, None
        targets = experiment.targets(tables.test) if experiment.target in tables.test.columns else None
        values = self.values(model, self.loader(tables.test))
        return oof, Predictions(tables.test[experiment.id], values, targets=targets)


def score_all(experiment: Experiment, targets: NDArray[Any], predictions: NDArray[Any]) -> dict[str, float]:
    """Every metric of the experiment on one set; the ranking one first."""
    scores = {}
    for metric in (experiment.metric, *experiment.also):
        try:
            scores[metric.name] = metric(targets, predictions)
        except BatteriesError:
            raise
        except Exception as error:
            raise ExperimentError(
                f"metric {metric.name!r} failed on targets {targets.shape} {targets.dtype} and predictions"
                f" {predictions.shape} {predictions.dtype}: {error}"
            ) from error
    return scores


def write_fold(
    folder: Path, oof: Predictions, test: Predictions | None, *, experiment: Experiment, notes: Mapping[str, Any]
) -> dict[str, float]:
    """Write a fold's predictions, then its scores, which say that it is done."""
    assert oof.targets is not None
    scores = score_all(experiment, oof.targets, oof.values)
    if not np.isfinite(scores[experiment.metric.name]):
        raise NonFiniteError(f"{folder}: {experiment.metric.name} of the held-out rows is not finite")
    folder.mkdir(parents=True, exist_ok=True)
    oof.save(folder / "oof.parquet")
    if test is not None:
        test.save(folder / "test.parquet")
    noted = {name: finite(value) for name, value in scores.items()}
    write_sealed(folder / "fold.json", {**notes, "rows": len(oof), "scores": noted})
    return scores


def finite(value: float) -> float | None:
    """The number, or None for NaN and infinity, which JSON has not."""
    return float(value) if np.isfinite(value) else None


def mean_of(parts: Sequence[Predictions], name: str) -> Predictions:
    """The mean of the predictions of several models for the same rows, summed in float64."""
    total = np.zeros(parts[0].values.shape, dtype=np.float64)
    for part in parts:
        total += part.align(parts[0].ids).values
    values = (total / len(parts)).astype(parts[0].values.dtype)
    return Predictions(parts[0].ids, values, targets=parts[0].targets, about={"run": name})
