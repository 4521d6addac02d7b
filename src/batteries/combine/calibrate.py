"""Calibrate: probabilities that mean what they say, where that is shown to help.

In:    out-of-fold probabilities, targets, folds; or an entry that has them.
Out:   a calibrator and its log loss before, in sample and nested; or a new entry, if the nested one is lower.
Next:  the board scores the entry; `reliability` gives the bins of its diagram.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from batteries.combine.blend import ORDERS
from batteries.combine.crossfit import Array, checked_codes, cross_fit
from batteries.combine.derive import derive_entry, scored, warn_of_later_rows
from batteries.combine.reliability import BINS, Quality, class_rows, eps_of, quality
from batteries.errors import DataError, UsageError
from batteries.score.entry import Entry

How = Literal["temperature", "platt", "isotonic"]
HOTTEST = 100.0
"""Temperatures are sought from 1 / HOTTEST to HOTTEST; beyond, there is nothing in the predictions to scale."""


@dataclass(frozen=True)
class Temperature:
    """Log-probabilities divided by one number, then normalised: keeps the order of the classes of a row.

    >>> Temperature(2.0, eps=1e-15)(np.array([0.9, 0.5])).round(4).tolist()
    [0.75, 0.5]
    """

    temperature: float
    eps: float

    def __call__(self, values: NDArray[Any]) -> Array:
        """Return calibrated probabilities in the shape of the given ones."""
        return _alike(_softmax(_logs(values, self.eps) / self.temperature), values)


@dataclass(frozen=True)
class Platt:
    """A logistic curve of the log-odds, one for each class; of two classes, one."""

    slopes: tuple[float, ...]
    intercepts: tuple[float, ...]
    eps: float

    def __call__(self, values: NDArray[Any]) -> Array:
        """Return calibrated probabilities in the shape of the given ones."""
        from scipy.special import expit

        odds = _log_odds(_ones(class_rows(values)), self.eps)
        return _alike(_joined(expit(odds * self.slopes + self.intercepts), self.eps), values)


@dataclass(frozen=True)
class Isotonic:
    """A rising curve through points, straight between them, one for each class; of two classes, one."""

    curves: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
    """For each, stated probabilities and what they become."""
    eps: float

    def __call__(self, values: NDArray[Any]) -> Array:
        """Return calibrated probabilities in the shape of the given ones."""
        columns = _ones(class_rows(values)).T
        risen = [np.interp(column, *curve) for column, curve in zip(columns, self.curves, strict=True)]
        return _alike(_joined(np.stack(risen, axis=1), self.eps), values)


Calibrator = Temperature | Platt | Isotonic


def fit_temperature(values: NDArray[Any], targets: NDArray[Any], *, eps: float | None = None) -> Temperature:
    """Fit T > 0 by the log loss of softmax(log p / T).

    The loss is convex in 1 / T, so the zero of its slope is the minimum. Where there is none between
    1 / `HOTTEST` and `HOTTEST`, that end is taken; where every row is flat, T is 1.

    Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv 1706.04599. Arguments and errors as `calibrate`.
    """
    from scipy.optimize import brentq

    eps = _eps(values, eps)
    logs = _logs(values, eps)
    codes = checked_codes(targets, len(logs), logs.shape[1])
    below = logs - logs.max(axis=1, keepdims=True)  # a row may be shifted: the loss is the same
    own = float(below[np.arange(len(logs)), codes].mean())

    def slope(theta: float) -> float:
        shares = np.exp(below * np.exp(-theta))
        expected = np.einsum("ij,ij->i", shares, below) / shares.sum(axis=1)
        return float(expected.mean()) - own

    if not below.any():
        return Temperature(1.0, eps)
    sharp, flat = -np.log(HOTTEST), np.log(HOTTEST)
    if slope(sharp) <= 0 or slope(flat) >= 0:
        return Temperature(1 / HOTTEST if slope(sharp) <= 0 else HOTTEST, eps)
    return Temperature(float(np.exp(brentq(slope, sharp, flat, xtol=1e-12))), eps)


def fit_platt(values: NDArray[Any], targets: NDArray[Any], *, eps: float | None = None) -> Platt:
    """Fit a logistic curve of the log-odds for each class against the others; rows are normalised after it.

    Targets are Platt's, (n + 1) / (n + 2) and 1 / (n + 2) of the rows inside and outside the class, so that
    the curve stays finite where classes part cleanly.

    Platt 1999, Probabilistic Outputs for Support Vector Machines; one against the rest: Zadrozny & Elkan 2002,
    Transforming Classifier Scores into Accurate Multiclass Probability Estimates. Arguments and errors as `calibrate`.
    """
    eps = _eps(values, eps)
    odds, members = _one_against_rest(values, targets)
    fitted = [_logistic(_log_odds(column, eps), inside) for column, inside in zip(odds.T, members.T, strict=True)]
    return Platt(tuple(slope for slope, _ in fitted), tuple(intercept for _, intercept in fitted), eps)


def _logistic(odds: Array, inside: NDArray[np.bool_]) -> tuple[float, float]:
    from scipy.optimize import minimize
    from scipy.special import expit

    count, total = int(inside.sum()), len(inside)
    wanted = np.where(inside, (count + 1) / (count + 2), 1 / (total - count + 2))
    inputs = np.stack([odds, np.ones(total)], axis=1)

    def loss(line: Array) -> tuple[float, Array]:
        lifted = inputs @ line
        return float((np.logaddexp(0, lifted) - wanted * lifted).mean()), inputs.T @ (expit(lifted) - wanted) / total

    def curvature(line: Array) -> Array:
        share = expit(inputs @ line)
        curved: Array = (inputs * (share * (1 - share))[:, None]).T @ inputs / total
        return curved

    start = np.array([0.0, np.log((count + 1) / (total - count + 1))])
    found = minimize(loss, start, jac=True, hess=curvature, method="trust-exact", options={"gtol": 1e-10})
    return float(found.x[0]), float(found.x[1])


def fit_isotonic(values: NDArray[Any], targets: NDArray[Any], *, eps: float | None = None) -> Isotonic:
    """Fit the rising step curve of least squares for each class against the others; rows are normalised after it.

    It follows any rising shape and so needs many rows. Its ends are often 0 and 1, taken as `eps` and 1 - `eps`:
    one row on the wrong side of such an end costs a log loss of 34.5 (1e-15), which the nested estimate shows.

    Zadrozny & Elkan 2002; the curve is scikit-learn's IsotonicRegression. Arguments and errors as `calibrate`.
    """
    from sklearn.isotonic import IsotonicRegression

    stated, members = _one_against_rest(values, targets)
    curves = []
    for column, inside in zip(stated.T, members.T, strict=True):
        curve = IsotonicRegression(y_min=0.0, y_max=1.0).fit(column, inside.astype(np.float64))
        curves.append((tuple(curve.X_thresholds_.tolist()), tuple(curve.y_thresholds_.tolist())))
    return Isotonic(tuple(curves), _eps(values, eps))


_FITS: dict[str, Callable[..., Calibrator]] = {
    "temperature": fit_temperature,
    "platt": fit_platt,
    "isotonic": fit_isotonic,
}


@dataclass(frozen=True)
class Calibration:
    """A calibrator, and whether it helps rows that it was not fitted on."""

    how: How
    fitted: Calibrator
    """On all rows."""
    by_fold: dict[int, Calibrator]
    """Fitted on all folds but one: how far they lie apart is how sure `fitted` is."""
    values: Array
    """What `by_fold` make of the rows of their folds; the shape of the predictions."""
    before: Quality
    in_sample: Quality
    """Of `fitted` on the rows it was fitted on: too good, by as much as it learned of their noise."""
    nested: Quality
    """Of `values`: to be believed."""

    @property
    def accepted(self) -> bool:
        """Whether the nested log loss is lower than the one before."""
        return self.nested.log_loss < self.before.log_loss

    def __call__(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return calibrated probabilities, or the given ones where calibration was not accepted."""
        return self.fitted(values) if self.accepted else values

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        about = {name: getattr(self, name).plain() for name in ("before", "in_sample", "nested")}
        fitted = {"fitted": asdict(self.fitted), "by_fold": {str(f): asdict(each) for f, each in self.by_fold.items()}}
        return {"how": self.how, "accepted": self.accepted, **about, **fitted}


