"""Labels: rows whose out-of-fold prediction contradicts their label.

In:    labels and out-of-fold predictions of the same rows.
Out:   suspects, the most doubtful first, and whether there are more than a good model's mistakes explain.
Next:  a person looks at them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from batteries.prepare.study.findings import Labels, Suspect

_MOST = 300
_LEAST_ROWS = 50
_SURE = 0.6  # a doubt of this size or more is a confident contradiction
_CLEAR = 0.015  # share of confident contradictions that models of clean labels stayed below
_LARGEST = 1e100
_FAR = 6.0  # deviations of a number's error


def confident_joint(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count rows by given label and by the class they are confidently predicted as.

    A class is confident for a row if its probability is at least the mean probability of that class over the rows
    that bear it; of several the most probable counts, rows without any are left out (Northcutt, Jiang & Chuang 2021,
    "Confident learning: estimating uncertainty in dataset labels", section 3.1).

    >>> confident_joint(np.array([0, 0, 1]), np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.8]]))
    array([[1, 1],
           [0, 1]])
    """
    confident = confident_class(labels, probabilities)
    classes = probabilities.shape[1]
    cells = labels[confident >= 0] * classes + confident[confident >= 0]
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def confident_class(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the class each row is confidently predicted as, -1 for none."""
    classes = probabilities.shape[1]
    counts = np.bincount(labels, minlength=classes)
    own = np.bincount(labels, probabilities[np.arange(len(labels)), labels], classes)
    thresholds = np.where(counts > 0, own / np.maximum(counts, 1), np.inf)
    above = np.where(probabilities >= thresholds - 1e-12, probabilities, -1.0)
    return np.where(above.max(axis=1) >= 0, above.argmax(axis=1), -1)


def doubtful_classes(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], ids: Sequence[str], names: Sequence[str]
) -> Labels | None:
    """Return the rows off the diagonal of the confident joint.

    Labels count as wrong where more than 1.5 % of the rows are contradicted with a margin of 0.6: more than the hard
    cases that a model gets wrong with a doubt of its own.

    Parameters
    ----------
    labels
        Shape (n,): the column of `probabilities` each row's label names.
    probabilities
        Shape (n, classes), out of fold.
    ids, names
        Of the rows and of the classes.

    """
    if len(labels) < _LEAST_ROWS or probabilities.shape[1] < 2:
        return None
    confident = confident_class(labels, probabilities)
    off = np.flatnonzero((confident >= 0) & (confident != labels))
    doubt = probabilities[off, confident[off]] - probabilities[off, labels[off]]
    order = np.argsort(-doubt, kind="stable")
    suspects = tuple(
        Suspect(
            id=ids[off[place]],
            label=names[labels[off[place]]],
            predicted=names[confident[off[place]]],
            doubt=float(doubt[place]),
        )
        for place in order[:_MOST]
    )
    return Labels(
        rows=len(labels), suspects=suspects, wrong=len(off), clear=bool((doubt >= _SURE).sum() > _CLEAR * len(labels))
    )


def doubtful_numbers(
    targets: NDArray[np.float64], predictions: NDArray[np.float64], ids: Sequence[str]
) -> Labels | None:
    """Return the rows whose error is more than six robust deviations (1.4826 times the median absolute error)."""
    if len(targets) < _LEAST_ROWS:
        return None
    errors = np.clip(targets - predictions, -_LARGEST, _LARGEST)
    middle = np.median(errors)
    scale = 1.4826 * float(np.median(np.abs(errors - middle)))
    if scale <= 0:
        return None
    size = np.abs(errors - middle) / scale
    order = np.argsort(-size, kind="stable")[: min(_MOST, int((size > _FAR).sum()))]
    suspects = tuple(
        Suspect(id=ids[row], label=f"{targets[row]:.6g}", predicted=f"{predictions[row]:.6g}", doubt=float(size[row]))
        for row in order
    )
    wrong = int((size > _FAR).sum())
    return Labels(rows=len(targets), suspects=suspects, wrong=wrong, clear=wrong > _CLEAR * len(targets))
