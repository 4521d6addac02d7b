"""Votes: the class that most members choose.

In:    blocks of class codes, or of probabilities, each member with its share.
Out:   codes; 0 and 1; or 1 in the column of the class that won and 0 in the others.
Next:  `blend` takes them for how="vote".

Shares that differ by less than 1e-9 are equal: they are sums, and 0.1 + 0.2 must tie with 0.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.combine.blocks import pieces
from batteries.combine.formulas import mean

Array = NDArray[np.float64]
_EQUAL = 1e-9
_PIECE = 1 << 16


def are_codes(members: Iterable[NDArray[Any]]) -> bool:
    """Whether all values are whole numbers, as class codes are and probabilities are not."""
    return all(
        member.dtype.kind in "iub" or all(_whole(member[a:b]) for a, b in pieces(0, len(member), _PIECE))
        for member in members
    )


def _whole(values: NDArray[Any]) -> bool:
    return bool((values == np.rint(values)).all())


def vote_of_codes(block: Array, shares: Sequence[float]) -> Array:
    """The code with the largest share; of equal shares the least code."""
    best, most = np.full(block.shape[1:], np.nan), np.full(block.shape[1:], -1.0)
    for candidate in block:
        support = mean((block == candidate).astype(np.float64), shares)
        wins = support > most + _EQUAL
        wins |= (support > most - _EQUAL) & (candidate < best)
        best[wins], most[wins] = candidate[wins], support[wins]
    return best


def vote_of_yes_and_no(block: Array, shares: Sequence[float]) -> Array:
    """1 where more than half say p >= 0.5, or half do and their mean is 0.5 or more; else 0."""
    ayes = mean((block >= 0.5).astype(np.float64), shares)
    tied = np.abs(ayes - 0.5) <= _EQUAL
    wins = np.where(tied, mean(block, shares) >= 0.5 - _EQUAL, ayes > 0.5)
    return wins.astype(np.float64)


def vote_of_classes(block: Array, shares: Sequence[float]) -> Array:
    """1 for the class that is the most probable one of most members; of equal shares, that with the larger sum."""
    rows = np.arange(block.shape[1])
    votes = np.zeros(block.shape[1:])
    for values, share in zip(block, shares, strict=True):
        votes[rows, values.argmax(axis=1)] += share
    tied = votes >= votes.max(axis=1, keepdims=True) - _EQUAL
    sums = np.where(tied, mean(block, shares), -1.0)
    winners = (sums >= sums.max(axis=1, keepdims=True) - _EQUAL).argmax(axis=1)
    votes[...] = 0
    votes[rows, winners] = 1
    return votes
