"""Scoring: the verbs of steps 5, 7 and 8: how good entries are, and which of two is better.

In:    names of entries; what a leaderboard said.
Out:   tables of scores; the report, which shows all of them.
Next:  what to try next.
"""

from __future__ import annotations

import sys
from itertools import groupby
from typing import Annotated

import typer

from batteries.cli import show
from batteries.cli.options import ROOT, Json
from batteries.errors import UsageError


def scores(json: Json = False) -> None:
    """Step 5: the board: validation, leaderboard, test, gaps."""
    from batteries.score.board import restore
    from batteries.score.board import scores as board
    from batteries.score.entry import all_entries

    if not (ROOT / "ledger.db").exists() and all_entries(ROOT):
        found = f"{ROOT}/ledger.db was lost; {restore(ROOT)} entries are entered again from their folders"
        print(f"warning: {found}; leaderboard and test scores are not", file=sys.stderr)
    rows = board(ROOT)
    if json:
        show.as_json([row.plain() for row in rows])
        return
    for _, group in groupby(rows, key=lambda row: row.group):
        show.board(list(group))
    print("valid: of all out-of-fold rows; ±: one s.d. over resampled rows, over folds")
    for row in rows:
        if row.missing_folds:
            print(f"{row.name}: folds {row.folds}; train the others: batteries train --resume {row.run}")


def leaderboard(
    submission: Annotated[str, typer.Argument(help="submission-001")],
    score: Annotated[float, typer.Argument(help="What the leaderboard said.")],
    private: Annotated[bool, typer.Option("--private", help="The score of the private part.")] = False,
    json: Json = False,
) -> None:
    """Step 5: note what the leaderboard said of a submission."""
    from batteries.score.leaderboard import leaderboard as note

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
    show.table(
        [
            {
                "entry": result.name,
                "valid": result.valid,
                "±valid": show.brief(result.valid_noise),
                "test": result.test,
                "±test": show.brief(result.test_noise),
                "gap": show.signed(result.gap),
                "explained": "yes" if result.explained else "no",
            }
            for result in results
        ]
    )
    print(f"{results[0].metric} on {results[0].rows} test rows; explained: the gap is within two s.d. of its noise")


def compare(
    first: Annotated[str, typer.Argument(help="An entry.")],
    second: Annotated[str, typer.Argument(help="Another one on the same folds.")],
    json: Json = False,
) -> None:
    """Step 8: is the second really better than the first?"""
    from batteries.improve.compare import compare as judge
    from batteries.score.entry import open_entry

    one, other = (open_entry(ROOT, name) for name in (first, second))
    result = judge(one, other, one.metric())
    if json:
        show.as_json(result.plain())
        return
    print(result.sentence)
    show.table(
        [
            {"figure": f"{result.metric} of {first}", "value": f"{result.first_score:.5f}"},
            {"figure": f"{result.metric} of {second}", "value": f"{result.second_score:.5f}"},
            {"figure": "gain", "value": show.signed(result.gain)},
            {"figure": "95 % interval over resampled rows", "value": f"{result.low:+.5f} to {result.high:+.5f}"},
            {"figure": "chance that the second is better", "value": f"{result.chance:.1%}"},
            {"figure": "p, paired bootstrap of rows", "value": f"{result.p_rows:.4f}"},
            {
                "figure": "p, corrected t over folds",
                "value": "-" if result.p_folds is None else f"{result.p_folds:.4f}",
            },
        ]
    )


def report() -> None:
    """Steps 0-8 as one page with plots."""
    from batteries.report.page import write_report

    print(f"the report: {write_report(ROOT)}")