def calibrate(
    values: NDArray[Any],
    targets: NDArray[Any],
    folds: NDArray[Any],
    *,
    how: How = "temperature",
    bins: int = BINS,
    eps: float | None = None,
) -> Calibration:
    """Fit a calibrator to out-of-fold probabilities and estimate over the folds whether it helps.

    Parameters
    ----------
    values
        Probabilities of class 1, shape (n,), or of all classes, (n, classes), rows that sum to 1.
    targets
        Class codes, shape (n,).
    folds
        The fold of each row, shape (n,): each is calibrated by what is fitted on the others.
    how
        `temperature`: one number; `platt`: a line in log-odds; `isotonic`: any rising curve. With more than
        two classes the last two take each class against the rest, and normalise.
    bins
        For the expected calibration error.
    eps
        Probabilities below it are taken as it: 1e-15, or 1e-7 for float32, unless given.

    Raises
    ------
    DataError
        When values are no probabilities, or targets and folds do not fit them.
    UsageError
        When there is no such `how`, or `eps` is not in (0, 0.5).

    >>> sure, right = np.array([0.99, 0.99, 0.01, 0.01] * 10), np.array([1, 0, 0, 0] * 10)
    >>> result = calibrate(sure, right, np.arange(40) // 20)
    >>> result.accepted, round(result.before.log_loss, 3), round(result.nested.log_loss, 3)
    (True, 1.159, 0.562)

    """
    if how not in get_args(How):
        raise UsageError(f"there is no calibration {how!r}; choose one of {', '.join(get_args(How))}")
    values, targets, eps = np.asarray(values), np.asarray(targets), _eps(values, eps)
    fit = partial(_FITS[how], eps=eps)
    fitted, nested = fit(values, targets), cross_fit(fit, values, targets, folds)
    before, in_sample, after = (
        quality(each, targets, bins=bins, eps=eps) for each in (values, fitted(values), nested.values)
    )
    return Calibration(how, fitted, nested.models, nested.values, before, in_sample, after)


