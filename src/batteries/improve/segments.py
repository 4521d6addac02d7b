"""Segments: where one model is better than another, and where it is worse.

In:    targets, two predictions of the same rows, a label for each row.
Out:   a gain for each part of the rows, with its noise; the rows that moved most.
Next:  `compare` names the parts that stand out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.experiment import Metric
from batteries.experiment.counted import Scorer, mean_of
from batteries.improve.significance import LEVEL, bootstrap_p, holm
from batteries.score.noise import gains, resampled, scorer
from batteries.score.resample import Groups, Resampling, Rows

MOST = 20
"""More distinct values are joined: numbers into tenths of the rows, others into the rarer ones together."""
_LEAST_ROWS = 20
_DRAWS = 2000


@dataclass(frozen=True)
class Segment:
    """One part of the rows. Positive gains are better whatever the direction."""

    name: str
    rows: int
    measure: str
    """The metric, or `distance` where the metric is undefined on some parts, as AUC is on one class."""
    first: float
    second: float
    gain: float
    p: float | None
    """Two-sided paired bootstrap of the rows of this part, corrected by Holm's method for the number of parts;
    None for fewer than 20 rows, rows of one group, or where most resamples are undefined."""

    @property
    def stands_out(self) -> bool:
        """Whether the difference is more than the noise of its rows."""
        return self.p is not None and self.p <= LEVEL


@dataclass(frozen=True)
class Moved:
    """Rows on which the second model is nearer to the target than the first, and farther."""

    nearer: int
    farther: int
    equal: int
    gained: tuple[Any, ...]
    """Ids of the rows that gained most."""
    lost: tuple[Any, ...]


def distance(targets: NDArray[Any], predictions: NDArray[Any]) -> NDArray[np.float64] | None:
    """How far each row's prediction is from its target, shape (n,); None where the shapes say neither.

    Probabilities of classes: 1 minus that of the target. One number a target: the absolute difference, the
    mean over targets where there are several.

    >>> distance(np.array([1, 0]), np.array([[0.25, 0.75], [1.0, 0.0]])).tolist()
    [0.25, 0.0]
    """
    one = targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 else targets
    values = predictions.astype(np.float64)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if one.shape == values.shape:
        apart = np.abs(values - one)
        return np.asarray(apart if apart.ndim == 1 else apart.mean(axis=1))
    if one.ndim == 1 and values.ndim == 2 and one.dtype.kind in "iu" and 0 <= one.min() <= one.max() < values.shape[1]:
        return np.asarray(1.0 - values[np.arange(len(one)), one])
    return None


def _mean_distance(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    apart = distance(targets, predictions)
    return float("nan") if apart is None else float(apart.mean())


def _counted_distance(targets: NDArray[Any], predictions: NDArray[Any]) -> Scorer:
    apart = distance(targets, predictions)
    assert apart is not None, "not asked for where the mean is NaN"
    return mean_of(apart)


DISTANCE = Metric("distance", _mean_distance, higher_is_better=False, counted=_counted_distance)


def moved(
    ids: pl.Series, targets: NDArray[Any], first: NDArray[Any], second: NDArray[Any], *, most: int = 5
) -> Moved | None:
    """Count the rows on which the second model is nearer to the target, and name those that moved most."""
    before, after = distance(targets, first), distance(targets, second)
    if before is None or after is None:
        return None
    nearer = before - after
    order = np.argsort(-nearer, kind="stable")
    gained = [row for row in order[:most] if nearer[row] > 0]
    lost = [row for row in order[::-1][:most] if nearer[row] < 0]
    named = (tuple(ids.gather(rows).to_list()) for rows in (gained, lost))
    return Moved(int((nearer > 0).sum()), int((nearer < 0).sum()), int((nearer == 0).sum()), *named)


def parts(labels: NDArray[Any] | pl.Series) -> list[tuple[str, NDArray[np.int64]]]:
    """Divide rows by a label: name and positions of each part, empty ones left out.

    Up to 20 distinct values are a part each. More numbers are divided into tenths of the rows; of more
    texts the 19 with most rows are kept and the rest is joined. Rows without a value are a part.

    >>> [(name, rows.tolist()) for name, rows in parts(np.array(["a", "b", "a"]))]
    [('a', [0, 2]), ('b', [1])]
    """
    column = labels if isinstance(labels, pl.Series) else pl.Series("label", labels)
    if column.dtype.is_float():
        column = column.fill_nan(None)
    missing = column.is_null().to_numpy()
    known = np.flatnonzero(~missing)
    found = _numeric(column, known) if column.dtype.is_numeric() else _texts(column, known)
    return [(name, rows) for name, rows in [*found, ("no value", np.flatnonzero(missing))] if len(rows)]


def _numeric(column: pl.Series, known: NDArray[np.int64]) -> list[tuple[str, NDArray[np.int64]]]:
    values = column.gather(known).to_numpy()
    distinct = np.unique(values)
    if len(distinct) <= MOST:
        return [(f"{value}", known[values == value]) for value in distinct]
    edges = np.unique(np.quantile(values, np.linspace(0, 1, 11)))
    tenth = np.searchsorted(edges[1:-1], values, side="right")
    rows = [known[tenth == number] for number in range(len(edges) - 1)]
    return [(f"{low:.6g} to {high:.6g}", at) for low, high, at in zip(edges[:-1], edges[1:], rows, strict=True)]


def _texts(column: pl.Series, known: NDArray[np.int64]) -> list[tuple[str, NDArray[np.int64]]]:
    texts, number = np.unique(column.gather(known).cast(pl.String).to_numpy().astype(str), return_inverse=True)
    if len(texts) > MOST:
        rarer = np.argsort(-np.bincount(number), kind="stable")[MOST - 1 :]
        place = np.arange(len(texts))
        place[rarer] = len(texts)
        number, texts = place[number], np.append(texts, f"{len(rarer)} rarer values")
    return [(str(text), known[number == code]) for code, text in enumerate(texts)]


def segments(
    metric: Metric,
    targets: NDArray[Any],
    first: NDArray[Any],
    second: NDArray[Any],
    labels: NDArray[Any] | pl.Series,
    *,
    seed: int = 0,
    how: Resampling | None = None,
    progress: bool = False,
) -> list[Segment]:
    """Compare two predictions on each part of the rows.

    Where the metric is undefined on a part, all parts are measured by the mean distance to the target.
    Whole groups are drawn where `how` says so; blocks of a series are not, as a part has gaps.

    >>> found = segments(Metric.mae(), np.zeros(4), np.ones(4), np.array([0, 0, 2, 2]), np.array(list("aabb")))
    >>> [(segment.name, segment.gain) for segment in found]
    [('a', 1.0), ('b', -1.0)]
    """
    divided = parts(labels)
    pair = (first, second)
    scores = [_scores(metric, targets, pair, rows) for _, rows in divided]
    if not all(isfinite(score) for both in scores for score in both):
        metric = DISTANCE
        scores = [_scores(metric, targets, pair, rows) for _, rows in divided]
        if not all(isfinite(score) for both in scores for score in both):
            return []
    found = []
    for (name, rows), (before, after) in zip(divided, scores, strict=True):
        p = _p(metric, targets[rows], [values[rows] for values in pair], _within(how, rows), seed, progress)
        found.append(Segment(name, len(rows), metric.name, before, after, metric.gain(after, before), p))
    return _corrected(found)


def _scores(
    metric: Metric, targets: NDArray[Any], pair: Sequence[NDArray[Any]], rows: NDArray[np.int64]
) -> tuple[float, ...]:
    whole = np.ones((1, len(rows)), dtype=np.int64)
    return tuple(float(scorer(metric, targets[rows], values[rows])(whole)[0]) for values in pair)


def _within(how: Resampling | None, rows: NDArray[np.int64]) -> Resampling | None:
    """How rows of a part are drawn; None where they are all of one group."""
    return how.among(rows) if isinstance(how, Groups) else Rows()


def _p(
    metric: Metric,
    targets: NDArray[Any],
    pair: Sequence[NDArray[Any]],
    how: Resampling | None,
    seed: int,
    progress: bool,
) -> float | None:
    if len(targets) < _LEAST_ROWS or how is None:
        return None
    drawn = resampled(metric, targets, pair, draws=_DRAWS, seed=seed, how=how, progress=progress)
    defined = gains(metric, drawn)
    return bootstrap_p(defined) if len(defined) >= _DRAWS // 2 else None


def _corrected(found: Sequence[Segment]) -> list[Segment]:
    tested = [segment for segment in found if segment.p is not None]
    corrected = iter(holm([segment.p for segment in tested if segment.p is not None]))
    return [segment if segment.p is None else replace(segment, p=next(corrected)) for segment in found]
