"""Shake-up: what a gap on a public leaderboard is worth, and how likely the private one turns it.

In:    targets and predictions of two models for rows like those of the test set, such as out-of-fold ones.
Out:   the noise of a public score; the chance that the private order is another one.
Next:  `compare` says it; choose a submission by validation where the leaderboard cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.errors import DataError, UsageError
from batteries.experiment import Metric
from batteries.experiment.counted import Counts
from batteries.improve.common import aligned
from batteries.score.entry import Entry
from batteries.score.ledger import Ledger
from batteries.score.noise import drawn, scorer, spread, threads_for


@dataclass(frozen=True)
class ShakeUp:
    """Two models on many splits of rows into a public and a private part."""

    metric: str
    public: int
    """Rows of the public part."""
    private: int
    replaced: bool
    """Whether rows were drawn with replacement, because the test set has more of them than there are here."""
    deviation: tuple[float, float]
    """Standard deviation of the public score of each model."""
    gap_deviation: float
    """Standard deviation of the difference of the two on the public part."""
    moved: float
    """Standard deviation of how much the gap differs between the private and the public part."""
    worth: float
    """A public gap of this size keeps its order on the private part in 95 of 100 splits, if nothing else is known."""
    gap: float | None
    """The public gap that was seen; positive where the second model is better."""
    chance: float
    """That the private order is another one than the public one: over the splits, or given `gap`."""
    draws: int
    """Splits on which both scores are defined."""

    @property
    def sentence(self) -> str:
        """The answer in words."""
        size = f"A public part of {self.public:,} rows"
        noise = f"{size} moves the gap of the two by ±{self.gap_deviation:.5f}"
        if self.gap is None:
            return f"{noise}; the private order differs from the public one with a chance of {self.chance:.0%}."
        held = "means little" if abs(self.gap) < self.worth else "should hold"
        turned = f"the private part turns it with a chance of {self.chance:.0%}"
        return f"{noise}: the {self.gap:+.5f} seen there {held}; {turned}."

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {**asdict(self), "sentence": self.sentence}


def shake_up(
    metric: Metric,
    targets: NDArray[Any],
    first: NDArray[Any],
    second: NDArray[Any],
    *,
    public: int,
    private: int,
    gap: float | None = None,
    mix: Mapping[Any, float] | None = None,
    draws: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> ShakeUp:
    """Split rows into a public and a private part again and again, and compare two models on both.

    Rows are drawn without replacement, as a test set is split; with replacement where it has more rows than
    there are here. Without `gap` the chance is the share of splits whose two parts order the models differently
    (a tie on one part counts half). With it, the chance is that of the seen gap plus the difference that the
    splits show between private and public gaps: nothing else is assumed of the models.

    Parameters
    ----------
    metric, targets, first, second
        The score; targets and predictions of n rows like those of the test set.
    public, private
        Rows of each part of the test set.
    gap
        Public score of the second model minus that of the first, where the leaderboard said it, turned so
        that positive is better.
    mix
        Share of each class in the test set, where it is known; both parts have it exactly. By default a split
        is of any rows.

    Raises
    ------
    DataError
        A part without rows, a mix of other classes than the targets', or a metric that is undefined throughout.

    Notes
    -----
    The public part is random, so its order is one of many; compare Blum & Hardt 2015 (ICML, The Ladder) on
    why repeated submissions make it worse, and Roelofs et al. 2019 (NeurIPS) on how little they did on Kaggle.

    >>> targets, close, far = np.zeros(40), np.full(40, 0.1), np.full(40, 1.0)
    >>> shake_up(Metric.mae(), targets, far, close, public=10, private=20, draws=50).chance
    0.0

    """
    _check(public, private, draws)
    splitter = _Splitter(targets, public, private, mix)
    scorers = [scorer(metric, targets, values) for values in (first, second)]
    up = 1.0 if metric.higher_is_better else -1.0

    def score(counts: Counts) -> NDArray[np.float64]:
        return np.stack([each(part) for part in (counts[::2], counts[1::2]) for each in scorers], axis=1)

    how: dict[str, Any] = {"threads": threads_for(metric), "progress": progress}
    scores = np.concatenate(list(drawn(splitter.draw, score, draws=draws, rows=2 * len(targets), seed=seed, **how)))
    scores = scores[np.isfinite(scores).all(axis=1)]
    if len(scores) < 2:
        raise DataError(f"{metric.name} is undefined on all but {len(scores)} of {draws} splits; give larger parts")
    gaps = up * (scores[:, [1, 3]] - scores[:, [0, 2]])
    changes = gaps[:, 1] - gaps[:, 0]
    changes = changes - changes.mean()
    return ShakeUp(
        metric.name,
        public,
        private,
        splitter.replaced,
        deviation=(spread(scores[:, 0]), spread(scores[:, 1])),
        gap_deviation=spread(gaps[:, 0]),
        moved=spread(changes),
        worth=float(np.quantile(np.abs(changes), 0.9)),  # both sides: 5 % of one each
        gap=gap,
        chance=_turned(gaps) if gap is None else _turned(np.stack([np.full_like(changes, gap), gap + changes], axis=1)),
        draws=len(scores),
    )


def shake_up_of(
    first: Entry,
    second: Entry,
    *,
    public: int,
    private: int | None = None,
    metric: Metric | None = None,
    draws: int = 2000,
    seed: int = 0,
    progress: bool = True,
) -> ShakeUp:
    """Foretell the shake-up of two entries from their out-of-fold rows.

    The public gap is that of the newest public scores of both entries in the ledger, where there are any.

    Parameters
    ----------
    first, second
        Entries with complete out-of-fold predictions on the same folds.
    public
        Rows of the public part; competitions tell its share of the test set.
    private
        Rows of the private part; by default all other rows that the first entry predicts.
    metric, draws, seed, progress
        As `shake_up` has them; the metric of the first entry by default.

    Raises
    ------
    UsageError
        When `private` is not given and cannot be told from test predictions.

    """
    targets, (a, b) = aligned([first, second])
    if private is None:
        test = first.test()
        if test is None or len(test) <= public:
            known = "no test predictions" if test is None else f"{len(test)} test rows, {public} of them public"
            raise UsageError(f"{first.name} has {known}; say how many rows are private")
        private = len(test) - public
    metric = metric or first.metric()
    how: dict[str, Any] = {"public": public, "private": private, "draws": draws, "seed": seed, "progress": progress}
    return shake_up(metric, targets, a.values, b.values, gap=_seen_gap(metric, first, second), **how)


def _seen_gap(metric: Metric, first: Entry, second: Entry) -> float | None:
    """How much better the second entry's newest public score is; None where one has none."""
    root = first.folder.parent
    if not Ledger.exists(root):
        return None
    with Ledger(root) as ledger:
        told = {row["entry"]: row["value"] for row in ledger.scores() if row["scope"] == "public"}
    new, old = told.get(second.name), told.get(first.name)
    return None if new is None or old is None else metric.gain(new, old)


