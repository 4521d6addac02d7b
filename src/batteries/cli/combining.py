"""Combining: the verbs of step 6: average checkpoints, blend entries, write a submission.

In:    names of entries.
Out:   new entries with scores of their own; a checked submission.
Next:  `cli.scoring` shows them on the board.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import typer

from batteries.cli import show
from batteries.cli.options import ROOT, Json, On
from batteries.errors import UsageError


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
