"""Sending: submissions to a service, and scores back from it.

In:    names of submissions and of a competition.
Out:   what became of them, in words or as JSON.
Next:  `batteries scores` shows the scores beside validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from batteries.cli import show
from batteries.cli.options import ROOT
from batteries.errors import SubmissionError, UsageError

if TYPE_CHECKING:
    from batteries.score.upload import Upload


To = Annotated[
    tuple[str, str] | None, typer.Option(metavar="kaggle COMPETITION", help="Send it there, once, and fetch its score.")
]
Wait = Annotated[float, typer.Option(min=0, help="Seconds to wait for the score.")]
Again = Annotated[bool, typer.Option("--again", help="Send the same file once more.")]


def check_target(to: tuple[str, str] | None, *, again: bool) -> None:
    """Raise UsageError for a service that is not known, before anything is done."""
    if to is None and again:
        raise UsageError("--again sends the same file once more; say where: --to kaggle COMPETITION")
    if to is not None and to[0] != "kaggle":
        raise UsageError(f"--to {to[0]}: this service is not known; write --to kaggle COMPETITION")


def send_to(to: tuple[str, str], submission: str, *, wait: float, again: bool, json: bool) -> Upload:
    """Send a submission to (service, competition), wait for its score and, unless for JSON, say what became of it.

    Raises
    ------
    SubmissionError
        When the service could not score the file.

    """
    from batteries.score.upload import send

    sent = send(submission, to[1], ROOT, again=again, wait=wait, progress=not json)
    if sent.state == "failed":
        raise SubmissionError(f"{sent.sentence}. Mend it and submit the mended entry, or send this one with --again")
    if not json:
        show.words(sent.sentence)
        if not sent.new:
            show.words("nothing was sent now; to send the same file once more add --again")
        print(f"Next: batteries {'scores' if sent.state == 'scored' else f'leaderboard {submission} --pull'}")
    return sent


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
