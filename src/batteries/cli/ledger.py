"""Ledger: the verbs that look after the ledger, and exchange it and predictions with other tools.

In:    files and folders of other tools.
Out:   what is wrong, what was mended, files for other tools, new entries.
Next:  `scores` shows them on the board.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batteries.cli import show
from batteries.cli.options import ROOT, Json
from batteries.errors import CorruptError, UsageError

if TYPE_CHECKING:
    from batteries.score.imported import Outside

ledger = typer.Typer(name="ledger", no_args_is_help=True, rich_markup_mode=None)


@ledger.callback()
def everything() -> None:
    """Look after the ledger; exchange it with other tools."""


@ledger.command()
def check(json: Json = False) -> None:
    """Read every row and say what is wrong."""
    from batteries.score.ledger import Ledger
    from batteries.score.recover import check as look

    if not Ledger.exists(ROOT):
        raise UsageError(f"{ROOT} has no ledger to check; train something first: batteries train")
    found = look(ROOT)
    if json:
        show.as_json(
            {"place": found.place, "rows": found.rows, "problems": list(found.problems), "notes": list(found.notes)}
        )
    else:
        show.words(f"{found.place}: {_counts(found.rows)}")
        for line in (*found.problems[1:], *found.notes):
            show.words(line)
    if found.problems:
        raise CorruptError(found.problems[0])
    if not json:
        print("every row is as it was written" + ("; mend its journal: batteries ledger recover" * bool(found.notes)))


@ledger.command()
def recover(json: Json = False) -> None:
    """Make it whole: from its journal, the damaged file, the runs."""
    from batteries.score.recover import recover as mend

    if not ROOT.is_dir():
        raise UsageError(f"there is no {ROOT} here to recover a ledger from; go to an experiment folder")
    found = mend(ROOT)
    if json:
        kept = None if found.kept is None else str(found.kept)
        show.as_json({"kept": kept, "rows": found.rows, "salvaged": found.salvaged, "entries": found.entries})
        return
    if found.kept is not None:
        show.words(f"the damaged file is kept as {found.kept}; {found.salvaged} rows came from it alone")
    print(f"the ledger has {_counts(found.rows)}")


@ledger.command()
def export(file: Annotated[Path, typer.Argument(help="FILE.parquet, .csv or .json (all tables).")]) -> None:
    """Write the scores as one table, or all of it as JSON."""
    from batteries.score.exchange import export as write

    print(f"{file}: {write(file, ROOT)} rows")


@ledger.command("import")
def take(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FOLDER|FILE.json", help="What the new entry is called, or where they are.")
    ],
    oof: Annotated[Path | None, typer.Option(help="Out-of-fold predictions: CSV or Parquet.")] = None,
    test: Annotated[Path | None, typer.Option(help="Predictions of the test table.")] = None,
    id: Annotated[str | None, typer.Option(metavar="COLUMN", help="The column of ids.")] = None,
    file: Annotated[str, typer.Option("--experiment", help="The experiment's file.")] = "experiment.py",
    json: Json = False,
) -> None:
    """Enter other tools' predictions, or an exported ledger.

    NAME takes --oof and --test; a FOLDER holds pairs NAME_oof.csv and NAME_test.csv; a FILE.json was exported.
    """
    from batteries.score.exchange import import_rows
    from batteries.score.imported import Outside, outside_in

    if oof is not None:
        _enter([Outside(name, oof, test)], file, id, json=json)
    elif test is not None:
        raise UsageError("--test alone is no entry; give --oof, too: a model is scored by its out-of-fold predictions")
    elif Path(name).is_dir():
        _enter(outside_in(name), file, id, json=json)
    elif Path(name).is_file():
        new = import_rows(name, ROOT)
        if json:
            show.as_json({"rows": new})
        else:
            print(f"{name}: {new} rows were new")
    else:
        raise UsageError(
            f"there is no folder or file {name}; for an entry of this name give --oof FILE and --test FILE"
        )


def _enter(outside: list[Outside], file: str, id: str | None, *, json: bool) -> None:
    """Make an entry of each, and say what each scores."""
    from batteries.experiment import load_experiment
    from batteries.score.board import record
    from batteries.score.imported import import_entry

    experiment = load_experiment(".", file)
    entries = [import_entry(each, experiment, ROOT, id=id) for each in outside]
    scores = {entry.name: record(entry, experiment, ROOT) for entry in entries}
    if json:
        show.as_json({"metric": experiment.metric.name, "entries": scores})
        return
    for entry in entries:
        print(f"{entry.name}: {experiment.metric.name} {scores[entry.name]:.5f}; {entry.folder}")
        if entry.test() is None:
            show.words(
                f"{entry.name} has no test predictions: it blends with entries that have none, and is not submitted"
            )


def _counts(rows: dict[str, int]) -> str:
    return ", ".join(f"{number} {name if number != 1 else _one(name)}" for name, number in rows.items()) or "no rows"


def _one(name: str) -> str:
    return {"entries": "entry"}.get(name, name.removesuffix("s"))
