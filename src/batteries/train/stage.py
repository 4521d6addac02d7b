"""Stage: the loop with validation, log and checkpoints around it.

In:    a stage's declaration, one fold's rows, how the stage before ended.
Out:   the stage's checkpoints, scored; begun or gone on with, as the folder says.
Next:  the run chooses the best of the last stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

from numpy.typing import NDArray
from torch import nn

from batteries.errors import BatteriesError, Interrupted, NonFiniteError, WeightsError
from batteries.experiment import Experiment, Stage
from batteries.prepare.folds import Folds
from batteries.prepare.seed import derive_seed, random_state_kept, seed_everything
from batteries.progress import Progress
from batteries.train.average import average_checkpoints, recompute_batch_norm
from batteries.train.checkpoint import Checkpoint
from batteries.train.device import Device
from batteries.train.interrupt import Interrupts
from batteries.train.loaders import Loader
from batteries.train.log import MetricLog
from batteries.train.loop import Epoch, Pace, train, training_inputs
from batteries.train.outcome import Predictor, build_model, checkpoints_of, finite, loader_of, score_all
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
        """Optimizer updates of a stage, if nothing ends it early."""
        experiment, rows = self.experiment.at(stage), self.tables.train[self.folds.training(fold)]
        size, samples = stage.batch_size or experiment.batch_size, len(rows)
        if hasattr(sampler := experiment.sampler(rows), "order"):  # else the loader refuses it
            samples = len(sampler.order(samples, batch_size=size, epoch=0, seed=0))
        return stage.epochs * -(-samples // (size * stage.accumulate))

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


@dataclass(frozen=True)
class _Saved:
    """A checkpoint that is being written, and the epoch's means in training, which its line in the log begins with."""

    checkpoint: Future[Checkpoint] | Checkpoint
    means: Mapping[str, float | None]


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
        self.pace, self.told = Pace(), 0
        self.saved_at = self.measured_at = monotonic()

    def train(self, previous: Ended | None) -> Ended:
        """Bring the stage to its end from wherever it stands, and say how it ended."""
        if self.device.is_main:
            self.checkpoints = checkpoints_of(self.trainer.run, self.experiment, self.fold, self.stage)
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
            self._load_file(model, Path(start))
        elif previous is not None and start == "last":
            load_weights(model, previous.last)
        elif previous is not None and start == "best":
            load_weights(model, previous.best[0], part=previous.best[0].info["weights"])
        elif previous is not None:
            load_weights(model, average_checkpoints(previous.best, part=previous.best[0].info["weights"]))
            self._refresh_batch_norm(model.to(self.device.name), self._loader(), epoch=0)
        self.state = self._state(model)
        return 0 if previous is None else int(previous.last.info["log"])

    def _load_file(self, model: nn.Module, path: Path) -> None:
        try:
            load_weights(model, path)
        except WeightsError as error:
            hint = f"To take what fits: bt.load_weights(model, {str(path)!r}, partial=True) in model(), and no start"
            raise WeightsError(f"stage {self.stage.name!r}, start: {error}. {hint}") from error

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
        with random_state_kept():  # they may draw names at random, after a resume once more
            trackers = self.experiment.trackers(f"{self.trainer.run.name}-fold{self.fold}", folder)
        with MetricLog(folder, position=position, trackers=trackers) as self.metrics:
            yield

    def _epochs(self, resumed: Checkpoint | None) -> None:
        if resumed and not resumed.info["update"] and not resumed.info["evaluated"]:
            self._evaluate(_Saved(resumed, resumed.info["train"]) if self.metrics is not None else None)
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
                self._tell_left_out()
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

    def _tell_left_out(self) -> None:
        """Say, once an epoch, how many updates were not finite; of those restored from, each was said."""
        count = self.state.not_finite
        if self.stage.on_nan == "skip" and count > self.told:
            self.told = count
            self.trainer.say(f"{self.title}, epoch {self.state.epoch}: updates left out so far, not finite: {count}")

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
        """Write what the updates since the last line were like, as `step/...`; an epoch's means are `train/...`."""
        means = self.state.means(window=True)
        if self.metrics is None:
            return
        values = {f"step/{name}": value for name, value in means.items()}
        values["lr"] = float(self.state.optimizer.param_groups[0]["lr"])
        if self.state.grad_norm is not None:
            values["step/grad_norm"] = float(self.state.grad_norm)
        step = self.first_step + self.state.step
        self.metrics.write(step=step, stage=self.stage.name, epoch=self.state.epoch + 1, **values)
        if monotonic() - self.measured_at > _MEASURE_EVERY:
            self.measured_at = monotonic()
            self.metrics.measure(step=step, **self.pace.read(), **self.device.memory())

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

    def _save(self, epoch: Epoch | None) -> _Saved | None:
        """Save behind the training; the process that writes the files returns the checkpoint to come."""
        state = self.state.state_dict()
        self.saved_at = monotonic()
        if self.metrics is None:
            return None
        means: dict[str, float | None] = {}
        if epoch is not None:
            means = {f"train/{name}": finite(value) for name, value in {"loss": epoch.loss, **epoch.means}.items()}
            means["lr"] = epoch.lr
        info = {
            "stage": self.stage.name,
            "epoch": self.state.epoch,
            "update": self.state.update,
            "step": self.state.step,
            "weights": "model" if self.stage.average is None else "average",
            "evaluated": False,
            "scores": list(self.state.scores),
            "log": self.metrics.position(),
            "train": means,
        }
        return _Saved(self.checkpoints.save_soon(state, info=info, before=self.metrics.sync), means)

    @cached_property
    def _valid(self) -> tuple[Loader, NDArray[Any]]:
        """The held-out rows to predict, and their targets; made once, and only if an epoch is validated."""
        held_out = self.trainer.tables.train[self.rows]
        return self.predictor.loader(held_out), self.experiment.targets(held_out)

    def _evaluate(self, saved: _Saved | None) -> None:
        """Score the epoch that has just been saved, behind the training too."""
        with random_state_kept():
            loader, targets = self._valid
            predictions = self.predictor.values(self.state.scored, loader)
            values = self.device.first(lambda: score_all(self.experiment, targets, predictions))
        name = self.experiment.metric.name
        self.state.scores.append(finite(values[name]))
        if saved is not None:
            self._note_score(saved, values)
        if finite(values[name]) is None:
            self.trainer.say(f"{self.title}, epoch {self.state.epoch}: {name} is {values[name]}; it counts as worst")
        line = f"{self.title} epoch {self.state.epoch}/{self.stage.epochs}: {name} {values[name]:.5f}"
        self.trainer.bar.note(line)
        self.trainer.note(line)

    def _note_score(self, saved: _Saved, values: Mapping[str, float]) -> None:
        assert self.metrics is not None
        valid = {f"valid/{name}": value for name, value in values.items()}
        step = self.first_step + self.state.step
        self.metrics.write(step=step, stage=self.stage.name, epoch=self.state.epoch, **saved.means, **valid)
        notes = {"evaluated": True, "scores": list(self.state.scores), "log": self.metrics.position()}
        score = values[self.experiment.metric.name]
        self.checkpoints.score_soon(saved.checkpoint, score, info=notes, before=self.metrics.sync)

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
