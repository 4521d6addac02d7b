"""Upload: a submission sent to the service once, and its score fetched.

In:    a submission's name; the name of a competition.
Out:   events in the ledger: intent before it is sent, then sent, scored, failed or unknown; the leaderboard scores.
Next:  the board shows them beside validation.

The description that is sent ends with the first 12 digits of the file's SHA-256. By these a submission is known in
the service's list again, whatever happened to the answer or to the ledger; the list is asked before anything is sent.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGINT
from typing import Any

from batteries.errors import BatteriesError, BusyError, CorruptError, Interrupted, UnclearError, UsageError, some
from batteries.files import digest_file, locked
from batteries.progress import Progress
from batteries.score.kaggle import Kaggle, Listed
from batteries.score.leaderboard import leaderboard
from batteries.score.ledger import Ledger, State

PREFIX = "kaggle:"
SETTLE = 120.0
"""Seconds after which what was sent is in the service's list, if it was taken."""
_STATES: dict[str, State] = {"complete": "scored", "error": "failed"}
_POLL = 2.0  # seconds; each pause is half as long again as the one before, up to
_LONGEST = 20.0


@dataclass(frozen=True)
class Upload:
    """What became of one submission at one service."""

    submission: str
    target: str
    """`kaggle:titanic`."""
    state: str
    """`sent`, `scored`, `failed` or `unknown`."""
    ref: int | None
    """The service's number of it."""
    public: float | None = None
    private: float | None = None
    reason: str = ""
    """Why there is no score."""
    new: bool = False
    """Whether this call sent it."""
    left: int | None = None
    """What the service allows for the rest of the day, where it was asked."""

    @property
    def sentence(self) -> str:
        """It in words."""
        number = "" if self.ref is None else f" as {self.ref}"
        head = f"{self.submission}: {'sent' if self.new else 'was sent before'} to {self.target}{number}"
        if self.left is not None:
            head += f", {self.left} left today"
        told = [f"{board} score {score:.5f}" for board, score in (("public", self.public), ("private", self.private))
                if score is not None]  # fmt: skip
        end = {
            "scored": ", ".join(told) or "the service tells no score",
            "failed": f"the service could not score it ({self.reason})",
        }.get(self.state, f"no score yet ({self.reason or 'pending'})")
        return f"{head}; {end}"

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {**asdict(self), "sentence": self.sentence}


def send(
    submission: str,
    competition: str,
    root: Path | str = "runs",
    *,
    again: bool = False,
    wait: float = 300.0,
    progress: bool = True,
) -> Upload:
    """Send a submission to a Kaggle competition, unless it was sent before, and wait for its score.

    >>> send("submission-001", "titanic").public  # doctest: +SKIP
    0.77511

    Parameters
    ----------
    submission, competition
        Their names.
    root
        The folder of runs with its ledger.
    again
        Send the same file once more, though it was sent before.
    wait
        Seconds to wait for the score; without one by then the state is `sent`, and `pull` fetches it later.
    progress
        Whether the waiting is shown.

    Raises
    ------
    UsageError
        When there is no such submission, no client, no credentials, or the service refuses.
    CorruptError
        When the file is not the one that was checked.
    BusyError
        When the limit of the day is reached, the service fails, or another process is sending it.
    UnclearError
        When the service was asked and did not say whether it took the file. Calling again finds that out first.

    """
    made = _submission(submission, root)
    file = Path(root) / submission / Path(made["file"]).name
    if not file.is_file() or digest_file(file) != made["sha256"]:
        raise CorruptError(f"{file} is not the file that was checked; make it again: batteries submit {made['entry']}")
    with Ledger(root) as ledger, locked(_first_of(ledger, made["sha256"], Path(root))):
        book = _Book(ledger, Kaggle(competition), submission, made["sha256"], Path(root))
        ref, new, left = book.once(file, again=again, show=progress)
        sent = book.follow(ref, wait, show=progress)
    return replace(sent, new=new, left=left)


def _first_of(ledger: Ledger, sha256: str, root: Path) -> Path:
    """The folder of the first submission of these bytes: whoever sends them, by whatever name, locks it."""
    twins: list[str] = [row["name"] for row in ledger.submissions() if row["sha256"] == sha256]
    return min(root / name for name in twins if (root / name).is_dir())


def pull(root: Path | str = "runs", submission: str | None = None) -> list[Upload]:
    """Fetch what the service says of everything that was sent, or of one submission; its scores go into the ledger.

    Raises
    ------
    UsageError
        When nothing was sent, or not that submission; or as `send` does.
    BusyError
        When the service cannot be reached or fails.

    """
    if submission is not None:
        _submission(submission, root)
    if not Ledger.exists(root):
        raise UsageError(f"{root} has no ledger; make a submission first: batteries submit ENTRY")
    found = []
    with Ledger(root) as ledger:
        sent = {(row["target"], row["submission"], row["sha256"]): None for row in ledger.uploads()}
        wanted = [each for each in sent if submission in (None, each[1])]
        if not wanted:
            what = "nothing" if submission is None else f"nothing of {submission}"
            raise UsageError(
                f"{what} was sent to Kaggle from here; send: batteries submit ENTRY --to kaggle COMPETITION, or type a"
                " score: batteries leaderboard SUBMISSION SCORE"
            )
        services = {target: Kaggle(target.removeprefix(PREFIX)) for target, _, _ in wanted}
        listed = {target: service.submissions() for target, service in services.items()}
        for target, name, sha256 in wanted:
            book = _Book(ledger, services[target], name, sha256, Path(root))
            book.take_in(listed[target])
            found.append(book.result(max(book.refs, default=None)))
    return found


