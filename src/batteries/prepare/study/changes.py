"""Changes: which flips and turns of an image leave its class as it is.

In:    small grey pictures of labelled images.
Out:   for each change, the accuracy of a simple classifier on images as they are and changed.
Next:  advice on augmentations: digits are not flipped.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from batteries.prepare.duplicates import SIDE
from batteries.prepare.study.encode import dealt
from batteries.prepare.study.files import evenly
from batteries.prepare.study.findings import Change

_MOST = 4_000
_LEAST = 100
_TELLS = 0.15  # least accuracy above that of the commonest class, else the classifier knows nothing to ask
_KEPT = 0.9  # share of that advantage that must survive

Turn = Callable[[NDArray[np.float32]], NDArray[np.float32]]
_CHANGES: dict[str, Turn] = {
    "horizontal flip": lambda images: images[:, :, ::-1],
    "vertical flip": lambda images: images[:, ::-1],
    "quarter turn": lambda images: np.rot90(images, axes=(1, 2)),
}


def changes_of(column: str, pictures: NDArray[np.uint8], labels: NDArray[np.int64]) -> tuple[Change, ...]:
    """Ask the nearest training image for the class of held-out images, as they are and changed.

    `pictures` has shape (n, 256), `labels` shape (n,) with -1 for none. Nothing is returned where the nearest image
    tells no class: then what a change does cannot be seen either.
    """
    rows = evenly(np.flatnonzero(labels >= 0), _MOST)
    labels = labels[rows]
    if len(rows) < _LEAST or len(np.unique(labels)) < 2:
        return ()
    images = pictures[rows].reshape(-1, SIDE, SIDE).astype(np.float32)
    held = dealt(len(rows), 4, seed=0) == 0
    known, asked = _flat(images[~held]), images[held]

    def accuracy(some: NDArray[np.float32]) -> float:
        nearest = (_flat(some) @ known.T).argmax(axis=1)
        return float((labels[~held][nearest] == labels[held]).mean())

    plain, commonest = accuracy(asked), float(np.bincount(labels[held]).max() / held.sum())
    if plain - commonest < _TELLS:
        return ()
    found = {name: accuracy(turn(asked)) for name, turn in _CHANGES.items()}
    return tuple(
        Change(
            column=column,
            change=name,
            plain=plain,
            changed=after,
            fits=after - commonest >= _KEPT * (plain - commonest),
        )
        for name, after in found.items()
    )


def _flat(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shape (n, 256), mean 0, length 1: products are correlations."""
    flat = images.reshape(len(images), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    scaled: NDArray[np.float32] = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return scaled
