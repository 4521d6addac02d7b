"""Ledger: entries, scores, looks, submissions and uploads of a folder of runs. Appended, never edited.

In:    events: this entry was made, this score was seen.
Out:   tables computed from the events.
Next:  the board, the report.

It is `runs/ledger.db`, a SQLite file, or the database that `BATTERIES_LEDGER` names: a URL that SQLAlchemy takes,
such as postgresql://user:password@host/name, or the path of a file. Folders of runs that share a database keep to
their own rows: each has a name of its own in `runs/.project`, and sees only what was noted under it.

Every row is a line of `runs/ledger.jsonl`, too, on the disk before the database has it. So a database that was
away, lost, restored from an old copy or exchanged for another takes in what it lacks at the next opening, each row
once; and a row that cannot be entered now is kept there until then.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from batteries.errors import UsageError
from batteries.score.database import VARIABLE, place_of
from batteries.score.rows import shown
from batteries.score.store import Store

State = Literal["intent", "sent", "scored", "failed", "unknown"]
STATES: tuple[str, ...] = ("intent", "sent", "scored", "failed", "unknown")


class Ledger(Store):
    """The events of one folder of runs.

    A row is on the disk when the call that adds it returns. Where another process writes for 30 s, or a server is
    away, rows are kept in the folder, and `close` raises BusyError with their number; reading raises it at once.

    >>> ledger = Ledger("runs")  # doctest: +SKIP
    >>> ledger.scores()[0]["value"]  # doctest: +SKIP
    0.9812

    Raises
    ------
    CorruptError
        When the database is damaged or no ledger of ours.
    ResumeError
        When a newer Batteries wrote it.
    UsageError
        When `BATTERIES_LEDGER` cannot be used.

    """

    @staticmethod
    def exists(root: Path | str) -> bool:
        """Whether a folder of runs has a ledger: always where `BATTERIES_LEDGER` names a server."""
        root = Path(root)
        if (root / "ledger.jsonl").exists():
            return True
        if not os.environ.get(VARIABLE):
            return (root / "ledger.db").exists()
        file = place_of(root).file
        return file is None or file.exists()

    def add_entry(self, config: Mapping[str, Any]) -> None:
        """Note an entry from its config.json; one that is known already is left as it is.

        Raises
        ------
        UsageError
            When another entry of this name is known.

        """
        self._add(
            "entries",
            {
                "name": config["name"],
                "kind": config["kind"],
                "experiment": config["experiment"]["name"],
                "seed": config["fields"].get("seed"),
                "identity": config["identity"],
                "folds": config["folds"]["digest"],
                "metric": config["metric"]["name"],
                "higher_is_better": config["metric"]["higher_is_better"],
                "config": config,
            },
        )

    def add_score(
        self,
        entry: str,
        scope: str,
        value: float,
        *,
        metric: str,
        higher_is_better: bool,
        fold: int | None = None,
        rows: int | None = None,
        noise: float | None = None,
        submission: str | None = None,
    ) -> bool:
        """Append a score, unless it repeats the newest one of the same kind; return whether it was new.

        `scope` is `fold`, `oof`, `test`, `public` or `private`. A score that is not finite is kept as such.
        """
        finite = isfinite(value)
        row = {
            "entry": entry,
            "scope": scope,
            "fold": fold,
            "metric": metric,
            "higher_is_better": higher_is_better,
            "value": value if finite else None,
            "finite": finite,
            "rows": rows,
            "noise": noise if noise is not None and isfinite(noise) else None,
            "submission": submission,
        }
        return self._add("scores", row)

    def add_look(self, entry: str, *, data: str) -> list[dict[str, Any]]:
        """Note that an entry's score on the test set `data` was looked at; return all looks at it, oldest first.

        Where the ledger is away, this look alone.
        """
        self._add("looks", {"entry": entry, "data": data})
        if self._away is not None:
            return [{"entry": entry, "data": data}]
        return [look for look in self.looks() if look["data"] == data]

    def add_submission(
        self, name: str, *, entry: str, file: str, sha256: str, rows: int, record: Mapping[str, Any] | None = None
    ) -> None:
        """Note a submission file, and what is to be known of how it was made; one that is known is left as it is.

        Raises
        ------
        UsageError
            When another file of this name is known.

        """
        row = {"name": name, "entry": entry, "file": file, "sha256": sha256, "rows": rows, "record": record}
        self._add("submissions", row)

    def add_upload(
        self, submission: str, *, sha256: str, target: str, state: State, detail: Mapping[str, Any] | None = None
    ) -> None:
        """Note a step of sending a submission somewhere; `intent` before it is sent.

        Parameters
        ----------
        submission, sha256
            Its name and the digest of the file that is sent.
        target
            Where to: `kaggle:titanic`.
        state
            `intent`, `sent`, `scored`, `failed`, or `unknown` where no answer came.
        detail
            Plain data: what the other side said.

        Raises
        ------
        UsageError
            When there is no such submission, or no such state.

        >>> ledger.add_upload("submission-001", sha256="ab", target="kaggle:titanic", state="intent")  # doctest: +SKIP

        """
        if state not in STATES:
            raise UsageError(f"an upload is {', '.join(STATES[:-1])} or {STATES[-1]}, got {state!r}")
        row = {"submission": submission, "sha256": sha256, "target": target, "state": state, "detail": detail}
        self._add("uploads", row)

    def entries(self) -> list[dict[str, Any]]:
        """Every entry, oldest first."""
        return self._rows("entries")

    def scores(self) -> list[dict[str, Any]]:
        """Every score ever noted, oldest first; of one kind the newest counts."""
        return self._rows("scores")

    def members(self) -> list[dict[str, Any]]:
        """Blends and their members with weights, as the configs of the blends say."""
        found = [
            {"blend": entry["name"], "member": member, "weight": float(weight)}
            for entry in self.entries()
            for member, weight in entry["config"].get("members", {}).items()
        ]
        return sorted(found, key=lambda row: (row["blend"], row["member"]))

    def submissions(self) -> list[dict[str, Any]]:
        """Every submission, oldest first."""
        return self._rows("submissions")

    def looks(self) -> list[dict[str, Any]]:
        """Every time a score on a test set was looked at, oldest first."""
        return self._rows("looks")

    def uploads(self, submission: str | None = None) -> list[dict[str, Any]]:
        """Every step of sending submissions, or one of them, oldest first."""
        return [row for row in self._rows("uploads") if submission in (None, row["submission"])]

    def _rows(self, name: str) -> list[dict[str, Any]]:
        return [shown(row) for row in self.whole(name)]
