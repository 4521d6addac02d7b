"""Search: weights for any metric without derivatives, from several starts.

In:    an objective.
Out:   weights of sum 1, none below 0: the best that any start led to.
Next:  `fit_weights` scores them, `nested` asks whether they gain anything on other rows.

AUC, accuracy and F1 change by jumps: their slope is 0, and a method that follows slopes stays where it starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

import numpy as np

from batteries.combine.greedy import Greedy
from batteries.combine.objective import Array, Found, Moves, Objective, Step, clearly_better, within
from batteries.errors import ConfigError
from batteries.prepare.seed import derive_seed

FEW = 15
"""Up to so many members the simplex method of Nelder and Mead gets somewhere."""
_FLOOR = 1e-3  # softmax reaches 0 at infinity only


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """Look around in ever smaller steps, from equal weights, from the greedy ones and from random ones.

    Up to 15 members: Nelder & Mead 1965 over the logarithms of the weights (softmax), then steps towards and away
    from single members, which reach 0. More members: those steps alone.

    >>> Search(restarts=8).restarts
    8
    """

    restarts: int = 5
    """Starts, the first two equal and greedy weights."""
    evaluations: int = 60
    """For each member and start, at most, by Nelder and Mead."""

    def __post_init__(self) -> None:
        for name in ("restarts", "evaluations"):
            if getattr(self, name) < 1:
                raise ConfigError(f"search: {name} must be >= 1, got {getattr(self, name)}")

    def fit(self, objective: Objective, seed: int) -> Found:
        """Search from every start; the seed draws the random ones. The history holds the best score of each start."""
        objective.singles  # noqa: B018 - refuses members that the metric cannot score
        best, value, history = None, -inf, list[Step]()
        for start in self._starts(objective, seed):
            weights = start
            if objective.num_members <= FEW:
                weights = _nelder_mead(objective, start, self.evaluations * objective.num_members)
            weights, now = _around(objective, weights)
            if best is None or clearly_better(now, than=value):
                best, value = weights, now
            history.append(Step(objective.score(weights)))
        assert best is not None
        return Found(best, history)

    def _starts(self, objective: Objective, seed: int) -> Iterator[Array]:
        size = objective.num_members
        yield np.full(size, 1 / size)
        if self.restarts > 1:
            yield Greedy(rounds=30).fit(objective, seed).weights
        generator = np.random.default_rng(derive_seed(seed, "search"))
        for _ in range(2, self.restarts):
            yield capped(generator.dirichlet(np.ones(size)), objective.max_weight)


def _nelder_mead(objective: Objective, start: Array, evaluations: int) -> Array:
    """The last logarithm stays 0, as only differences count; the first steps are whole units, not SciPy's tiny ones."""
    from scipy.optimize import minimize

    def weights_of(logs: Array) -> Array:
        shares = np.exp(np.append(logs, 0.0) - max(0.0, float(logs.max())))
        return capped(shares / shares.sum(), objective.max_weight)

    def height(logs: Array) -> float:
        value = objective.value(weights_of(logs))
        return -value if value > -inf else 1e300

    logs = np.log(np.maximum(start, _FLOOR))
    logs = logs[:-1] - logs[-1]
    corners = np.vstack([logs, logs + np.eye(len(logs))])
    options = {"initial_simplex": corners, "maxfev": evaluations, "xatol": 1e-3, "fatol": 1e-10, "adaptive": True}
    found = weights_of(minimize(height, logs, method="Nelder-Mead", options=options).x)
    return found if clearly_better(objective.value(found), than=objective.value(start)) else start


def _around(objective: Objective, weights: Array) -> tuple[Array, float]:
    """Take the best step towards or away from a member while there is one, then halve the steps."""
    weights, value, size = weights.copy(), objective.value(weights), 0.25
    while size > 0.005:
        moves = _moves(weights, size, objective.max_weight)
        if len(moves.member):
            _, values = objective.after(objective.mix(weights), weights, moves)
            place = int(values.argmax())
            if clearly_better(values[place], than=value):
                weights = moved(weights, moves, place)
                value = float(values[place])
                continue
        size /= 2
    return weights, value


def _moves(weights: Array, size: float, most: float) -> Moves:
    """Steps of `size` towards each member, and away from each as far as its weight allows."""
    everyone = np.arange(len(weights))
    inside = everyone[(weights > 0) & (weights < 1)]
    away = -np.minimum(size, weights[inside] / (1 - weights[inside]))
    member, add = np.concatenate([everyone, inside]), np.concatenate([np.full(len(weights), size), away])
    keep = 1 - add
    second, first = np.sort(weights)[-2:]
    others = np.where(member == weights.argmax(), second, first)  # the largest of them
    allowed = within(np.maximum(keep * weights[member] + add, keep * others), most)
    return Moves(member[allowed], keep[allowed], add[allowed])


def moved(weights: Array, moves: Moves, place: int) -> Array:
    """The weights after a move."""
    after = weights * moves.keep[place]
    after[moves.member[place]] += moves.add[place]
    after[after < 1e-12] = 0.0  # what a step away to 0 leaves by rounding
    shares: Array = after / after.sum()
    return shares


def capped(weights: Array, most: float) -> Array:
    """Weights of sum 1 with none above `most`; what is cut off goes to the others in proportion to theirs.

    >>> capped(np.array([0.7, 0.2, 0.1]), 0.5).round(3).tolist()
    [0.5, 0.333, 0.167]
    """
    weights, full = weights.copy(), np.zeros(len(weights), dtype=bool)
    while (over := ~full & ~within(weights, most)).any():
        full |= over
        weights[full] = most
        rest = max(0.0, 1 - most * int(full.sum()))
        others = weights[~full]
        weights[~full] = rest * (others / others.sum()) if others.sum() > 0 else rest / max(1, len(others))
    return weights
