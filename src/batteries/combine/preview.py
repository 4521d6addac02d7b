"""Preview: what a submission says beside another one, before it is sent.

In:    two submissions of the same competition.
Out:   of each column: correlation, or the share of labels that changed; its distribution now and before.
Next:  a submission that hardly differs from the last one is hardly worth a try.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from batteries.combine.cells import read_cells
from batteries.combine.submission import FILE, Submission
from batteries.errors import UsageError, some
from batteries.score.ledger import Ledger

_LABELS, _COMMONEST = 50, 1000
"""Whole numbers of at most so many different values are labels; of so many labels rows are counted."""


@dataclass(frozen=True)
class Spread:
    """Where the numbers of a column lie."""

    least: float
    mean: float
    most: float


@dataclass(frozen=True)
class Change:
    """One column, beside the same column before; numbers have correlations and spreads, labels shares and counts."""

    column: str
    pearson: float | None = None
    """Of numbers; None where all are equal."""
    spearman: float | None = None
    """The same of their ranks, ties averaged."""
    spread: Spread | None = None
    spread_before: Spread | None = None
    changed: float | None = None
    """Of labels: the share of rows with another one."""
    counts: Mapping[str, int] | None = None
    counts_before: Mapping[str, int] | None = None
    """Rows of each label, of the commonest where there are many."""


@dataclass(frozen=True)
class Difference:
    """A submission beside another one, on the rows that both have."""

    against: str
    rows: int
    only_now: int
    only_before: int
    """Rows of one of them alone."""
    changes: tuple[Change, ...]
    """Of the columns that both have."""
    largest_changed: float | None
    """Of several columns of numbers: the share of rows whose largest is in another column."""

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


def distribution(table: pl.DataFrame) -> tuple[Change, ...]:
    """Return what each column but the first holds, beside nothing.

    >>> distribution(pl.DataFrame({"id": ["a", "b"], "label": ["x", "y"]}))[0].counts
    {'x': 1, 'y': 1}
    """
    return tuple(_alone(column) for column in table.get_columns()[1:])


def difference(now: pl.DataFrame, before: pl.DataFrame, against: str) -> Difference:
    """Compare two tables with ids in their first columns, rows joined by id.

    Raises
    ------
    UsageError
        When they have no row or no column in common.

    >>> now, before = (pl.DataFrame({"id": ["a", "b"], "label": labels}) for labels in (["x", "y"], ["x", "x"]))
    >>> difference(now, before, "submission-001").changes[0].changed
    0.5

    """
    key, names = now.columns[0], [name for name in now.columns[1:] if name in before.columns[1:]]
    ids = pl.col(before.columns[0]).cast(pl.String).alias(key)
    both = now.with_columns(pl.col(key).cast(pl.String)).join(
        before.select(ids, *names), on=key, suffix=" before", maintain_order="left"
    )
    if not len(both) or not names:
        raise UsageError(f"{against} has no {'columns' if len(both) else 'ids'} in common with the submission")
    pairs = [_pair(both[name], both[f"{name} before"]) for name in names]
    numbers = [pair for pair in pairs if pair[0].dtype.is_float()]
    return Difference(
        against=against,
        rows=len(both),
        only_now=len(now) - len(both),
        only_before=len(before) - len(both),
        changes=tuple(_change(*pair) for pair in pairs),
        largest_changed=_largest_changed(numbers) if len(numbers) > 1 else None,
    )


def _alone(column: pl.Series) -> Change:
    if column.dtype.is_numeric() and not _are_labels(column):
        return Change(column.name, spread=_spread(column))
    return Change(column.name, counts=_counts(_texts(column)))


def _are_labels(column: pl.Series) -> bool:
    return column.dtype.is_integer() and column.n_unique() <= _LABELS


def _pair(now: pl.Series, before: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Both as decimal numbers, or both as texts."""
    if now.dtype.is_numeric():
        numbers = before.cast(pl.Float64, strict=False)
        few = _are_labels(now) and before.n_unique() <= _LABELS
        if not few and not numbers.null_count():
            return now.cast(pl.Float64), numbers
        if few and before.dtype == pl.String and not numbers.null_count() and (numbers == numbers.round(0)).all():
            before = numbers.cast(pl.Int64)  # 1.0 before is the label 1 now
    return _texts(now), _texts(before)


def _texts(column: pl.Series) -> pl.Series:
    texts = column.cast(pl.String).fill_null("")
    return texts.str.to_lowercase() if set(texts.unique().str.to_lowercase()) <= {"true", "false"} else texts


def _change(now: pl.Series, before: pl.Series) -> Change:
    if now.dtype != pl.String:
        return Change(
            now.name,
            pearson=_correlation(now, before),
            spearman=_correlation(now.rank(), before.rank()),
            spread=_spread(now),
            spread_before=_spread(before),
        )
    changed = (now != before).mean()
    assert isinstance(changed, float)
    return Change(now.name, changed=changed, counts=_counts(now), counts_before=_counts(before))


def _correlation(now: pl.Series, before: pl.Series) -> float | None:
    if now.n_unique() == 1 or before.n_unique() == 1:
        return None
    found = pl.select(pl.corr(now, before)).item()
    return max(-1.0, min(1.0, float(found)))


def _spread(numbers: pl.Series) -> Spread:
    values = numbers.to_numpy()
    return Spread(float(values.min()), float(values.mean()), float(values.max()))


def _counts(labels: pl.Series) -> dict[str, int]:
    counts = labels.value_counts().rows()
    commonest = sorted(counts, key=lambda row: (-row[1], row[0]))[:_COMMONEST]
    return dict(sorted(commonest))


def _largest_changed(pairs: list[tuple[pl.Series, pl.Series]]) -> float:
    now, before = (np.stack([pair[i].to_numpy() for pair in pairs], axis=1).argmax(axis=1) for i in (0, 1))
    return float((now != before).mean())


def previous(made: Submission) -> str | None:
    """Return the name of the newest other submission of the same experiment whose file is there, None where none is."""
    root = made.path.parent.parent
    with Ledger(root) as ledger:
        of = {entry["name"]: entry["experiment"] for entry in ledger.entries()}
        sent = [row["name"] for row in ledger.submissions() if of[row["entry"]] == of[made.entry]]
    return next((name for name in reversed(sent) if name != made.name and (root / name / FILE).exists()), None)


def read_submission(name: str, root: Path | str = "runs") -> pl.DataFrame:
    """Read a submission by its name in `root`, or any file. Raises UsageError when there is neither."""
    path = Path(root) / name / FILE
    if not path.exists() and not Path(name).is_file():
        there = sorted((file.parent.name for file in Path(root).glob(f"*/{FILE}")), reverse=True)
        raise UsageError(f"there is no submission or file {name!r}; submissions: {some(there, 12) or 'none yet'}")
    return read_cells(path if path.exists() else Path(name))
