"""Stage: the loop with validation, log and checkpoints around it.

In:    a stage's declaration, one fold's rows, the checkpoints of the stage before.
Out:   the stage's checkpoints, scored; begun or gone on with, as the folder says.
Next:  the run chooses the best of the last stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from batteries.errors import Interrupted, NonFiniteError
from batteries.experiment import Experiment, Stage
from batteries.prepare.folds import Folds
from batteries.prepare.seed import derive_seed, random_state_kept, seed_everything
from batteries.progress import Progress
from batteries.train.average import recompute_batch_norm
from batteries.train.checkpoint import Checkpoint, Checkpoints
from batteries.train.device import Device
from batteries.train.interrupt import Interrupts
from batteries.train.loaders import Loader
from batteries.train.log import MetricLog
from batteries.train.loop import Epoch, train, training_inputs
from batteries.train.outcome import Predictor, build_model, loader_of, score_all
from batteries.train.record import Run, Tables
from batteries.train.state import TrainState
from batteries.train.weights import load_weights


@dataclass
class Trainer:
    """What all folds and stages of a run have in common."""

    experiment: Experiment
    run: Run
    folds: Folds
    tables: Tables
    device: Device
    say: Callable[[str], object]
    """A line for train.log and for whoever watches."""
    note: Callable[[str], object]
    """A line for train.log only."""
    interrupts: Interrupts
    bar: Progress

    def updates(self, fold: int, stage: Stage) -> int:
        """Optimizer updates of a stage."""
        rows = len(self.folds.training(fold))
        batches = -(-rows // (stage.batch_size or self.experiment.batch_size))
        return stage.epochs * -(-batches // stage.accumulate)


@dataclass
class StageOfFold:
    """One stage of one fold: the loop, with validation, log and checkpoints around it."""

    trainer: Trainer
    fold: int
    stage: Stage
    first_step: int
    """Updates of the stages before, so that steps in the log never repeat."""
    passed: bool = False
    """Whether a later stage has begun, so that this one is over whatever became of its newest checkpoint."""

    def __post_init__(self) -> None:
        self.experiment, self.device = self.trainer.experiment, self.trainer.device
        self.title = f"fold {self.fold} {self.stage.name}"
        self.rows = self.trainer.folds.held_out(self.fold)
        self.predictor = Predictor(self.experiment, self.device, self.stage, self.trainer.interrupts.check)
        self._valid: Loader | None = None  # made once, and only if an epoch is validated

    def train(self, previous: Checkpoints | None) -> Checkpoints:
        """Bring the stage to its end from wherever it stands, and return its checkpoints."""
        folder = self.trainer.run.stage_folder(self.fold, self.stage.name)
        self.checkpoints = Checkpoints(folder, metric=self.experiment.metric, keep=self.experiment.keep)
        if self.passed:
            self.trainer.bar.advance(self.trainer.updates(self.fold, self.stage))
            return self.checkpoints
        found = self._resume()
        if found and self._ended(found.info):
            self.trainer.bar.advance(found.info["step"])
        else:
            position = found.info["log"] if found else self._begin(previous)
            self.trainer.bar.note(self.title)
            with MetricLog(self.trainer.run.fold_folder(self.fold), position=position) as self.metrics:
                self._epochs(found)
        if not self.checkpoints.best():
            raise NonFiniteError(
                f"{self.title}: {self.experiment.metric.name} was not finite in any of {self.stage.epochs} epochs;"
                " look at the metric and at what predict_step returns"
            )
        return self.checkpoints

    def _resume(self) -> Checkpoint | None:
        """Put the state where the newest intact checkpoint left it, unless the stage ended there."""
        found = self.checkpoints.usable_last()
        if found is None:
            return None
        self.checkpoints.tidy()
        checkpoint, saved = found
        if not self._ended(checkpoint.info):
            self.state = self._state(build_model(self.experiment, self.fold))
            self.state.load_state_dict(saved)
            self.trainer.bar.advance(self.state.step)
        return checkpoint

    def _begin(self, previous: Checkpoints | None) -> int:
        """Make the state at the start of the stage; return where its lines in the log begin."""
        model = build_model(self.experiment, self.fold)
        start = self.stage.start
        if start not in ("last", "best"):
            load_weights(model, Path(start))
        elif previous is not None:
            source = chosen(previous) if start == "best" else _last(previous)
            load_weights(model, source, part=source.info["weights"] if start == "best" else "model")
        self.state = self._state(model)
        return 0 if previous is None else int(_last(previous).info["log"])

    def _state(self, model: nn.Module) -> TrainState:
        seed_everything(derive_seed(self.experiment.seed, "stage", self.fold, self.stage.name))
        return TrainState.begin(self.experiment, self.stage, model, self.device)

    def _epochs(self, resumed: Checkpoint | None) -> None:
        scores: list[float | None] = list(resumed.info["scores"]) if resumed else []
        if resumed and not resumed.info["update"] and not resumed.info["evaluated"]:
            scores = self._evaluate(resumed, scores)
            if self._spent(scores):
                return
        loader = self._loader()
        epochs = train(self.experiment, self.stage, self.state, loader, self.device, after_update=self._after_update)
        try:
            for epoch in epochs:
                self._refresh_batch_norm(loader)
                checkpoint = self._save(scores, epoch)  # before validation: a metric that fails loses nothing
                scores = self._evaluate(checkpoint, scores)
                if self._spent(scores):
                    self.trainer.note(f"{self.title}: no better for {self.stage.patience} epochs, stopped")
                    break
        except Interrupted:
            if self.state.update:
                self._save(scores, None)
            raise

    def _after_update(self) -> None:
        self.trainer.bar.advance()
        self.trainer.interrupts.check()

    def _loader(self) -> Loader:
        rows = self.trainer.folds.training(self.fold)
        seed = derive_seed(self.experiment.seed, "loader", self.fold, self.stage.name)
        return loader_of(self.experiment, self.trainer.tables.train[rows], self.stage, training=True, seed=seed)

    def _refresh_batch_norm(self, loader: Loader) -> None:
        """An average of weights needs batch-norm statistics of its own; an EMA averages them as it goes."""
        if self.stage.average == "swa":
            inputs = training_inputs(self.experiment, loader, self.device, epoch=self.state.epoch - 1)
            with random_state_kept():
                recompute_batch_norm(self.state.scored.to(self.device.name), inputs, self.experiment.predict_step)

    def _save(self, scores: Sequence[float | None], epoch: Epoch | None) -> Checkpoint:
        info = {
            "stage": self.stage.name,
            "epoch": self.state.epoch,
            "update": self.state.update,
            "step": self.state.step,
            "weights": "model" if self.stage.average is None else "average",
            "evaluated": False,
            "scores": list(scores),
            "log": self.metrics.position(),
            "train": {} if epoch is None else {"train/loss": epoch.loss, "lr": epoch.lr},
        }
        return self.checkpoints.save(self.state.state_dict(), info=info)

    def _evaluate(self, checkpoint: Checkpoint, scores: Sequence[float | None]) -> list[float | None]:
        experiment, held_out = self.experiment, self.trainer.tables.train[self.rows]
        with random_state_kept():
            if self._valid is None:
                self._valid = self.predictor.loader(held_out)
            predictions = self.predictor.values(self.state.scored, self._valid)
            values = score_all(experiment, experiment.targets(held_out), predictions)
        score = values[experiment.metric.name]
        self.metrics.write(
            step=self.first_step + self.state.step,
            stage=self.stage.name,
            epoch=self.state.epoch,
            **checkpoint.info["train"],
            **{f"valid/{name}": value for name, value in values.items()},
        )
        after = [*scores, score if np.isfinite(score) else None]
        if after[-1] is None:
            self.trainer.say(
                f"{self.title}, epoch {self.state.epoch}: {experiment.metric.name} is {score}; it counts as worst"
            )
        notes = {"evaluated": True, "scores": after, "log": self.metrics.position()}
        self.checkpoints.score(checkpoint, score, info=notes)
        line = f"{self.title} epoch {self.state.epoch}/{self.stage.epochs}: {experiment.metric.name} {score:.5f}"
        self.trainer.bar.note(line)
        self.trainer.note(line)
        return after

    def _ended(self, info: Mapping[str, Any]) -> bool:
        return bool(info["evaluated"]) and (info["epoch"] >= self.stage.epochs or self._spent(info["scores"]))

    def _spent(self, scores: Sequence[float | None]) -> bool:
        """Whether so many epochs in a row brought nothing better that the stage ends."""
        if self.stage.patience is None:
            return False
        best, since = None, 0
        for score in scores:
            if score is not None and self.experiment.metric.better(score, best):
                best, since = score, 0
            else:
                since += 1
        return since >= self.stage.patience


def chosen(checkpoints: Checkpoints) -> Checkpoint:
    """The best checkpoint of a finished stage."""
    return checkpoints.best()[0]


def _last(checkpoints: Checkpoints) -> Checkpoint:
    assert checkpoints.last is not None
    return checkpoints.last
