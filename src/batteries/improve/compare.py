"""Compare: is an entry really better than another?

In:    two or more entries trained on the same folds.
Out:   gains with intervals, chances and p-values, by rows, by folds and over seeds; where each wins and loses.
Next:  keep the one that is better, or train more.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.errors import DataError, UsageError
from batteries.experiment import Metric
from batteries.experiment.predictions import Predictions
from batteries.improve.best import BestOf, best_of
from batteries.improve.common import aligned
from batteries.improve.seeds import SeedGain, seed_gain
from batteries.improve.segments import Moved, Segment, moved, segments
from batteries.improve.significance import LEVEL, ResampledT, bootstrap_p, corrected_t, holm
from batteries.score.entry import Entry
from batteries.score.grouping import column, resampling
from batteries.score.noise import gains, resampled, score_or_nan, spread


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How much better one entry is than the first; positive gains are better whatever the direction."""

    first: str
    second: str
    metric: str
    first_score: float
    """On all out-of-fold rows at once."""
    second_score: float
    gain: float
    low: float
    """Lower end of the 95 % percentile interval of the gain over resamples."""
    high: float
    chance: float
    """Share of resamples in which the second is better; ties count half."""
    p_rows: float
    """Two-sided, from the same resamples."""
    p_corrected: float
    """`p_rows` after Holm's correction for the number of entries that are compared with the first."""
    folds: ResampledT | None
    """Corrected resampled t-test of the mean gain over the folds, each scored alone; None below 3 folds, where a
    fold has no score, or where all differences are the same and not zero."""
    over: str
    """What was resampled: `rows`, `groups of patient`, `blocks of 24 rows`."""
    draws: int
    """Resamples on which both have a score."""
    undefined: int
    """Resamples on which one of them has none, as of one class only for AUC; they are left out."""
    seeds: SeedGain | None = None
    """The same over other seeds of both recipes, where there are two or more runs of each."""
    moved: Moved | None = None
    """None where predictions and targets have shapes of which no distance is known."""
    segments: tuple[Segment, ...] = ()

    @property
    def p_folds(self) -> float | None:
        """Two-sided p of the test over the folds."""
        return None if self.folds is None else self.folds.p

    @property
    def real(self) -> bool:
        """Whether the gain, up or down, is larger than the noise of what was resampled."""
        return self.p_corrected <= LEVEL

    @property
    def sentence(self) -> str:
        """The answer in words."""
        gain, noise = f"a gain of {self.gain:+.5f}", f"the noise of the {self.over}"
        if not self.real:
            return f"{self.first} and {self.second} cannot be told apart: {gain} is within {noise}."
        word = "better" if self.gain > 0 else "worse"
        return f"{self.second} is {word} than {self.first}: {gain} is larger than {noise}."


@dataclass(frozen=True)
class Verdict:
    """What is known of two or more entries: each beside the first, and the best of all."""

    metric: str
    comparisons: tuple[Comparison, ...]
    best: BestOf | None
    """For three entries or more."""
    by: str
    """The column whose values divide the rows into segments."""

    @property
    def sentence(self) -> str:
        """The answer in words, a line for each comparison."""
        lines = [line for each in self.comparisons for line in (each, each.seeds) if line is not None]
        return "\n".join(line.sentence for line in [*lines, *([self.best] if self.best else [])])

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        told = [{**asdict(each), "p_folds": each.p_folds, "sentence": each.sentence} for each in self.comparisons]
        return {**asdict(self), "sentence": self.sentence, "comparisons": told}


