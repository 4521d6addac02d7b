"""Prepare: the verbs of step 0: a folder, a look at the data, folds.

In:    what the user typed.
Out:   the study page, folds.parquet; a few lines.
Next:  `cli.training`.
"""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from batteries.cli import show
from batteries.cli.options import ROOT, File, Json
from batteries.errors import UsageError


def new(
    name: Annotated[str, typer.Argument(help="The new folder.")],
    template: Annotated[str | None, typer.Option(help="images, tabular or text; images unless said.")] = None,
    data: Annotated[
        Path | None, typer.Option("--from", metavar="FOLDER", help="Your data: train.csv, a table, images by class.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(metavar="COLUMN", help="What to predict; repeatable.")] = None,
    id: Annotated[str | None, typer.Option(metavar="COLUMN", help="What names a row.")] = None,
    metric: Annotated[str | None, typer.Option(help="auc, accuracy, log_loss, f1, mcc, qwk, rmse, mae.")] = None,
    json: Json = False,
) -> None:
    """Make an experiment folder that already runs, on real data or yours."""
    from batteries.prepare.new import new as make
    from batteries.prepare.new import new_from

    if data is None and (target or id or metric):
        raise UsageError("--target, --id and --metric are of your own data; say where they are: --from FOLDER")
    if data is not None and template is not None:
        raise UsageError("a folder starts from a template or from your data; give --template or --from, not both")
    if data is None:
        folder, guessed = make(name, template=template or "images", parent=Path()), []
    else:
        folder, guesses = new_from(name, data, target=target or (), id=id, metric=metric, parent=Path())
        guessed = [asdict(reason) for reason in guesses.reasons]
    files = sorted(path.name for path in folder.iterdir())
    if json:
        show.as_json({"folder": str(folder), "files": files, "guessed": guessed})
        return
    for reason in guessed:
        text = f"{reason['what']:11} {reason['guess']} ({reason['why']})"
        print(textwrap.fill(text, 80, subsequent_indent=" " * 12))
    if guessed:
        show.words(f"Is a guess wrong? Change {folder / 'experiment.py'}, or say it: --target, --id, --metric")
    print(f"{folder}: {', '.join(files)}. Next: cd {folder} && batteries study")


def study(
    experiment: File = "experiment.py",
    augment: Annotated[bool, typer.Option("--augment", help="Draw samples before and after augment instead.")] = False,
    json: Json = False,
) -> None:
    """Step 0: look at the data; plots and advice."""
    from batteries.experiment import load_experiment
    from batteries.report.page import write_augment_page, write_study_page
    from batteries.report.study import study_of_runs

    if augment:
        page = write_augment_page(load_experiment(Path(), experiment), ROOT)
        if json:
            show.as_json({"page": str(page)})
        else:
            print(f"before and after: {page}")
        return
    found = study_of_runs(load_experiment(Path(), experiment), ROOT)
    page = write_study_page(found, ROOT)
    if json:
        show.as_json(found.plain())
        return
    for advice in found.advice:
        show.item(f"{advice.what}: {advice.why}", code=advice.line)
    flaws = f"flaws: {', '.join(found.flaws)}" if found.flaws else "no flaw found"
    print(f"{flaws}; {len(found.advice)} pieces of advice; the page: {page}")


def split(
    experiment: File = "experiment.py",
    check: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check these folds instead: CSV or Parquet with id and fold.")
    ] = None,
    groups: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Rows of one value belong together; repeatable.")
    ] = None,
    time: Annotated[str | None, typer.Option(metavar="COLUMN", help="Held-out rows must be later in it.")] = None,
    allow: Annotated[
        list[str] | None, typer.Option(metavar="LEAK", help="duplicates, near-duplicates, groups or time; repeatable.")
    ] = None,
    json: Json = False,
) -> None:
    """Step 0: make the folds, once; check them for leaks now and ever after."""
    from batteries.experiment import load_experiment
    from batteries.prepare.folds import split as make
    from batteries.prepare.split_check import check_allowed, check_split_of

    check_allowed(allow or ())
    loaded = load_experiment(Path(), experiment)
    found = check_split_of(loaded, ROOT, file=check, groups=groups or (), time=time, show=not json)
    if json:
        show.as_json(found.plain())
    else:
        show.split_check(found)
    found.refuse(allow or ())
    if check is None:
        make(loaded, ROOT)
    if not json:
        leaks = sorted({leak.kind for leak in found.leaks})
        but = f" but {', '.join(leaks)}, which are allowed" if leaks else ""
        print(f"{found.strategy}, digest {found.digest[:12]}: {check or ROOT / 'folds.parquet'}")
        show.words(f"nothing leaks{but}")