def _submission(name: str, root: Path | str) -> dict[str, Any]:
    """What the ledger says of a submission."""
    if not Ledger.exists(root):
        raise UsageError(f"{root} has no ledger; make a submission first: batteries submit ENTRY")
    with Ledger(root) as ledger:
        known = {row["name"]: row for row in ledger.submissions()}
    if name not in known:
        raise UsageError(f"there is no submission {name!r}; submissions: {some([*known][::-1], 12) or 'none yet'}")
    return known[name]


@dataclass(frozen=True)
class _Book:
    """What the ledger says of one file at one service."""

    ledger: Ledger
    service: Kaggle
    submission: str
    sha256: str
    root: Path

    @property
    def target(self) -> str:
        return PREFIX + self.service.competition

    @property
    def mark(self) -> str:
        return self.sha256[:12]

    @property
    def notes(self) -> list[dict[str, Any]]:
        """Every event of the file there, whatever submission it is, oldest first."""
        own = (row for row in self.ledger.uploads() if (row["target"], row["sha256"]) == (self.target, self.sha256))
        return [{**row, "detail": row["detail"] or {}} for row in own]

    @property
    def refs(self) -> set[int]:
        """The service's numbers of it: one each time that it was taken."""
        return {row["detail"]["ref"] for row in self.notes if "ref" in row["detail"]}

    def note(self, state: State, **detail: Any) -> None:
        self.ledger.add_upload(self.submission, sha256=self.sha256, target=self.target, state=state, detail=detail)

    def take_in(self, listed: Sequence[Listed]) -> None:
        """Note what the service's list says of the file, where that is new."""
        own = [row for row in self.notes if row["submission"] == self.submission and "ref" in row["detail"]]
        known = {row["detail"]["ref"]: (row["state"], row["detail"]) for row in own}
        for each in sorted(listed, key=lambda each: each.ref):
            if self.mark not in each.description.split():
                continue
            state = _STATES.get(each.status, "sent")
            detail = {"ref": each.ref, "public": each.public, "private": each.private, "reason": each.error}
            if known.get(each.ref) == (state, detail):
                continue
            for score, private in ((each.public, False), (each.private, True)):
                if score is not None:
                    leaderboard(self.submission, score, self.root, private=private)
            self.note(state, **detail)

    def once(self, file: Path, *, again: bool, show: bool) -> tuple[int, bool, int | None]:
        """Send the file unless it was sent; return the service's number, whether it is new, and what is left today."""
        with Progress("sending", total=3, show=show) as bar:
            self.take_in(self.service.submissions())
            if self.refs and not again:
                return max(self.refs), False, None
            bar.advance()
            left = self.allowed(again=again)
            bar.advance()
            return self.send(file), True, left and left - 1

    def allowed(self, *, again: bool) -> int | None:
        """How many more the service allows today; refused where none, or while an earlier try may yet show up."""
        last = self.notes[-1] if self.notes else None
        if last and last["state"] in ("intent", "unknown") and not again:
            age = (datetime.now(UTC) - datetime.fromisoformat(last["at"])).total_seconds()
            if age < SETTLE:
                raise BusyError(
                    f"{self.submission} was being sent {age:.0f} s ago and {self.target} does not list it yet; run the"
                    f" same again in {SETTLE - age:.0f} s"
                )
            self.note("failed", reason="the service does not list it")
        left = self.service.left()
        if left == 0:
            raise BusyError(
                f"{self.target} allows no more submissions today, or in all; nothing was sent. A day ends at midnight"
                " UTC: run the same again then"
            )
        return left

    def send(self, file: Path) -> int:
        """Send the file, noted before and after; return the service's number of it."""
        self.note("intent")
        try:
            ref = self.service.submit(file, f"{self.submission} {self.mark}")
        except UnclearError as error:
            self.note("unknown", reason=str(error))
            raise UnclearError(
                f"{error}. Run the same again: it looks into {self.target}'s list before it sends anything"
            ) from None
        except KeyboardInterrupt:
            self.note("unknown", reason="stopped while it was sent")
            raise Interrupted(
                f"stopped while {self.submission} was sent. Run the same again: it looks into {self.target}'s list"
                " before it sends anything",
                signum=SIGINT,
            ) from None
        except BatteriesError as error:
            self.note("failed", reason=str(error))
            raise
        self.note("sent", ref=ref, public=None, private=None, reason="")
        return ref

    def follow(self, ref: int, wait: float, *, show: bool) -> Upload:
        """Wait for the score, if it takes no longer than `wait` seconds."""
        ends, pause = time.monotonic() + wait, _POLL
        with Progress("waiting for the score", total=max(1, round(wait)), show=show) as bar, self.stoppable():
            while (found := self.result(ref)).state == "sent" and (left := ends - time.monotonic()) > 0:
                time.sleep(min(pause, left))
                bar.advance(round(pause))
                pause = min(1.5 * pause, _LONGEST)
                with suppress(BusyError):  # it is sent; the score can come later
                    self.take_in(self.service.submissions())
        return found

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Say what is next when Ctrl-C ends the waiting."""
        try:
            yield
        except KeyboardInterrupt:
            raise Interrupted(
                f"{self.submission} is sent; for its score later: batteries leaderboard {self.submission} --pull",
                signum=SIGINT,
            ) from None

    def result(self, ref: int | None) -> Upload:
        """What is known of one number, or of a file that has none."""
        last = [row for row in self.notes if row["detail"].get("ref") == ref][-1]
        state = "unknown" if last["state"] == "intent" else last["state"]
        about = {key: last["detail"].get(key) for key in ("public", "private")}
        return Upload(self.submission, self.target, state, ref, **about, reason=last["detail"].get("reason", ""))
