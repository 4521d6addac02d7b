"""Metric: a score, and which way is up.

In:    a name, a function of (targets, predictions), a direction.
Out:   comparisons that know the direction and never prefer NaN.
Next:  checkpoints, folds, blends and the board rank by it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from batteries.errors import ConfigError, ExperimentError
from batteries.experiment.counted import Scorer, auc_of, average_of, fbeta_of, mcc_of, mean_of, qwk_of
from batteries.files import safe_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

Score = Callable[["NDArray[Any]", "NDArray[Any]"], float]
Counted = Callable[["NDArray[Any]", "NDArray[Any]"], Scorer]


@dataclass(frozen=True, slots=True)
class Metric:
    """A score, and which way is up.

    `fn` takes targets and predictions of the *whole* set, as NumPy arrays: targets of shape (n,) or
    (n, t), predictions of shape (n,) or (n, classes), and returns one number. It may be left out
    where only the direction is needed, as in `Checkpoints`.

    >>> error = Metric("error", lambda y, p: float((y != p).mean()), higher_is_better=False)
    >>> error.better(0.1, than=0.2)
    True
    """

    name: str
    fn: Score | None = None
    _: KW_ONLY
    higher_is_better: bool
    counted: Counted | None = field(default=None, repr=False)
    """The same score for many resamples of one set, fast: from (targets, predictions) to a function of the
    counts of the rows, as `experiment.counted` has them. Built-in scores have one; without it a resample
    is scored by `fn`."""

    def __post_init__(self) -> None:
        safe_name(self.name, "metric")
        if self.fn is not None and not callable(self.fn):
            raise ConfigError(f"metric {self.name!r}: the second argument must be a function, got {self.fn!r}")

    def __call__(self, targets: NDArray[Any], predictions: NDArray[Any]) -> float:
        """Score the whole set. Raises ExperimentError when the function fails or returns no number."""
        if self.fn is None:
            raise ConfigError(f"metric {self.name!r} has no function; write Metric({self.name!r}, function, ...)")
        value = self.fn(targets, predictions)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise ExperimentError(f"metric {self.name!r} must return one number, got {type(value).__name__}") from None

    def better(self, a: float, than: float | None) -> bool:
        """Whether `a` beats `than`. What is not finite beats nothing; anything finite beats None and NaN."""
        if not isfinite(a):
            return False
        if than is None or not isfinite(than):
            return True
        return a > than if self.higher_is_better else a < than

    def order(self, score: float | None) -> tuple[int, float]:
        """Sort key, best first; NaN, infinite and missing scores last."""
        if score is None or not isfinite(score):
            return (1, 0.0)
        return (0, -score if self.higher_is_better else score)

    def gain(self, new: float, old: float) -> float:
        """How much better `new` is than `old`: positive is better whatever the direction."""
        return new - old if self.higher_is_better else old - new

    @classmethod
    def streamed(
        cls, stream: Any, *, name: str | None = None, higher_is_better: bool | None = None, rows: int = 65_536
    ) -> Metric:
        """A metric of torchmetrics, fed some rows at a time, so that it needs no memory for the whole set.

        Parameters
        ----------
        stream
            An object with `reset()`, `update(predictions, targets)` and `compute()`, as those of torchmetrics.
        name, higher_is_better
            As the object's class says, unless given.
        rows
            At most so many in an update.

        Raises
        ------
        ConfigError
            When the object does not say which way is up and `higher_is_better` is not given.

        Example
        -------
        >>> from torchmetrics.classification import MulticlassAUROC
        >>> Metric.streamed(MulticlassAUROC(num_classes=3, thresholds=200)).name
        'MulticlassAUROC'

        """
        up = getattr(stream, "higher_is_better", None) if higher_is_better is None else higher_is_better
        name = name or type(stream).__name__
        if up is None:
            raise ConfigError(f"metric {name!r} does not say which way is up; give higher_is_better=True or False")
        stream = deepcopy(stream)
        stream.distributed_available_fn = _alone  # predictions of all processes are gathered before they are scored
        return cls(name, partial(_streamed, stream, rows), higher_is_better=bool(up))

    @classmethod
    def accuracy(cls) -> Metric:
        """Share of rows whose most probable class is the target (binary: probability >= 0.5)."""
        return cls("accuracy", _accuracy, higher_is_better=True, counted=_counted_accuracy)

    @classmethod
    def auc(cls) -> Metric:
        """Area under the ROC curve; one-vs-rest macro mean for several classes (scikit-learn)."""
        return cls("auc", _auc, higher_is_better=True, counted=_counted_auc)

    @classmethod
    def log_loss(cls) -> Metric:
        """Mean negative log-likelihood of class probabilities (scikit-learn)."""
        return cls("log_loss", _log_loss, higher_is_better=False, counted=_counted_log_loss)

    @classmethod
    def f1(cls) -> Metric:
        """F1 of the most probable class; macro mean for several classes (scikit-learn)."""
        return cls.fbeta(1.0)

    @classmethod
    def fbeta(cls, beta: float) -> Metric:
        """F-beta, named f2 or f0.5: recall counts `beta` times as much as precision; classes as in `f1`."""
        if not (isfinite(beta) and beta > 0):
            raise ConfigError(f"fbeta: beta must be above 0, got {beta}")
        return cls(f"f{beta:g}", _FBeta(beta), higher_is_better=True, counted=_CountedFBeta(beta))

    @classmethod
    def mcc(cls) -> Metric:
        """Matthews correlation of the most probable class, of two classes or more (scikit-learn)."""
        return cls("mcc", _mcc, higher_is_better=True, counted=_counted_mcc)

    @classmethod
    def qwk(cls) -> Metric:
        """Cohen's kappa with quadratic weights (1968), of the most probable class or of the class nearest to a number.

        A class is as far from another as their codes say, whether rows of those between them are there or not.
        It is 0 where all rows are of one class, and said to be.
        """
        return cls("qwk", _qwk, higher_is_better=True, counted=_counted_qwk)

    @classmethod
    def rmse(cls) -> Metric:
        """Root of the mean squared error."""
        return cls("rmse", _rmse, higher_is_better=False, counted=_counted_rmse)

    @classmethod
    def mae(cls) -> Metric:
        """Mean absolute error."""
        return cls("mae", _mae, higher_is_better=False, counted=_counted_mae)


def _alone() -> bool:
    return False


def _streamed(stream: Any, rows: int, targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    import torch

    stream.reset()
    for start in range(0, len(targets), rows):
        stop = start + rows
        stream.update(torch.from_numpy(predictions[start:stop].copy()), torch.from_numpy(targets[start:stop].copy()))
    return float(stream.compute())


def most_probable(predictions: NDArray[Any]) -> NDArray[Any]:
    """Class codes of probabilities: argmax of (n, classes), or >= 0.5 of (n,) or (n, 1)."""
    predictions = _flat(predictions)
    return predictions.argmax(axis=1) if predictions.ndim == 2 else (predictions >= 0.5).astype(int)


def nearest(predictions: NDArray[Any]) -> NDArray[Any]:
    """Class codes of ordered classes: argmax of (n, classes), or the whole number nearest to each of (n,) or (n, 1)."""
    predictions = _flat(predictions)
    rounded = (predictions.astype("float64") + 0.5) // 1  # a half goes up, from 0 as from 1
    codes: NDArray[Any] = predictions.argmax(axis=1) if predictions.ndim == 2 else rounded.astype(int)
    return codes


def _flat(array: NDArray[Any]) -> NDArray[Any]:
    """(n, 1) as (n,): one column is one number a row, and must not be broadcast against the rows."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _paired(targets: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Both with one shape, or ValueError; NumPy would broadcast (n,) and (n, 1) to (n, n)."""
    targets, values = _flat(targets), _flat(values)
    if targets.shape != values.shape:
        raise ValueError(f"targets of shape {targets.shape} cannot be compared with predictions of {values.shape}")
    return targets, values


