"""Fitted: the weights of a mean, learned from the predictions of its members.

In:    predictions of the same rows by several members, what was to be predicted, a metric.
Out:   weights of sum 1 for `blend`, with the score they reach on the rows they were fitted on.
Next:  `nested` says what they are worth on others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from batteries.combine.climb import Climb
from batteries.combine.greedy import Greedy
from batteries.combine.objective import Array, Found, Moves, Objective, Step, clearly_better, weighted_sum, within
from batteries.combine.search import Search
from batteries.combine.simplex import Simplex
from batteries.errors import BlendError
from batteries.experiment import Metric

Fit = Literal["greedy", "climb", "simplex", "search"]


class Method(Protocol):
    """A way to find weights."""

    def fit(self, objective: Objective, seed: int) -> Found:
        """Return weights of sum 1 within the limits of the objective."""


_METHODS: Mapping[str, type[Greedy] | type[Climb] | type[Simplex] | type[Search]] = {
    "greedy": Greedy,
    "climb": Climb,
    "simplex": Simplex,
    "search": Search,
}


@dataclass(frozen=True)
class Fitted:
    """Weights, and how they were found."""

    weights: tuple[float, ...]
    """One a member, of sum 1; below 0 only after `Climb(negative=True)`."""
    score: float
    """The metric of the blend on the rows that the weights were fitted on: better than on others."""
    metric: str
    how: str
    history: tuple[Step, ...]
    evaluations: int
    """How many blends were scored on the way."""

    def __call__(self, members: Sequence[NDArray[Any]]) -> Array:
        """Return the weighted mean of members, such as their test predictions, in float64; nothing is clipped."""
        arrays = [np.asarray(member) for member in members]
        if len(arrays) != len(self.weights) or len({array.shape for array in arrays}) != 1:
            shapes = ", ".join(sorted({str(array.shape) for array in arrays}))
            raise BlendError(f"{len(self.weights)} members of one shape are needed, got {len(arrays)} of {shapes}")
        return weighted_sum(arrays, np.array(self.weights))

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


def fit_weights(
    members: Sequence[NDArray[Any]],
    targets: NDArray[Any],
    metric: Metric,
    *,
    how: Fit | Method = "greedy",
    max_weight: float = 1.0,
    l2: float = 0.0,
    prune: bool = False,
    seed: int = 0,
) -> Fitted:
    """Find the weights with which the mean of the members scores best.

    The members are blended as they are. For a mean in another space, give them in it: `ranks(member)` for a metric
    that looks at order alone.

    Parameters
    ----------
    members
        Out-of-fold predictions, each of shape (n,) or (n, columns), rows in the same order, finite.
    targets
        As the metric takes them: shape (n,) or (n, t).
    metric
        Any; what is not finite is never better.
    how
        `greedy`: selection with replacement, sorted start; bags as `Greedy(bags=20)`.
        `climb`: steps on a grid, each member once; with weights below 0 as `Climb(negative=True)`.
        `simplex`: least squares for rmse, least log-loss for log_loss, solved exactly.
        `search`: without derivatives, with restarts; best for few members.
    max_weight
        The most that one member may get; at least 1 / members.
    l2
        The score is worse by `l2` times the squared distance of the weights from equal ones.
    prune
        Whether members are left out at the end where that does not make the score worse.
    seed
        Draws the members of bags and the random starts; the same seed gives the same weights.

    Raises
    ------
    BlendError
        When members or targets do not fit together or are not finite, the metric is undefined for every member,
        limits leave no weights, or `how` does not solve the metric.

    Example
    -------
    >>> truth = np.array([0.0, 1.0, 2.0, 3.0])
    >>> fitted = fit_weights([truth + 1, truth - 3], truth, Metric.rmse(), how="simplex")
    >>> [round(weight, 6) for weight in fitted.weights]
    [0.75, 0.25]

    """
    name, method = (how, _method(how)) if isinstance(how, str) else (type(how).__name__.lower(), how)
    objective = Objective(members, targets, metric, max_weight=max_weight, l2=l2)
    found = method.fit(objective, seed) if objective.num_members > 1 else Found(np.ones(1), [])
    weights = _pruned(objective, found.weights) if prune else found.weights
    score = objective.score(weights)
    evaluations = objective.evaluations
    return Fitted(tuple(weights.tolist()), score, metric.name, name, tuple(found.history), evaluations)


def _method(how: str) -> Method:
    if how not in _METHODS:
        raise BlendError(f"there is no way {how!r} to fit weights; choose one of {', '.join(_METHODS)}")
    return _METHODS[how]()


def _pruned(objective: Objective, weights: Array) -> Array:
    """Leave out the member that is missed least, as long as the others score no worse without it."""
    value = objective.value(weights)
    while True:
        inside = np.flatnonzero((weights != 0) & (weights < 1))
        keep = 1 / (1 - weights[inside])
        largest = np.array([np.delete(weights, member).max() for member in inside]) * keep
        fits = within(largest, objective.max_weight)
        inside, keep = inside[fits], keep[fits]
        if not len(inside):
            return weights
        moves = Moves(inside, keep, -weights[inside] * keep)
        place = int(objective.after(objective.mix(weights), weights, moves)[1].argmax())
        without = weights * keep[place]
        without[inside[place]] = 0.0
        without /= without.sum()
        if clearly_better(value, than=(now := objective.value(without))):
            return weights
        weights, value = without, max(value, now)
