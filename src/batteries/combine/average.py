"""Average: a run again, with the mean of its checkpoints in each fold.

In:    a finished run.
Out:   a new entry: averaged weights, their out-of-fold and test predictions.
Next:  the board shows whether it is better; it blends like any entry.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch

from batteries.errors import UsageError, WeightsError
from batteries.experiment import Experiment, Stage
from batteries.experiment.predictions import Predictions, out_of_fold
from batteries.files import digest_of, write_atomic, write_sealed
from batteries.prepare.folds import Folds
from batteries.prepare.seed import derive_seed
from batteries.prepare.table import test_table, training_table
from batteries.progress import Progress
from batteries.score.entry import INHERITED, Entry, find_entry, write_entry
from batteries.train.average import average_checkpoints, recompute_batch_norm
from batteries.train.checkpoint import Checkpoint, Checkpoints
from batteries.train.device import Device
from batteries.train.interrupt import Interrupts
from batteries.train.loop import training_inputs
from batteries.train.outcome import Predictor, build_model, loader_of, mean_of
from batteries.train.record import Run, Tables, check_same
from batteries.train.weights import load_weights


def average(
    run: Run,
    experiment: Experiment,
    root: Path | str = "runs",
    *,
    best: int = 3,
    device: str = "auto",
    progress: bool = True,
) -> Entry:
    """Average the checkpoints of the last stage of a run, fold by fold, and predict with the means.

    Parameters
    ----------
    run, experiment
        A run with at least one finished fold, and its experiment with the run's fields.
    best
        How many checkpoints of each fold, the best by validation score.

    Returns
    -------
    The new entry, or the one that was made of the same checkpoints before.

    Raises
    ------
    UsageError
        `best` is below 1, or no fold is finished.
    ResumeError
        Fields, stages, data or folds changed since the run: its checkpoints may have seen the held-out rows.
    WeightsError
        A fold has fewer checkpoints on disk.

    """
    if best < 1:
        raise UsageError(f"average: best must be >= 1, got {best}")
    root, stage = Path(root), experiment.checked_stages()[-1]
    tables = Tables(training_table(experiment), test_table(experiment))
    folds = Folds.load(root / "folds.parquet")
    check_same(run, experiment, folds, tables)
    picked = {fold: _pick(run, experiment, fold, stage, best) for fold in _finished(run)}
    config = _config(run, best, picked)
    if made := find_entry(root, config["identity"]):
        return made
    parts = []
    with Interrupts() as interrupts, Progress(f"average {run.name}", total=len(picked), show=progress) as bar:
        predictor = Predictor(experiment, Device.pick(device), stage, interrupts.check)
        for fold, checkpoints in picked.items():
            parts.append(_fold(experiment, folds, tables, fold, checkpoints, predictor))
            bar.advance()
    return _write(root, run, tables, parts, config)


_Fold = tuple[Predictions, Predictions | None, dict[str, torch.Tensor]]


def _finished(run: Run) -> list[int]:
    finished = run.finished_folds()
    if not finished:
        raise UsageError(f"{run.name} has no finished fold to average; train it first: batteries train")
    return finished


def _pick(run: Run, experiment: Experiment, fold: int, stage: Stage, best: int) -> list[Checkpoint]:
    checkpoints = Checkpoints(run.stage_folder(fold, stage.name), metric=experiment.metric, keep=experiment.keep)
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


def _config(run: Run, best: int, picked: dict[int, list[Checkpoint]]) -> dict[str, Any]:
    used = {str(fold): [checkpoint.path.name for checkpoint in group] for fold, group in picked.items()}
    config = {**{key: run.config[key] for key in INHERITED}, "of": run.name, "how": f"best {best}", "checkpoints": used}
    return {**config, "identity": digest_of({**config, "run": run.config["identity"]})}


def _fold(
    experiment: Experiment,
    folds: Folds,
    tables: Tables,
    fold: int,
    checkpoints: list[Checkpoint],
    predictor: Predictor,
) -> _Fold:
    device, experiment = predictor.device, predictor.experiment
    model = build_model(experiment, fold)
    load_weights(model, average_checkpoints(checkpoints, part=checkpoints[0].info["weights"]))
    model = device.place_model(model, predictor.stage)
    seed = derive_seed(experiment.seed, "average", fold)
    loader = loader_of(experiment, tables.train[folds.training(fold)], predictor.stage, training=True, seed=seed)
    recompute_batch_norm(model, training_inputs(experiment, loader, device, epoch=0), experiment.predict_step)
    oof, test = predictor.fold(model, folds, tables, fold)
    return oof, test, {name: tensor.cpu() for name, tensor in model.state_dict().items()}


def _write(root: Path, run: Run, tables: Tables, parts: list[_Fold], config: dict[str, Any]) -> Entry:
    complete = len(parts) == run.num_folds
    oof = out_of_fold([part[0] for part in parts], tables.train[run.config["columns"]["id"]], complete=complete)
    tests = [part[1] for part in parts if part[1] is not None]

    def weights(folder: Path) -> None:
        digests = {}
        for fold, (_, _, state) in zip(config["checkpoints"], parts, strict=True):
            file = folder / f"fold{fold}.pt"
            digests[file.name] = write_atomic(file, partial(torch.save, {"model": state}))
        write_sealed(folder / "weights.json", digests)

    return write_entry(root, "average", config, oof, mean_of(tests, "") if tests else None, more=weights)
