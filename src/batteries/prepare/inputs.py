"""Inputs: columns of a table as numbers a network can read, without a look at held-out rows.

In:    polars columns of numbers with holes, of categories, of texts.
Out:   arrays; a layer that learns means and deviations from the rows it is trained on.
Next:  `Experiment.dataset` returns the arrays, `Experiment.model` begins with the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from zlib import crc32

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from batteries.errors import UsageError

_WORDS = r"\w+|[^\w\s]"
_PAIR = 1_000_003  # a prime, so that pairs of words spread over all buckets


class Standardise(nn.Module):
    """A first layer that brings columns to mean 0 and deviation 1; what is NaN or infinite becomes 0, the mean.

    The moments are counted over the batches it is trained on and kept in the model, so each fold has those of
    its own training rows, and a checkpoint brings them along. They are sums, so the average of two models has
    the moments of both; of several processes that train together, the first one's rows count. From float
    (n, columns) to float32 (n, columns). A column without spread becomes 0.

    >>> layer = Standardise(1)
    >>> layer(torch.tensor([[1.0], [3.0], [torch.nan]])).flatten().tolist()
    [-1.0, 1.0, 0.0]
    """

    count: Tensor
    total: Tensor
    squares: Tensor

    def __init__(self, columns: int) -> None:
        super().__init__()
        for name in ("count", "total", "squares"):
            self.register_buffer(name, torch.zeros(columns, dtype=torch.float64))

    def forward(self, numbers: Tensor) -> Tensor:
        """Return the numbers standardised; in training, count them first."""
        wide = numbers.double()
        there = wide.isfinite()
        if self.training:
            known = wide.masked_fill(~there, 0)
            self.count.add_(there.sum(dim=0))
            self.total.add_(known.sum(dim=0))
            self.squares.add_(known.square().sum(dim=0))
        count = self.count.clamp(min=1)
        mean = self.total / count
        variance = self.squares / count - mean**2
        flat = variance <= 1e-12 * self.squares / count  # nothing but rounding is left
        scaled = (wide - mean) / variance.clamp(min=0).sqrt().masked_fill(flat, torch.inf)
        return scaled.masked_fill(~there, 0).float()


def category_codes(column: pl.Series, values: Sequence[str]) -> NDArray[np.int64]:
    """Return the place of each value among `values`, from 1; 0 for an empty or another one: int64, shape (n,).

    >>> category_codes(pl.Series(["b", None, "c"]), ["a", "b"]).tolist()
    [2, 0, 0]
    """
    places = {value: place for place, value in enumerate(values, 1)}
    codes: NDArray[np.int64] = (
        column.cast(pl.String).replace_strict(places, default=0, return_dtype=pl.Int64).fill_null(0).to_numpy()
    )
    return codes


def word_codes(texts: pl.Series, *, length: int = 64, buckets: int = 1 << 16) -> NDArray[np.int64]:
    """Return hashed words and pairs of neighbouring words: int64, shape (n, 2 * length - 1), 0 where a text ended.

    Words are runs of letters and digits in lower case, and single signs; the first `length` of a text count. A
    code is 1 to `buckets - 1`, from the CRC-32 of the word alone (the hashing trick of Weinberger et al. 2009):
    there is no vocabulary that could have seen a held-out text.

    >>> a, b, pair = word_codes(pl.Series(["To be"]), length=2)[0]
    >>> bool(a == word_codes(pl.Series(["to"]), length=1)[0, 0])
    True

    Raises
    ------
    UsageError
        When `length` is below 1 or `buckets` below 2.

    """
    if length < 1 or buckets < 2:
        raise UsageError(f"word_codes needs length >= 1 and buckets >= 2, got {length} and {buckets}")
    words = texts.cast(pl.String).fill_null("").str.to_lowercase().str.extract_all(_WORDS).list.head(length)
    lengths = words.list.len().to_numpy()
    flat = words.filter(words.list.len() > 0).explode()
    different = flat.unique()
    hashed = [1 + crc32(word.encode()) % (buckets - 1) for word in different.to_list()]
    codes = np.zeros((len(texts), length), dtype=np.int64)
    codes[np.arange(length) < lengths[:, None]] = flat.replace_strict(
        different, pl.Series(hashed, dtype=pl.Int64), return_dtype=pl.Int64
    ).to_numpy()
    first, second = codes[:, :-1], codes[:, 1:]
    pairs = np.where(second > 0, 1 + (first * _PAIR + second) % (buckets - 1), 0)
    return np.concatenate([codes, pairs], axis=1)
