"""Reliability: how far stated probabilities are from what came.

In:    class probabilities and targets.
Out:   log loss, Brier score, expected calibration error; the bins of a reliability diagram.
Next:  `calibrate` compares them before and after; the report draws the bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.combine.crossfit import Array, checked_codes, checked_values
from batteries.errors import DataError

BINS = 10
_OFF = 1e-3
"""How far the sum of a row of probabilities may be from 1; a softmax in float32 is well within."""

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Bin:
    """Rows whose stated probability is alike."""

    stated: float
    observed: float
    rows: int

    @property
    def deviation(self) -> float:
        """Standard deviation of `observed`, by Agresti and Coull's formula, so that it is not 0 at 0 and 1."""
        share = (self.observed * self.rows + 2) / (self.rows + 4)
        return float(np.sqrt(share * (1 - share) / (self.rows + 4)))


@dataclass(frozen=True)
class Quality:
    """How good probabilities are; lower is better in every figure."""

    log_loss: float
    """Mean negative log-likelihood, probabilities below `eps` taken as `eps`."""
    brier: float
    """Mean squared distance to the outcome: one column of two classes, the sum over columns of more."""
    calibration_error: float
    """Mean distance of stated and observed over the bins, weighed by rows (ECE)."""
    bins: int
    """How many equal bins `calibration_error` has; it changes with them, the other figures have none."""
    eps: float
    clipped: int
    """Rows whose own class was given less than `eps`."""

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


def eps_of(values: NDArray[Any]) -> float:
    """Return the smallest probability that is taken as it is: 1e-15, or 1e-7 for float32 and narrower."""
    dtype = np.asarray(values).dtype
    return 1e-7 if dtype.kind == "f" and dtype.itemsize < 8 else 1e-15


def class_rows(values: Any) -> Array:
    """Return probabilities as (n, classes) in float64, rows that sum to 1; (n,) is that of class 1.

    Raises
    ------
    DataError
        When a value is outside [0, 1], or a row does not sum to 1 within 0.001.

    """
    array = checked_values(values)
    if array.min() < 0 or array.max() > (1 if array.ndim == 1 else 1 + _OFF):
        raise DataError(
            f"probabilities must be in 0 to 1, got {array.min():g} to {array.max():g}; give them, no logits"
        )
    if array.ndim == 1:
        return np.stack([1 - array, array], axis=1)
    sums = array.sum(axis=1)
    if (off := np.abs(sums - 1)).max() > _OFF:
        row = int(off.argmax())
        raise DataError(
            f"{int((off > _OFF).sum())} rows of probabilities do not sum to 1 (row {row}: {sums[row]:g});"
            " several labels a row are calibrated one column at a time"
        )
    if off.max() < _ROUNDING:  # dividing would move equal probabilities apart
        return array
    normalised: Array = array / sums[:, None]
    return normalised


def quality(values: Any, targets: Any, *, bins: int = BINS, eps: float | None = None) -> Quality:
    """Return log loss, Brier score and expected calibration error of probabilities.

    Parameters
    ----------
    values
        Probabilities of class 1, shape (n,), or of all classes, (n, classes).
    targets
        Class codes, shape (n,).
    bins
        Of equal width, for the calibration error.
    eps
        See `eps_of`.

    Notes
    -----
    Brier 1950; expected calibration error: Naeini, Cooper & Hauskrecht 2015, with several classes that of the
    most probable class (Guo et al. 2017, arXiv 1706.04599).

    >>> round(quality(np.array([0.9, 0.2]), np.array([1, 0])).brier, 4)
    0.025

    """
    rows, eps = class_rows(values), eps_of(values) if eps is None else eps
    codes = checked_codes(targets, len(rows), rows.shape[1])
    own = rows[np.arange(len(rows)), codes]
    squares = ((rows - np.eye(rows.shape[1])[codes]) ** 2).sum(axis=1)
    return Quality(
        log_loss=float(-np.log(np.maximum(own, eps)).mean()),
        brier=float(squares.mean()) / (2 if rows.shape[1] == 2 else 1),
        calibration_error=calibration_error(reliability(values, targets, bins=bins)),
        bins=bins,
        eps=eps,
        clipped=int((own < eps).sum()),
    )


def reliability(values: Any, targets: Any, *, bins: int = BINS) -> list[Bin]:
    """Compare what was stated with what came, in bins of equal width; empty ones are left out.

    Of two classes: the probability of class 1 and its frequency. Of more: the probability of the
    most probable class and how often that was right (Guo et al. 2017, arXiv 1706.04599).
    """
    rows = class_rows(values)
    codes = checked_codes(targets, len(rows), rows.shape[1])
    if rows.shape[1] == 2:
        stated, right = rows[:, 1], codes == 1
    else:
        stated, right = rows.max(axis=1), rows.argmax(axis=1) == codes
    places = np.minimum((stated * bins).astype(np.int64), bins - 1)
    counts, sums, hits = (np.bincount(places, weights) for weights in (None, stated, right))
    return [Bin(float(sums[b] / counts[b]), float(hits[b] / counts[b]), int(counts[b])) for b in np.flatnonzero(counts)]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Mean distance of stated and observed, weighed by rows."""
    total = sum(each.rows for each in bins)
    return sum(abs(each.stated - each.observed) * each.rows for each in bins) / total
