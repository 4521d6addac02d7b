"""Deriving: more verbs of step 6: learn on out-of-fold predictions, and say what that is worth on other rows.

In:    names of entries.
Out:   new entries where learning helped; what it brought, out-of-fold beside in-sample.
Next:  the board ranks them, `submit` sends them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from batteries.cli import show
from batteries.cli.made import made
from batteries.cli.options import ROOT, Json

if TYPE_CHECKING:
    from batteries.score.entry import Entry


def calibrate(
    entry: Annotated[str, typer.Argument(help="The entry whose probabilities are calibrated.")],
    how: Annotated[Literal["temperature", "platt", "isotonic"], typer.Option(help="Formula.")] = "temperature",
    bins: Annotated[int, typer.Option(help="Bins of the calibration error.")] = 10,
    json: Json = False,
) -> None:
    """Step 6: calibrate probabilities, fitted and judged out-of-fold."""
    from batteries.combine.calibrate import calibrate_entry
    from batteries.score.entry import open_entry

    before = open_entry(ROOT, entry)
    result, entry_made = calibrate_entry(before, ROOT, how=how, bins=bins)
    if json:
        _said(before, entry_made, result.plain(), json=True)
        return
    judged = {"before": result.before, "in sample": result.in_sample, "nested": result.nested}
    show.table(
        [
            {"": name, "log loss": q.log_loss, "calibration error": q.calibration_error, "brier": q.brier}
            for name, q in judged.items()
        ]
    )
    if clipped := result.before.clipped:
        print(f"{clipped} probabilities lie below {result.before.eps:g} and count as that")
    _said(before, entry_made, result.plain(), json=False)


def decide(
    entry: Annotated[str, typer.Argument(help="The entry whose predictions are turned into answers.")],
    objective: Annotated[
        str | None, typer.Option(help="f1, f2, f0.5, mcc, kappa, accuracy or qwk; the entry's metric by default.")
    ] = None,
    json: Json = False,
) -> None:
    """Step 6: choose thresholds, cuts or class counts, judged out-of-fold."""
    from batteries.combine.decide import decide_entry
    from batteries.score.entry import open_entry

    before = open_entry(ROOT, entry)
    result, entry_made = decide_entry(before, ROOT, objective=objective)
    if json:
        _said(before, entry_made, result.plain(), json=True)
        return
    show.table([{"": "score", "default": result.default, "in sample": result.in_sample, "nested": result.nested}])
    print(f"{result.objective}: {result.rule}")
    _said(before, entry_made, result.plain(), json=False)


def stack(
    entries: Annotated[list[str], typer.Argument(help="Runs, averages, blends.")],
    model: Annotated[
        Literal["ridge", "logistic", "boosting_regressor", "boosting_classifier"],
        typer.Option(help="The second-level model: numbers by ridge, probabilities by logistic."),
    ],
    test_by: Annotated[
        Literal["mean", "refit"], typer.Option(help="Test rows by the mean of fold models, or by one of all rows.")
    ] = "mean",
    space: Annotated[
        Literal["plain", "log_odds"], typer.Option(help="What the model sees of probabilities.")
    ] = "plain",
    json: Json = False,
) -> None:
    """Step 6: a second-level model on out-of-fold predictions, same folds."""
    from batteries.combine.stack import stack_entries
    from batteries.score.entry import open_entry

    members = [open_entry(ROOT, name) for name in entries]
    made(stack_entries(members, ROOT, model=model, test_by=test_by, space=space), members, json=json)


def pseudo(
    runs: Annotated[list[str], typer.Argument(help="Runs of one split; their fold models are averaged.")],
    at_least: Annotated[float, typer.Option(help="Smallest probability of a label.")] = 0.95,
    per_class: Annotated[int | None, typer.Option(help="At most so many rows of a class, the surest.")] = None,
    json: Json = False,
) -> None:
    """Step 6: label confident test rows, fold by fold, without a leak."""
    from batteries.combine.pseudo import FOLD, pseudo_label
    from batteries.score.entry import open_entry

    written = pseudo_label([open_entry(ROOT, name) for name in runs], ROOT, at_least=at_least, per_class=per_class)
    by_fold = dict(sorted(written.table[FOLD].value_counts().iter_rows()))
    if json:
        show.as_json(
            {"name": written.name, "rows": len(written.table), "by_fold": by_fold, "folder": str(written.folder)}
        )
        return
    show.table([{"fold": fold, "rows": rows} for fold, rows in by_fold.items()])
    print(f"{written.name}: {len(written.table)} rows; {written.folder}. Train on them with batteries.training_rows")


def _said(before: Entry, after: Entry, learned: dict[str, Any], *, json: bool) -> None:
    """Say which entry was made, or that none was, as what was learned helps no other rows."""
    if after is not before:
        made(after, [before], json=json, **({"learned": learned} if json else {}))
    elif json:
        show.as_json({"entry": before.name, "learned": learned})
    else:
        print(f"{before.name} stays as it is: on rows it was not fitted on this gains nothing")
