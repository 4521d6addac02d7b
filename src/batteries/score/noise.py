"""Noise: how much a score moves when other rows of the same kind are drawn.

In:    targets, predictions of one or several models for the same rows.
Out:   the scores of bootstrap resamples; the same rows for every model in each.
Next:  the board shows the deviation, `compare` the interval of a difference.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.errors import DataError, ExperimentError
from batteries.experiment import Metric
from batteries.experiment.counted import Counts, Scorer, Scores
from batteries.prepare.seed import derive_seed
from batteries.progress import Progress
from batteries.score.resample import Groups, Resampling, Rows

_PIECE = 2**17  # counts held at once by a thread: 1 MB, so that they stay near the processor
_MANY = 2**22  # counts in all, below which a second thread costs more than it saves
_MOST_THREADS = 4
_SAME = 1e-5  # of a score: scikit-learn takes float32 probabilities as they are
Draw = Callable[[np.random.Generator, int], Counts]


def resampled(
    metric: Metric,
    targets: NDArray[Any],
    members: Sequence[NDArray[Any]],
    *,
    draws: int,
    seed: int = 0,
    how: Resampling | None = None,
    progress: bool = False,
) -> NDArray[np.float64]:
    """Score `draws` bootstrap samples of the rows for each member, on the same rows in each sample.

    A metric with a `counted` form is scored by it, in O(rows) a sample and on several threads; any other is
    computed whole on the drawn rows. The result is the same for any number of threads.

    Parameters
    ----------
    metric, targets
        The score, and the targets of all rows.
    members
        Predictions of each model, rows in the order of the targets.
    draws, seed
        How many samples; other seeds draw others. The first samples of a longer run are those of a shorter one.
    how
        What is drawn: rows by default, `Groups` or `Blocks` where rows belong together.
    progress
        Whether to show a bar.

    Returns
    -------
    float64 of shape (draws, members). A sample on which the metric is undefined (only one class drawn, for
    AUC) is NaN; all are where all rows are of one group, of which no other can be drawn.

    Raises
    ------
    DataError
        When there are no rows, or members have other numbers of them.
    ExperimentError
        When the counted form of a metric says something else than the metric.

    >>> rmse = Metric.rmse()
    >>> resampled(rmse, np.array([0.0, 1.0]), [np.array([0.0, 1.0])], draws=3).tolist()
    [[0.0], [0.0], [0.0]]

    """
    chosen = how or Rows()
    scorers = [scorer(metric, targets, predictions) for predictions in members]
    n = len(targets)
    if isinstance(chosen, Groups) and chosen.num_groups < 2:
        return np.full((draws, len(members)), np.nan)

    def draw(generator: np.random.Generator, number: int) -> Counts:
        return chosen.counts(generator, number, n)

    def score(counts: Counts) -> NDArray[np.float64]:
        return np.stack([each(counts) for each in scorers], axis=1)

    pieces = drawn(draw, score, draws=draws, rows=n, seed=seed, threads=threads_for(metric), progress=progress)
    return np.concatenate([np.empty((0, len(members))), *pieces])


def drawn(
    draw: Draw,
    score: Callable[[Counts], NDArray[np.float64]],
    *,
    draws: int,
    rows: int,
    seed: int,
    threads: int,
    progress: bool = False,
) -> Iterator[NDArray[np.float64]]:
    """Yield the scores of `draws` sets of rows, some at a time, in the order of the draws.

    Each piece has a generator of its own, and its size depends on the rows alone.
    """
    size = max(1, _PIECE // rows)
    pieces = range(0, draws, size)

    def one(start: int) -> NDArray[np.float64]:
        generator = np.random.default_rng(derive_seed(seed, "resample", start))
        return score(draw(generator, min(size, draws - start)))

    workers = 1 if draws * rows < _MANY else threads
    with Progress("resample", total=draws, show=progress) as bar:
        for scores in map(one, pieces) if workers == 1 else _in_threads(one, pieces, workers):
            bar.advance(len(scores))
            yield scores


def _in_threads(
    one: Callable[[int], NDArray[np.float64]], pieces: Sequence[int], workers: int
) -> Iterator[NDArray[np.float64]]:
    executor = ThreadPoolExecutor(workers)
    try:
        yield from executor.map(one, pieces)
    finally:
        executor.shutdown(cancel_futures=True)  # Ctrl-C waits for a piece, not for all of them


def threads_for(metric: Metric) -> int:
    """Threads that may score: one where a user's function is called, which may not bear more."""
    if metric.counted is None:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(_MOST_THREADS, cores)


