"""Sections: what the report says of submissions and machines.

In:    the submissions, the runs.
Out:   rows of tables; nothing where there is nothing to say.
Next:  the page puts them into its template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from batteries.files import digest_of, read_sealed
from batteries.score.board import Row
from batteries.train.record import Run

_MOST_SUBMISSIONS = 200
_MOST_MACHINES = 10


def submitted(
    records: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]], rows: Sequence[Row]
) -> list[dict[str, Any]]:
    """Return the newest submissions, with the validation of their entry and what the leaderboard said of them."""
    told = {(e["submission"], e["scope"]): e["value"] for e in events if e["submission"] is not None}
    valid = {row.name: row.valid for row in rows}
    return [
        {**record, "valid": valid.get(record["entry"])}
        | {board: told.get((record["name"], board)) for board in ("public", "private")}
        for record in records[-_MOST_SUBMISSIONS:]
    ]


def machines(runs: Sequence[Run], attempt: Any) -> list[dict[str, Any]]:
    """Return the newest environments runs were made in, equal ones once, with the names of their runs."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        path = run.folder / "provenance.json"
        made = attempt(lambda path=path: read_sealed(path), None) if path.exists() else None
        if made is not None:
            found.setdefault(digest_of(made), {**made, "runs": []})["runs"].append(_made_from(run))
    return list(found.values())[-_MOST_MACHINES:]


def _made_from(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "seed": run.config["fields"].get("seed"),
        "identity": str(run.config["identity"])[:12],
        "folds": str(run.config["folds"].get("digest", ""))[:12],
    }
