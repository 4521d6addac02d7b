"""Combining: the verbs of step 6: average checkpoints, blend entries, write a submission.

In:    names of entries.
Out:   new entries with scores of their own; a checked submission.
Next:  `cli.scoring` shows them on the board.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

import typer

from batteries.cli import show
from batteries.cli.options import ROOT, Json, On
from batteries.errors import UsageError


def average(
    runs: Annotated[list[str], typer.Argument(help="The run whose checkpoints are averaged; several make a soup.")],
    best: Annotated[int | None, typer.Option(help="The best checkpoints of each fold; 3 by default.")] = None,
    last: Annotated[int | None, typer.Option(help="The last epochs of each fold.")] = None,
    epochs: Annotated[str | None, typer.Option(help="These epochs of each fold: 3,4,5.")] = None,
    soup: Annotated[
        Literal["greedy", "uniform"] | None, typer.Option(help="How several runs are averaged; greedy by default.")
    ] = None,
    device: On = "auto",
    json: Json = False,
) -> None:
    """Step 6: average checkpoints of a run (SWA), or several runs (soup)."""
    from batteries.combine.average import average as make
    from batteries.combine.soup import soup as cook
    from batteries.score.board import record
    from batteries.score.entry import open_entry
    from batteries.train.record import Run

    options = {"--best": best, "--last": last, "--epochs": epochs}
    given = [name for name, value in options.items() if value is not None]
    before = [open_entry(ROOT, run) for run in runs]
    if len(runs) > 1:
        if given:
            raise UsageError(f"{given[0]} is for one run; a soup takes the best checkpoint of each of several")
        entry = cook(before, ROOT, how=soup or "greedy", device=device, progress=not json)
    elif soup is not None:
        raise UsageError("--soup is for several runs: batteries average RUN RUN; one has --best, --last, --epochs")
    else:
        run, experiment = Run.open(before[0].folder), before[0].experiment()
        numbers = None if epochs is None else _whole(epochs)
        entry = make(
            run, experiment, ROOT, best=best, last=last, epochs=numbers, device=device, progress=not json
        )  # fmt: skip
    valid = record(entry, entry.experiment(), ROOT)
    if len(runs) > 1:
        _souped(entry, valid, before, json)
    else:
        _made(entry, valid, before, json)


def _souped(entry: Any, valid: float, parts: Sequence[Any], json: bool) -> None:
    """Say what single runs, uniform and greedy soup score in each fold, beside the soup's score on all rows."""
    from batteries.combine.soup import soup_scores

    found = soup_scores(entry)
    if json:
        folds = [{**asdict(each), "apart": each.apart} for each in found]
        show.as_json({"entry": entry.name, "metric": entry.direction.name, "valid": valid, "soups": folds})
        return
    rows = [
        {
            "fold": each.fold,
            "worst single": each.singles[each.worst],
            "best single": each.singles[each.best],
            "uniform": each.uniform,
            "greedy": each.greedy,
            "greedy takes": ", ".join(each.members),
        }
        for each in found
    ]
    show.table(rows)
    if apart := [str(each.fold) for each in found if each.apart]:
        show.words(
            f"In fold {', '.join(apart)} the uniform soup is worse than its worst member: the runs lie in different"
            " basins. Fine-tune them from common weights, or blend their predictions: batteries blend"
        )
    show.words("These folds chose the checkpoints and the greedy members: the scores are a little too good.")
    _made(entry, valid, parts, json)


def _whole(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--epochs {text!r}: write whole numbers with commas between them, such as 3,4,5") from None


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