def scorer(metric: Metric, targets: NDArray[Any], predictions: NDArray[Any]) -> Scorer:
    """Return the function that scores any counts of these rows; NaN where the metric is undefined on them or on all.

    Raises
    ------
    DataError
        When there are no rows, or other numbers of targets and predictions.
    ExperimentError
        When the counted form of a metric says something else than the metric of the whole set.

    >>> scorer(Metric.mae(), np.array([0.0, 0.0]), np.array([1.0, 3.0]))(np.array([[3, 1]])).tolist()
    [1.5]

    """
    if not len(targets) or len(targets) != len(predictions):
        raise DataError(f"scores are of as many predictions as targets, got {len(predictions)} of {len(targets)} rows")
    whole = score_or_nan(metric, targets, predictions)
    if np.isnan(whole):  # what has no score has no noise either
        return lambda counts: np.full(len(counts), np.nan)
    if metric.counted is None:
        return _by_rows(metric, targets, predictions)
    counted = metric.counted(targets, predictions)
    with np.errstate(all="ignore"):
        found = float(counted(np.ones((1, len(targets)), dtype=np.int64))[0])
    if not np.isclose(found, whole, rtol=_SAME, atol=_SAME * _SAME):
        raise ExperimentError(
            f"metric {metric.name!r}: its counted form gives {found} where its function gives {whole};"
            " correct it, or leave `counted` out"
        )
    return counted


def _by_rows(metric: Metric, targets: NDArray[Any], predictions: NDArray[Any]) -> Scorer:
    def score(counts: Counts) -> Scores:
        rows = (np.repeat(np.arange(len(targets)), line) for line in counts)
        return np.array([score_or_nan(metric, targets[drawn], predictions[drawn]) for drawn in rows])

    return score


def score_or_nan(metric: Metric, targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    """Score a set of rows; NaN where the metric is not defined on it, as AUC is not on one class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is counted by its NaN, not by a warning each
        try:
            return metric(targets, predictions)
        except (ValueError, ArithmeticError, IndexError):
            return float("nan")


def gains(metric: Metric, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much the second column is better than the first, whatever the direction, where both are defined.

    >>> gains(Metric.mae(), np.array([[2.0, 1.5], [np.nan, 1.0]])).tolist()
    [0.5]
    """
    defined = scores[np.isfinite(scores[:, :2]).all(axis=1)]
    higher: NDArray[np.float64] = defined[:, 1] - defined[:, 0]
    return higher if metric.higher_is_better else -higher


def deviation(
    metric: Metric,
    targets: NDArray[Any],
    predictions: NDArray[Any],
    *,
    draws: int | None = None,
    how: Resampling | None = None,
) -> float:
    """Standard deviation of the score over bootstrap samples of the rows; NaN where it is undefined.

    400 samples, or 100 where the metric has no `counted` form.
    """
    draws = draws or (100 if metric.counted is None else 400)
    return spread(resampled(metric, targets, [predictions], draws=draws, how=how)[:, 0])


def spread(scores: NDArray[np.float64]) -> float:
    """Standard deviation of the scores that are defined; NaN for fewer than two."""
    defined = scores[np.isfinite(scores)]
    return float(defined.std(ddof=1)) if len(defined) > 1 else float("nan")
