"""Scoring: the verbs of steps 5, 7 and 8: how good entries are, and which of two is better.

In:    names of entries; what a leaderboard said.
Out:   tables of scores; the report, which shows all of them.
Next:  what to try next.
"""

from __future__ import annotations

import sys
import time
import webbrowser
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from signal import SIGINT
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batteries.cli import show
from batteries.cli.options import ROOT, Json
from batteries.errors import BatteriesError, Interrupted, UsageError

if TYPE_CHECKING:
    from batteries.score.board import Row


def scores(
    sort: Annotated[str | None, typer.Option(metavar="COLUMN", help="valid, public, test, gap, age, ...")] = None,
    keep: Annotated[
        list[str] | None, typer.Option("--filter", metavar="TEXT", help="A word, or FIELD=VALUE; repeatable.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The most entries of each table.")] = None,
    wide: Annotated[bool, typer.Option("--wide", help="Every column, however wide.")] = False,
    json: Json = False,
) -> None:
    """Step 5: the board: validation, leaderboard, test, gaps, changes."""
    from batteries.score.board import scores as board
    from batteries.score.select import select

    _restore()
    every = board(ROOT)
    rows = select(every, sort=sort, keep=keep or (), limit=limit)
    if json:
        show.as_json([row.plain() for row in rows])
        return
    if not rows:
        print(f"none of {len(every)} entries fits --filter {' '.join(keep or ())}")
        return
    _tables(rows, wide=wide)
    if len(rows) < len(every):
        print(f"{len(rows)} of {len(every)} entries; ranks are among all")
    _agreements(every)
    for row in rows:
        if row.missing_folds:
            print(f"{row.name}: folds {row.folds}; train the others: batteries train --resume {row.run}")


def _restore() -> None:
    """Write a lost ledger again from the folders, and say what they do not hold."""
    from batteries.score.ledger import Ledger

    if Ledger.exists(ROOT):
        return
    from batteries.score.board import restore
    from batteries.score.database import place_of
    from batteries.score.entry import all_entries

    if all_entries(ROOT):
        place, number = place_of(ROOT).name, restore(ROOT)
        entered = f"{number} {'entry is' if number == 1 else 'entries are'} entered again from the folders"
        found = f"{place} was lost, or is new; {entered}"
        print(f"warning: {found}; leaderboard scores, test scores and looks are not", file=sys.stderr)


def _tables(rows: Sequence[Row], *, wide: bool) -> None:
    from batteries.cli.board import board, seeds

    left_out = False
    for _, group in groupby(rows, key=lambda row: row.group):
        left_out = board(list(group), wide=wide) or left_out
    more = "; more columns: --wide" if left_out else ""
    show.words(f"valid: of all out-of-fold rows; ±: one s.d. over resampled rows, over folds{more}")
    if any(row.level for row in rows):
        show.words("#: rank; ≈: within two s.d. of the best; is it worse? batteries compare")
    seeds(rows)


def _agreements(rows: Sequence[Row]) -> None:
    """Say whether validation foretells the leaderboards."""
    from batteries.score.agreement import agreement

    for part in ("public", "private"):
        told = any(getattr(row, part) is not None for row in rows)
        if told and (agreed := agreement(ROOT, board=part)):
            show.words(agreed.sentence)


def leaderboard(
    submission: Annotated[str | None, typer.Argument(help="submission-001; all that were sent, with --pull.")] = None,
    score: Annotated[float | None, typer.Argument(help="What the leaderboard said.")] = None,
    private: Annotated[bool, typer.Option("--private", help="The score of the private part.")] = False,
    pull: Annotated[bool, typer.Option("--pull", help="Fetch scores from the service it was sent to.")] = False,
    json: Json = False,
) -> None:
    """Step 5: note what the leaderboard said of a submission, or fetch it."""
    from batteries.cli.sending import pulled
    from batteries.score.leaderboard import leaderboard as note

    if pull:
        if score is not None or private:
            raise UsageError("--pull fetches the public and the private score; leave out SCORE and --private")
        pulled(submission, json=json)
        return
    if submission is None or score is None:
        raise UsageError("give a submission and its score: batteries leaderboard SUBMISSION SCORE; or fetch it: --pull")
    entry = note(submission, score, ROOT, private=private)
    board = "private" if private else "public"
    if json:
        show.as_json({"submission": submission, "entry": entry, "board": board, "score": score})
        return
    print(f"{submission} ({entry}): {board} score {score:.5f} noted. Next: batteries scores")


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
    show.tested(results)


