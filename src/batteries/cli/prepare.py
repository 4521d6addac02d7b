"""Prepare: the verbs of step 0: a folder, a look at the data, folds.

In:    what the user typed.
Out:   the study page, folds.parquet; a few lines.
Next:  `cli.training`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from batteries.cli import show
from batteries.cli.options import ROOT, File, Json


def new(
    name: Annotated[str, typer.Argument(help="The new folder.")],
    template: Annotated[str, typer.Option(help="What to start from.")] = "images",
) -> None:
    """Make an experiment folder that already runs on real data."""
    from batteries.prepare.new import new as make

    folder = make(name, template=template, parent=Path())
    files = ", ".join(sorted(path.name for path in folder.iterdir()))
    print(f"{folder}: {files}. Next: cd {folder} && batteries study")


def study(experiment: File = "experiment.py", json: Json = False) -> None:
    """Step 0: look at the data; plots and advice."""
    from batteries.experiment import load_experiment
    from batteries.report.page import write_study_page
    from batteries.report.study import study_of_runs

    found = study_of_runs(load_experiment(Path(), experiment), ROOT)
    page = write_study_page(found, ROOT)
    if json:
        show.as_json(found.plain())
        return
    for advice in found.advice:
        show.item(f"{advice.what}: {advice.why}", code=advice.line)
    flaws = f"flaws: {', '.join(found.flaws)}" if found.flaws else "no flaw found"
    print(f"{flaws}; {len(found.advice)} pieces of advice; the page: {page}")


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