def compare(
    first: Entry,
    *others: Entry,
    metric: Metric | None = None,
    by: str | None = None,
    groups: str | None = None,
    block: int | None = None,
    draws: int = 10_000,
    seed: int = 0,
    progress: bool = True,
) -> Verdict:
    """Compare entries with the first, on the rows and on the folds they share.

    The paired bootstrap draws the same rows for all of them and computes the metric whole (Efron & Tibshirani
    1993). It measures the noise of the rows; that of the seeds is told apart where the runs of both recipes
    with other seeds are there. P-values of several entries are corrected for their number.

    Parameters
    ----------
    first, others
        Entries with complete out-of-fold predictions on the same folds.
    metric
        What they are scored by; that of the first by default.
    by
        A column of the training table that divides the rows into segments; the target by default.
    groups
        A column of the training table whose groups are drawn whole. By default the one that the folds keep
        together, if they do.
    block
        Draw stretches of so many rows: the rows are a series in the order of the table.
    draws
        Resamples; at most 1,000 where the metric has no `counted` form.
    seed
        Other seeds draw other resamples.
    progress
        Whether to show a bar.

    Raises
    ------
    UsageError
        Fewer than two entries, one named twice, both groups and blocks, under 100 draws, an unknown column.
    DataError
        When the folds or targets differ, rows are missing, or the metric is undefined throughout.

    """
    if draws < 100:
        raise UsageError(f"compare: an interval needs 100 draws or more, 2,000 for a good one; got {draws}")
    targets, parts = aligned([first, *others])
    metric = metric or first.metric()
    how = resampling(first, parts[0].ids, groups=groups, block=block)
    labels = pl.Series(targets) if targets.ndim == 1 else None
    if by is not None:
        labels = column(first.experiment(), parts[0].ids, by)
    values = [part.values for part in parts]
    scores = [score_or_nan(metric, targets, each) for each in values]
    choice: dict[str, Any] = {"seed": seed, "how": how, "progress": progress}
    drawn = resampled(metric, targets, values, draws=draws if metric.counted else min(draws, 1000), **choice)
    found = []
    for place, other in enumerate(others, 1):
        pair, both = drawn[:, [0, place]], (values[0], values[place])
        of_rows = _of_rows(metric, (first.name, other.name), (scores[0], scores[place]), pair, how.unit)
        found.append(
            replace(
                of_rows,
                folds=_over_folds(metric, targets, parts[0], parts[place], first.config["folds"].get("test_share")),
                seeds=seed_gain(first, other, metric, rows=spread(gains(metric, pair))),
                moved=moved(parts[0].ids, targets, *both),
                segments=() if labels is None else tuple(segments(metric, targets, *both, labels, **choice)),
            )
        )
    corrected = holm([pair.p_rows for pair in found])
    comparisons = tuple(replace(pair, p_corrected=p) for pair, p in zip(found, corrected, strict=True))
    names = [entry.name for entry in (first, *others)]
    best = best_of(metric, names, scores, drawn) if len(names) > 2 else None
    return Verdict(metric.name, comparisons, best, by or first.config.get("columns", {}).get("target", "target"))


def _of_rows(
    metric: Metric,
    names: tuple[str, str],
    scores: tuple[float, float],
    drawn: NDArray[np.float64],
    unit: str,
) -> Comparison:
    found = gains(metric, drawn)
    if not len(found):
        raise DataError(f"{metric.name} is undefined on every one of {len(drawn)} resamples of the {unit}")
    low, high = np.quantile(found, [0.025, 0.975])
    p = bootstrap_p(found)
    return Comparison(
        first=names[0],
        second=names[1],
        metric=metric.name,
        first_score=scores[0],
        second_score=scores[1],
        gain=metric.gain(scores[1], scores[0]),
        low=float(low),
        high=float(high),
        chance=float((found > 0).mean() + (found == 0).mean() / 2),
        p_rows=p,
        p_corrected=p,
        folds=None,
        over=unit,
        draws=len(found),
        undefined=len(drawn) - len(found),
    )


def _over_folds(
    metric: Metric, targets: NDArray[Any], a: Predictions, b: Predictions, test_share: float | None
) -> ResampledT | None:
    assert a.folds is not None, "out-of-fold predictions have folds"
    held_out = [a.folds == fold for fold in np.unique(a.folds)]
    scores = [[score_or_nan(metric, targets[rows], part.values[rows]) for part in (a, b)] for rows in held_out]
    differences = [metric.gain(new, old) for old, new in scores]
    if len(differences) < 3 or not np.isfinite(differences).all():
        return None
    return corrected_t(differences, test_share=test_share or 1 / (len(differences) - 1))