def _check(public: int, private: int, draws: int) -> None:
    if public < 1 or private < 1:
        raise DataError(f"both parts of the test set need rows, got {public} public and {private} private ones")
    if draws < 2:
        raise DataError(f"a shake-up needs 2 or more draws, got {draws}")


def _turned(gaps: NDArray[np.float64]) -> float:
    """Share of pairs of gaps of different sign; where one of them is 0, half of a pair."""
    signs = np.sign(gaps)
    return float((signs[:, 0] * signs[:, 1] < 0).mean() + (signs[:, 0] * signs[:, 1] == 0).mean() / 2)


class _Splitter:
    """Draws the public and the private rows of test sets with a fixed number of rows of each class, or of all."""

    def __init__(self, targets: NDArray[Any], public: int, private: int, mix: Mapping[Any, float] | None) -> None:
        self._n = len(targets)
        pools = [np.arange(self._n)] if mix is None else _pools(targets, mix)
        shares = [1.0] if mix is None else [mix[name] / sum(mix.values()) for name in mix]
        sizes = [_rounded(shares, part) for part in (public, private)]
        self._pools = list(zip(pools, *sizes, strict=True))
        self.replaced = any(a + b > len(pool) for pool, a, b in self._pools)

    def draw(self, generator: np.random.Generator, number: int) -> Counts:
        """Return counts of shape (2 number, n): a public and a private line for each split."""
        counts = np.zeros((2 * number, self._n), dtype=np.int64)
        for split in range(number):
            for pool, public, private in self._pools:
                rows = self._rows(generator, pool, public + private)
                counts[2 * split] += np.bincount(rows[:public], minlength=self._n)
                counts[2 * split + 1] += np.bincount(rows[public:], minlength=self._n)
        return counts

    def _rows(self, generator: np.random.Generator, pool: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        if self.replaced:
            return pool[generator.integers(0, len(pool), size)]
        return generator.choice(pool, size, replace=False)


def _pools(targets: NDArray[Any], mix: Mapping[Any, float]) -> list[NDArray[np.int64]]:
    classes = np.unique(targets).tolist()
    if targets.ndim != 1 or set(mix) != set(classes) or min(mix.values()) < 0 or not sum(mix.values()) > 0:
        raise DataError(f"mix must have a share of 0 or above for each of the classes {classes[:20]}, got {dict(mix)}")
    return [np.flatnonzero(targets == name) for name in mix]


def _rounded(shares: list[float], total: int) -> list[int]:
    """Whole numbers with the sum `total`, each within one of its share (largest remainders)."""
    exact = np.array(shares) * total
    sizes = np.floor(exact).astype(int)
    for place in np.argsort(sizes - exact, kind="stable")[: total - int(sizes.sum())]:
        sizes[place] += 1
    return [int(size) for size in sizes]
