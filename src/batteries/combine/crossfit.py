"""Cross-fit: what a small model says of each fold when it was fitted on the other folds.

In:    out-of-fold predictions, their targets and folds; a function that fits.
Out:   a value for every row that its own target had no part in, and the model of each fold.
Next:  `calibrate`, `decide` and `stack` are fitted so; `derive` makes entries of the first two.

The predictions of the other folds come from models that were trained with this fold's rows, so a
cross-fitted score is not wholly free of its targets; it is free of what the small model learns from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from batteries.errors import DataError

Array = NDArray[np.float64]
Model = TypeVar("Model", bound=Callable[[Any], NDArray[Any]])


@dataclass(frozen=True)
class CrossFitted(Generic[Model]):
    """Values for all rows, and the model that gave those of each fold."""

    values: NDArray[Any]
    models: dict[int, Model]
    """Fold -> the model fitted on all other folds."""


def cross_fit(
    fit: Callable[[NDArray[Any], NDArray[Any]], Model],
    values: NDArray[Any],
    targets: NDArray[Any],
    folds: NDArray[Any],
) -> CrossFitted[Model]:
    """Fit on all folds but one, apply to that one, for each.

    Parameters
    ----------
    fit
        From values and targets of some rows to a function of values.
    values, targets
        Shape (n,) or (n, columns), n rows in one order.
    folds
        Whole numbers, shape (n,): the fold that held each row out; at least two.

    Raises
    ------
    DataError
        When lengths differ, folds are no whole numbers, or there is only one.

    >>> class Mean(float):
    ...     def __call__(self, values):
    ...         return np.full(len(values), float(self))
    >>> targets = np.array([1.0, 3.0, 10.0])
    >>> cross_fit(lambda _, y: Mean(y.mean()), targets, targets, np.array([0, 0, 1])).values.tolist()
    [10.0, 10.0, 2.0]

    """
    folds = checked_folds(folds, len(values))
    if len(targets) != len(values):
        raise DataError(f"{len(values)} predictions but {len(targets)} targets")
    models, parts = {}, []
    for fold in np.unique(folds).tolist():
        held_out = folds == fold
        models[fold] = fit(values[~held_out], targets[~held_out])
        parts.append((held_out, models[fold](values[held_out])))
    first = parts[0][1]
    joined = np.empty((len(values), *first.shape[1:]), dtype=np.result_type(*(part for _, part in parts)))
    for held_out, part in parts:
        joined[held_out] = part
    return CrossFitted(joined, models)


def checked_folds(folds: NDArray[Any] | None, rows: int) -> NDArray[np.int64]:
    """Return folds as int64, refused unless there is one for each row and at least two different ones."""
    array = np.asarray(folds)
    if folds is None or array.shape != (rows,) or array.dtype.kind not in "iu":
        got = "none" if folds is None else f"{array.dtype} {array.shape}"
        raise DataError(f"{rows} rows need a fold each, a whole number: got {got}; out-of-fold predictions carry them")
    if len(np.unique(array)) < 2:
        raise DataError("all rows are of one fold; nothing is left to fit on when it is held out")
    return array.astype(np.int64)


def checked_values(values: Any, what: str = "predictions") -> Array:
    """Return finite numbers of shape (n,) or (n, columns) as float64; (n, 1) becomes (n,).

    Raises
    ------
    DataError
        When there are none, they are no numbers, or some are NaN or infinite.

    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiub" or array.ndim not in (1, 2) or not array.size:
        raise DataError(f"{what} must be numbers, (n,) or (n, columns), got {array.dtype} {array.shape}")
    if bad := int((~np.isfinite(array)).sum()):
        raise DataError(f"{what}: {bad} values are NaN or infinite; predict them again")
    array = array.astype(np.float64)
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def checked_codes(targets: Any, rows: int, classes: int | None = None) -> NDArray[np.int64]:
    """Return class codes 0 to `classes` - 1 as int64, shape (n,).

    Raises
    ------
    DataError
        When they are not whole, below 0, too large, or not one a row.

    """
    array = checked_values(targets, "targets")
    if array.shape != (rows,):
        raise DataError(f"{rows} rows need one class each, got targets of shape {array.shape}")
    codes = array.astype(np.int64)
    wrong = (codes != array) | (codes < 0) | (codes >= (classes or np.iinfo(np.int64).max))
    if wrong.any():
        asked = f"0 to {classes - 1}" if classes else "0 or above"
        raise DataError(f"targets must be class codes, {asked}, got {np.unique(array[wrong])[:5].tolist()}")
    return codes
