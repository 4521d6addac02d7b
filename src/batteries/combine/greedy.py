"""Greedy: weights by selection with replacement, for any metric.

In:    an objective.
Out:   weights that are counts: how often each member was taken into the bag.
Next:  `fit_weights` scores them, `nested` asks whether they gain anything on other rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, inf, isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.combine.objective import SAME, Found, Moves, Objective, Step, clearly_better, within
from batteries.errors import BlendError, ConfigError
from batteries.prepare.seed import derive_seed

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Greedy:
    """Add the member that helps most, again and again, and keep the best bag on the way.

    The start is sorted: of the bags of the best one, two, three, ... members alone, the best. Among members that
    help equally, one that is in the bag already is taken. Caruana, Niculescu-Mizil, Crew & Ksikes 2004, Ensemble
    selection from libraries of models; with bags, Caruana, Munson & Niculescu-Mizil 2006, Getting the most out of
    ensemble selection.

    >>> Greedy(bags=20).bags
    20
    """

    rounds: int = 100
    """Additions after the start, at most."""
    patience: int = 20
    """Additions in a row that may bring no better bag."""
    bags: int = 1
    """Selections to average, each from a random share of the members: with many members they overfit less."""
    share: float = 0.5
    """Of the members that a bag may choose from, if there is more than one bag."""

    def __post_init__(self) -> None:
        for name in ("rounds", "patience", "bags"):
            if getattr(self, name) < 1:
                raise ConfigError(f"greedy: {name} must be >= 1, got {getattr(self, name)}")
        if not 0 < self.share <= 1:
            raise ConfigError(f"greedy: share must be in (0, 1], got {self.share}")

    def fit(self, objective: Objective, seed: int) -> Found:
        """Select, in every bag; the seed draws the members of the bags."""
        everyone = np.arange(objective.num_members)
        if self.bags == 1:
            return self._select(objective, everyone)
        enough = ceil(1 / objective.max_weight - SAME)
        size = min(len(everyone), max(ceil(self.share * len(everyone)), enough))
        weights, history = np.zeros(len(everyone)), list[Step]()
        for bag in range(self.bags):
            generator = np.random.default_rng(derive_seed(seed, "greedy", "bag", bag))
            found = self._select(objective, np.sort(generator.choice(everyone, size, replace=False)))
            weights += found.weights
            history += found.history
        return Found(weights / weights.sum(), history)

    def _select(self, objective: Objective, pool: Counts) -> Found:
        counts, value = _sorted_start(objective, pool)
        mixed, best, idle, history = objective.mix(counts), counts.copy(), 0, list[Step]()
        for _ in range(self.rounds):
            total = int(counts.sum()) + 1
            allowed = pool[counts[pool] < _room(objective.max_weight, total)]
            share = np.full(len(allowed), 1 / total)
            scores, values = objective.after(mixed, counts, Moves(allowed, share, share))
            if not np.isfinite(values).any():  # also when no member has room
                break
            place = _pick(values, counts[allowed])
            mixed += objective.parts[allowed[place]]
            counts[allowed[place]] += 1
            history.append(Step(float(scores[place]), int(allowed[place])))
            if clearly_better(values[place], than=value):
                best, value, idle = counts.copy(), values[place], 0
            elif (idle := idle + 1) == self.patience:
                break
        return Found(best / best.sum(), history)


def _sorted_start(objective: Objective, pool: Counts) -> tuple[Counts, float]:
    """The best of the bags of the first one, two, ... members, in the order of their own scores."""
    alone = objective.singles[1][pool]
    counts, mixed = np.zeros(objective.num_members, dtype=np.int64), np.zeros(objective.parts[0].shape)
    best, value = None, -inf
    for total, member in enumerate(pool[np.argsort(-alone, kind="stable")], 1):
        mixed += objective.parts[member]
        counts[member] = 1
        if not within(1 / total, objective.max_weight):
            continue
        now = objective.value(counts / total, mixed / total)
        if clearly_better(now, than=value):
            best, value = counts.copy(), now
    if best is None:
        raise BlendError(f"no mean of the members has a {objective.metric.name} that is a number; leave some out")
    return best, value


def _room(max_weight: float, total: int) -> int:
    """How often a member may be in a bag of `total`; once in any case, as a weight is small in a large bag."""
    return max(1, floor(max_weight * total + SAME))


def _pick(values: NDArray[Any], counts: Counts) -> int:
    """The place of the best value; of several that are the same, the member that is in the bag most often."""
    best = float(values.max())
    near = np.flatnonzero(values >= best - SAME * abs(best))
    assert isfinite(best)
    return int(near[counts[near].argmax()])
