"""Submitting: the verbs that make a submission, check one, and make one again.

In:    an entry, or a file of predictions; the sample submission.
Out:   a checked file, its first rows, and how it differs from the one before.
Next:  `cli.scoring` notes what the leaderboard said.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batteries.cli import show
from batteries.cli.options import ROOT, Json
from batteries.cli.sending import Again, To, Wait, check_target, send_to
from batteries.errors import BatteriesError, CorruptError, UsageError

if TYPE_CHECKING:
    import polars as pl

    from batteries.combine.preview import Difference

_FIRST = 5


def submit(
    entry: Annotated[str, typer.Argument(help="The entry whose test predictions are sent; or a file of predictions.")],
    sample: Annotated[
        Path | None, typer.Option(help="The competition's sample submission; else the experiment's.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where a file of predictions is written, .csv; without, it is only checked.")
    ] = None,
    digits: Annotated[int | None, typer.Option(help="Significant digits of numbers; all by default.")] = None,
    classes: Annotated[str | None, typer.Option(help="All labels of a file, if known: cat,dog.")] = None,
    against: Annotated[
        str | None, typer.Option(help="A submission or file to compare with; the previous by default.")
    ] = None,
    to: To = None,
    wait: Wait = 300,
    again: Again = False,
    json: Json = False,
) -> None:
    """Step 6: write a submission, checked against the sample; with --to it is sent.

    A file of predictions of any tool needs --sample: with --out it is written as the sample asks, without it is
    checked as it stands.
    """
    check_target(to, again=again)
    if Path(entry).suffix in (".csv", ".parquet") or Path(entry).is_file():
        if to is not None:
            raise UsageError(f"--to sends the submission of an entry, which has a score to compare; {entry} is a file")
        _file(Path(entry), sample, out, digits, classes, against, json)
        return
    from batteries.combine.preview import previous, read_submission
    from batteries.combine.submission import submit as write
    from batteries.score.entry import open_entry

    if out is not None or classes is not None:
        raise UsageError(
            "--out and --classes are for files of predictions; an entry's submission gets a folder in runs"
        )
    chosen = open_entry(ROOT, entry)
    _ = against and read_submission(against, ROOT)  # refused before anything is written
    made = write(chosen, chosen.experiment(), ROOT, sample=sample, digits=digits)
    found, notes = _compared(made.table, against or previous(made), made.notes)
    if json:
        about = {"submission": made.name, "entry": entry, "file": str(made.path), "sha256": made.sha256}
        sent = {} if to is None else {"upload": send_to(to, made.name, wait=wait, again=again, json=True).plain()}
        show.as_json({**about, **_plain(made.table, notes, found), "written": made.written, **sent})
        return
    _say(made.table, notes, found)
    show.words(f"{made.name}: {len(made.table):,} rows of {entry}, {made.written}")
    print(f"{made.path}, SHA-256 {made.sha256[:12]}")
    if to is not None:
        send_to(to, made.name, wait=wait, again=again, json=False)


def _file(
    path: Path,
    sample: Path | None,
    out: Path | None,
    digits: int | None,
    classes: str | None,
    against: str | None,
    json: bool,
) -> None:
    """Check a file, or write it as the sample asks."""
    from batteries.combine.check_submission import check_submission
    from batteries.combine.preview import read_submission
    from batteries.combine.submit_file import submit_file

    if sample is None:
        raise UsageError(f"what is asked of {path}? Give the competition's sample: --sample sample_submission.csv")
    _ = against and read_submission(against, ROOT)
    labels = [] if classes is None else [label.strip() for label in classes.split(",")]
    if out is None:
        if digits is not None:
            raise UsageError("--digits says how a file is written; say where: --out FILE")
        checked = check_submission(path, sample, classes=labels)
        table, notes, end = checked.table, checked.notes, f"{path}: {len(checked.table):,} rows fit {sample}"
        about: dict[str, Any] = {"file": str(path)}
    else:
        made = submit_file(path, sample, out, digits=digits, classes=labels)
        table, notes = made.table, made.notes
        end = f"{out}: {len(table):,} rows of {path}, {made.written}; SHA-256 {made.sha256[:12]}"
        about = {"file": str(out), "sha256": made.sha256, "written": made.written}
    found, notes = _compared(table, against, notes)
    if json:
        show.as_json({**about, **_plain(table, notes, found)})
        return
    _say(table, notes, found)
    show.words(end)


def _compared(
    table: pl.DataFrame, against: str | None, notes: tuple[str, ...]
) -> tuple[Difference | None, tuple[str, ...]]:
    """The difference from another submission, and the notes; one more where the two cannot be compared."""
    from batteries.combine.preview import difference, read_submission

    if against is None:
        return None, notes
    try:
        return difference(table, read_submission(against, ROOT), against), notes
    except BatteriesError as error:
        return None, (*notes, f"not compared: {error}")


def _plain(table: pl.DataFrame, notes: tuple[str, ...], found: Difference | None) -> dict[str, Any]:
    from batteries.combine.preview import distribution

    return {
        "rows": len(table),
        "first": table.head(_FIRST).to_dicts(),
        "notes": list(notes),
        "distribution": [asdict(column) for column in distribution(table)],
        "against": None if found is None else found.plain(),
    }


def _say(table: pl.DataFrame, notes: tuple[str, ...], found: Difference | None) -> None:
    """Print the first rows, the distribution beside that of another submission, and what is worth a look."""
    from batteries.combine.preview import distribution

    show.first_rows(table, _FIRST)
    print()
    if found is None:
        show.distribution(distribution(table))
    else:
        show.difference(found)
    for note in notes:
        show.words(f"note: {note}")


def reproduce(
    submission: Annotated[str, typer.Argument(help="submission-001")],
    out: Annotated[Path | None, typer.Option(help="Where to write it, if anywhere; nothing is overwritten.")] = None,
    json: Json = False,
) -> None:
    """Step 6: make a submission again, and compare every byte."""
    from batteries.combine.reproduce import reproduce as make

    made = make(submission, ROOT, out=out)
    if json:
        about = {"submission": made.name, "same": True, "bytes": len(made.data), "sha256": made.sha256}
        show.as_json({**about, "entries": made.entries, "fault": made.fault})
    else:
        size = f"the same {len(made.data):,} bytes"
        show.words(f"{made.name}: {size}, made again from {', '.join(made.entries)}; SHA-256 {made.sha256[:12]}")
    if made.fault and out is None:
        raise CorruptError(f"{made.fault}. To have it again: batteries reproduce {made.name} --out FILE")
