"""Stage: the loop with validation, log and checkpoints around it.

In:    a stage's declaration, one fold's rows, how the stage before ended.
Out:   the stage's checkpoints, scored; begun or gone on with, as the folder says.
Next:  the run chooses the best of the last stage.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from torch import nn

from batteries.errors import BatteriesError, Interrupted, NonFiniteError
from batteries.experiment import Experiment, Stage
from batteries.prepare.folds import Folds
from batteries.prepare.seed import derive_seed, random_state_kept, seed_everything
from batteries.progress import Progress
from batteries.train.average import average_checkpoints, recompute_batch_norm
from batteries.train.checkpoint import Checkpoint, Checkpoints
from batteries.train.device import Device
from batteries.train.interrupt import Interrupts
from batteries.train.loaders import Loader
from batteries.train.log import MetricLog
from batteries.train.loop import Epoch, Pace, train, training_inputs
from batteries.train.outcome import Predictor, build_model, finite, loader_of, score_all
from batteries.train.record import Run, Tables
from batteries.train.state import TrainState
from batteries.train.weights import load_weights

_MEASURE_EVERY = 1.0
"""Seconds between two lines on the speed."""
_SAVE = 1
"""Asks all processes for a checkpoint; the number of a signal asks them to stop."""


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
        """Optimizer updates of a stage, as far as the rows tell before a sampler is asked."""
        rows = len(self.folds.training(fold))
        batches = -(-rows // (stage.batch_size or self.experiment.at(stage).batch_size))
        return stage.epochs * -(-batches // stage.accumulate)

    def check(self) -> None:
        """Raise Interrupted if a signal came. Several processes must agree first, which updates do."""
        if self.device.world == 1:
            self.interrupts.check()


@dataclass(frozen=True)
class Ended:
    """What a finished stage leaves to the next."""

    last: Checkpoint
    best: Sequence[Checkpoint]
    """The few best, best first."""


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
        self.experiment, self.device = self.trainer.experiment.at(self.stage), self.trainer.device
        self.title = f"fold {self.fold} {self.stage.name}"
        self.rows = self.trainer.folds.held_out(self.fold)
        self.predictor = Predictor(self.experiment, self.device, self.stage, self.trainer.check)
        self.pace = Pace()
        self.saved_at = self.measured_at = monotonic()
        self._valid: Loader | None = None  # made once, and only if an epoch is validated

    def train(self, previous: Ended | None) -> Ended:
        """Bring the stage to its end from wherever it stands, and say how it ended."""
        if self.device.is_main:
            folder = self.trainer.run.stage_folder(self.fold, self.stage.name)
            self.checkpoints = Checkpoints(folder, metric=self.experiment.metric, keep=self.experiment.keep)
        if self.passed:
            self.trainer.bar.advance(self.trainer.updates(self.fold, self.stage))
            return self._outcome()
        found = self.device.first(self._newest)
        if found and self._ended(found.info):
            self.trainer.bar.advance(found.info["step"])
            return self._outcome()
        position = self._resume(found) if found else self._begin(previous)
        self.trainer.bar.note(self.title)
        with self._logged(position):
            self._epochs(found)
        return self._outcome()

    def _outcome(self) -> Ended:
        def ended() -> Ended:
            best = self.checkpoints.best(self.experiment.keep)
            self.checkpoints.close()
            if not best:
                raise NonFiniteError(
                    f"{self.title}: {self.experiment.metric.name} was not finite in any of {self.stage.epochs} epochs;"
                    " look at the metric and at what predict_step returns"
                )
            assert self.checkpoints.last is not None
            return Ended(self.checkpoints.last, best)

        return self.device.first(ended)

    def _newest(self) -> Checkpoint | None:
        found = self.checkpoints.usable_last()
        if found is None:
            return None
        self.checkpoints.tidy()
        return found[0]

    def _resume(self, found: Checkpoint) -> int:
        """Put the state where a checkpoint left it; return where its lines in the log end."""
        self.state = self._state(build_model(self.experiment, self.fold))
        self.state.load_state_dict(found.load())
        self.state.scores = list(found.info["scores"])
        self.trainer.bar.advance(self.state.step)
        return int(found.info["log"])

    def _begin(self, previous: Ended | None) -> int:
        """Make the state at the start of the stage; return where its lines in the log begin."""
        model = build_model(self.experiment, self.fold)
        start = self.stage.start
        if start not in ("last", "best", "average"):
            load_weights(model, Path(start))
        elif previous is not None and start == "last":
            load_weights(model, previous.last)
        elif previous is not None and start == "best":
            load_weights(model, previous.best[0], part=previous.best[0].info["weights"])
        elif previous is not None:
            load_weights(model, average_checkpoints(previous.best, part=previous.best[0].info["weights"]))
            self._refresh_batch_norm(model.to(self.device.name), self._loader(), epoch=0)
        self.state = self._state(model)
        return 0 if previous is None else int(previous.last.info["log"])

    def _state(self, model: nn.Module) -> TrainState:
        seed = derive_seed(self.experiment.seed, "stage", self.fold, self.stage.name)
        seed_everything(seed)
        state = TrainState.begin(self.experiment, self.stage, model, self.device)
        if not self.device.is_main:  # equal weights, but dropout of its own
            seed_everything(derive_seed(seed, "process", self.device.rank))
        return state

    @contextmanager
    def _logged(self, position: int) -> Iterator[None]:
        """The metric log is open, in the process that writes the files."""
        self.metrics: MetricLog | None = None
        if not self.device.is_main:
            yield
            return
        folder = self.trainer.run.fold_folder(self.fold)
        trackers = self.experiment.trackers(f"{self.trainer.run.name}-fold{self.fold}", folder)
        with MetricLog(folder, position=position, trackers=trackers) as self.metrics:
            yield

    def _epochs(self, resumed: Checkpoint | None) -> None:
        if resumed and not resumed.info["update"] and not resumed.info["evaluated"]:
            self._evaluate(resumed)
            if self._spent(self.state.scores):
                return
        loader = self._loader()
        self.pace.read()
        try:
            for epoch in train(
                self.experiment,
                self.stage,
                self.state,
                loader,
                self.device,
                after_update=self._after_update,
                restore=self._restore,
                pace=self.pace,
            ):
                if self.stage.average == "swa":  # an EMA averages the statistics as it goes
                    self._refresh_batch_norm(self.state.scored, loader, epoch=self.state.epoch - 1)
                self._evaluate(self._save(epoch))  # saved before: a metric that fails loses nothing
                if self._spent(self.state.scores):
                    self.trainer.note(f"{self.title}: no better for {self.stage.patience} epochs, stopped")
                    break
        except Interrupted:
            if self.state.update:
                self._save(None)
            self.device.first(lambda: self.checkpoints.wait())  # all leave together, once it is saved
            raise
        except BaseException:
            if self.device.is_main:
                with suppress(BatteriesError):  # the first error is the one to show
                    self.checkpoints.wait()
            raise

    def _after_update(self) -> None:
        self.trainer.bar.advance()
        if self.experiment.log_every and self.state.step % self.experiment.log_every == 0:
            self._log_window()
        level = self.device.agree(self._wanted())
        if level == _SAVE:
            self._save(None)
        elif level:
            raise Interrupted.by(level)
        if self.device.is_main:
            self.checkpoints.check()
        self.device.beat()

    def _wanted(self) -> int:
        """What this process asks of all: nothing, a checkpoint, or to stop."""
        if (came := self.trainer.interrupts.came) is not None:
            return came.signum
        if self.device.is_main and self.state.update and monotonic() - self.saved_at > self.experiment.save_every:
            self.saved_at = monotonic()
            return _SAVE
        return 0

    def _log_window(self) -> None:
        """Write what the updates since the last line were like."""
        means = self.state.means(window=True)
        if self.metrics is None:
            return
        values = {f"train/{name}": value for name, value in means.items()}
        values["lr"] = float(self.state.optimizer.param_groups[0]["lr"])
        if self.state.grad_norm is not None:
            values["train/grad_norm"] = float(self.state.grad_norm)
        step = self.first_step + self.state.step
        self.metrics.write(step=step, stage=self.stage.name, epoch=self.state.epoch + 1, **values)
        if monotonic() - self.measured_at > _MEASURE_EVERY:
            self.measured_at = monotonic()
            self.metrics.measure(step=step, **self.pace.read(), **memory(self.device))

    def _restore(self) -> None:
        """Put weights, optimizer and averages back to the last epoch that was scored; the position stays."""
        saved = self.device.first(self._end_of_epoch)
        self.trainer.say(f"{self.title}: an update was not finite; weights are those of epoch {saved.info['epoch']}")
        self.state.load_weights_of(saved.load())

    def _end_of_epoch(self) -> Checkpoint:
        self.checkpoints.wait()
        scored = [checkpoint for checkpoint in self.checkpoints.all() if checkpoint.score is not None]
        if not scored:
            raise NonFiniteError(
                f"{self.title}: an update was not finite, and no epoch with a finite score is there to restore;"
                " lower lr, or on_nan='skip'"
            )
        return scored[-1]

    def _loader(self) -> Loader:
        rows = self.trainer.folds.training(self.fold)
        seed = derive_seed(self.experiment.seed, "loader", self.fold, self.stage.name)
        return loader_of(self.experiment, self.trainer.tables.train[rows], self.stage, training=True, seed=seed)

    def _refresh_batch_norm(self, model: nn.Module, loader: Loader, *, epoch: int) -> None:
        """An average of weights needs batch-norm statistics of its own."""
        inputs = training_inputs(self.experiment, loader, self.device, epoch=epoch)
        with random_state_kept():
            watched = self._watched(inputs)
            recompute_batch_norm(model, watched, self.experiment.predict_step, gather=self.device.gather)

    def _watched(self, inputs: Iterator[Any]) -> Iterator[Any]:
        for each in inputs:
            self.trainer.check()
            yield each

    def _save(self, epoch: Epoch | None) -> Future[Checkpoint] | None:
        """Save behind the training; the process that writes the files returns the checkpoint to come."""
        state = self.state.state_dict()
        self.saved_at = monotonic()
        if self.metrics is None:
            return None
        means = {} if epoch is None else {"loss": epoch.loss, **epoch.means}
        info = {
            "stage": self.stage.name,
            "epoch": self.state.epoch,
            "update": self.state.update,
            "step": self.state.step,
            "weights": "model" if self.stage.average is None else "average",
            "evaluated": False,
            "scores": list(self.state.scores),
            "log": self.metrics.position(),
            "train": {f"train/{name}": finite(value) for name, value in means.items()},
            "lr": None if epoch is None else epoch.lr,
        }
        return self.checkpoints.save_soon(state, info=info, before=self.metrics.sync)

    def _evaluate(self, saving: Future[Checkpoint] | Checkpoint | None) -> None:
        experiment, held_out = self.experiment, self.trainer.tables.train[self.rows]
        with random_state_kept():
            if self._valid is None:
                self._valid = self.predictor.loader(held_out)
            predictions = self.predictor.values(self.state.scored, self._valid)
            values = self.device.first(lambda: score_all(experiment, experiment.targets(held_out), predictions))
        score = values[experiment.metric.name]
        self.state.scores.append(finite(score))
        if self.metrics is not None:
            assert saving is not None
            self._note_score(saving if isinstance(saving, Checkpoint) else saving.result(), values)
        if finite(score) is None:
            self.trainer.say(
                f"{self.title}, epoch {self.state.epoch}: {experiment.metric.name} is {score}; it counts as worst"
            )
        line = f"{self.title} epoch {self.state.epoch}/{self.stage.epochs}: {experiment.metric.name} {score:.5f}"
        self.trainer.bar.note(line)
        self.trainer.note(line)

    def _note_score(self, checkpoint: Checkpoint, values: Mapping[str, float]) -> None:
        assert self.metrics is not None
        self.metrics.write(
            step=self.first_step + self.state.step,
            stage=self.stage.name,
            epoch=self.state.epoch,
            **checkpoint.info["train"],
            lr=checkpoint.info["lr"],
            **{f"valid/{name}": value for name, value in values.items()},
        )
        self.metrics.sync()
        notes = {"evaluated": True, "scores": list(self.state.scores), "log": self.metrics.position()}
        self.checkpoints.score(checkpoint, values[self.experiment.metric.name], info=notes)

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


def memory(device: Device) -> dict[str, float]:
    """Return the largest memory in use so far, in MB: of the accelerator, else of the process."""
    if device.name.type != "cpu":
        return {"memory/device_mb": torch.accelerator.max_memory_allocated(device.name) / 2**20}
    return {"memory/process_mb": peak_memory() / 2**20}


def peak_memory() -> int:
    """Return the largest memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
