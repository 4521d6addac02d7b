"""Board: the table of `batteries scores`, the columns that matter most in 80 columns, or all of them.

In:    rows of the board.
Out:   a table for each metric and split, what its marks mean, the seeds of one recipe together.
Next:  people read it; `--json` has every figure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from statistics import mean, stdev

from batteries.cli import show
from batteries.errors import some
from batteries.score.board import Row

_WIDTH = 80
_BETWEEN = 3  # columns of a table
_CHANGED = "since parent"
_FIRST = ("entry", "folds", "valid", "±rows", "public", "private", "test", "age", "±folds", _CHANGED, "test-valid")
"""What is shown where not everything fits, the most wanted first; a rank stands beside its score."""
_LEAST = len(_CHANGED)
_UNITS = ((86_400 * 365, "y"), (86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def board(rows: Sequence[Row], *, wide: bool = False) -> bool:
    """Print entries of one metric and split, and which these are; return whether columns were left out."""
    cells = [_cells(row, partly=any(each.missing_folds for each in rows)) for row in rows]
    there = [name for name in cells[0] if any(line[name] is not None for line in cells)]
    shown = there if wide else _fitting(cells, there)
    room = _WIDTH - sum(_width(cells, name) + _BETWEEN for name in shown if name != _CHANGED)
    room = _width(cells, _CHANGED) if wide else min(room, _width(cells, _CHANGED))
    cut = [{**line, _CHANGED: _cut(str(line[_CHANGED] or "-"), room)} for line in cells]
    show.columns([{name: line[name] for name in shown} for line in cut], words=_CHANGED)
    up = "higher" if rows[0].higher_is_better else "lower"
    print(f"{rows[0].metric}, {up} is better; folds {rows[0].split[:12]}")
    return len(shown) < len(there)


def _cells(row: Row, *, partly: bool) -> dict[str, show.Cell]:
    """Every column of a row, in the order in which they stand in the table."""
    return {
        "entry": row.name,
        "folds": row.folds if partly else None,
        "valid": _ranked(row.valid, row.rank_valid, level=row.level),
        "±rows": show.brief(row.noise),
        "±folds": show.brief(row.fold_deviation),
        "public": _ranked(row.public, row.rank_public),
        "private": _ranked(row.private, row.rank_private),
        "test": _ranked(row.test, row.rank_test),
        "public-valid": show.signed(row.public_gap),
        "private-public": show.signed(row.private_gap),
        "test-valid": show.signed(row.gap),
        "mean of folds": row.fold_mean,
        "seed": row.seed,
        "age": age(row.at),
        _CHANGED: ", ".join(row.changed) or None,
    }


def _ranked(score: float | None, rank: int | None, *, level: bool = False) -> str | None:
    """The score and its rank, marked where the rows alone may explain that it is not the best."""
    if score is None:
        return None
    return f"{score:.5f}" + ("" if rank is None else f" {'≈' if level else '#'}{rank}")


def _fitting(cells: Sequence[Mapping[str, show.Cell]], there: Sequence[str]) -> list[str]:
    """The most wanted columns that fit beside each other, in their order."""
    room, chosen = _WIDTH + _BETWEEN, set()
    for name in _FIRST:
        if name in there:
            needs = _BETWEEN + (_LEAST if name == _CHANGED else _width(cells, name))
            if needs <= room or name in ("entry", "valid"):
                chosen.add(name)
                room -= needs
    return [name for name in there if name in chosen]


def _width(cells: Sequence[Mapping[str, show.Cell]], name: str) -> int:
    return max(len(name), *(len(show.text(line[name])) for line in cells))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def seeds(rows: Sequence[Row]) -> None:
    """Print what runs of one recipe score with several seeds."""
    of = defaultdict(list)
    for row in rows:
        if row.recipe is not None and row.valid is not None and not row.missing_folds:
            of[row.recipe].append(row)
    for runs in of.values():
        if len(runs) > 1:
            scores = [row.valid for row in runs if row.valid is not None]
            names = some([row.name for row in runs], 3)
            show.words(f"{len(runs)} seeds of one recipe ({names}): valid {mean(scores):.5f} ± {stdev(scores):.5f}")


def age(at: str) -> str:
    """How long ago that was.

    >>> age(datetime.now(UTC).isoformat())
    '0s'
    """
    seconds = max(0.0, (datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds())
    size, unit = next((each for each in _UNITS if seconds >= each[0]), _UNITS[-1])
    return f"{seconds / size:.0f}{unit}"
