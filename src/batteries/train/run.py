"""Run: every fold, every stage, recorded so that it goes on after a crash.

In:    an experiment and its folds.
Out:   `runs/digits-001/`: checkpoints, metrics, fold scores, out-of-fold and test predictions.
Next:  `score` enters it into the ledger.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from batteries.errors import (
    CorruptError,
    DataError,
    Interrupted,
    PeerError,
    PredictionsError,
    ResourceError,
    UsageError,
)
from batteries.experiment import Experiment, Stage
from batteries.experiment.predictions import Predictions, out_of_fold
from batteries.files import forget_folder, locked, refusing, sweep
from batteries.prepare.folds import Folds, split
from batteries.prepare.split_check import check_split
from batteries.prepare.table import test_table, training_table
from batteries.progress import Progress
from batteries.train.checkpoint import Checkpoint, has_checkpoints
from batteries.train.device import Device
from batteries.train.distributed import lost, pick_device
from batteries.train.interrupt import Interrupts
from batteries.train.outcome import Predictor, build_model, mean_of, write_fold
from batteries.train.record import Run, Tables, changed_since, open_run, unfinished_namesakes
from batteries.train.stage import Ended, StageOfFold, Trainer
from batteries.train.weights import load_weights

Say = Callable[[str], object]


def train_run(
    experiment: Experiment,
    root: Path | str = "runs",
    *,
    device: str | Device = "auto",
    folds: Sequence[int] | None = None,
    resume: str | None = None,
    progress: bool = True,
    say: Say = lambda text: None,
    prepared: Mapping[str, Any] | None = None,
) -> Run:
    """Train an experiment over its folds, or go on where a former call was stopped.

    Writes files only; `record(open_entry(root, run.name), experiment, root)` enters the scores into the ledger.

    Parameters
    ----------
    experiment
        What to train. The same experiment, code, data and folds find their former run again.
    root
        Folder of all runs; `folds.parquet` in it is made at the first call.
    device
        `auto`, `cpu`, `cuda:1`, or a Device. Under `torchrun`, each process takes its part of every batch.
    folds
        Only these folds; all by default. Joined predictions cover those that are finished.
    resume
        A run to go on with although the code changed.
    progress
        Whether to show a bar.
    say
        Called with a line for each finished fold and notable event; all lines are in train.log too.
    prepared
        What `prepare_environment` returned, for provenance.json.

    Raises
    ------
    Interrupted
        Ctrl-C or SIGTERM, after saving; the same call goes on.
    NonFiniteError
        A loss, or every score of a stage, is not finite.
    BusyError
        Another process trains this run.
    PeerError
        One of several processes died or is silent; the same call goes on.

    Example
    -------
    >>> run = train_run(load_experiment("digits"), "digits/runs")  # doctest: +SKIP

    """
    if isinstance(device, Device):
        return _Running(experiment, Path(root), device, progress, say, prepared).through(folds, resume)
    with pick_device(device) as place:
        return _Running(experiment, Path(root), place, progress, say, prepared).through(folds, resume)


@dataclass
class _Running:
    """A run under way, in one of the processes that train it; rank 0 writes the files and speaks."""

    experiment: Experiment
    root: Path
    place: Device
    progress: bool
    say: Say
    prepared: Mapping[str, Any] | None = None

    def through(self, folds: Sequence[int] | None, resume: str | None) -> Run:
        """Train what is left of the wanted folds."""
        experiment, place = self.experiment, self.place
        tables = Tables(training_table(experiment), test_table(experiment))
        tables.check_targets(experiment)
        _check_same_data(place, tables)
        unchecked = place.first(lambda: not (self.root / "folds.parquet").exists())
        split_ = place.first(lambda: split(experiment, self.root, table=tables.train))
        wanted = _wanted(folds, split_.n)
        run = place.first(
            lambda: open_run(experiment, split_, tables, self.root, resume=resume, prepared=self.prepared)
        )
        with ExitStack() as stack:
            log = self._hold(run, stack, new=resume is None)
            if unchecked and place.is_main:
                _warn_of_leaks(experiment, split_, tables.train, log)
            todo = place.first(lambda: self._todo(run, wanted, log))
            interrupts = stack.enter_context(Interrupts())
            bar = stack.enter_context(Progress(run.name, total=1, show=self.progress and place.is_main))
            trainer = Trainer(experiment, run, split_, tables, place, log, log.write, interrupts, bar)
            bar.total = sum(trainer.updates(fold, stage) for fold in todo for stage in experiment.checked_stages())
            try:
                _train_folds(trainer, todo)
            finally:
                if place.is_main and run.finished_folds() and not _collected(run):
                    collect(run, split_, tables)
        return run

    def _hold(self, run: Run, stack: ExitStack, *, new: bool) -> _Log:
        """Take the run for this training alone, and open its log."""

        def hold() -> None:
            stack.enter_context(locked(run.folder))
            sweep(run.folder)
            if new and not _left(run):
                stack.push(lambda kind, error, trace: _forget_if_nothing(run, error))

        self.place.first(hold)
        return stack.enter_context(_Log(run, self.say) if self.place.is_main else _Silence())

    def _todo(self, run: Run, wanted: Sequence[int], log: _Log) -> list[int]:
        todo = [fold for fold in wanted if fold not in run.finished_folds()]
        _announce(run, todo, log)
        return todo


def _check_same_data(place: Device, tables: Tables) -> None:
    """Refuse processes that read other data than rank 0."""
    if place.world > 1:
        digests = place.gather(tables.digests())
        if other := [rank for rank, digest in enumerate(digests) if digest != digests[0]]:
            raise DataError(
                f"table() or test_table() gave other data in the process of rank {other[0]} than in that of rank 0;"
                " they must not draw at random or depend on the machine"
            )


def _left(run: Run) -> bool:
    """Whether a training of the run left anything behind: a checkpoint, or a line of metrics."""
    metrics = run.folder.glob("fold*/metrics.jsonl")
    return any(run.folder.glob("fold*/stage-*/checkpoint-*.json")) or any(path.stat().st_size for path in metrics)


def _forget_if_nothing(run: Run, error: BaseException | None) -> None:
    """Let no folder stand for a run that failed at its start, of a mistake in the experiment as a rule.

    Where it was stopped, or another process was, the same command goes on with it.
    """
    stopped = isinstance(error, Interrupted | PeerError) or (isinstance(error, RuntimeError) and lost(error))
    if isinstance(error, Exception) and not stopped and not _left(run):
        with suppress(OSError, ResourceError), locked(run.folder.parent, wait=True):
            forget_folder(run.folder)


def _collected(run: Run) -> bool:
    """Whether the joined predictions, those for the test table too, are those of exactly the finished folds."""
    try:
        joined = Predictions.load(run.folder / "oof.parquet")
        if run.config["data"]["test"] is not None:
            Predictions.load(run.folder / "test.parquet")
    except (PredictionsError, CorruptError):
        return False
    return joined.folds is not None and sorted(set(joined.folds.tolist())) == run.finished_folds()


def _wanted(folds: Sequence[int] | None, n: int) -> list[int]:
    wanted = sorted(set(range(n) if folds is None else folds))
    if outside := [fold for fold in wanted if not 0 <= fold < n]:
        raise UsageError(f"there is no fold {outside[0]}; folds are numbered 0 to {n - 1}")
    return wanted


def _announce(run: Run, todo: Sequence[int], log: _Log) -> None:
    if not todo:
        log(f"{run.name} is already complete")
    elif run.finished_folds() or any(run.fold_folder(fold).exists() for fold in todo):
        log(f"{run.name} goes on: folds {', '.join(map(str, todo))} are to do")
        _warn_of_changes(run, log)
    else:
        log(f"{run.name} begins: folds {', '.join(map(str, todo))}")
        if others := unfinished_namesakes(run):
            last = others[-1]
            before = f"{len(others) - 1} before it, too; " if len(others) > 1 else ""
            log(f"{last} is unfinished and differs in code, fields or data; {before}to go on with it: --resume {last}")


def _warn_of_leaks(experiment: Experiment, folds: Folds, table: pl.DataFrame, log: _Log) -> None:
    """What `split` would refuse, as far as it is found at once: all but texts and images that are nearly the same."""
    quick = check_split(table, folds, id=experiment.id, target=experiment.target, skip=["near-duplicates"], show=False)
    for leak in quick.leaks:
        log(f"the folds that were just made leak: {leak.sentence}; scores will be too good. See: batteries split")


def _warn_of_changes(run: Run, log: _Log) -> None:
    if changed := changed_since(run, run.folder.parent):
        text = f"{run.name} goes on under {'; '.join(changed)}: results may differ in the last digits"
        log.write(text)
        warnings.warn(text, stacklevel=2)


class _Log:
    """Lines for train.log, and for whoever watches."""

    def __init__(self, run: Run, say: Say) -> None:
        self._path, self._say = run.folder / "train.log", say

    def __enter__(self) -> _Log:
        with refusing(self._path):
            self._file = open(self._path, "ab", buffering=0)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            with suppress(ResourceError):  # the first error is the one to show
                self.write(f"stopped: {type(error).__name__}: {error}")
        self._file.close()

    def write(self, text: str) -> None:
        """Note a line in the file."""
        with refusing(self._path):
            self._file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n".encode())

    def __call__(self, text: str) -> None:
        self.write(text)
        self._say(text)


class _Silence(_Log):
    """The log of a process that leaves speaking to rank 0."""

    def __init__(self) -> None:
        pass

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        pass

    def write(self, text: str) -> None:
        """Say nothing."""

    def __call__(self, text: str) -> None:
        pass


def _train_folds(trainer: Trainer, todo: Sequence[int]) -> None:
    for fold in todo:
        try:
            _train_fold(trainer, fold)
        except Interrupted as stop:
            raise _stopped(stop, trainer, fold, "all is saved") from stop
        except RuntimeError as error:  # a signal to a whole group of processes ends the loader's workers as well
            if (came := trainer.interrupts.came) is None or lost(error):
                raise
            raise _stopped(came, trainer, fold, "so were the loader's workers; finished epochs are saved") from error


def _stopped(stop: Interrupted, trainer: Trainer, fold: int, state: str) -> Interrupted:
    where = f"in fold {fold} of {trainer.run.name}"
    return Interrupted(f"{stop} {where}; {state}. The same command goes on from there", signum=stop.exit_code - 128)


def _train_fold(trainer: Trainer, fold: int) -> None:
    began, steps = time.monotonic(), 0
    previous: Ended | None = None
    stages = trainer.experiment.checked_stages()
    folders = [trainer.run.stage_folder(fold, stage.name) for stage in stages]
    begun = trainer.device.first(lambda: [has_checkpoints(folder) for folder in folders])
    for number, stage in enumerate(stages):
        passed = any(begun[number + 1 :])
        previous = StageOfFold(trainer, fold, stage, first_step=steps, passed=passed).train(previous)
        steps += trainer.updates(fold, stage)
    assert previous is not None
    scores = _predict_fold(trainer, fold, stage, previous.best[0])
    metric = trainer.experiment.metric.name
    trainer.say(f"fold {fold}: {metric} {scores[metric]:.5f}  ({time.monotonic() - began:.1f} s)")


def _predict_fold(trainer: Trainer, fold: int, stage: Stage, checkpoint: Checkpoint) -> dict[str, float]:
    """Predict the held-out and the test rows with the chosen weights; fold.json, last, says the fold is done."""
    predictor = Predictor(trainer.experiment, trainer.device, stage, trainer.check)
    model = build_model(predictor.experiment, fold)
    load_weights(model, checkpoint, part=checkpoint.info["weights"])
    oof, test = predictor.fold(model, trainer.folds, trainer.tables, fold)
    notes = {"fold": fold, "stage": stage.name, "checkpoint": checkpoint.path.name, "chosen_on": "this fold"}
    notes |= {key: checkpoint.info[key] for key in ("epoch", "weights")}
    folder = trainer.run.fold_folder(fold)
    return trainer.device.first(lambda: write_fold(folder, oof, test, experiment=trainer.experiment, notes=notes))


def collect(run: Run, folds: Folds, tables: Tables) -> None:
    """Join the finished folds: `oof.parquet` with every row that is held out, `test.parquet` with their mean."""
    done = run.finished_folds()
    parts = [Predictions.load(run.fold_folder(fold) / "oof.parquet") for fold in done]
    complete = len(done) == run.num_folds
    oof = out_of_fold(parts, folds.covered, complete=complete)
    oof = Predictions(oof.ids, oof.values, targets=oof.targets, folds=oof.folds, about={**oof.about, "run": run.name})
    tests = [run.fold_folder(fold) / "test.parquet" for fold in done]
    if tables.test is not None:
        mean_of([Predictions.load(path) for path in tests], run.name).save(run.folder / "test.parquet")
    oof.save(run.folder / "oof.parquet")  # last: its folds say what is joined
