"""Rehearse: a few batches of everything a run does, in a folder that is thrown away.

In:    an experiment.
Out:   its errors, if it has any; else its shapes, speed, memory, and about how long the whole run takes.
Next:  `train_run`, which meets nothing for the first time.
"""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from math import ceil, inf, isfinite
from pathlib import Path
from statistics import median_low
from tempfile import mkdtemp
from time import perf_counter
from typing import Any

import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from batteries.errors import Interrupted
from batteries.experiment import Batch, Experiment, Metric, Stage
from batteries.experiment.predictions import Predictions
from batteries.prepare.folds import Folds, make_folds, strategy_of
from batteries.prepare.table import test_table, training_table
from batteries.train.device import Device
from batteries.train.distributed import pick_device
from batteries.train.few import MOST, UPDATES, Few, HeldOutLast, batch_size_of
from batteries.train.interrupt import Interrupts
from batteries.train.record import Run, Tables
from batteries.train.run import Say, train_run
from batteries.train.samplers import Sampler, Shuffled

_SECONDS = 4.0
"""For all the updates that only measure: the first ones of a process are slower than all that follow."""


@dataclass(frozen=True, kw_only=True)
class StageRehearsed:
    """What a few updates of a stage were like."""

    name: str
    learning: int
    """Parameters that learn."""
    seconds: float
    """That a full update takes, its data included; the median of those measured."""
    updates: int
    """Of a fold of mean size in the whole run, as far as the rows tell and unless it stops early."""


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What was done, and what it says of the whole run."""

    experiment: str
    device: str
    parameters: int
    batch: str
    """Shapes and types of what training_step was given, in one process."""
    prediction: tuple[int, ...]
    """Shape of the predictions of the held-out rows."""
    stages: tuple[StageRehearsed, ...]
    scores: Mapping[str, float]
    """Of the held-out rows; they only show that a metric works."""
    memory: float
    """Largest memory in use, in MB: of the accelerator, else of the process."""
    resumed: bool
    """Whether it was stopped after an update, and gone on with."""
    took: float
    """Seconds."""
    folds: int
    estimate: float
    """Seconds that the whole run computes, about; few updates tell no more, and saving comes on top."""
    notes: tuple[str, ...]
    """What could not be rehearsed on so few rows."""

    def plain(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return asdict(self)


def rehearse(experiment: Experiment, *, device: str | Device = "auto", say: Say = lambda text: None) -> Rehearsal:
    """Do a few batches of everything that `train_run` does, and return what they were like.

    Fold 0 is trained for two updates of every stage, or up to eight where they are quick or read from a
    stream, on rows of every class where so few can have them; two batches of held-out rows are scored, all
    is saved, stopped after the first update as Ctrl-C would, gone on with, and two batches of held-out and
    of test rows are predicted. It happens in a temporary folder (of the system's, or in TMPDIR), which is
    removed; trackers hear nothing of it. Errors are those of a real run, but for a metric that fails on
    these rows and might not on all: that is a note. From another thread than the main one it is not
    stopped, and the updates that it measures are the first two of every stage.

    Parameters
    ----------
    device
        As of `train_run`.
    say
        Called with a line before it begins.

    Raises
    ------
    BatteriesError
        Whatever `train_run` would raise within its first updates.

    Example
    -------
    >>> rehearse(load_experiment("digits")).estimate  # doctest: +SKIP
    34.2

    """
    if isinstance(device, Device):
        return _rehearsed(experiment, device, say)
    with pick_device(device) as place:
        return _rehearsed(experiment, place, say)


def _rehearsed(experiment: Experiment, place: Device, say: Say) -> Rehearsal:
    began = perf_counter()
    stages = experiment.checked_stages()
    whole = Tables(training_table(experiment), test_table(experiment))
    whole.check_targets(experiment)
    strategy = strategy_of(experiment, whole.train)
    folds = make_folds(whole.train, strategy, id=experiment.id, target=experiment.target)
    few = Few.of(experiment, stages, whole, folds)
    if place.is_main:
        staged = "1 stage" if len(stages) == 1 else f"{len(stages)} stages"
        say(f"rehearsing {staged} on {place}, {few.training} training and {few.held_out} held-out rows")
    watch = _Watch(few, place.world)
    with _thrown_away(place) as root:
        run = _stopped_once(watch.over(experiment), root, place, watch)
        return place.first(lambda: _told(experiment, run, watch, whole, folds, place, took=perf_counter() - began))


@contextmanager
def _thrown_away(place: Device) -> Iterator[Path]:
    folder = place.first(lambda: Path(mkdtemp(prefix="batteries-rehearsal-")))
    try:
        yield folder
    finally:
        if place.is_main:
            shutil.rmtree(folder, ignore_errors=True)


def _stopped_once(small: Experiment, root: Path, place: Device, watch: _Watch) -> Run:
    """Train until the watch asks to stop, and again to the end."""
    watch.stops = threading.current_thread() is threading.main_thread()  # no other can be sent a signal
    for last in (False, True):
        try:
            return train_run(small, root, device=place, folds=[0], progress=False)
        except Interrupted as stop:
            if last or not watch.stopped:
                raise Interrupted("the rehearsal was stopped; nothing of it is kept", signum=stop.signum) from stop
            place.agree(0)  # several processes learn a call later, and would be told to stop once more
            watch.updates = place.first(watch.affordable)
    raise AssertionError


@dataclass
class _Watch:
    """The experiment over a few rows, and what is seen from inside its own methods."""

    few: Few
    world: int = 1
    updates: int = UPDATES
    """Of every stage."""
    stops: bool = False
    stopped: bool = False
    parameters: int = 0
    learning: dict[str, int] = field(default_factory=dict)
    batch: str = ""
    training: dict[str, list[float]] = field(default_factory=dict)
    """Seconds for a sample of each stage, its reading included; of every update."""
    first: float = 0.0
    """Seconds that the first update took, which is the slowest."""
    predicting: float = inf
    """Seconds for a row, of the fastest batch."""
    since: float = 0.0
    """When the update under way began."""
    seen: int = 0
    """Samples of the update under way."""
    notes: dict[str, str] = field(default_factory=dict)
    """Of metrics, by name."""

    def over(self, experiment: Experiment, stage: Stage | None = None) -> Experiment:
        """Return the experiment, as it is in a stage, over the few rows and with its methods watched."""
        small = copy(experiment)
        vars(small).update(
            table=lambda: self.few.train,
            test_table=lambda: self.few.test,
            folds=HeldOutLast(self.few.training),
            stages=lambda: list(self.few.stages),
            at=lambda stage: self.over(experiment.at(stage), stage),
            metric=self._lenient(experiment.metric),
            also=tuple(self._lenient(metric) for metric in experiment.also),
            keep=1,
            log_every=UPDATES,
            trackers=lambda run, folder: [],
            collate=experiment.collate,  # not of the copy, which could not be sent to a worker
            model=lambda: self._model(experiment),
            optimizer=lambda groups, stage: self._optimizer(experiment, groups, stage),
            training_step=lambda model, batch: self._training_step(experiment, model, batch),
            predict_step=lambda model, inputs: self._predict_step(experiment, stage, model, inputs),
        )
        if stage is not None:
            count = self.updates * stage.accumulate * batch_size_of(experiment, stage)
            vars(small)["sampler"] = lambda rows: self._sampler(experiment, rows, count)
        return small

    def _model(self, experiment: Experiment) -> nn.Module:
        model = experiment.model()
        if isinstance(model, nn.Module):
            known = (each for each in model.parameters() if not nn.parameter.is_lazy(each))
            self.parameters = sum(each.numel() for each in known)
        return model

    def _optimizer(self, experiment: Experiment, groups: list[dict[str, Any]], stage: Stage) -> torch.optim.Optimizer:
        self.learning[stage.name] = sum(each.numel() for group in groups for each in group["params"])
        optimizer = experiment.optimizer(groups, stage)
        if isinstance(optimizer, torch.optim.Optimizer):
            optimizer.register_step_post_hook(lambda *rest: self._after_step(stage))
        self._begin()
        return optimizer

    def _sampler(self, experiment: Experiment, rows: pl.DataFrame, count: int) -> Any:
        sampler = _short(experiment.sampler(rows) or Shuffled(), count)
        self._begin()
        return sampler

    def _begin(self) -> None:
        self.since, self.seen = perf_counter(), 0

    def _after_step(self, stage: Stage) -> None:
        self._measure(stage.name)
        listening = isinstance(getattr(signal.getsignal(signal.SIGINT), "__self__", None), Interrupts)
        if self.stops and listening:  # else somebody asked before us
            self.stops, self.stopped = False, True
            signal.raise_signal(signal.SIGINT)

    def _measure(self, stage: str) -> None:
        """Note how long the update took that ends now."""
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        if self.seen:
            took = perf_counter() - self.since
            self.first = self.first or took
            self.training.setdefault(stage, []).append(took / self.seen)
        self._begin()

    def affordable(self) -> int:
        """Updates of a stage from here on: the fewest, and those that there is time to measure."""
        return min(MOST, UPDATES + int(_SECONDS / len(self.few.stages) / max(self.first, 1e-9)))

    def _training_step(self, experiment: Experiment, model: nn.Module, batch: Batch) -> Any:
        self.seen += batch.size * self.world
        self.batch = self.batch or ", ".join(
            _shapes(part) for part in (batch.inputs, batch.targets) if part is not None
        )
        return experiment.training_step(model, batch)

    def _predict_step(self, experiment: Experiment, stage: Stage | None, model: nn.Module, inputs: Any) -> Tensor:
        if stage is not None and stage.name not in self.training:  # fp16 left out all of its steps
            self._measure(stage.name)
        began = perf_counter()
        predicted = experiment.predict_step(model, inputs)
        if isinstance(predicted, Tensor) and len(predicted):
            if predicted.device.type != "cpu":
                torch.accelerator.synchronize(predicted.device)
            self.predicting = min(self.predicting, (perf_counter() - began) / len(predicted))
        return predicted

    def _lenient(self, metric: Metric) -> Metric:
        """A metric that may fail on these rows, where on all it might not."""
        if self.few.complete or metric.fn is None:
            return metric

        def score(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
            try:
                value = metric(targets, predictions)
            except Exception as error:  # noqa: BLE001 - of the user's code, of any kind
                value, text = inf, f"failed ({type(error).__name__}: {error})"
            else:
                text = f"was {value}"
            if isfinite(value):
                return value
            self.notes[metric.name] = f"{metric.name} {text} on {len(targets)} rows; is that because they are so few?"
            return 0.0

        return replace(metric, fn=score)


@dataclass(frozen=True)
class _First:
    """The first rows in the order of another sampler."""

    sampler: Sampler
    count: int

    def order(self, size: int, **how: Any) -> Any:
        return self.sampler.order(size, **how)[: self.count]


def _short(sampler: Any, count: int) -> Any:
    """The sampler cut short, still called by its name in errors; what is none is refused where it is used."""
    if not callable(getattr(sampler, "order", None)):
        return sampler
    return type(type(sampler).__name__, (_First,), {})(sampler, count)


def _shapes(data: Any) -> str:
    if isinstance(data, Tensor):
        return f"({', '.join(map(str, data.shape))}) {str(data.dtype).removeprefix('torch.')}"
    if isinstance(data, Mapping):
        return "{" + ", ".join(f"{key}: {_shapes(value)}" for key, value in data.items()) + "}"
    if isinstance(data, tuple | list):
        return "[" + ", ".join(_shapes(value) for value in data) + "]"
    return type(data).__name__


def _told(
    experiment: Experiment, run: Run, watch: _Watch, whole: Tables, folds: Folds, place: Device, *, took: float
) -> Rehearsal:
    sizes = [(len(folds.training(fold)), len(folds.held_out(fold))) for fold in range(folds.n)]
    rows, held_out = (sum(each) / folds.n for each in zip(*sizes, strict=True))  # folds in time differ much
    predicted = held_out + (0 if whole.test is None else len(whole.test))
    stages, seconds = [], predicted * watch.predicting
    for stage in experiment.checked_stages():
        size = batch_size_of(experiment, stage)
        updates = stage.epochs * ceil(rows / (size * stage.accumulate))
        a_sample, learning = median_low(watch.training[stage.name]), watch.learning[stage.name]
        an_update = min(rows, size * stage.accumulate) * a_sample
        seconds += stage.epochs * (rows * a_sample + held_out * watch.predicting)
        stages.append(StageRehearsed(name=stage.name, learning=learning, seconds=an_update, updates=updates))
    scores = run.fold_result(0)["scores"]
    return Rehearsal(
        experiment=type(experiment).__name__,
        device=str(place),
        parameters=watch.parameters,
        batch=watch.batch,
        prediction=Predictions.load(run.fold_folder(0) / "oof.parquet").values.shape,
        stages=tuple(stages),
        scores={name: score for name, score in scores.items() if name not in watch.notes},
        memory=max(place.memory().values()),
        resumed=watch.stopped,
        took=took,
        folds=folds.n,
        estimate=folds.n * seconds,
        notes=tuple(watch.notes.values()),
    )
