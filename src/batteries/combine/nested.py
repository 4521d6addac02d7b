"""Nested: what fitted weights are worth on rows that they were not fitted on.

In:    out-of-fold predictions of several members, the folds, a way to fit weights.
Out:   the score of the blend when each fold is blended with the weights of the others, and its gain over equal
       weights and over the best member, with an interval; beside it the score in-sample, which flatters.
Next:  `fit_blend` makes an entry of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.combine.fitted import Fitted
from batteries.combine.objective import Array, weighted_sum
from batteries.errors import BlendError
from batteries.experiment import Metric
from batteries.score.noise import resampled
from batteries.score.resample import Resampling

Fitting = Callable[[Sequence[NDArray[Any]], NDArray[Any]], Fitted]
"""From members and targets to weights."""


@dataclass(frozen=True)
class Gain:
    """How much better one blend is than another on the same rows; positive is better whatever the direction."""

    over: str
    score: float
    """Of what the blend is compared with."""
    gain: float
    low: float
    """Lower end of the 95 % percentile interval of the gain over resampled rows."""
    high: float
    p: float
    """Two-sided, from the same resamples."""

    @property
    def verdict(self) -> str:
        """The answer in words."""
        gain = f"{self.gain:+.5f} over {self.over} (95 % interval {self.low:+.5f} to {self.high:+.5f})"
        if self.low > 0:
            return f"{gain} is larger than the noise"
        return f"{gain} is a loss" if self.high < 0 else f"{gain} is within the noise"


@dataclass(frozen=True)
class NestedEstimate:
    """The honest score of fitted weights, and what to make of it."""

    fitted: Fitted
    """The weights fitted on all rows: those to use."""
    score: float
    """The metric of all rows together, each blended with weights of the other folds."""
    over_equal: Gain
    """Over equal weights."""
    over_best: Gain
    """Over the member that is best on all rows. Chosen on them, it looks a little better than it is."""
    in_sample_gain: float
    """Over equal weights, by the weights that have seen all rows."""
    fold_weights: tuple[tuple[float, ...], ...]
    """As fitted without each fold in turn."""
    spread: float
    """The largest standard deviation of a member's weight over the folds."""
    undefined: int
    """Resamples without a score, such as those of one class only; they count in no interval."""
    values: Array = field(compare=False, repr=False)
    """The blend of every row by weights that have not seen it; the shape of the members, float64."""

    @property
    def weights(self) -> tuple[float, ...]:
        """One a member, in their order."""
        return self.fitted.weights

    @property
    def real(self) -> bool:
        """Whether both gains are larger than the noise of the rows."""
        return self.over_equal.low > 0 and self.over_best.low > 0

    @property
    def sentence(self) -> str:
        """The answer in words."""
        return (
            f"On rows they were not fitted on, the weights score {self.fitted.metric} {self.score:.5f}"
            f" (in-sample {self.fitted.score:.5f}, {self.in_sample_gain:+.5f} over equal weights):"
            f" a gain of {self.over_equal.verdict}, of {self.over_best.verdict}. {self._advice}"
        )

    @property
    def _advice(self) -> str:
        equal, best = self.over_equal, self.over_best
        if self.real:
            return "The gain is real: use the weights."
        if best.high < 0:
            return f"{best.over} alone is better."
        if equal.high < 0:
            return "Equal weights are better."
        return f"{best.over} alone does as well." if equal.low > 0 else "Equal weights do as well."

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data, for the record of a blend."""
        kept = {name: value for name, value in asdict(self).items() if name != "values"}
        return {**kept, "real": self.real, "sentence": self.sentence}


def nested(
    members: Sequence[NDArray[Any]],
    targets: NDArray[Any],
    folds: NDArray[np.int64],
    metric: Metric,
    fit: Fitting,
    *,
    names: Sequence[str] | None = None,
    draws: int = 2000,
    seed: int = 0,
    how: Resampling | None = None,
) -> NestedEstimate:
    """Fit weights without each fold in turn, blend the fold with them, and score all rows together.

    Parameters
    ----------
    members, targets
        As for `fit_weights`: out-of-fold predictions, and the truth.
    folds
        The fold that held each row out, shape (n,); the same for all members.
    metric
        What the weights are judged by.
    fit
        From members and targets of some rows to weights, such as `partial(fit_weights, metric=metric)`.
    names
        Of the members, for the sentence; `member 1`, ... by default.
    draws
        Resamples of the rows, the same for all that is compared. The interval is that of the rows' noise alone.
    how
        What is drawn: rows by default, `Groups` or `Blocks` where rows belong together.

    Raises
    ------
    BlendError
        When there is one fold only or the folds do not fit the members, or for what `fit` refuses.

    Notes
    -----
    Weights chosen by the score that they are then judged by look better than they are; nested folds do not, as every
    row is scored by weights that have not seen it (Varma & Simon 2006, BMC Bioinformatics 7:91). Intervals: paired
    percentile bootstrap (Efron & Tibshirani 1993).

    Example
    -------
    >>> from batteries.combine.fitted import fit_weights
    >>> truth = np.arange(12.0)
    >>> members = [truth + 1, truth - 3]
    >>> folds, metric = np.arange(12) % 3, Metric.rmse()
    >>> estimate = nested(members, truth, folds, metric, lambda m, t: fit_weights(m, t, metric, how="simplex"))
    >>> round(estimate.over_equal.gain, 3), estimate.real
    (1.0, True)

    """
    members, targets, folds = [np.asarray(member) for member in members], np.asarray(targets), np.asarray(folds)
    fitted = fit(members, targets)  # first, as it checks members and targets
    names = _names(names, len(members))
    held_out = _held_out(folds, len(targets))
    if draws < 1:
        raise BlendError(f"draws must be >= 1, got {draws}")
    blended, fold_weights = np.empty(members[0].shape), []
    for rows in held_out:
        weights = fit([member[~rows] for member in members], targets[~rows]).weights
        blended[rows] = weighted_sum([member[rows] for member in members], np.array(weights))
        fold_weights.append(weights)
    equal = weighted_sum(members, np.full(len(members), 1 / len(members)))
    scores = [metric(targets, member.astype(np.float64)) for member in members]
    best = min(range(len(members)), key=lambda member: metric.order(scores[member]))
    drawn = resampled(metric, targets, [blended, equal, members[best]], draws=draws, seed=seed, how=how)
    drawn = drawn[np.isfinite(drawn).all(axis=1)]
    if not len(drawn):
        raise BlendError(f"{metric.name} is undefined on every resample of {len(targets)} rows")
    score, of_equal = metric(targets, blended), metric(targets, equal)
    return NestedEstimate(
        fitted,
        score,
        over_equal=_gain(metric, "equal weights", score, of_equal, drawn[:, 0], drawn[:, 1]),
        over_best=_gain(metric, names[best], score, scores[best], drawn[:, 0], drawn[:, 2]),
        in_sample_gain=metric.gain(fitted.score, of_equal),
        fold_weights=tuple(fold_weights),
        spread=float(np.std(fold_weights, axis=0, ddof=1).max()),
        undefined=draws - len(drawn),
        values=blended,
    )


def _names(names: Sequence[str] | None, members: int) -> list[str]:
    if names is None:
        return [f"member {number}" for number in range(1, members + 1)]
    if len(names) != members:
        raise BlendError(f"{members} members need {members} names, got {len(names)}")
    return list(names)


def _held_out(folds: NDArray[np.int64], rows: int) -> list[NDArray[np.bool_]]:
    if folds.shape != (rows,):
        raise BlendError(f"{rows} rows need {rows} folds, got the shape {folds.shape}")
    numbers = np.unique(folds)
    if len(numbers) < 2:
        raise BlendError(f"nested scores need 2 folds or more, all rows are of fold {numbers[0]}")
    return [np.asarray(folds == number) for number in numbers]


def _gain(metric: Metric, over: str, score: float, other: float, drawn: Array, drawn_other: Array) -> Gain:
    sign = 1 if metric.higher_is_better else -1
    gains = sign * (drawn - drawn_other)
    low, high = np.quantile(gains, [0.025, 0.975])
    at_most, at_least = (1 + int((gains <= 0).sum())), (1 + int((gains >= 0).sum()))
    p = min(1.0, 2 * min(at_most, at_least) / (len(gains) + 1))
    return Gain(over, other, metric.gain(score, other), float(low), float(high), p)