def compare(
    first: Annotated[str, typer.Argument(help="The entry that the others are compared with.")],
    others: Annotated[list[str], typer.Argument(metavar="ENTRY...", help="One or more on the same folds.")],
    by: Annotated[str | None, typer.Option(metavar="COLUMN", help="Where does it win and lose? The target.")] = None,
    groups: Annotated[str | None, typer.Option(metavar="COLUMN", help="Resample whole groups of rows.")] = None,
    block: Annotated[int | None, typer.Option(metavar="ROWS", help="Resample blocks: rows are a series.")] = None,
    public: Annotated[int | None, typer.Option(metavar="ROWS", help="Foretell the shake-up of so many.")] = None,
    private: Annotated[int | None, typer.Option(metavar="ROWS", help="The test rows that are not public.")] = None,
    draws: Annotated[int, typer.Option(help="Resamples.")] = 10_000,
    json: Json = False,
) -> None:
    """Step 8: is it really better than the first?"""
    from batteries.improve.compare import compare as judge
    from batteries.improve.shakeup import shake_up_of
    from batteries.score.entry import open_entry

    if private is not None and public is None:
        raise UsageError("--private is the rest of --public ROWS; give both")
    one, rest = open_entry(ROOT, first), [open_entry(ROOT, name) for name in others]
    verdict = judge(one, *rest, by=by, groups=groups, block=block, draws=draws, progress=not json)
    shaken = []
    if public is not None:
        parts: dict[str, Any] = {"public": public, "private": private, "progress": not json}
        shaken = [shake_up_of(one, other, **parts) for other in rest]
    if json:
        show.as_json({**verdict.plain(), "shake_up": [each.plain() for each in shaken]})
        return
    show.verdict(verdict, every_part=by is not None)
    for other, each in zip(others, shaken, strict=False):
        show.words(f"{first} and {other}: {each.sentence}")


def report(
    images: Annotated[bool, typer.Option("--images", help="Show the hardest rows; reads the experiment.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Make it again whenever runs change, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", help="How often --watch looks.")] = 5.0,
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    json: Json = False,
) -> None:
    """Steps 0-8 as one page with plots."""
    from batteries.report.page import make_report

    if watch and json:
        raise UsageError("--watch makes one page after another, --json describes one; give one of them")
    if every < 0.5:
        raise UsageError(f"--every must be at least 0.5 seconds, got {every:g}")
    table = _training_table() if images else None
    if watch:
        _watch(every, table, browser=browser)
        return
    made = make_report(ROOT, table=table)
    if json:
        show.as_json(made.plain())
    else:
        print(f"the report: {made.path}")
    _left_out(made.problems)
    if browser:
        _open(made.path)


def _left_out(problems: Sequence[str]) -> None:
    for problem in problems:
        print(f"warning: left out: {problem}", file=sys.stderr, flush=True)


def _open(path: Path) -> None:
    if not webbrowser.open(path.resolve().as_uri()):
        print(f"warning: no browser could be started; open it yourself: {path.resolve().as_uri()}", file=sys.stderr)


def _watch(every: float, table: Any, *, browser: bool) -> None:
    """Make the report again after each change; Ctrl-C leaves a page that no longer loads itself."""
    from batteries.report.page import Made, make_report
    from batteries.report.watch import changes

    made: Made | None = None
    try:
        for _ in changes(ROOT, every):
            try:
                before, made = made, make_report(ROOT, table=table, refresh=every)
            except BatteriesError as error:
                if made is None:
                    raise
                print(
                    f"{time.strftime('%H:%M:%S')} not made again: {' '.join(str(error).split())}",
                    file=sys.stderr,
                    flush=True,
                )
                continue
            _left_out([problem for problem in made.problems if before is None or problem not in before.problems])
            if before is not None:
                print(f"{time.strftime('%H:%M:%S')} made again", flush=True)
                continue
            print(f"the report: {made.path}; made again as runs change, looked at every {every:g} s", flush=True)
            print("Ctrl-C ends it", flush=True)
            if browser:
                _open(made.path)
    except KeyboardInterrupt:
        path = make_report(ROOT, table=table).path
        raise Interrupted(f"stopped watching; the report stays: {path}", signum=SIGINT) from None


def _training_table() -> Any:
    """The table of the experiment of the best entry."""
    from batteries.score.board import scores as board
    from batteries.score.entry import open_entry

    rows = board(ROOT)
    if not rows:
        raise UsageError(f"{ROOT} has no entry whose rows could be shown; train something first: batteries train")
    return open_entry(ROOT, rows[0].name).experiment().table()
