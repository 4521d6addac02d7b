"""Combined: entries made of others: of what, with which weights, and what learning those is worth.

In:    the entries, the board.
Out:   a row for each; how alike the predictions of their members are.
Next:  the page puts them into its template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from batteries import shapes
from batteries.combine.derive import LEARNED
from batteries.report.evaluation import correlation
from batteries.report.view import Matrix, score, signed
from batteries.score.board import Row
from batteries.score.entry import Entry
from batteries.score.imported import KIND as IMPORTED
from batteries.shapes import Shape, read_record

_MOST_ENTRIES = 12  # in a matrix of correlations
_MOST_ROWS = 100
_MOST_MEMBERS = 8  # of one entry


@dataclass(frozen=True)
class Member:
    """A part of a combined entry."""

    name: str
    weight: float | None
    """None where it has none of its own: in a stack, and where there is one member."""
    deviation: float | None
    """Of a fitted weight, over the folds that each leave one out."""
    valid: float | None
    of: list[str]
    """What it is itself made of."""


@dataclass(frozen=True)
class CombinedView:
    """A blend, a stack, an average, ..., and what it is made of."""

    name: str
    how: str
    members: list[Member]
    """Those that count most first where they are fitted."""
    more: int
    """Members that are not listed."""
    valid: float | None
    note: str
    """What was learned, and what it gains on rows that it was not fitted on."""


def combined(
    entries: Sequence[Entry], rows: Sequence[Row], attempt: Callable[..., Any]
) -> tuple[list[CombinedView], int]:
    """Return the best entries that are made of others, in the order of the board, and how many there are in all.

    `attempt(make, otherwise)` returns what `make` returns, or the other where a file is damaged.
    """
    place = {row.name: number for number, row in enumerate(rows)}
    valid = {row.name: row.valid for row in rows}
    parts = {entry.name: list(_weights(entry)) for entry in entries}
    made = sorted(
        (entry for entry in entries if parts[entry.name]),
        key=lambda entry: (place.get(entry.name, len(place)), entry.name),
    )
    return [_view(entry, valid, parts, attempt) for entry in made[:_MOST_ROWS]], len(made)


def _view(
    entry: Entry, valid: Mapping[str, float | None], parts: Mapping[str, list[str]], attempt: Callable[..., Any]
) -> CombinedView:
    path = entry.folder / LEARNED
    learned: dict[str, Any] = (
        attempt(lambda: read_record(path, shapes.LEARNED.get(entry.kind, Shape)), {}) if path.exists() else {}
    )
    by_fold = np.array(learned.get("fold_weights", []))
    spread = by_fold.std(axis=0, ddof=1).tolist() if len(by_fold) > 1 else []
    members = [
        Member(
            name,
            float(weight) if entry.kind == "blend" else None,
            spread[number] if number < len(spread) else None,
            valid.get(name),
            parts.get(name, []),
        )
        for number, (name, weight) in enumerate(_weights(entry).items())
    ]
    if "fit" in entry.config:
        members.sort(key=lambda member: -abs(member.weight or 0.0))
    shown = members[:_MOST_MEMBERS]
    how, note = _how(entry), _note(entry, learned)
    return CombinedView(entry.name, how, shown, len(members) - len(shown), valid.get(entry.name), note)


def _weights(entry: Entry) -> Mapping[str, float]:
    if "of" in entry.config:
        return {str(entry.config["of"]): 1.0}
    members: Mapping[str, float] = entry.config.get("members", {})
    return members


def _how(entry: Entry) -> str:
    config = entry.config
    power = f", p = {float(config['power']):g}" if config.get("power") is not None else ""
    fitted = f", fitted by {config['fit']['by']}" if "fit" in config else ""
    return f"{config.get('how', '')}{power}{fitted}"


def _note(entry: Entry, learned: Mapping[str, Any]) -> str:
    if "checkpoints" in entry.config:
        used = entry.config["checkpoints"]
        return f"{sum(len(paths) for paths in used.values())} checkpoints of {len(used)} folds"
    if "over_equal" in learned:
        gains = (("equal weights", learned["over_equal"]), (learned["over_best"]["over"], learned["over_best"]))
        told = [f"{signed(gain['gain'])} over {name} ({_range(gain['low'], gain['high'])})" for name, gain in gains]
        return f"On rows the weights were not fitted on: {', '.join(told)}"
    if "log_loss" in learned.get("before", ()):
        before, nested = learned["before"], learned["nested"]
        return f"log loss {score(before['log_loss'])} before, {score(nested['log_loss'])} after, on other rows"
    if "default" in learned:
        without = f"{learned['objective']} {score(learned['default'])} without a rule"
        return f"{without}, {score(learned['nested'])} with it, on other rows"
    return ""


def _range(low: float, high: float) -> str:
    return f"95 % {signed(low)} to {signed(high)}"


def alike(entries: Sequence[Entry], rows: Sequence[Row]) -> Matrix | None:
    """Return how alike the predictions of the best single entries are; None for fewer than two."""
    singles = {entry.name: entry for entry in entries if entry.kind in ("run", "average", IMPORTED)}
    best = [singles[row.name] for row in rows if row.name in singles][:_MOST_ENTRIES]
    parts = [(entry.name, entry.oof()) for entry in best]
    shapes = [part.values.shape for _, part in parts]
    common = max(shapes, key=shapes.count, default=None)
    parts = [(name, part) for name, part in parts if part.values.shape == common]
    found = correlation([part for _, part in parts]) if len(parts) > 1 else None
    if found is None:
        return None
    off = ~np.eye(len(found), dtype=bool)
    low, high = float(found[off].min()), max(float(found[off].max()), float(found[off].min()) + 1e-9)
    shares = np.where(off, np.clip((found - low) / (high - low), 0, 1), 0)
    cells = [["1" if i == j else f"{v:.4f}" for j, v in enumerate(row)] for i, row in enumerate(found.tolist())]
    return Matrix([name for name, _ in parts], cells, shares.round(2).tolist())
