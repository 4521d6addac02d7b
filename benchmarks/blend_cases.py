"""The blends of each library: `NAME(columns)` makes what it works on and returns mean, power and rank of it.

In:    a list of equally long float32 arrays, which a case may keep or copy; neither is timed.
Out:   three functions without arguments that return one array.
Next:  blend.py times them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

POWER = 3.0
Columns = list[NDArray[np.float32]]
Blends = dict[str, Callable[[], Any]]


def batteries(columns: Columns) -> Blends:
    import batteries as bt

    return {
        "mean": lambda: bt.blend(columns),
        "power": lambda: bt.blend(columns, how="power", power=POWER),
        "rank": lambda: bt.blend(columns, how="rank"),
    }


def numpy(columns: Columns) -> Blends:
    matrix = np.stack(columns)

    def rank() -> Any:
        """Ties in the order of rows, as is often written: no average ranks."""
        total = np.zeros(matrix.shape[1])
        for column in matrix:
            places = np.empty(len(column))
            places[np.argsort(column)] = np.arange(1, len(column) + 1)
            total += places
        return total / matrix.size

    return {
        "mean": lambda: matrix.mean(axis=0, dtype=np.float64),
        "power": lambda: (matrix**POWER).mean(axis=0, dtype=np.float64) ** (1 / POWER),
        "rank": rank,
    }


def scipy(columns: Columns) -> Blends:
    from scipy import stats

    matrix = np.stack(columns)
    return {
        "power": lambda: stats.pmean(matrix, POWER, axis=0),
        "rank": lambda: stats.rankdata(matrix, method="average", axis=1).mean(axis=0) / matrix.shape[1],
    }


def pandas(columns: Columns) -> Blends:
    import pandas as pd

    table = pd.DataFrame(dict(enumerate(columns)))
    return {
        "mean": lambda: table.mean(axis=1).to_numpy(),
        "power": lambda: ((table**POWER).mean(axis=1) ** (1 / POWER)).to_numpy(),
        "rank": lambda: table.rank(pct=True).mean(axis=1).to_numpy(),
    }


def polars(columns: Columns) -> Blends:
    import polars as pl

    table = pl.DataFrame({str(number): column for number, column in enumerate(columns)})
    every = pl.all()

    def blend(each: pl.Expr, root: float = 1.0) -> Any:
        return table.select(each).select(pl.mean_horizontal(every) ** root).to_series().to_numpy()

    return {
        "mean": lambda: table.mean_horizontal().to_numpy(),
        "power": lambda: blend(every**POWER, 1 / POWER),
        "rank": lambda: blend(every.rank("average") / len(table)),
    }


def torch(columns: Columns) -> Blends:
    import torch as library

    matrix = library.from_numpy(np.stack(columns))

    def rank() -> Any:
        """It has no ranks; places of sorted unique values are the shortest way to them."""
        total = library.zeros(matrix.shape[1], dtype=library.float64)
        for column in matrix:
            _, places, counts = library.unique(column, return_inverse=True, return_counts=True)
            total += (counts.cumsum(0) - (counts - 1) / 2).double()[places]
        return (total / matrix.numel()).numpy()

    return {
        "mean": lambda: matrix.mean(0, dtype=library.float64).numpy(),
        "power": lambda: (matrix**POWER).mean(0, dtype=library.float64).pow(1 / POWER).numpy(),
        "rank": rank,
    }
