"""App: the command `batteries`, its verbs in the order of the flow.

In:    arguments.
Out:   an exit code: 0, or that of the error (see errors.py).
Next:  every verb calls one function of the library and prints what it returns.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import chdir
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from batteries.cli import show
from batteries.errors import BatteriesError, Interrupted, UsageError

ROOT = Path("runs")
"""Of the experiment folder, in which every verb works."""

app = typer.Typer(
    name="batteries",
    help="The whole experiment flow: study, folds, training, scores, blends, submissions, report.",
    epilog="Verbs are listed in the order of the flow. Start with: batteries demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
File = Annotated[str, typer.Argument(metavar="[EXPERIMENT]", help="The experiment's file, with or without .py.")]
Seed = Annotated[int | None, typer.Option(help="Another seed than the experiment's; makes a run of its own.")]
Set = Annotated[list[str], typer.Option("--set", metavar="FIELD=VALUE", help="Another value for a field; repeatable.")]
On = Annotated[str, typer.Option("--device", help="auto, cpu, cuda:1")]


@app.callback()
def everything(
    context: typer.Context,
    folder: Annotated[Path, typer.Option("-C", "--folder", help="The experiment folder; here by default.")] = Path(),
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Work in the experiment folder, so that its relative paths hold."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; make one: batteries new NAME")
    context.with_resource(chdir(folder))


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="The new folder.")],
    template: Annotated[str, typer.Option(help="What to start from.")] = "images",
) -> None:
    """Make an experiment folder that already runs on real data."""
    from batteries.prepare.new import new as make

    folder = make(name, template=template, parent=Path())
    files = ", ".join(sorted(path.name for path in folder.iterdir()))
    print(f"{folder}: {files}. Next: cd {folder} && batteries study")


@app.command()
def study(experiment: File = "experiment.py", json: Json = False) -> None:
    """Step 0: look at the data; plots and advice."""
    from batteries.experiment import load_experiment
    from batteries.prepare.study import study as look
    from batteries.report.page import write_study_page

    found = look(load_experiment(Path(), experiment))
    page = write_study_page(found, ROOT)
    if json:
        show.as_json(found.plain())
        return
    for advice in found.advice:
        show.item(f"{advice.what}: {advice.why}", code=advice.line)
    print(f"{len(found.advice)} pieces of advice; the page: {page}")


@app.command()
def split(experiment: File = "experiment.py", json: Json = False) -> None:
    """Step 0: make the folds, once, and check them ever after."""
    from batteries.experiment import load_experiment
    from batteries.prepare.folds import split as make

    folds = make(load_experiment(Path(), experiment), ROOT)
    rows = [{"fold": fold, "rows": len(folds.held_out(fold))} for fold in range(folds.n)]
    if json:
        show.as_json({"strategy": folds.strategy, "digest": folds.digest, "folds": rows})
        return
    show.table(rows)
    print(f"{folds.strategy}, digest {folds.digest[:12]}: {ROOT / 'folds.parquet'}")


@app.command()
def train(
    experiment: File = "experiment.py",
    set_: Set = [],  # noqa: B006 - typer copies it
    seed: Seed = None,
    fold: Annotated[list[int] | None, typer.Option(help="Only this fold; repeatable.")] = None,
    device: On = "auto",
    dp: Annotated[bool, typer.Option("--dp", help="All GPUs of this machine in one process (DataParallel).")] = False,
    ddp: Annotated[int | None, typer.Option(metavar="N", help="N processes on this machine (DDP).")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for another process before giving it up.")] = 600.0,
    resume: Annotated[str | None, typer.Option(metavar="RUN", help="Go on with a run though its code changed.")] = None,
    json: Json = False,
) -> None:
    """Steps 1-4: every fold and stage; run again, it goes on."""
    from batteries.train.distributed import pick_device
    from batteries.train.launch import by_us, launch

    if ddp is not None and not by_us():
        raise typer.Exit(launch(sys.argv[1:], ddp, say=_complain))
    found = _experiment(experiment, set_, seed, resume)
    with pick_device(device, dp=dp, timeout=timeout) as place:
        _train(found, place, fold, resume, json)


def _train(found: Any, place: Any, fold: list[int] | None, resume: str | None, json: bool) -> None:
    from batteries.score.board import record
    from batteries.score.entry import open_entry
    from batteries.train.run import train_run

    say = (lambda text: print(text, file=sys.stderr)) if json else _say
    run = train_run(found, ROOT, device=place, folds=fold, resume=resume, progress=not json, say=say)
    valid = place.first(lambda: record(open_entry(ROOT, run.name), found, ROOT))
    if not place.is_main:
        return
    done = len(run.finished_folds())
    if json:
        show.as_json({"run": run.name, "metric": found.metric.name, "valid": valid, "folds": done})
        return
    which = "all rows out-of-fold" if done == run.num_folds else f"{done} of {run.num_folds} folds"
    print(f"{run.name}: {found.metric.name} {valid:.5f} on {which}; {run.folder}")


def _complain(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)


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
        return load_experiment(Path(), file, overrides=overrides)
    if overrides:
        raise UsageError("--resume takes the fields of the run; leave out --set and --seed")
    config = Run.open(ROOT / resume).config
    return load_experiment(Path(), config["experiment"]["file"], values=config["fields"])


@app.command()
def scores(json: Json = False) -> None:
    """Step 5: the board: validation, leaderboard, test, gaps."""
    from batteries.score.board import restore
    from batteries.score.board import scores as board
    from batteries.score.entry import all_entries

    if not (ROOT / "ledger.db").exists() and all_entries(ROOT):
        found = f"{ROOT}/ledger.db was lost; {restore(ROOT)} entries are entered again from their folders"
        print(f"warning: {found}; leaderboard and test scores are not", file=sys.stderr)
    rows = board(ROOT)
    if json:
        show.as_json([row.plain() for row in rows])
        return
    for _, group in groupby(rows, key=lambda row: row.group):
        show.board(list(group))
    print("valid: of all out-of-fold rows; ±: one s.d. over resampled rows, over folds")
    for row in rows:
        if row.missing_folds:
            print(f"{row.name}: folds {row.folds}; train the others: batteries train --resume {row.run}")


@app.command()
def average(
    run: Annotated[str, typer.Argument(help="The run whose checkpoints are averaged.")],
    best: Annotated[int, typer.Option(help="How many of the best checkpoints of each fold.")] = 3,
    device: On = "auto",
    json: Json = False,
) -> None:
    """Step 6: average the best checkpoints of a run (SWA)."""
    from batteries.combine.average import average as make
    from batteries.score.board import record
    from batteries.score.entry import open_entry
    from batteries.train.record import Run

    before = open_entry(ROOT, run)
    experiment = before.experiment()
    entry = make(Run.open(before.folder), experiment, ROOT, best=best, device=device, progress=not json)
    _made(entry, record(entry, experiment, ROOT), [before], json)


@app.command()
def blend(
    entries: Annotated[list[str], typer.Argument(help="Runs, averages, blends.")],
    how: Annotated[Literal["mean", "geometric", "power", "rank"], typer.Option(help="Formula.")] = "mean",
    weights: Annotated[str | None, typer.Option(help="One a member: 2,1,1; equal by default.")] = None,
    power: Annotated[float, typer.Option(help="The p of the power mean.")] = 2.0,
    json: Json = False,
) -> None:
    """Step 6: blend entries: mean, geometric, power, rank."""
    from batteries.combine.blend import blend_entries
    from batteries.score.board import record
    from batteries.score.entry import open_entry

    members = [open_entry(ROOT, name) for name in entries]
    entry = blend_entries(members, ROOT, how=how, weights=_numbers(weights), power=power)
    _made(entry, record(entry, members[0].experiment(), ROOT), members, json)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--weights {text!r}: write numbers with commas between them, such as 2,1,1") from None


def _made(entry: Any, valid: float, parts: Sequence[Any], json: bool) -> None:
    """Say what a new entry scored, beside what it was made of."""
    metric = entry.experiment().metric
    before = {part.name: metric(part.oof().targets, part.oof().values) for part in parts}
    if json:
        show.as_json({"entry": entry.name, "metric": metric.name, "valid": valid, "parts": before})
        return
    of = ", ".join(f"{name} {score:.5f}" for name, score in before.items())
    print(f"{entry.name}: {metric.name} {valid:.5f} from {of}; {entry.folder}")


@app.command()
def submit(
    entry: Annotated[str, typer.Argument(help="The entry whose test predictions are sent.")],
    json: Json = False,
) -> None:
    """Step 6: write a submission, checked against the sample."""
    from batteries.combine.submission import submit as write
    from batteries.score.entry import open_entry

    chosen = open_entry(ROOT, entry)
    made = write(chosen, chosen.experiment(), ROOT)
    if json:
        show.as_json({"submission": made.name, "file": str(made.path), "sha256": made.sha256, "rows": len(made.table)})
        return
    show.table([dict(row) for row in made.table.head(3).iter_rows(named=True)])
    print(f"{made.name}: {len(made.table)} rows of {entry}, SHA-256 {made.sha256[:12]}; {made.path}")


@app.command(context_settings={"ignore_unknown_options": True})
def leaderboard(
    submission: Annotated[str, typer.Argument(help="submission-001")],
    score: Annotated[float, typer.Argument(help="What the leaderboard said.")],
    private: Annotated[bool, typer.Option("--private", help="The score of the private part.")] = False,
    json: Json = False,
) -> None:
    """Step 5: note what the leaderboard said of a submission."""
    from batteries.score.leaderboard import leaderboard as note

    entry = note(submission, score, ROOT, private=private)
    board = "private" if private else "public"
    if json:
        show.as_json({"submission": submission, "entry": entry, "board": board, "score": score})
        return
    print(f"{submission} ({entry}): {board} score {score:.5f} noted. Next: batteries scores")


@app.command()
def test(
    entries: Annotated[list[str] | None, typer.Argument(help="Entries; all by default.")] = None,
    json: Json = False,
) -> None:
    """Step 7: the metric on the test set, beside validation."""
    from batteries.score.entry import all_entries, open_entry
    from batteries.score.holdout import test as check

    chosen = [open_entry(ROOT, name) for name in entries] if entries else all_entries(ROOT)
    if not chosen:
        raise UsageError(f"{ROOT} has no entry to test; train something first: batteries train")
    results = [check(entry, ROOT) for entry in chosen]
    if json:
        show.as_json([result.plain() for result in results])
        return
    show.table(
        [
            {
                "entry": result.name,
                "valid": result.valid,
                "±valid": show.brief(result.valid_noise),
                "test": result.test,
                "±test": show.brief(result.test_noise),
                "gap": show.signed(result.gap),
                "explained": "yes" if result.explained else "no",
            }
            for result in results
        ]
    )
    print(f"{results[0].metric} on {results[0].rows} test rows; explained: the gap is within two s.d. of its noise")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="An entry.")],
    second: Annotated[str, typer.Argument(help="Another one on the same folds.")],
    json: Json = False,
) -> None:
    """Step 8: is the second really better than the first?"""
    from batteries.improve.compare import compare as judge
    from batteries.score.entry import open_entry

    one, other = (open_entry(ROOT, name) for name in (first, second))
    result = judge(one, other, one.metric())
    if json:
        show.as_json(result.plain())
        return
    print(result.sentence)
    show.table(
        [
            {"figure": f"{result.metric} of {first}", "value": f"{result.first_score:.5f}"},
            {"figure": f"{result.metric} of {second}", "value": f"{result.second_score:.5f}"},
            {"figure": "gain", "value": show.signed(result.gain)},
            {"figure": "95 % interval over resampled rows", "value": f"{result.low:+.5f} to {result.high:+.5f}"},
            {"figure": "chance that the second is better", "value": f"{result.chance:.1%}"},
            {"figure": "p, paired bootstrap of rows", "value": f"{result.p_rows:.4f}"},
            {
                "figure": "p, corrected t over folds",
                "value": "-" if result.p_folds is None else f"{result.p_folds:.4f}",
            },
        ]
    )


@app.command()
def report() -> None:
    """Steps 0-8 as one page with plots."""
    from batteries.report.page import write_report

    print(f"the report: {write_report(ROOT)}")


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where to make the experiment folder.")] = Path("demo"),
) -> None:
    """Walk the whole flow on real handwritten digits."""
    from batteries.cli.demo import walk

    walk(folder, lambda arguments: app(arguments, standalone_mode=False))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code. Errors are one message on standard error, never a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _show_warning
    try:
        app(given)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        if "--debug" in given:
            raise
        return _explain(error, given)
    return 0


def _explain(error: Exception, given: Sequence[str]) -> int:
    if isinstance(error, BatteriesError):
        kind = "" if isinstance(error, Interrupted) else "error: "
        print(f"{kind}{error}", file=sys.stderr)
        return error.exit_code
    from batteries.experiment.load import culprit

    place = next((given[i + 1] for i, word in enumerate(given[:-1]) if word in ("-C", "--folder")), ".")
    text, users = culprit(error, Path(place))
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    code = 6 if memory or (isinstance(error, OSError) and not users) else 2 if users else 1
    kind = "error" if code != 1 else "error (a bug in Batteries)"
    print(f"{kind}: {text}\nFor the traceback: batteries --debug ...", file=sys.stderr)
    return code


def _show_warning(message: Warning | str, category: type[Warning], *rest: object, **more: object) -> None:
    print(f"warning: {message}", file=sys.stderr)
