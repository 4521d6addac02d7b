"""Noise: how much a score moves when other rows of the same kind are drawn.

In:    targets, predictions of one or several models for the same rows.
Out:   the scores of bootstrap resamples; the same rows for every model in each.
Next:  the board shows the deviation, `compare` the interval of a difference.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.experiment import Metric


def resampled(
    metric: Metric, targets: NDArray[Any], members: Sequence[NDArray[Any]], *, draws: int, seed: int = 0
) -> NDArray[np.float64]:
    """Score `draws` bootstrap samples of the rows for each member: shape (draws, members).

    A sample on which the metric is undefined (only one class drawn, for AUC) is NaN.
    Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 6.

    >>> rmse = Metric.rmse()
    >>> resampled(rmse, np.array([0.0, 1.0]), [np.array([0.0, 1.0])], draws=3).tolist()
    [[0.0], [0.0], [0.0]]
    """
    generator = np.random.default_rng(seed)
    scores = np.empty((draws, len(members)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a draw of one class is counted by its NaN, not by a warning each
        for draw in range(draws):
            rows = generator.integers(0, len(targets), len(targets))
            for column, predictions in enumerate(members):
                scores[draw, column] = _score(metric, targets[rows], predictions[rows])
    return scores


def _score(metric: Metric, targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    try:
        return metric(targets, predictions)
    except (ValueError, ArithmeticError, IndexError):  # undefined on this draw, such as one class only
        return float("nan")


def deviation(metric: Metric, targets: NDArray[Any], predictions: NDArray[Any], *, draws: int = 100) -> float:
    """Standard deviation of the score over bootstrap samples of the rows."""
    return float(np.nanstd(resampled(metric, targets, [predictions], draws=draws), ddof=1))
