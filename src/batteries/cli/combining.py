"""Combining: the verbs of step 6: average checkpoints, blend entries, write a submission.

In:    names of entries.
Out:   new entries with scores of their own; a checked submission.
Next:  `cli.scoring` shows them on the board.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from batteries.cli import show
from batteries.cli.made import made
from batteries.cli.options import ROOT, Json, On
from batteries.errors import UsageError

if TYPE_CHECKING:
    from batteries.score.entry import Entry


def average(
    run: Annotated[str, typer.Argument(help="The run whose checkpoints are averaged.")],
    best: Annotated[int, typer.Option(help="How many of the best checkpoints of each fold.")] = 3,
    device: On = "auto",
    json: Json = False,
) -> None:
    """Step 6: average the best checkpoints of a run (SWA)."""
    from batteries.combine.average import average as make
    from batteries.score.entry import open_entry
    from batteries.train.record import Run

    before = open_entry(ROOT, run)
    experiment = before.experiment()
    entry = make(Run.open(before.folder), experiment, ROOT, best=best, device=device, progress=not json)
    made(entry, [before], json=json)


def blend(
    entries: Annotated[list[str], typer.Argument(help="Runs, averages, blends.")],
    how: Annotated[
        str, typer.Option(help="mean, geometric, logit, harmonic, power, rank, median, trimmed, vote.")
    ] = "mean",
    weights: Annotated[str | None, typer.Option(help="One a member: 2,1,1; equal by default.")] = None,
    fit: Annotated[
        Literal["greedy", "climb", "simplex", "search"] | None,
        typer.Option(help="Learn the weights of mean or rank, and judge them on other rows."),
    ] = None,
    max_weight: Annotated[float, typer.Option(help="Largest weight that is learned.")] = 1.0,
    power: Annotated[float, typer.Option(help="The p of the power mean.")] = 2.0,
    trim: Annotated[int, typer.Option(help="Members that trimmed leaves out at each end.")] = 1,
    clip: Annotated[float | None, typer.Option(help="Raise smaller values to this, and say how many.")] = None,
    within_folds: Annotated[bool, typer.Option("--within-folds", help="Rank among the rows of a fold.")] = False,
    json: Json = False,
) -> None:
    """Step 6: blend entries: mean, logit, power, rank, ...; weights given or fitted."""
    from batteries.combine.blend import blend_entries
    from batteries.score.entry import open_entry

    members = [open_entry(ROOT, name) for name in entries]
    if fit is not None:
        _fitted(members, how, fit, max_weight, weights, json)
        return
    entry = blend_entries(
        members, ROOT, how=cast(Any, how), weights=_numbers(weights),
        power=power, trim=trim, clip=clip, within_folds=within_folds,
    )  # fmt: skip
    made(entry, members, json=json)


def _fitted(
    members: Sequence[Entry],
    how: str,
    fit: Literal["greedy", "climb", "simplex", "search"],
    max_weight: float,
    weights: str | None,
    json: bool,
) -> None:
    """Learn weights, and say what they are worth."""
    from batteries.combine.fit_blend import fit_blend

    if weights is not None:
        raise UsageError("--weights are given, --fit learns them; leave out one of the two")
    estimate, entry = fit_blend(members, ROOT, formula=cast(Any, how), how=fit, max_weight=max_weight)
    if json:
        made(entry, members, json=True, learned=estimate.plain())
        return
    by_fold = zip(*estimate.fold_weights, strict=True)
    show.table(
        [
            {"member": member.name, "weight": weight, "least of a fold": min(folds), "most": max(folds)}
            for member, weight, folds in zip(members, estimate.weights, by_fold, strict=True)
        ]
    )
    show.words(estimate.sentence)
    made(entry, members, json=False)


def _numbers(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--weights {text!r}: write numbers with commas between them, such as 2,1,1") from None


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
