"""Kaggle: the service behind a leaderboard, through its official client.

In:    the name of a competition; a file to send.
Out:   what the service says: what is left of the limit, the number it gives a submission, its list of them.
Next:  `upload` decides what is sent and notes it.

The client prints, ends the process where it finds no credentials, waits for an answer for ever and shows tokens
when VERBOSE is set. So every call of it goes through `Kaggle._calling`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from itertools import count
from math import isfinite
from pathlib import Path
from typing import Any

from batteries.errors import BatteriesError, BusyError, UnclearError, UsageError
from batteries.score.credentials import kaggle_secrets, scrub

ANSWER = 60.0
"""Seconds that the service may be silent."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_PAGE = 20  # a page of the service's list has so many at least, unless it is the last


@dataclass(frozen=True)
class Listed:
    """A submission as the service lists it."""

    ref: int
    """The service's number of it."""
    description: str
    status: str
    """`pending`, `complete` or `error`."""
    public: float | None
    private: float | None
    error: str
    """Why the service could not score it."""


class Kaggle:
    """One competition, for the user whose credentials the official client finds.

    >>> Kaggle("titanic").left()  # doctest: +SKIP
    9

    Raises
    ------
    UsageError
        When the client is not installed, there are no credentials, others can read them, or the service refuses them.
    BusyError
        When the service cannot be reached or fails.

    """

    def __init__(self, competition: str) -> None:
        if not _NAME.fullmatch(competition):
            raise UsageError(
                f"{competition!r} is no competition's name; it is the last part of its address:"
                " kaggle.com/competitions/NAME"
            )
        self.competition = competition
        self._secrets = kaggle_secrets()
        with self._calling():
            self._api: Any = _client()
            self._api.authenticate()
        self._secrets += [
            str(self._api.config_values[key]) for key in ("token", "key") if key in self._api.config_values
        ]

    def left(self) -> int | None:
        """How many submissions are allowed for the rest of the day (UTC); None before the first of the team."""
        with self._calling():
            limits = self._api.competition_get_submission_limits(self.competition)
            return int(limits.num_allowed_now) if limits.num_allowed_now or limits.num_total else None

    def submit(self, file: Path, description: str) -> int:
        """Send a file once; return the service's number of the submission.

        Raises
        ------
        UnclearError
            When the service was asked to take it and did not say whether it did. Any other error: it did not.

        """
        with self._calling(sending=True):
            done = self._api.competition_submit(str(file), description, self.competition, quiet=True)
            if done.message == self._api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
                raise BusyError(f"Kaggle did not take {file.name}: its upload failed; nothing was submitted, run again")
            if not done.ref:
                said = scrub(done.message, self._secrets) or "no message"
                raise UnclearError(f"Kaggle gave {file.name} no number ({said})")
            return int(done.ref)

    def submissions(self) -> list[Listed]:
        """Every submission of the user's team, the newest first."""
        found: dict[int, Listed] = {}
        for page in count(1):
            with self._calling():
                got = self._api.competition_submissions(self.competition, page_number=page, page_size=100) or []
                new = {each.ref: _listed(each) for each in got if each is not None and each.ref not in found}
            found |= new
            if len(new) < _PAGE:
                break
        return sorted(found.values(), key=lambda each: each.ref, reverse=True)

    @contextmanager
    def _calling(self, *, sending: bool = False) -> Iterator[None]:
        """Keep what the client prints to itself, end its waits, say what fails without secrets."""
        try:
            with redirect_stdout(StringIO()), _not_for_ever():
                yield
        except BatteriesError:
            raise
        except ImportError as error:
            raise UsageError(
                f"the official Kaggle client cannot be loaded ({error}); run: pip install 'batteries[kaggle]'"
            ) from None
        except SystemExit:
            raise UsageError(
                "there are no Kaggle credentials that the service accepts. Make a token at kaggle.com/settings and put"
                " it into ~/.kaggle/access_token (chmod 600) or KAGGLE_API_TOKEN, or run: kaggle auth login"
            ) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._said(error, sending=sending) from None  # its own text and those before it may hold secrets

    def _said(self, error: Exception, *, sending: bool) -> BatteriesError:
        """What went wrong, as our error; UnclearError where the file may have been taken all the same."""
        response = getattr(error, "response", None)
        status = None if response is None else int(response.status_code)
        reason = scrub(_message(error), self._secrets)[:300]
        request = getattr(error, "request", None)
        asked = request is None or str(request.url).endswith("/CreateSubmission")  # None: its answer was no answer
        if sending and asked and (status is None or status >= 500):
            return UnclearError(f"Kaggle did not say whether it took the submission ({reason})")
        if status is None:
            what = (
                "Kaggle cannot be reached" if isinstance(error, OSError) else "Kaggle gave no answer that can be read"
            )
            return BusyError(f"{what} ({reason}); try again")
        if status == 429 or status >= 500:
            return BusyError(f"Kaggle fails ({status}: {reason}); try again later")
        return UsageError(f"Kaggle refuses ({status}: {reason}); {self._advice(status)}")

    def _advice(self, status: int) -> str:
        page = f"kaggle.com/competitions/{self.competition}"
        return {
            401: "make a new token at kaggle.com/settings and put it where the old one is",
            403: f"accept the rules first: {page}/rules",
            404: f"is there a competition at {page}?",
        }.get(status, f"see {page}")


def _client() -> Any:
    """The official client. Where VERBOSE is set, importing it would have every library log all it does."""
    loud = {name: os.environ.pop(name) for name in ("VERBOSE", "VERBOSE_OUTPUT") if name in os.environ}
    try:
        from kaggle.api.kaggle_api_extended import KaggleApi  # type: ignore[import-untyped]
    finally:
        os.environ.update(loud)
    api = KaggleApi()
    api.args = []  # it has --verbose where a program imported it before
    return api


def _message(error: Exception) -> str:
    """The service's own words where it sent some, else those of the first of the errors that led to this one."""
    first: BaseException = error
    while under := first.__cause__ or first.__context__:
        first = under
    response = getattr(error, "response", None)
    try:
        return str(response.json()["message"])  # type: ignore[union-attr]
    except (AttributeError, ValueError, TypeError, KeyError):
        return " ".join(str(first).split()) or type(first).__name__


def _listed(each: Any) -> Listed:
    return Listed(
        ref=int(each.ref),
        description=each.description or "",
        status=each.status.name.lower(),
        public=_score(each.public_score),
        private=_score(each.private_score),
        error=each.error_description or "",
    )


def _score(text: str | None) -> float | None:
    """A score comes as a text; one that is no number where it is not told."""
    try:
        score = float(text or "nan")
    except ValueError:
        return None
    return score if isfinite(score) else None


@contextmanager
def _not_for_ever() -> Iterator[None]:
    """Let no request wait for longer than ANSWER for an answer: the client sets no limit, nor lets it be set."""
    from requests.adapters import HTTPAdapter

    send = HTTPAdapter.send

    def limited(self: Any, request: Any, stream: bool = False, timeout: Any = None, **more: Any) -> Any:
        return send(self, request, stream=stream, timeout=timeout or ANSWER, **more)

    HTTPAdapter.send = limited  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        HTTPAdapter.send = send  # type: ignore[method-assign]
