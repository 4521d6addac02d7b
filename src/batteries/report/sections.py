"""Sections: what the report says of blends, submissions and machines.

In:    the entries, the submissions, the runs.
Out:   rows of tables and charts with captions; nothing where there is nothing to say.
Next:  the page puts them into its template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from batteries.files import digest_of, read_sealed
from batteries.report.evaluation import correlation
from batteries.report.view import Matrix
from batteries.score.board import Row
from batteries.score.entry import Entry
from batteries.train.record import Run

_MOST_ENTRIES = 12  # in a matrix of correlations


@dataclass(frozen=True)
class CombinedView:
    """A blend or an average, and what it is made of."""

    name: str
    kind: str
    how: str
    members: list[tuple[str, float, float | None]]
    """Name, weight, validation score."""
    valid: float | None
    note: str


def combined(entries: Sequence[Entry], rows: Sequence[Row]) -> list[CombinedView]:
    """Return the entries that are made of others, in the order of the board."""
    place = {row.name: number for number, row in enumerate(rows)}
    valid = {row.name: row.valid for row in rows}
    made = [entry for entry in entries if entry.kind != "run"]
    return [
        CombinedView(
            name=entry.name,
            kind=entry.kind,
            how=_how(entry),
            members=[(name, float(weight), valid.get(name)) for name, weight in _members(entry).items()],
            valid=valid.get(entry.name),
            note=_checkpoints(entry),
        )
        for entry in sorted(made, key=lambda entry: (place.get(entry.name, len(place)), entry.name))
    ]


def _how(entry: Entry) -> str:
    power = entry.config.get("power")
    return f"{entry.config.get('how', '')}" + (f", p = {float(power):g}" if power is not None else "")


def _members(entry: Entry) -> Mapping[str, float]:
    if "of" in entry.config:
        return {str(entry.config["of"]): 1.0}
    members: Mapping[str, float] = entry.config.get("members", {})
    return members


def _checkpoints(entry: Entry) -> str:
    if entry.kind != "average":
        return ""
    used = entry.config.get("checkpoints", {})
    files = sum(len(paths) for paths in used.values())
    return f"{files} checkpoints of {len(used)} folds"


def alike(entries: Sequence[Entry], rows: Sequence[Row]) -> Matrix | None:
    """Return how alike the predictions of the best single entries are; None for fewer than two."""
    singles = {entry.name: entry for entry in entries if entry.kind in ("run", "average")}
    best = [singles[row.name] for row in rows if row.name in singles][:_MOST_ENTRIES]
    parts = [(entry.name, entry.oof()) for entry in best]
    shapes = [part.values.shape for _, part in parts]
    common = max(shapes, key=shapes.count, default=None)
    parts = [(name, part) for name, part in parts if part.values.shape == common]
    found = correlation([part for _, part in parts]) if len(parts) > 1 else None
    if found is None:
        return None
    others = found[~np.eye(len(found), dtype=bool)]
    low, high = float(others.min()), max(float(others.max()), float(others.min()) + 1e-9)
    shares = np.clip((found - low) / (high - low), 0, 1)
    np.fill_diagonal(shares, 0)
    return Matrix([name for name, _ in parts], [[f"{v:.3f}" for v in row] for row in found], shares.round(2).tolist())


def submitted(records: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return every submission with what the leaderboard said of it."""
    told = {(e["submission"], e["scope"]): e["value"] for e in events if e["submission"] is not None}
    return [
        {**record, "public": told.get((record["name"], "public")), "private": told.get((record["name"], "private"))}
        for record in records
    ]


def machines(runs: Sequence[Run], attempt: Any) -> list[dict[str, Any]]:
    """Return the environments runs were made in, equal ones once, with the names of their runs."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        path = run.folder / "provenance.json"
        made = attempt(lambda path=path: read_sealed(path), None) if path.exists() else None
        if made is not None:
            found.setdefault(digest_of(made), {**made, "runs": []})["runs"].append(_made_from(run))
    return list(found.values())


def _made_from(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "seed": run.config["fields"].get("seed"),
        "identity": str(run.config["identity"])[:12],
        "folds": str(run.config["folds"].get("digest", ""))[:12],
    }
