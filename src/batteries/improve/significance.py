"""Significance: how often chance alone gives a difference as large as the one seen.

In:    differences over resampled rows, or over held-out sets.
Out:   p-values, an interval, p-values corrected for how many were looked at.
Next:  `compare` turns them into words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

from batteries.errors import DataError

LEVEL = 0.05
"""A p-value up to this one counts as more than chance; intervals are of one minus it."""


@dataclass(frozen=True)
class ResampledT:
    """The corrected resampled t-test of the mean difference over held-out sets."""

    mean: float
    deviation: float
    """Of the mean, with the correction."""
    statistic: float
    degrees: int
    p: float
    """Two-sided."""
    low: float
    """Lower end of the 95 % interval of the mean difference."""
    high: float


def corrected_t(differences: Sequence[float] | NDArray[np.float64], *, test_share: float) -> ResampledT | None:
    """Test whether a mean difference over held-out sets is zero, knowing that their training sets overlap.

    t = mean / sqrt(variance * (1 / J + test_share)) with J - 1 degrees of freedom, for J differences of all
    folds of all repeats. Derived for random subsampling; for k folds a heuristic, as no unbiased estimate
    of their variance exists.

    Parameters
    ----------
    differences
        One score difference for each of J held-out sets, J >= 3.
    test_share
        Rows held out divided by rows trained on, on average: 1 / (k - 1) for k folds, however often repeated.

    Returns
    -------
    The test; None when all differences are the same but not zero, which no variance can judge.

    Raises
    ------
    DataError
        For fewer than three differences, one that is not finite, or a negative share.

    Notes
    -----
    Nadeau & Bengio 2003, Machine Learning 52:239-281; repeats: Bouckaert & Frank 2004, PAKDD, 3-12.

    >>> test = corrected_t([0.01, 0.02, 0.015, 0.005, 0.01], test_share=0.25)
    >>> round(test.p, 4)
    0.0349

    """
    from scipy.stats import t as student

    values = np.asarray(differences, dtype=np.float64)
    if len(values) < 3:
        raise DataError(f"the corrected t-test needs 3 or more held-out sets, got {len(values)}")
    if not np.isfinite(values).all() or not (isfinite(test_share) and test_share >= 0):
        raise DataError(f"the corrected t-test needs finite differences and a share >= 0, got {values}, {test_share}")
    mean, degrees = float(values.mean()), len(values) - 1
    if np.ptp(values) == 0:
        return ResampledT(mean, 0.0, 0.0, degrees, 1.0, 0.0, 0.0) if mean == 0 else None
    deviation = sqrt(float(values.var(ddof=1)) * (1 / len(values) + test_share))
    half = float(student.isf(LEVEL / 2, degrees)) * deviation
    p = float(2 * student.sf(abs(mean / deviation), degrees))
    return ResampledT(mean, deviation, mean / deviation, degrees, p, mean - half, mean + half)


def bootstrap_p(gains: NDArray[np.float64]) -> float:
    """Two-sided p of paired bootstrap gains: twice the smaller tail, ties in both, never 0.

    2 min(1 + #(gain <= 0), 1 + #(gain >= 0)) / (B + 1), at most 1: Davison & Hinkley 1997, chapter 4.

    >>> bootstrap_p(np.array([0.1, 0.2, 0.3]))
    0.5
    """
    lower, upper = 1 + int((gains <= 0).sum()), 1 + int((gains >= 0).sum())
    return min(1.0, 2 * min(lower, upper) / (len(gains) + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, each in its place: no more than 5 % of families have a false one.

    Holm 1979, Scandinavian Journal of Statistics 6:65-70. The smallest is multiplied by the number of tests,
    the next by one less, and so on; none becomes smaller than the one before, or larger than 1.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    order = np.argsort(p_values, kind="stable")
    factors = np.arange(len(order), 0, -1)
    stepped = np.minimum(1.0, np.maximum.accumulate(np.asarray(p_values, dtype=np.float64)[order] * factors))
    corrected = np.empty(len(order))
    corrected[order] = stepped
    return [float(p) for p in corrected]
