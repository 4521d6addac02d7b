"""Compare: is the second entry really better than the first?

In:    two entries trained on the same folds.
Out:   the gain, an interval, the chance that it is real; by rows and by folds.
Next:  keep the one that is, or train more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

import numpy as np

from batteries.errors import DataError
from batteries.experiment import Metric
from batteries.experiment.predictions import Predictions
from batteries.score.entry import Entry
from batteries.score.noise import resampled


@dataclass(frozen=True)
class Comparison:
    """How much better the second entry is than the first; positive gains are better whatever the direction."""

    first: str
    second: str
    metric: str
    first_score: float
    second_score: float
    gain: float
    low: float
    """Lower end of the 95 % percentile interval of the gain over resampled rows."""
    high: float
    chance: float
    """Share of resamples in which the second is better; ties count half."""
    p_rows: float
    """Two-sided, from the same resamples."""
    p_folds: float | None
    """Two-sided corrected resampled t-test over the folds; None below 3 folds or when the differences are identical."""

    @property
    def sentence(self) -> str:
        """The answer in words."""
        gain = f"{self.gain:+.5f}"
        if self.low > 0:
            return f"{self.second} is better than {self.first}: a gain of {gain} is larger than the noise of the rows."
        if self.high < 0:
            return f"{self.second} is worse than {self.first}: a gain of {gain} is larger than the noise of the rows."
        return f"{self.first} and {self.second} cannot be told apart: a gain of {gain} is within the noise of the rows."

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {**asdict(self), "sentence": self.sentence}


def compare(first: Entry, second: Entry, metric: Metric, *, draws: int = 2000, seed: int = 0) -> Comparison:
    """Compare two entries on the rows and on the folds they share.

    The paired bootstrap draws the same rows for both and recomputes the metric whole. The test over
    folds is the corrected resampled t (Nadeau & Bengio 2003, Machine Learning 52:239-281).

    Raises
    ------
    DataError
        When the folds differ, or rows are missing.

    """
    if first.config["folds"]["digest"] != second.config["folds"]["digest"]:
        raise DataError(
            f"{first.name} and {second.name} were trained on different folds; scores on them do not compare"
        )
    a, b = first.oof(complete=True), second.oof(complete=True)
    b = b.align(a.ids)
    assert a.targets is not None
    drawn = resampled(metric, a.targets, [a.values, b.values], draws=draws, seed=seed)
    gains = np.array([metric.gain(new, old) for old, new in drawn if np.isfinite([new, old]).all()])
    if not len(gains):
        raise DataError(f"{metric.name} is undefined on every resample of {len(a)} rows")
    low, high = np.quantile(gains, [0.025, 0.975])
    at_most, at_least = (1 + (gains <= 0).sum()) / (len(gains) + 1), (1 + (gains >= 0).sum()) / (len(gains) + 1)
    scores = metric(a.targets, a.values), metric(a.targets, b.values)
    return Comparison(
        first.name,
        second.name,
        metric.name,
        *scores,
        gain=metric.gain(scores[1], scores[0]),
        low=float(low),
        high=float(high),
        chance=float((gains > 0).mean() + (gains == 0).mean() / 2),
        p_rows=float(min(1.0, 2 * min(at_most, at_least))),
        p_folds=_over_folds(metric, a, b),
    )


def _over_folds(metric: Metric, a: Predictions, b: Predictions) -> float | None:
    assert a.folds is not None
    assert a.targets is not None
    differences = [
        metric.gain(metric(a.targets[rows], b.values[rows]), metric(a.targets[rows], a.values[rows]))
        for rows in (a.folds == fold for fold in np.unique(a.folds))
    ]
    n = len(differences)
    return corrected_t(differences, test_share=1 / (n - 1)) if n > 2 else None


def corrected_t(differences: Sequence[float], *, test_share: float) -> float | None:
    """Two-sided p of the corrected resampled t-test.

    Parameters
    ----------
    differences
        One score difference for each of J held-out sets, J >= 3.
    test_share
        Rows held out divided by rows trained on: 1 / (k - 1) for k folds.

    Returns
    -------
    p; 1.0 when every difference is zero, None when all are the same but not zero.

    >>> round(corrected_t([0.01, 0.02, 0.015, 0.005, 0.01], test_share=0.25), 4)
    0.0349

    """
    from scipy.stats import t as student

    if len(differences) < 3:
        raise DataError(f"the corrected t-test needs 3 or more folds, got {len(differences)}")
    mean, variance = float(np.mean(differences)), float(np.var(differences, ddof=1))
    if variance == 0:
        return 1.0 if mean == 0 else None
    statistic = mean / sqrt(variance * (1 / len(differences) + test_share))
    return float(2 * student.sf(abs(statistic), len(differences) - 1))
