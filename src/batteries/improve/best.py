"""Best: the best of several entries, and what having picked it is worth.

In:    scores of all entries, on all rows and on the same resamples.
Out:   the lead over the second with its interval, how many are level with the best, how much picking flatters it.
Next:  `compare` says it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batteries.experiment import Metric
from batteries.score.noise import gains


@dataclass(frozen=True)
class BestOf:
    """The best of several entries, whose score is too good for having been picked."""

    name: str
    second: str
    lead: float
    """Of the best over the second."""
    low: float
    """Lower end of the 95 % percentile interval of the lead over resamples."""
    high: float
    level: tuple[str, ...]
    """Other entries that cannot be told from the best: 0 is in the interval of its lead over them."""
    entries: int
    too_good: float
    """How much better the best of each resample scores there than on all rows, on average over the resamples."""

    @property
    def sentence(self) -> str:
        """The answer in words."""
        level = f"{len(self.level)} of the others cannot be told from it" if self.level else "no other is level with it"
        return (
            f"{self.name} is the best of {self.entries}, {self.lead:+.5f} over {self.second}"
            f" (95 % {self.low:+.5f} to {self.high:+.5f}); {level}."
            f" Having been picked, its score is about {self.too_good:.5f} too good."
        )


def best_of(metric: Metric, names: Sequence[str], scores: Sequence[float], drawn: NDArray[np.float64]) -> BestOf:
    """Say which entry is best, and how sure that is.

    The maximum of several noisy scores is too high, the more so the more there are and the closer they lie.
    Picking again on every resample, and scoring what was picked on all rows, shows by how much: the
    bootstrap's estimate of optimism (Efron & Tibshirani 1993, chapter 17). Models that are level in truth
    differ by chance on these rows already, so it is rather too small.

    Parameters
    ----------
    metric
        Which way is up.
    names, scores
        Of K >= 2 entries, on all rows.
    drawn
        Shape (draws, K), on the same rows in each draw.

    >>> best_of(Metric.mae(), ["a", "b"], [0.3, 0.2], np.array([[0.3, 0.2], [0.4, 0.3]])).name
    'b'

    """
    order = sorted(range(len(names)), key=lambda place: metric.order(scores[place]))
    best, second = order[:2]
    leads = {place: np.quantile(gains(metric, drawn[:, [place, best]]), [0.025, 0.975]) for place in order[1:]}
    defined = drawn[np.isfinite(drawn).all(axis=1)]
    up = 1.0 if metric.higher_is_better else -1.0
    picked = (up * defined).argmax(axis=1)
    flattered = up * (defined[np.arange(len(defined)), picked] - np.asarray(scores)[picked])
    low, high = leads[second]
    return BestOf(
        names[best],
        names[second],
        lead=metric.gain(scores[best], scores[second]),
        low=float(low),
        high=float(high),
        level=tuple(names[place] for place, (least, _) in leads.items() if least <= 0),
        entries=len(names),
        too_good=float(flattered.mean()),
    )
