"""Leaderboard: what the competition said about a submission.

In:    a submission's name and a score typed by the user.
Out:   one more line in the ledger.
Next:  the board shows it beside validation.
"""

from __future__ import annotations

from math import isfinite
from pathlib import Path

from batteries.errors import BusyError, DataError, UsageError, some
from batteries.score.board import submissions
from batteries.score.entry import open_entry
from batteries.score.ledger import Ledger


def leaderboard(submission: str, score: float, root: Path | str = "runs", *, private: bool = False) -> str:
    """Note the leaderboard score of a submission; return the entry it was made of.

    Scores are appended: a second score of one submission is kept beside the first, and the newest counts.

    Raises
    ------
    UsageError
        When there is no such submission.
    DataError
        When the score is not a finite number.
    BusyError
        When the ledger is away; the score is kept in the folder, and entered later.

    """
    if not isfinite(score):
        raise DataError(f"a leaderboard score must be a finite number, got {score}")
    if not Ledger.exists(root):
        raise UsageError(f"{root} has no ledger; make a submission first: batteries submit ENTRY")
    with Ledger(root) as ledger:
        entry, metric, higher_is_better = _entry_of(submission, ledger, Path(root))
        scope = "private" if private else "public"
        ledger.add_score(
            entry, scope, score, metric=metric, higher_is_better=higher_is_better, submission=submission
        )  # fmt: skip
    return entry


def _entry_of(submission: str, ledger: Ledger, root: Path) -> tuple[str, str, bool]:
    """The entry of a submission, its metric and direction: from the ledger, or from the folders while it is away."""
    try:
        known = {row["name"]: row["entry"] for row in ledger.submissions()}
        metrics = {row["name"]: (row["metric"], row["higher_is_better"]) for row in ledger.entries()}
    except BusyError:
        known = {made["name"]: made["entry"] for made in submissions(root)}
        metrics = {name: _metric(root, name) for made, name in known.items() if made == submission}
    if submission not in known:
        raise UsageError(
            f"there is no submission {submission!r}; submissions: {some([*known][::-1], 12) or 'none yet'}"
        )
    return str(known[submission]), *metrics[known[submission]]


def _metric(root: Path, name: str) -> tuple[str, bool]:
    direction = open_entry(root, name).direction
    return direction.name, direction.higher_is_better
