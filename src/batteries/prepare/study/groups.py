"""Groups: columns whose values bind rows together, so that folds should not part them.

In:    the training and test tables.
Out:   candidates, with how much more alike the target is inside a group.
Next:  advice to hold out whole groups, or the reason why not.
"""

from __future__ import annotations

import re

import numpy as np
import polars as pl

from batteries.prepare.study.facts import Group
from batteries.prepare.study.table import counted, looks_like_classes

_FEWEST, _MOST = 0.02, 0.5  # distinct values, as shares of the rows
_LEAST_GROUPS = 5
KNOWN = 0.5
"""Share of test rows of groups that training knows above which groups may be parted."""
_WORDS = re.compile(
    "account|animal|author|batch|camera|case|client|customer|device|document|episode|family|group|household|id"
    "|image|machine|molecule|patient|person|player|recording|scan|scene|sensor|session|sequence|site|speaker|store"
    "|street|study|subject|user|video|visit|writer"
)


def groups_of(train: pl.DataFrame, test: pl.DataFrame | None, *, id: str, target: str) -> tuple[Group, ...]:
    """Return the columns that look like groups, the one that binds the target most first."""
    found = [
        _describe(train, test, name, target)
        for name in train.columns
        if name not in (id, target) and _looks_like_group(train[name])
    ]
    return tuple(sorted(found, key=lambda group: (not _named(group.column), -_bond(group), group.column)))


def _looks_like_group(column: pl.Series) -> bool:
    """Whether values come back often enough, and are names rather than quantities."""
    if not (column.dtype.is_integer() or column.dtype in (pl.String, pl.Categorical, pl.Enum)):
        return False
    present = column.drop_nulls()
    if len(present) < len(column) / 2:
        return False
    distinct = present.n_unique()
    if distinct < _LEAST_GROUPS or not _FEWEST * len(column) <= distinct <= _MOST * len(column):
        return False
    return not column.dtype.is_integer() or _named(column.name) or _numbered(present, distinct)


def _named(name: str) -> bool:
    """Whether the name of the column says what rows belong to: `patient`, `user_id`, `siteId`."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return any(_WORDS.fullmatch(word) for word in words)


def _numbered(column: pl.Series, distinct: int) -> bool:
    """Whether whole numbers look like labels: at least four digits, all equally many, with wide gaps."""
    low, high = int(column.min()), int(column.max())  # type: ignore[arg-type]
    return low >= 1000 and len(str(low)) == len(str(high)) and high - low > 10 * distinct


def _describe(train: pl.DataFrame, test: pl.DataFrame | None, name: str, target: str) -> Group:
    present = train.filter(train[name].is_not_null() & train[target].is_not_null()).select(
        pl.col(name).alias("group"), pl.col(target).alias("target")
    )
    sizes = counted(train[name])["rows"]
    within, overall = _bonds(present)
    in_test = None
    if test is not None and name in test.columns and test[name].dtype == train[name].dtype:
        in_test = float(test[name].is_in(train[name].unique().implode()).fill_null(value=False).mean())  # type: ignore[arg-type]
    return Group(
        column=name,
        groups=len(sizes),
        largest=int(sizes.max()),  # type: ignore[arg-type]
        missing=train[name].null_count(),
        within=within,
        overall=overall,
        in_test=in_test,
    )


def _bonds(rows: pl.DataFrame) -> tuple[float | None, float | None]:
    """How alike targets are inside groups and anywhere; see `Group`."""
    if looks_like_classes(rows["target"]):
        return _agreement(rows, ["group"]), _agreement(rows, [])
    if not rows["target"].dtype.is_numeric() or len(rows) < 2:
        return None, None
    values = rows.select("group", pl.col("target").cast(pl.Float64)).filter(pl.col("target").is_finite())
    centred = values.with_columns(pl.col("target") - pl.col("target").mean().over("group"))
    degrees = len(values) - values["group"].n_unique()
    if degrees < 1:
        return None, None
    inside = (centred["target"].to_numpy() ** 2).sum() / degrees
    within, overall = float(np.sqrt(inside)), float(values["target"].to_numpy().std(ddof=1))
    return (within, overall) if np.isfinite([within, overall]).all() else (None, None)


def _agreement(rows: pl.DataFrame, by: list[str]) -> float | None:
    """Share of pairs of different rows, of one group each, that have the same target."""
    pairs = pl.col("rows") * (pl.col("rows") - 1)
    same = rows.group_by([*by, "target"]).agg(pl.len().cast(pl.Float64).alias("rows")).select(pairs.sum()).item()
    counts = (
        rows.group_by(by).agg(pl.len().cast(pl.Float64).alias("rows"))
        if by
        else pl.DataFrame({"rows": [float(len(rows))]})
    )
    any_ = counts.select(pairs.sum()).item()
    return float(same / any_) if any_ else None


def _bond(group: Group) -> float:
    """How far inside and overall are apart, as a share of overall."""
    if group.within is None or not group.overall:
        return 0.0
    return abs(group.within - group.overall) / group.overall
