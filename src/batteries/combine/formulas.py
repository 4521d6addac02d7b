"""Formulas: the means that blends are made of, on blocks of rows.

In:    a block of float64 values of shape (members, rows) or (members, rows, columns), each member with its share.
Out:   the block's result, float64, of shape (rows,) or (rows, columns).
Next:  `blend` names the formulas, checks their domains and walks over the rows.

A formula may overwrite its block: it is a copy already, and a second one would not fit into the cache. Every value
of a result depends on the values of its own row only, and is summed in the order of the members. Shares add up to 1.
The caller silences NumPy's warnings: infinities on the way are meant, and a result that is not finite is refused.

Power means: Hardy, Littlewood & Polya, Inequalities, 1934. Logarithmic opinion pool: Genest & Zidek, Combining
probability distributions, Statistical Science 1(1), 1986.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_GEOMETRIC, _NEAR_GEOMETRIC = 1e-22, 0.05
"""Powers from 0 to the first are no different in float64; up to the second, 1 / p would blow up rounding errors."""


def mean(block: Array, shares: Sequence[float]) -> Array:
    """Sum of w x.

    >>> mean(np.array([[1.0, 2.0], [3.0, 6.0]]), (0.75, 0.25)).tolist()
    [1.5, 3.0]
    """
    total: Array = block[0] * shares[0]
    part = np.empty_like(total)
    for values, share in zip(block[1:], shares[1:], strict=True):
        total += np.multiply(values, share, out=part)
    return total


def geometric(block: Array, shares: Sequence[float]) -> Array:
    """Exp of the sum of w log x, x >= 0: 0 wherever a member is 0."""
    logs = mean(np.log(block, out=block), shares)  # log 0 = -inf, and exp of it is the 0 that is meant
    return np.exp(logs, out=logs)


def logit(block: Array, shares: Sequence[float]) -> Array:
    """Sigmoid of the sum of w logit p: the geometric mean of p over that of p and that of 1 - p together.

    NaN where one member is 0 and another 1.
    """
    no = mean(np.log1p(-block), shares)
    no -= mean(np.log(block, out=block), shares)
    return _sigmoid_of_minus(no)


def _sigmoid_of_minus(odds: Array) -> Array:
    """1 / (1 + e^x), in place."""
    np.exp(odds, out=odds)
    odds += 1
    return np.reciprocal(odds, out=odds)


def opinion_pool(block: Array, shares: Sequence[float]) -> Array:
    """The geometric mean, each row divided by its sum: softmax of the sum of w log p over the last axis.

    Of all distributions q it has the least sum of w KL(q || p). NaN where no class is above 0 in all members.
    """
    return _softmax(mean(np.log(block, out=block), shares))


def _softmax(logs: Array) -> Array:
    logs -= logs.max(axis=-1, keepdims=True)
    np.exp(logs, out=logs)
    logs /= logs.sum(axis=-1, keepdims=True)
    return logs


def power_mean(block: Array, shares: Sequence[float], power: float) -> Array:
    """(Sum of w x^p)^(1/p), x >= 0 (above 0 if p < 0); geometric for 0, largest and least for the infinities.

    Values are divided by the largest of their row (the least if p < 0) first, so that no power overflows.

    >>> block = np.array([[0.3], [0.8]])
    >>> [round(float(power_mean(block.copy(), (0.5, 0.5), p)[0]), 4) for p in (-1, 0, 1, 2, 4, 8)]
    [0.4364, 0.4899, 0.55, 0.6042, 0.676, 0.7336]
    """
    if abs(power) < _GEOMETRIC:
        return geometric(block, shares)
    extreme: Array = block.max(axis=0) if power > 0 else block.min(axis=0)
    if abs(power) == inf:
        return extreme
    scale = np.where(extreme > 0, extreme, 1.0)
    if abs(power) < _NEAR_GEOMETRIC:
        np.log(block, out=block)
        block -= np.log(scale, out=scale)
        block *= power
        logs = np.log1p(mean(np.expm1(block, out=block), shares)) / power
        return np.exp(np.add(logs, scale, out=scale), out=scale)
    block /= scale
    block **= power
    extreme *= mean(block, shares) ** (1 / power)
    return extreme


def mean_of_powers(block: Array, shares: Sequence[float], power: float) -> Array:
    """Sum of w x^p, no root taken: orders rows as the power mean does, but is on another scale than x."""
    block **= power
    return mean(block, shares)


def sharpened_binary(block: Array, shares: Sequence[float], power: float) -> Array:
    """Mean of p^a / (p^a + (1 - p)^a): members are made surer (a > 1) or less sure, then averaged."""
    no = np.log1p(-block)
    no -= np.log(block, out=block)
    no *= power
    return mean(_sigmoid_of_minus(no), shares)


def sharpened_classes(block: Array, shares: Sequence[float], power: float) -> Array:
    """Mean of p^a / (sum over classes of p^a), a row's classes along the last axis: its sum is 1 again."""
    np.log(block, out=block)
    block *= power
    return mean(_softmax(block), shares)


def trimmed_mean(block: Array, trim: int) -> Array:
    """Mean without the `trim` largest and the `trim` least members of each value."""
    block.sort(axis=0)
    kept = block[trim : len(block) - trim]
    return mean(kept, [1 / len(kept)] * len(kept))


def median(block: Array) -> Array:
    """The middle member of each value, or the mean of the two in the middle."""
    return trimmed_mean(block, (len(block) - 1) // 2)
