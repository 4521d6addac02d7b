"""Quadratic: the lowest point of a convex quadratic over shares that add up to 1.

In:    a symmetric matrix without negative eigenvalues, a vector, the most that one share may be.
Out:   the shares.
Next:  `simplex` solves least squares with one call, log-loss with a few.
"""

from __future__ import annotations

from math import floor

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_RIDGE = 1e-12
_EXACT = 1e-14


def lowest_point(curvature: Array, slope: Array, *, most: float = 1.0) -> Array:
    """Minimise w'Hw/2 + g'w over weights w of sum 1 in [0, most].

    A primal active-set method: the equations of the free weights are solved, the first weight to reach a bound is
    fixed there, and once none is in the way the fixed weight that pushes inwards most is freed. Nocedal & Wright
    2006, Numerical Optimization, 16.5. A trace of a ridge makes equal members share equally.

    Parameters
    ----------
    curvature, slope
        H of shape (k, k) and g of shape (k,).
    most
        At least 1 / k.

    >>> lowest_point(np.diag([1.0, 3.0]), np.zeros(2)).round(4).tolist()
    [0.75, 0.25]
    """
    size = len(slope)
    weights = np.zeros(size)
    if most * size <= 1 + _RIDGE:
        return np.full(size, 1 / size)
    scale = float(np.abs(curvature).max() + np.abs(slope).max()) or 1.0
    curvature, slope = curvature / scale + _RIDGE * np.eye(size), slope / scale
    first = np.argsort(curvature.diagonal() / 2 + slope, kind="stable")[: min(size, floor(1 / most) + 1)]
    free, entering = np.zeros(size, dtype=bool), -1
    weights[first], free[first] = 1 / len(first), True
    for _ in range(20 * size + 100):  # far more than it takes; the caller looks at `gap`
        direction = _direction(curvature, curvature @ weights + slope, free)
        length, blocking = _length(weights, direction, free, most)
        weights += length * direction
        if blocking is not None:
            weights[blocking] = 0.0 if direction[blocking] < 0 else most
            free[blocking] = False
            if blocking == entering and length == 0:  # it was freed for a push that is rounding
                break
            continue
        gradient = curvature @ weights + slope
        push = np.where(weights > most / 2, 1, -1) * (gradient - gradient[free].mean())
        push[free] = 0.0
        entering = int(push.argmax())
        if push[entering] <= _EXACT:
            break
        free[entering] = True
    weights = np.clip(weights, 0.0, most)
    shares: Array = weights / weights.sum()
    return shares


def _direction(curvature: Array, gradient: Array, free: NDArray[np.bool_]) -> Array:
    """Step to the lowest point of the free weights, their sum kept, without regard to bounds."""
    places = np.flatnonzero(free)
    equations = np.ones((len(places) + 1, len(places) + 1))
    equations[:-1, :-1] = curvature[np.ix_(places, places)]
    equations[-1, -1] = 0.0
    direction = np.zeros(len(gradient))
    direction[places] = np.linalg.solve(equations, np.append(-gradient[places], 0.0))[:-1]
    return direction


def _length(weights: Array, direction: Array, free: NDArray[np.bool_], most: float) -> tuple[float, int | None]:
    """How much of a step can be taken, at most all of it, and the weight that is in the way."""
    room = np.full(len(weights), np.inf)
    down, up = free & (direction < 0), free & (direction > 0)
    room[down] = weights[down] / -direction[down]
    room[up] = (most - weights[up]) / direction[up]
    blocking = int(room.argmin())
    return (1.0, None) if room[blocking] >= 1 else (max(0.0, float(room[blocking])), blocking)


def gap(slope: Array, weights: Array, *, most: float = 1.0) -> float:
    """How far a convex function can be above its lowest point, from its slope at `weights` (Frank & Wolfe 1956).

    >>> gap(np.array([1.0, 3.0]), np.array([0.5, 0.5]))
    1.0
    """
    rest, lowest = 1.0, 0.0
    for height in np.sort(slope):
        share = min(most, rest)
        lowest, rest = lowest + share * float(height), rest - share
        if rest <= 0:
            break
    return float(slope @ weights) - lowest
