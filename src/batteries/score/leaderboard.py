"""Leaderboard: what the competition said about a submission.

In:    a submission's name and a score typed by the user.
Out:   one more line in the ledger.
Next:  the board shows it beside validation.
"""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Any

from batteries.errors import DataError, UsageError
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

    """
    if not isfinite(score):
        raise DataError(f"a leaderboard score must be a finite number, got {score}")
    made = find_submission(submission, root)
    with Ledger(root) as ledger:
        entry = next(row for row in ledger.entries() if row["name"] == made["entry"])
        ledger.add_score(
            entry["name"],
            "private" if private else "public",
            score,
            metric=entry["metric"],
            higher_is_better=entry["higher_is_better"],
            submission=submission,
        )
    return str(entry["name"])


def find_submission(name: str, root: Path | str = "runs") -> dict[str, Any]:
    """Return what the ledger says of a submission. Raises UsageError naming those there are."""
    if not Ledger.exists(root):
        raise UsageError(f"{root} has no ledger; make a submission first: batteries submit ENTRY")
    with Ledger(root) as ledger:
        known = {row["name"]: row for row in ledger.submissions()}
    if name not in known:
        raise UsageError(f"there is no submission {name!r}; submissions: {', '.join(known) or 'none yet'}")
    return known[name]
