"""Sending: submissions to a service, and scores back from it.

In:    names of submissions and of a competition.
Out:   what became of them, in words or as JSON.
Next:  `batteries scores` shows the scores beside validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from batteries.cli import show
from batteries.cli.options import ROOT
from batteries.errors import SubmissionError, UsageError

if TYPE_CHECKING:
    from batteries.score.upload import Upload


def send_to(target: tuple[str, str], submission: str, *, wait: float, again: bool, json: bool) -> None:
    """Send a submission to (service, competition), wait for its score and print what became of it.

    Raises
    ------
    UsageError
        When the service is not Kaggle.
    SubmissionError
        When the service could not score the file.

    """
    from batteries.score.upload import send

    service, competition = target
    if service != "kaggle":
        raise UsageError(f"--to {service}: this service is not known; write --to kaggle COMPETITION")
    sent = send(submission, competition, ROOT, again=again, wait=wait, progress=not json)
    if json:
        show.as_json(sent.plain())
    elif sent.state != "failed":
        show.words(sent.sentence)
        if not sent.new:
            show.words("Nothing was sent now; to send the same file once more, add --again")
        print(f"Next: batteries {'scores' if sent.state == 'scored' else f'leaderboard {submission} --pull'}")
    if sent.state == "failed":
        raise SubmissionError(sent.sentence)


def pulled(submission: str | None, *, json: bool) -> None:
    """Fetch the scores of everything that was sent, or of one submission, and print them."""
    from batteries.score.upload import pull

    found = pull(ROOT, submission)
    if json:
        show.as_json([each.plain() for each in found])
        return
    _table(found)
    if waiting := [each.submission for each in found if each.state != "scored"]:
        show.words(f"without a score: {', '.join(waiting)}")
    print("Next: batteries scores")


def _table(found: Sequence[Upload]) -> None:
    show.table(
        [
            {
                "submission": each.submission,
                "to": each.target,
                "state": each.state,
                "public": each.public,
                "private": each.private,
                "why": each.reason or None,
            }
            for each in found
        ]
    )