def _accuracy(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    return float(_right(targets, predictions).mean())


def _right(targets: NDArray[Any], predictions: NDArray[Any]) -> NDArray[Any]:
    targets, codes = _paired(targets, most_probable(predictions))
    return np.asarray(codes == targets)


def _counted_accuracy(targets: NDArray[Any], predictions: NDArray[Any]) -> Scorer:
    return mean_of(_of_row(_right(targets, predictions)))


def _auc(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    from sklearn.metrics import roc_auc_score

    targets, predictions = _flat(targets), _flat(predictions)
    if predictions.ndim == 1 or targets.ndim == 2:
        return float(roc_auc_score(targets, predictions))
    if predictions.shape[1] == 2:
        return float(roc_auc_score(targets, predictions[:, 1]))
    classes = range(predictions.shape[1])  # one by one, as the rows of a rank blend do not add up to 1
    if set(targets.tolist()) != set(classes):
        raise ValueError(f"AUC needs rows of all {len(classes)} classes, got {sorted(set(targets.tolist()))}")
    return sum(float(roc_auc_score(targets == c, predictions[:, c])) for c in classes) / len(classes)


def _counted_auc(targets: NDArray[Any], predictions: NDArray[Any]) -> Scorer:
    targets, predictions = _flat(targets), _flat(predictions)
    if targets.ndim == 2:  # labels that can hold together: each alone
        return average_of([auc_of(targets[:, c] == 1, predictions[:, c]) for c in range(targets.shape[1])])
    if predictions.ndim == 1 or predictions.shape[1] == 2:
        return auc_of(targets == targets.max(), predictions if predictions.ndim == 1 else predictions[:, 1])
    return average_of([auc_of(targets == c, predictions[:, c]) for c in range(predictions.shape[1])])


def _log_loss(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    from sklearn.metrics import log_loss

    probabilities, classes = _probabilities(predictions)
    return float(log_loss(targets, probabilities, labels=list(range(classes))))


def _probabilities(predictions: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Probabilities as scikit-learn takes them, and the number of classes."""
    predictions = _flat(predictions)
    if predictions.ndim == 1:
        return predictions, 2
    predictions = predictions.astype("float64")  # rows of float32 probabilities miss 1 by a rounding error
    return predictions / predictions.sum(axis=1, keepdims=True), predictions.shape[1]


def _counted_log_loss(targets: NDArray[Any], predictions: NDArray[Any]) -> Scorer:
    probabilities, _ = _probabilities(predictions)
    codes = _flat(targets).astype("int64")
    if probabilities.ndim == 1:
        probabilities = np.stack([1 - probabilities, probabilities], axis=1)
    least = np.finfo(probabilities.dtype).eps  # as scikit-learn clips
    of_target = probabilities[np.arange(len(codes)), codes].clip(least, 1 - least)
    return mean_of(-np.log(of_target, dtype="float64"))


@dataclass(frozen=True)
class _FBeta:
    """Equal by value, so that metrics are."""

    beta: float

    def __call__(self, targets: NDArray[Any], predictions: NDArray[Any]) -> float:
        from sklearn.metrics import fbeta_score

        average = "macro" if _several(predictions) else "binary"
        return float(fbeta_score(targets, most_probable(predictions), beta=self.beta, average=average))


@dataclass(frozen=True)
class _CountedFBeta:
    beta: float

    def __call__(self, targets: NDArray[Any], predictions: NDArray[Any]) -> Scorer:
        several = _several(predictions)
        return fbeta_of(_flat(targets), most_probable(predictions), beta=self.beta, macro=several)


def _several(predictions: NDArray[Any]) -> bool:
    return predictions.ndim == 2 and predictions.shape[1] > 2


def _mcc(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(*_paired(targets, most_probable(predictions))))


def _counted_mcc(targets: NDArray[Any], predictions: NDArray[Any]) -> Scorer:
    return mcc_of(*_paired(targets, most_probable(predictions)))


def _qwk(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    targets, codes = _paired(targets.astype("float64"), nearest(predictions).astype("float64"))
    by_chance = codes.var() + targets.var() + (codes.mean() - targets.mean()) ** 2  # mean over all pairs of rows
    return float(1 - ((codes - targets) ** 2).mean() / by_chance) if by_chance else 0.0


def _counted_qwk(targets: NDArray[Any], predictions: NDArray[Any]) -> Scorer:
    return qwk_of(*_paired(targets, nearest(predictions)))


def _rmse(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    return float((_errors(targets, predictions) ** 2).mean() ** 0.5)


def _errors(targets: NDArray[Any], predictions: NDArray[Any]) -> NDArray[Any]:
    targets, predictions = _paired(targets, predictions.astype("float64"))
    return np.asarray(predictions - targets)


def _counted_rmse(targets: NDArray[Any], predictions: NDArray[Any]) -> Scorer:
    return mean_of(_of_row(_errors(targets, predictions) ** 2), root=True)


def _mae(targets: NDArray[Any], predictions: NDArray[Any]) -> float:
    return float(abs(_errors(targets, predictions)).mean())


def _counted_mae(targets: NDArray[Any], predictions: NDArray[Any]) -> Scorer:
    return mean_of(_of_row(abs(_errors(targets, predictions))))


def _of_row(errors: NDArray[Any]) -> NDArray[Any]:
    """One number a row: the mean over the targets where there are several."""
    return errors if errors.ndim == 1 else errors.mean(axis=1)
