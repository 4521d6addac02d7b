"""Seeds: how much of a difference is the luck of the seeds.

In:    two runs, and the runs of the same recipes with other seeds.
Out:   the mean gain over the seeds, with the noise of rows and seeds together.
Next:  `compare` says it beside what the rows alone say.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path

import numpy as np
import polars as pl

from batteries.experiment import Metric
from batteries.improve.significance import LEVEL
from batteries.score.entry import Entry, all_entries
from batteries.score.origin import recipe


@dataclass(frozen=True)
class SeedGain:
    """The gain of one recipe over another, each trained with several seeds."""

    first: tuple[str, ...]
    """The runs of the first recipe."""
    second: tuple[str, ...]
    gain: float
    """Of the mean scores over the seeds; positive is better whatever the direction."""
    deviation: float
    """Of the rows, and of the seeds of both: sqrt(s_rows^2 + s_first^2 / S_first + s_second^2 / S_second)."""
    low: float
    """Lower end of the 95 % interval, from the normal distribution."""
    high: float

    @property
    def sentence(self) -> str:
        """The answer in words."""
        of = f"{len(self.first)} and {len(self.second)} seeds"
        if self.low <= 0 <= self.high:
            return f"Over {of} the mean gain is {self.gain:+.5f}, within the noise of seeds and rows."
        return f"Over {of} the mean gain is {self.gain:+.5f}, larger than the noise of seeds and rows."


def siblings(root: Path, entry: Entry) -> list[Entry]:
    """Return the complete runs of an entry's recipe with any seed, itself among them; none for what is no run."""
    own = recipe(entry.config)
    if own is None:
        return []
    return [other for other in all_entries(root) if recipe(other.config) == own and _complete(other)]


def _complete(entry: Entry) -> bool:
    return len(pl.read_parquet(entry.folder / "oof.parquet", columns=["id"])) == entry.rows


def seed_gain(first: Entry, second: Entry, metric: Metric, *, rows: float) -> SeedGain | None:
    """Compare two recipes over their seeds; None where one has fewer than two, or both are the same recipe.

    Parameters
    ----------
    first, second
        One run of each recipe.
    metric
        What the runs are scored by.
    rows
        Standard deviation of the gain over resampled rows.

    """
    from scipy.stats import norm

    groups = [siblings(entry.folder.parent, entry) for entry in (first, second)]
    if min(map(len, groups)) < 2 or recipe(first.config) == recipe(second.config):
        return None
    scores = [[_scored(metric, entry) for entry in group] for group in groups]
    if not all(isfinite(score) for group in scores for score in group) or not isfinite(rows):
        return None
    gain = metric.gain(float(np.mean(scores[1])), float(np.mean(scores[0])))
    deviation = sqrt(rows**2 + sum(np.var(group, ddof=1) / len(group) for group in scores))
    half = float(norm.isf(LEVEL / 2)) * deviation
    names = [tuple(entry.name for entry in group) for group in groups]
    return SeedGain(names[0], names[1], gain, deviation, gain - half, gain + half)


def _scored(metric: Metric, entry: Entry) -> float:
    oof = entry.oof(complete=True)
    assert oof.targets is not None
    return metric(oof.targets, oof.values)
