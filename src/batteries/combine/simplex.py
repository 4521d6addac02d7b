"""Simplex: weights of sum 1, none below 0, of least squares or least log-loss, solved as convex problems.

In:    an objective; the loss is that of its metric, or named.
Out:   the weights, within a stated distance of the lowest loss there is.
Next:  `fit_weights` scores them, `nested` asks whether they gain anything on other rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from batteries.combine.objective import Array, Found, Objective, Step
from batteries.combine.quadratic import gap, lowest_point
from batteries.errors import BlendError, ConfigError

Loss = Literal["squares", "log_loss"]
_LOSS_OF = {"rmse": "squares", "log_loss": "log_loss"}
_CELLS = 2_000_000  # of a piece of rows times members
_SMALLEST = 1e-15
"""What a probability of 0 counts as in a log-loss."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Simplex:
    """The weights of least mean squared error, or of least log-loss; there are no better ones of sum 1 above 0.

    Log-loss: Newton steps, each a quadratic over the simplex; a blend's probability of the true class is the same
    weighted mean, for two classes, several, or several labels. Probabilities below 1e-15 count as 1e-15.
    `l2` is added to the mean squared error or log-loss times the squared distance from equal weights.

    >>> Simplex(loss="squares").loss
    'squares'
    """

    loss: Loss | None = None
    """`squares` or `log_loss`; None takes that of the metric, rmse or log_loss. For another metric, a stand-in."""
    tolerance: float = 1e-10
    """How far above its lowest value the loss may stay."""

    def __post_init__(self) -> None:
        if self.loss is not None and self.loss not in get_args(Loss):
            raise ConfigError(f"simplex: there is no loss {self.loss!r}; choose one of {', '.join(get_args(Loss))}")
        if not self.tolerance > 0:
            raise ConfigError(f"simplex: tolerance must be above 0, got {self.tolerance}")

    def fit(self, objective: Objective, seed: int) -> Found:
        """Solve. Nothing is drawn at random: the seed is not used. The history holds the loss, not the metric."""
        loss = self.loss or _LOSS_OF.get(objective.metric.name)
        if loss is None:
            raise BlendError(
                f"simplex solves rmse and log_loss, the metric is {objective.metric.name};"
                " use how='greedy' or 'search', or name a stand-in: Simplex(loss='log_loss')"
            )
        return _squares(objective) if loss == "squares" else _log_loss(objective, self.tolerance)


def _squares(objective: Objective) -> Found:
    """With weights of sum 1 the residual of the mean is the mean of the residuals: one quadratic, no linear term."""
    members, targets = objective.members, objective.targets
    if targets.shape != members[0].shape:
        raise BlendError(
            f"least squares needs targets of the members' shape {members[0].shape}, got {targets.shape};"
            " for classes use loss='log_loss'"
        )
    size, count = len(members), members[0].size
    products = np.zeros((size, size))
    for rows in _pieces(len(targets), count // len(targets) * size):
        truth = targets[rows].astype(np.float64)
        residuals = np.stack([(member[rows] - truth).ravel() for member in members])
        products += residuals @ residuals.T / count
    pulled = products + objective.l2 * np.eye(size)
    weights = lowest_point(2 * pulled, np.zeros(size), most=objective.max_weight)
    return Found(weights, [Step(float(weights @ products @ weights))])


def _log_loss(objective: Objective, tolerance: float) -> Found:
    size, most, l2 = objective.num_members, objective.max_weight, objective.l2
    _check_probabilities(objective)
    weights, history = np.full(size, 1 / size), list[Step]()
    for _ in range(100):  # a handful are enough
        loss, slope, curvature = _model(objective, weights)
        history.append(Step(loss))
        total = loss + l2 * float(weights @ weights)
        slope, curvature = slope + 2 * l2 * weights, curvature + 2 * l2 * np.eye(size)
        if gap(slope, weights, most=most) <= tolerance:
            break
        direction = lowest_point(curvature, slope - curvature @ weights, most=most) - weights
        length, fall = 1.0, float(slope @ direction)
        while length > 1e-10:
            tried = weights + length * direction
            if _height(objective, tried) + l2 * float(tried @ tried) <= total + 1e-4 * length * fall:
                break
            length /= 2
        else:  # no step is lower by more than rounding
            break
        weights = np.clip(tried, 0.0, most)
    return Found(weights / weights.sum(), history)


def _height(objective: Objective, weights: Array) -> float:
    """The mean log-loss of a blend."""
    loss, count = 0.0, 0
    for chances in _chances(objective):
        loss -= float(np.log(weights @ chances).sum())
        count += chances.shape[1]
    return loss / count


def _model(objective: Objective, weights: Array) -> tuple[float, Array, Array]:
    """The mean log-loss of a blend, its slope and its curvature in the weights."""
    loss, slope, curvature, count = 0.0, np.zeros(len(weights)), np.zeros((len(weights),) * 2), 0
    for chances in _chances(objective):
        blended = weights @ chances
        loss -= float(np.log(blended).sum())
        chances /= blended
        slope -= chances.sum(axis=1)
        curvature += chances @ chances.T
        count += len(blended)
    return loss / count, slope / count, curvature / count


def _chances(objective: Objective) -> Iterator[Array]:
    """What each member gives the true class, or each true label, piece by piece: shape (members, rows of the piece)."""
    members, targets = objective.members, objective.targets
    labels = members[0].shape == targets.shape
    columns = targets[0].size if labels else 1
    for rows in _pieces(len(targets), columns * len(members)):
        truth = targets[rows]
        picked = np.empty((len(members), len(truth) * columns))
        for row, member in zip(picked, members, strict=True):
            part = member[rows].astype(np.float64)
            row[:] = np.where(truth == 1, part, 1 - part).ravel() if labels else part[np.arange(len(part)), truth]
        yield np.maximum(picked, _SMALLEST, out=picked)


def _check_probabilities(objective: Objective) -> None:
    members, targets = objective.members, objective.targets
    for number, member in enumerate(members, 1):
        if member.min() < 0 or member.max() > 1:
            raise BlendError(
                f"log-loss needs probabilities, member {number} has values from {member.min()} to {member.max()}"
            )
    if members[0].shape == targets.shape:
        if not np.isin(targets, (0, 1)).all():
            raise BlendError(f"log-loss of one probability needs targets 0 and 1, got {np.unique(targets)[:5]}")
        return
    classes = members[0].shape[1] if members[0].ndim == 2 else 0
    if targets.ndim != 1 or targets.dtype.kind not in "iu" or targets.min() < 0 or targets.max() >= classes:
        raise BlendError(
            f"log-loss of members of shape {members[0].shape} needs class codes from 0 to {classes - 1},"
            f" got {targets.dtype} of shape {targets.shape} from {targets.min()} to {targets.max()}"
        )
    for number, member in enumerate(members, 1):
        if (off := _most_off(member)) > 1e-3:
            raise BlendError(f"rows of member {number} miss the sum 1 by up to {off:.3g}; divide them by their sums")


def _most_off(member: NDArray[Any]) -> float:
    return float(np.abs(member.sum(axis=1, dtype=np.float64) - 1).max())


def _pieces(rows: int, cells_of_a_row: int) -> Iterator[slice]:
    step = max(1, _CELLS // cells_of_a_row)
    return (slice(start, start + step) for start in range(0, rows, step))
