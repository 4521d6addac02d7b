"""Climb: weights by steps of a grid towards one member at a time, or away from it, for any metric.

In:    an objective.
Out:   weights of sum 1; with `negative`, some may be below 0.
Next:  `fit_weights` scores them, `nested` asks whether they gain anything on other rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import numpy as np

from batteries.combine.objective import Array, Found, Moves, Objective, Step, clearly_better
from batteries.errors import BlendError, ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Climb:
    """Begin with the best member, then mix in the one that helps most, at its best share, each at most once.

    A step is (1 - w) blend + w member, with w on a grid. With `negative`, w may be below 0: such a blend moves away
    from a member, and its predictions may leave the range of the members', [0, 1] for probabilities; nothing is
    clipped. The same steps as those of the package hillclimbers (M. Wurth), with a sum of weights of exactly 1.

    >>> Climb(step=0.1).grid().round(1).tolist()
    [0.1, 0.2, 0.3, 0.4, 0.5]
    """

    step: float = 0.02
    """Width of the grid."""
    most: float = 0.5
    """The largest share in one step, either way."""
    negative: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.most < 1:
            raise ConfigError(f"climb: 0 < step <= most < 1 must hold, got step {self.step} and most {self.most}")

    def grid(self) -> Array:
        """The shares that are tried, from the smallest; those below 0 first."""
        above = np.multiply(np.arange(1, floor(self.most / self.step + 1e-9) + 1), self.step, dtype=np.float64)
        return np.concatenate([-above[::-1], above]) if self.negative else above

    def fit(self, objective: Objective, seed: int) -> Found:
        """Climb. Nothing is drawn at random: the seed is not used."""
        if objective.max_weight < 1:
            raise BlendError("climb begins with one member alone and knows no max_weight; use how='greedy'")
        scores, values = objective.singles
        order = np.argsort(-values, kind="stable")
        weights, value = np.zeros(objective.num_members), float(values[order[0]])
        weights[order[0]] = 1.0
        mixed, history = objective.mix(weights), [Step(float(scores[order[0]]), int(order[0]))]
        left, grid = order[1:], self.grid()
        while len(left):
            add = np.tile(grid, len(left))
            moves = Moves(np.repeat(left, len(grid)), 1 - add, add)
            scores, values = objective.after(mixed, weights, moves)
            place = int(values.argmax())
            if not clearly_better(values[place], than=value):
                break
            member, share, value = int(moves.member[place]), float(add[place]), float(values[place])
            weights *= 1 - share
            weights[member] += share
            mixed *= 1 - share
            mixed += np.multiply(objective.parts[member], share, dtype=np.float64)
            left = left[left != member]
            history.append(Step(float(scores[place]), member))
        return Found(weights / weights.sum(), history)
