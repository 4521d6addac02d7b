"""Tables: noise for rows of features.

In:    features of shape (n, columns) and a `SampleRandom` for their rows.
Out:   features of the same shape, type and device.
Next:  `Experiment.augment` returns them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from batteries.errors import UsageError
from batteries.prepare.augment.images import filled
from batteries.prepare.augment.sample_random import SampleRandom


def swap_noise(features: Tensor, random: SampleRandom, *, among: Tensor, p: float = 0.15) -> Tensor:
    """Replace each value, with probability `p`, by the one that another row has in the same column.

    What keeps each column's distribution and breaks how columns hang together: the noise of the denoising
    autoencoders for tables (M. Jahrer's winning solution of Porto Seguro's Safe Driver Prediction, Kaggle 2017, with
    p = 0.15).

    Parameters
    ----------
    features
        Shape (n, columns), any type. Codes of categories are values like any other.
    among
        Rows to take values from, shape (rows, columns), at most 2**24: all rows of the table, say. On any device;
        keep it where the batches are. Because it is not the batch, the result does not depend on the batch.

    Raises
    ------
    UsageError
        When the columns do not fit, there are no rows or too many, or `p` is no probability.

    Example
    -------
    >>> random = SampleRandom(1, epoch=0, rows=torch.arange(2))
    >>> swap_noise(torch.zeros(2, 3), random, among=torch.tensor([[1.0, 2.0, 3.0]]), p=1.0).tolist()
    [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]

    """
    columns = features.shape[1:]
    if features.ndim != 2 or among.shape[1:] != columns or not len(among):
        raise UsageError(
            f"swap_noise needs features (n, columns) and at least one row of as many columns in among, got"
            f" {tuple(features.shape)} and {tuple(among.shape)}"
        )
    swapped = random.chance(p, *columns).to(features.device)
    rows = random.integers(0, len(among), *columns).to(among.device)
    return torch.where(swapped, among.gather(0, rows).to(features), features)


def feature_dropout(features: Tensor, random: SampleRandom, *, p: float = 0.1, fill: float | Tensor = 0.0) -> Tensor:
    """Replace each value, with probability `p`, by `fill`; the others keep theirs and are not scaled up.

    `features` has shape (n, ...) and any type. `fill` is what stands for a missing value: a number, or a tensor that
    broadcasts to the features, such as the columns' means.

    Raises
    ------
    UsageError
        When `p` is no probability.

    Example
    -------
    >>> random = SampleRandom(1, epoch=0, rows=torch.arange(2))
    >>> feature_dropout(torch.ones(2, 2), random, p=1.0, fill=torch.tensor([5.0, 6.0])).tolist()
    [[5.0, 6.0], [5.0, 6.0]]

    """
    return filled(features, random.chance(p, *features.shape[1:]).to(features.device), fill)
