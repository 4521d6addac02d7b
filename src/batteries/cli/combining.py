"""Combining: the verbs of step 6: average checkpoints, blend entries.

In:    names of entries.
Out:   new entries with scores of their own.
Next:  `cli.scoring` shows them on the board, `cli.submitting` sends them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer

from batteries.cli import show
from batteries.cli.made import made
from batteries.cli.options import ROOT, Json, On
from batteries.errors import UsageError

if TYPE_CHECKING:
    from batteries.score.entry import Entry


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
    if len(runs) > 1:
        _souped(entry, before, json)
    else:
        made(entry, before, json=json)


def _souped(entry: Entry, parts: Sequence[Entry], json: bool) -> None:
    """Say what single runs, uniform and greedy soup score in each fold, beside the soup's score on all rows."""
    from batteries.combine.soup import soup_scores

    found = soup_scores(entry)
    if json:
        made(entry, parts, json=True, soups=[{**asdict(each), "apart": each.apart} for each in found])
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
    made(entry, parts, json=False)


def _whole(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--epochs {text!r}: write whole numbers with commas between them, such as 3,4,5") from None


def blend(
    entries: Annotated[list[str], typer.Argument(help="Runs, averages, blends; or files: a.csv b.parquet.")],
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
    out: Annotated[Path | None, typer.Option(help="Where a blend of files is written: .csv or .parquet.")] = None,
    json: Json = False,
) -> None:
    """Step 6: blend entries by a formula, with given or fitted weights."""
    from batteries.combine.blend import How, blend_entries
    from batteries.score.entry import open_entry

    if how not in get_args(How):
        raise UsageError(f"--how {how!r} is not one of {', '.join(get_args(How))}")
    options: dict[str, Any] = {"how": how, "power": power, "trim": trim, "clip": clip}
    files = [name for name in entries if Path(name).suffix in (".csv", ".parquet")]
    if files or out is not None:
        if len(files) != len(entries) or out is None or fit is not None:
            raise UsageError("files are blended with files, into --out FILE, with given weights; see blend --help")
        _files(files, out, _numbers(weights), within_folds, options, json)
        return
    members = [open_entry(ROOT, name) for name in entries]
    if fit is not None:
        _fitted(members, how, fit, max_weight, weights, json)
        return
    entry = blend_entries(members, ROOT, weights=_numbers(weights), within_folds=within_folds, **options)
    made(entry, members, json=json)


def _files(
    paths: Sequence[str],
    out: Path,
    weights: Sequence[float] | None,
    within_folds: bool,
    options: dict[str, Any],
    json: bool,
) -> None:
    """Blend files of any origin."""
    from batteries.combine.blend import Blend
    from batteries.combine.blend_files import blend_files

    combine = Blend(weights=tuple(weights or [1.0] * len(paths)), **options)
    blend_files(paths, out, combine, within_folds=within_folds)
    if json:
        show.as_json({"file": str(out), "members": dict(zip(paths, combine.weights, strict=False))})
        return
    print(f"{out}: {combine.how} of {', '.join(paths)}")


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
