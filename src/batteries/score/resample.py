"""Resample: which rows are drawn, and how often each.

In:    the number of rows; what may not be torn apart: groups, stretches of time.
Out:   counts of the rows, drawn at random, the same for the same seed whatever the number of threads.
Next:  `noise` scores models by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from batteries.errors import DataError
from batteries.experiment.counted import Counts


class Resampling(Protocol):
    """A way to draw another set of rows of the same kind."""

    def counts(self, generator: np.random.Generator, draws: int, n: int) -> Counts:
        """Return how often each of `n` rows is drawn, shape (draws, n)."""
        ...

    @property
    def unit(self) -> str:
        """What is drawn, in the plural: `rows`."""
        ...


@dataclass(frozen=True)
class Rows:
    """n of n rows, each draw with replacement: rows that have nothing to do with each other.

    Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 6.

    >>> Rows().counts(np.random.default_rng(0), 2, 5).sum(axis=1).tolist()
    [5, 5]
    """

    @property
    def unit(self) -> str:
        """What is drawn, in the plural."""
        return "rows"

    def counts(self, generator: np.random.Generator, draws: int, n: int) -> Counts:
        """Return how often each of `n` rows is drawn, shape (draws, n)."""
        return _tally(generator.integers(0, n, (draws, n)), n)


class Groups:
    """As many whole groups as there are, with replacement: rows of one patient, user or scene stay together.

    Davison & Hinkley 1997, Bootstrap Methods and their Application, section 3.8.

    Parameters
    ----------
    labels
        The group of each row, shape (n,), any type that sorts.
    name
        What a group is, for people.

    >>> Groups(np.array(["a", "a", "b"])).counts(np.random.default_rng(0), 1, 3).tolist()
    [[0, 0, 2]]

    """

    def __init__(self, labels: NDArray[Any], name: str = "") -> None:
        found, self._group = np.unique(labels, return_inverse=True)
        self.num_groups, self._name = len(found), name

    @property
    def unit(self) -> str:
        """What is drawn, in the plural."""
        return f"groups of {self._name}" if self._name else "groups"

    def among(self, rows: NDArray[np.int64]) -> Groups | None:
        """Return the groups of some of the rows; None where all of them are of one."""
        own = self._group[rows]
        return Groups(own, self._name) if len(own) and (own != own[0]).any() else None

    def counts(self, generator: np.random.Generator, draws: int, n: int) -> Counts:
        """Return how often each of `n` rows is drawn, shape (draws, n)."""
        if len(self._group) != n:
            raise DataError(f"{len(self._group)} rows have a group, {n} rows are scored; give every row one")
        drawn = _tally(generator.integers(0, self.num_groups, (draws, self.num_groups)), self.num_groups)
        return drawn.take(self._group, axis=1)


@dataclass(frozen=True)
class Blocks:
    """Stretches of neighbouring rows, with replacement, the end joined to the beginning: rows are a series.

    Circular block bootstrap: Politis & Romano 1992, in Exploring the Limits of Bootstrap, 263-270. Rows must
    be in the order of time, and a block longer than rows remember each other.

    >>> Blocks(2).counts(np.random.default_rng(0), 1, 4).tolist()
    [[1, 0, 1, 2]]
    """

    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise DataError(f"blocks of rows must be 1 or longer, got {self.length}")

    @property
    def unit(self) -> str:
        """What is drawn, in the plural."""
        return f"blocks of {self.length} rows"

    def counts(self, generator: np.random.Generator, draws: int, n: int) -> Counts:
        """Return how often each of `n` rows is drawn, shape (draws, n)."""
        if self.length > n:
            raise DataError(f"blocks of {self.length} rows cannot be drawn from {n}; give a shorter length")
        starts = generator.integers(0, n, (draws, ceil(n / self.length), 1))
        rows = (starts + np.arange(self.length)) % n
        return _tally(rows.reshape(draws, -1)[:, :n], n)


def _tally(drawn: NDArray[np.int64], n: int) -> Counts:
    """Count each of `n` numbers in each line; overwrites what was drawn."""
    draws = len(drawn)
    drawn += np.arange(0, draws * n, n)[:, np.newaxis]
    return np.bincount(drawn.ravel(), minlength=draws * n).reshape(draws, n)