def calibrate_entry(
    entry: Entry, root: Path | str = "runs", *, how: How = "temperature", bins: int = BINS, eps: float | None = None
) -> tuple[Calibration, Entry]:
    """Calibrate an entry into a new one, or return it as it is where the nested log loss is not lower.

    The new entry's out-of-fold predictions are the nested ones, so its score on the board is honest; its
    test predictions are those of the calibrator of all rows.

    Raises
    ------
    DataError
        When the predictions are ranks or no probabilities, or do not cover every row.

    """
    if entry.config.get("how") in ORDERS:
        raise DataError(f"{entry.name} holds ranks or powers, an order and no probabilities; calibrate another blend")
    oof = scored(entry)
    warn_of_later_rows(entry)
    assert oof.targets is not None
    assert oof.folds is not None
    result = calibrate(oof.values, oof.targets, oof.folds, how=how, bins=bins, eps=eps)
    if not result.accepted:
        return result, entry
    settings = {"how": how, "eps": result.fitted.eps}
    made = derive_entry(
        entry,
        root,
        "calibrated",
        settings=settings,
        learned=result.plain(),
        make=lambda test: result.fitted(test.values),
        values=result.values,
    )
    return result, made


def _eps(values: NDArray[Any], eps: float | None) -> float:
    eps = eps_of(values) if eps is None else eps
    if not 0 < eps < 0.5:
        raise UsageError(f"eps must be above 0 and below 0.5, got {eps}")
    return eps


def _logs(values: NDArray[Any], eps: float) -> Array:
    logs: Array = np.log(np.maximum(class_rows(values), eps))
    return logs


def _softmax(logits: Array) -> Array:
    from scipy.special import softmax

    rows: Array = softmax(logits, axis=1)
    return rows


def _ones(rows: NDArray[Any]) -> NDArray[Any]:
    """The columns that are calibrated: that of class 1 of two classes, else all."""
    return rows[:, 1:] if rows.shape[1] == 2 else rows


def _one_against_rest(values: NDArray[Any], targets: NDArray[Any]) -> tuple[Array, NDArray[np.bool_]]:
    """Columns to calibrate, and which rows are of their classes."""
    rows = class_rows(values)
    codes = checked_codes(targets, len(rows), rows.shape[1])
    return _ones(rows), _ones(codes[:, None] == np.arange(rows.shape[1]))


def _log_odds(stated: Array, eps: float) -> Array:
    from scipy.special import logit

    odds: Array = logit(np.clip(stated, eps, 1 - eps))
    return odds


def _joined(columns: Array, eps: float) -> Array:
    """Rows of all classes from calibrated columns, none below `eps`; a row of zeros becomes a flat one."""
    columns = np.clip(columns, eps, 1 - eps)
    if columns.shape[1] == 1:
        return np.concatenate([1 - columns, columns], axis=1)
    rows: Array = columns / columns.sum(axis=1, keepdims=True)
    return rows


def _alike(rows: Array, values: NDArray[Any]) -> Array:
    """Rows of all classes in the shape of the predictions."""
    return rows if np.ndim(values) == 2 and np.shape(values)[1] > 1 else rows[:, 1].reshape(np.shape(values))
