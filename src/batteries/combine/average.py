"""Average: a run again, with the mean of its checkpoints in each fold.

In:    a finished run.
Out:   a new entry: averaged weights, their out-of-fold and test predictions.
Next:  the board shows whether it is better; it blends like any entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from batteries.combine.derive import LEARNED
from batteries.errors import UsageError, WeightsError
from batteries.experiment import Experiment, Stage
from batteries.experiment.predictions import Predictions, out_of_fold
from batteries.files import digest_of, write_atomic, write_sealed
from batteries.prepare.folds import Folds
from batteries.prepare.seed import derive_seed
from batteries.prepare.table import test_table, training_table
from batteries.progress import Progress
from batteries.score.entry import INHERITED, Entry, find_entry, write_entry
from batteries.train.average import MeanOfWeights, recompute_batch_norm
from batteries.train.checkpoint import Checkpoint
from batteries.train.device import Device
from batteries.train.interrupt import Interrupts
from batteries.train.loop import training_inputs
from batteries.train.outcome import Predictor, build_model, checkpoints_of, loader_of, mean_of
from batteries.train.record import Run, Tables, check_same
from batteries.train.weights import load_weights, read_weights


@dataclass(frozen=True)
class Which:
    """Which checkpoints of the last stage are averaged: one of three ways."""

    _: KW_ONLY
    best: int | None = None
    last: int | None = None
    epochs: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("best", "last", "epochs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(f"average: give best, last or epochs, one of them; got {' and '.join(given) or 'none'}")
        for name in ("best", "last"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise UsageError(f"average: {name} must be >= 1, got {count}")
        if (epochs := self.epochs) is not None and (not epochs or min(epochs) < 1 or len(set(epochs)) < len(epochs)):
            raise UsageError(f"average: epochs must be different numbers >= 1, got {_listed(epochs) or 'none'}")

    def __str__(self) -> str:
        """`best 3`, `last 3`, `epochs 3, 4, 5`."""
        if self.epochs is not None:
            return f"epochs {_listed(sorted(self.epochs))}"
        return f"best {self.best}" if self.best is not None else f"last {self.last}"


def average(
    run: Run,
    experiment: Experiment,
    root: Path | str = "runs",
    *,
    best: int | None = None,
    last: int | None = None,
    epochs: Sequence[int] | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Entry:
    """Average checkpoints of the last stage of a run, fold by fold, and predict with the means.

    Where the model tracks batch norm statistics, those of the mean are computed anew on the training rows.

    Parameters
    ----------
    run, experiment
        A run with at least one finished fold, and its experiment with the run's fields.
    best
        How many checkpoints of each fold, the best by validation score; 3 where nothing else is asked for.
        They are chosen on the fold that scores the average, and config.json says so: `chosen_on`.
    last
        How many of the last epochs of each fold instead.
    epochs
        Which epochs of each fold instead, counted from 1 in the last stage.

    Returns
    -------
    The new entry, or the one that was made of the same checkpoints before.

    Raises
    ------
    UsageError
        More than one way is asked for, a number is below 1, or no fold is finished.
    ResumeError
        Fields, stages, data or folds changed since the run: its checkpoints may have seen the held-out rows.
    WeightsError
        A fold has fewer checkpoints on disk, or not those of the epochs asked for.

    """
    three = 3 if best is None and last is None and epochs is None else best
    which = Which(best=three, last=last, epochs=None if epochs is None else tuple(epochs))
    root, stage = Path(root), experiment.checked_stages()[-1]
    tables = Tables(training_table(experiment), test_table(experiment))
    folds = Folds.load(root / "folds.parquet")
    check_same(run, experiment, folds, tables)
    picked = {fold: _pick(run, experiment, fold, stage, which) for fold in finished(run)}
    config = _config(run, which, picked)
    if made := find_entry(root, config["identity"]):
        return made
    parts = {}
    with Interrupts() as interrupts, Progress(f"average {run.name}", total=len(picked), show=progress) as bar:
        means = Means(Predictor(experiment, Device.pick(device), stage, interrupts.check), folds, tables)
        for fold, checkpoints in picked.items():
            parts[fold] = means.predicted(fold, checkpoints)
            bar.advance()
    return write_average(root, folds, parts, config)


Part = tuple[Predictions, Predictions | None, dict[str, Tensor]]
"""Of one fold: out-of-fold and test predictions, weights."""


@dataclass
class Means:
    """What means of checkpoints predict, fold by fold."""

    predictor: Predictor
    folds: Folds
    tables: Tables

    def model(self, fold: int, checkpoints: Sequence[Checkpoint], *, recompute: bool = True) -> nn.Module:
        """The model of a fold with the mean of the weights that were scored, and batch norm statistics to fit."""
        predictor, mean = self.predictor, MeanOfWeights()
        model = build_model(predictor.experiment, fold)
        for checkpoint in checkpoints:
            mean.add(read_weights(checkpoint, part=checkpoint.info["weights"]))
        load_weights(model, mean.take())
        model = predictor.device.place_model(model, predictor.stage)
        if recompute:
            recompute_batch_norm(model, self._training(fold), predictor.experiment.predict_step)
        return model

    def _training(self, fold: int) -> Iterable[Any]:
        """Inputs of the training rows, augmented as in training."""
        predictor = self.predictor
        experiment, stage = predictor.experiment, predictor.stage
        seed = derive_seed(experiment.seed, "average", fold)
        loader = loader_of(experiment, self.tables.train[self.folds.training(fold)], stage, training=True, seed=seed)
        return training_inputs(experiment, loader, predictor.device, epoch=0)

    def predicted(self, fold: int, checkpoints: Sequence[Checkpoint], *, recompute: bool = True) -> Part:
        """Predictions of the held-out and the test rows, and the weights they are made with."""
        model = self.model(fold, checkpoints, recompute=recompute)
        oof, test = self.predictor.fold(model, self.folds, self.tables, fold)
        return oof, test, {name: tensor.cpu() for name, tensor in model.state_dict().items()}


def finished(run: Run) -> list[int]:
    """Folds of a run that are trained to the end. Raises UsageError when there are none."""
    done = run.finished_folds()
    if not done:
        raise UsageError(f"{run.name} has no finished fold to average; train it first: batteries train")
    return done


def _pick(run: Run, experiment: Experiment, fold: int, stage: Stage, which: Which) -> list[Checkpoint]:
    if which.best is not None:
        return _best(run, experiment, fold, stage, which.best)
    kept = _kept(run, experiment, fold, stage)
    trained = max(kept)
    if (which.last or 0) > trained:
        raise WeightsError(
            f"{run.name} trained {_counted(trained, 'epoch')} of stage {stage.name!r} in fold {fold}, the last"
            f" {which.last} are asked for; train it longer, or ask for --last {trained}"
        )
    wanted = range(trained - which.last + 1, trained + 1) if which.last else sorted(which.epochs or ())
    if missing := [epoch for epoch in wanted if epoch not in kept]:
        there = [epoch for epoch in missing if epoch <= trained]
        advice = f"set keep = {trained} in the experiment and train again" if there else "train it longer"
        everywhere = sorted(set.intersection(*(set(_kept(run, experiment, f, stage)) for f in finished(run))))
        other = f", or ask for those that every fold keeps: --epochs {','.join(map(str, everywhere))}"
        raise WeightsError(
            f"{run.name} has no checkpoint of epoch {_listed(missing)} of stage {stage.name!r} in fold {fold}: of"
            f" {_counted(trained, 'epoch')} it keeps {_listed(sorted(kept))}; {advice}{other if everywhere else ''}"
        )
    return [kept[epoch] for epoch in wanted]


def _kept(run: Run, experiment: Experiment, fold: int, stage: Stage) -> dict[int, Checkpoint]:
    """The checkpoints at the ends of epochs, by epoch."""
    found = checkpoints_of(run, experiment, fold, stage).all()
    return {checkpoint.info["epoch"]: checkpoint for checkpoint in found if checkpoint.info["evaluated"]}


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


def _best(run: Run, experiment: Experiment, fold: int, stage: Stage, best: int) -> list[Checkpoint]:
    checkpoints = checkpoints_of(run, experiment, fold, stage)
    found = checkpoints.best(best)
    if len(found) < best:
        assert checkpoints.last is not None
        scored = sum(score is not None for score in checkpoints.last.info["scores"])
        raise WeightsError(
            f"{run.name} has {_counted(len(found), 'scored checkpoint')} of fold {fold}, {best} are asked for;"
            f" {_why_fewer(stage, best, scored=scored, keep=experiment.keep)}, or ask for --best {len(found)}"
        )
    return found


def _why_fewer(stage: Stage, best: int, *, scored: int, keep: int) -> str:
    """Say what stood in the way of so many checkpoints, and what to change for them."""
    reasons, changes = [], []
    if scored < best:
        reasons.append(f"stage {stage.name!r} scored {_counted(scored, 'epoch')}")
        changes.append(f"train it for {best} epochs" if stage.epochs < best else "train it longer")
    if keep < best:
        reasons.append(f"keep = {keep}")
        changes.append(f"set keep = {best} in the experiment")
    if not reasons:
        reasons, changes = ["keep was less when it was trained"], ["train again"]
    return f"{' and '.join(reasons)}: {' and '.join(changes)}"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'s' * (count != 1)}"


def _config(run: Run, which: Which, picked: Mapping[int, Sequence[Checkpoint]]) -> dict[str, Any]:
    used = {str(fold): [checkpoint.path.name for checkpoint in group] for fold, group in picked.items()}
    config = {**{key: run.config[key] for key in INHERITED}, "of": run.name, "how": str(which), "checkpoints": used}
    config["identity"] = digest_of({**config, "run": run.config["identity"]})
    return config if which.best is None else {**config, "chosen_on": CHOSEN_ON}


CHOSEN_ON = "the fold that scores it"
"""Noted with what was chosen by validation score, so that its own is a little too good."""


def write_average(
    root: Path,
    folds: Folds,
    parts: Mapping[int, Part],
    config: Mapping[str, Any],
    *,
    learned: Mapping[str, Any] | None = None,
) -> Entry:
    """Make the entry of the folds in `parts`: predictions, weights with their digests, what was learned on the way."""
    complete = len(parts) == config["folds"]["n"]
    oof = out_of_fold([part[0] for part in parts.values()], folds.covered, complete=complete)
    tests = [part[1] for part in parts.values() if part[1] is not None]

    def more(folder: Path) -> None:
        digests = {}
        for fold, (_, _, state) in parts.items():
            file = folder / f"fold{fold}.pt"
            digests[file.name] = write_atomic(file, partial(torch.save, {"model": state}))
        write_sealed(folder / "weights.json", digests)
        if learned is not None:
            write_sealed(folder / LEARNED, learned)

    return write_entry(root, "average", config, oof, mean_of(tests, "") if tests else None, more=more)
