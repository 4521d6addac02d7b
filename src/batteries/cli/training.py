"""Training: the verbs of steps 1 to 4: train a run, rehearse it, check its files.

In:    what the user typed.
Out:   a run, its score; under --ddp, the exit code of the processes.
Next:  `cli.scoring` shows the score beside the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import chdir
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batteries.cli import show
from batteries.cli.options import ROOT, Call, File, Json, On, Seed, Set
from batteries.errors import UsageError
from batteries.files import inside

if TYPE_CHECKING:
    from batteries.experiment import Metric
    from batteries.train.record import Run


def train(
    context: typer.Context,
    experiment: File = "experiment.py",
    set_: Set = [],  # noqa: B006 - typer copies it
    seed: Seed = None,
    fold: Annotated[list[int] | None, typer.Option(help="Only this fold; repeatable.")] = None,
    device: On = "auto",
    dp: Annotated[bool, typer.Option("--dp", help="All GPUs of this machine in one process (DataParallel).")] = False,
    ddp: Annotated[int | None, typer.Option(metavar="N", help="N processes on this machine (DDP).")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for another process before giving it up.")] = 600.0,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run though its code changed.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="A few batches of everything; nothing is kept.")] = False,
    json: Json = False,
) -> None:
    """Steps 1-4: every fold and stage; run again, it goes on."""
    from batteries.prepare.environment import prepare_environment
    from batteries.train.distributed import pick_device
    from batteries.train.launch import by_us

    if dp and ddp is not None:
        raise UsageError("--dp is one process for all devices, --ddp one for each; give one of them")
    if dry_run and fold:
        raise UsageError("--dry-run rehearses fold 0; leave out --fold")
    found = _experiment(experiment, set_, seed, resume)  # before processes start: a wrong file is said once
    if ddp is not None and not by_us():
        raise typer.Exit(_launched(context, ddp, device))
    prepared = prepare_environment()
    with pick_device(device, dp=dp, timeout=timeout) as place:
        if dry_run:
            _rehearse(found, place, json)
        else:
            _train(found, place, fold, resume, prepared, json)


def _launched(context: typer.Context, processes: int, device: str) -> int:
    """Run the command as it was typed in several processes, from where it was typed."""
    from batteries.train.launch import launch

    call = context.find_object(Call)
    assert call is not None
    with chdir(call.folder):
        return launch(call.arguments, processes, say=_complain)


def _train(
    found: Any, place: Any, fold: list[int] | None, resume: str | None, prepared: Mapping[str, Any], json: bool
) -> None:
    from batteries.score.board import record
    from batteries.score.entry import open_entry
    from batteries.train.run import train_run

    run = train_run(
        found,
        ROOT,
        device=place,
        folds=fold,
        resume=resume,
        progress=not json,
        say=_to_stderr if json else _say,
        prepared=prepared,
    )
    valid = place.first(lambda: record(open_entry(ROOT, run.name), found, ROOT))
    if not place.is_main:
        return
    done = len(run.finished_folds())
    if json:
        show.as_json({"run": run.name, "metric": found.metric.name, "valid": valid, "folds": done})
        return
    which = "all held-out rows" if done == run.num_folds else f"{done} of {run.num_folds} folds"
    print(f"{run.name}: {found.metric.name} {valid:.5f} on {which}; {run.folder}")
    _say_if_scales_differ(run, found.metric, valid)


def _say_if_scales_differ(run: Run, metric: Metric, valid: float) -> None:
    """Say it where all rows together score worse than every fold alone, by more than folds differ."""
    alone = [run.fold_result(fold)["scores"][metric.name] for fold in run.finished_folds()]
    worst = max(alone, key=metric.order)
    if len(alone) > 1 and metric.gain(worst, valid) > max(alone) - min(alone) + 1e-9 * abs(worst):
        show.words(
            f"That is worse than every fold alone ({min(alone):.5f} to {max(alone):.5f}): the predictions of their"
            " models may lie on different scales. Train longer, or rank them within folds: batteries blend"
            f" {run.name} --how rank --within-folds"
        )


def _rehearse(found: Any, place: Any, json: bool) -> None:
    from batteries.train.rehearse import rehearse

    done = rehearse(found, device=place, say=_to_stderr if json else _say)
    if not place.is_main:
        return
    if json:
        show.as_json(done.plain())
        return
    show.rehearsal(done)


def _complain(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)


def _to_stderr(text: str) -> None:
    print(text, file=sys.stderr)


def _say(text: str) -> None:
    """Print a line; a reader that went away (`| head`) does not end a training."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _experiment(file: str, set_: list[str], seed: int | None, resume: str | None) -> Any:
    """The experiment as typed; with `resume`, as its run recorded it."""
    from batteries.experiment import load_experiment
    from batteries.train.record import Run

    overrides = [*set_, *([] if seed is None else [f"seed={seed}"])]
    if resume is None:
        return load_experiment(".", file, overrides=overrides)
    if overrides:
        raise UsageError("--resume takes the fields of the run; leave out --set and --seed")
    config = Run.open(inside(ROOT, resume, "run")).config
    return load_experiment(".", config["experiment"]["file"], values=config["fields"])
