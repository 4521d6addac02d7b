"""Auc: the area under the ROC curve by one sort, for climbs that ask for it thousands of times.

In:    which rows are positive, and a value for each row.
Out:   the share of pairs (positive, negative) that are in order, ties half: exact.
Next:  `objective` judges candidates by it; `quick` makes a metric of it.

A float64 below 2 in magnitude does not use the highest bit of its exponent. Its sign and the other 62 bits make a
whole number that sorts as the value does, and the free bit holds the label, so that sorting 64-bit keys orders the
rows and brings their labels along. Nothing is rounded: sums of float32 predictions keep all their bits.
"""

from __future__ import annotations

import sys
from math import frexp, isfinite, nan

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_MAGNITUDE = np.iinfo(np.int64).max
_PIECE = 65_536  # rows that are compared at a time, so that no second column is needed
_LOW_BYTE = 0 if sys.byteorder == "little" else 7


def area_under_curve(values: Array, positive: NDArray[np.bool_]) -> float:
    """Return the AUC of one column of values; NaN when rows of a class are missing or a value is not finite.

    Parameters
    ----------
    values
        Contiguous, shape (n,). Used as working memory: what it holds is lost.
    positive
        Which rows are positive, shape (n,).

    Notes
    -----
    Mann & Whitney 1947: positives that come after a negative, counted over all pairs.

    >>> area_under_curve(np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True]))
    0.875

    """
    num_positive = int(np.count_nonzero(positive))
    pairs = num_positive * (len(values) - num_positive)
    if not pairs:
        return nan
    largest = max(float(values.max()), -float(values.min()))
    if not isfinite(largest):
        return nan
    if largest >= 2 and not _scaled_down(values, largest):
        return _by_ranks(values, positive)
    keys = _packed(values, positive)
    keys.sort()
    labels = (keys.view(np.uint8)[_LOW_BYTE::8] & 1).view(np.bool_)
    ordered = int(np.flatnonzero(labels).sum()) - num_positive * (num_positive - 1) // 2
    return (2 * ordered - _tied_pairs(keys)) / (2 * pairs)


def _packed(values: Array, positive: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Turn values below 2 into sortable keys in place: twice a signed whole number, plus the label."""
    keys = values.view(np.int64)
    if values.min() < 0:
        sign = keys >> 63
        keys &= _MAGNITUDE
        keys ^= sign
        keys -= sign
    else:
        keys &= _MAGNITUDE  # of -0.0, which is 0.0
    keys <<= 1
    keys |= positive
    return keys


def _scaled_down(values: Array, largest: float) -> bool:
    """Divide by the power of two that brings all below 2, unless that would round the smallest away."""
    up = frexp(largest)[1] - 1
    scaled = values * 2.0**-up
    if (scaled * 2.0**up != values).any():
        return False
    values[:] = scaled
    return True


def _tied_pairs(keys: NDArray[np.int64]) -> int:
    """Pairs of a negative and a positive with the same value; sorted, the negatives of a value come first."""
    starts = range(0, len(keys) - 1, _PIECE)
    pieces = [keys[start : start + _PIECE + 1] for start in starts]  # one more, as pairs of neighbours are compared
    last = np.concatenate([s + np.flatnonzero((p[1:] ^ p[:-1]) == 1) for s, p in zip(starts, pieces, strict=True)])
    if not len(last):
        return 0
    value = keys[last]
    negatives = last + 1 - np.searchsorted(keys, value)
    positives = np.searchsorted(keys, value + 1, side="right") - last - 1
    return int(negatives @ positives)


def _by_ranks(values: Array, positive: NDArray[np.bool_]) -> float:
    from scipy.stats import rankdata

    num_positive = int(np.count_nonzero(positive))
    above = float(rankdata(values)[positive].sum()) - num_positive * (num_positive + 1) / 2
    return above / (num_positive * (len(values) - num_positive))
