"""Power: what each column alone says about the target, and which says too much.

In:    columns as numbers; the target.
Out:   a Power for each, judged out of fold; columns that leak the target are marked.
Next:  advice to look at them before trusting any score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.study.encode import dealt, encoded
from batteries.prepare.study.findings import Power
from batteries.prepare.study.table import looks_like_classes

_FOLDS = 5
_LEAST_ROWS = 50
_MOST_CLASSES = 30
_LEAVES = 16
_CERTAIN = 0.98  # power above which a column is a copy of the target
_STRONG, _AHEAD = 0.85, 0.5  # or above this, if it leaves less than so much of what the next best column leaves
_KNOWN = 0.1  # share of what a column leaves that others explain; of copies they explain nothing


def powers_of(table: pl.DataFrame, names: Sequence[str], target: str) -> tuple[Power, ...]:
    """Return the power of every column that has numbers, the strongest first.

    A number is cut by a tree of at most 16 leaves, a category has a leaf for each value; in four of five parts of the
    rows each leaf learns the mean of the target (the shares of the classes), shrunk to that of all rows, and predicts
    the fifth. Missing values go their own way.
    """
    rows = table.filter(table[target].is_not_null())
    truth = _truth(rows[target])
    if truth is None or len(rows) < _LEAST_ROWS:
        return ()
    found = []
    for name in names:
        values = encoded([rows[name]])
        if values is not None:
            found.append(power_of(name, values[0], truth, ordered=rows[name].dtype.is_numeric()))
    powers = marked(sorted(found, key=lambda one: (-one.power, one.column)))
    return _natural(rows, powers, truth) if truth.shape[1] == 1 else powers


def _natural(rows: pl.DataFrame, powers: tuple[Power, ...], truth: NDArray[np.float64]) -> tuple[Power, ...]:
    """Take back the mark of a strong column of numbers whose rest other columns explain.

    What a copy of the target leaves is noise that no column knows; what the weight of a diamond leaves of its price,
    colour and clarity explain.
    """
    marks = [one.column for one in powers if one.leak]
    others = [values[0] for one in powers if not one.leak and (values := encoded([rows[one.column]])) is not None]
    if not marks or not others or powers[0].power >= _CERTAIN:
        return powers
    strongest = encoded([rows[marks[0]]])
    assert strongest is not None
    predicted = _by_tree if rows[marks[0]].dtype.is_numeric() else _by_value
    rest = (truth - predicted(strongest[0], truth, dealt(len(truth), _FOLDS, seed=0))[0])[:, 0]
    if _explained(np.stack(others, axis=1), rest) < _KNOWN:
        return powers
    return tuple(replace(one, leak=False) for one in powers)


def _explained(x: NDArray[np.float64], rest: NDArray[np.float64]) -> float:
    """Share of what is left that gradient boosting tells on rows it has not seen."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    fold, error = dealt(len(rest), _FOLDS, seed=1), 0.0
    leaf = int(np.clip(len(rest) // 40, 3, 20))
    for held in range(_FOLDS):
        model = HistGradientBoostingRegressor(
            max_iter=50, max_leaf_nodes=15, min_samples_leaf=leaf, early_stopping=False, random_state=0
        )
        model.fit(x[fold != held], rest[fold != held])
        error += float(((rest[fold == held] - model.predict(x[fold == held])) ** 2).sum())
    return 1 - error / float((rest**2).sum())


def power_of_order(target: pl.Series) -> Power | None:
    """Return what the place of a row says about its target."""
    truth = _truth(target.drop_nulls())
    if truth is None or len(truth) < _LEAST_ROWS:
        return None
    return power_of("place in the table", np.arange(len(truth), dtype=np.float64), truth, ordered=True)


def _truth(target: pl.Series) -> NDArray[np.float64] | None:
    """Shape (n, classes): one-hot classes, the rarest joined; or (n, 1): numbers."""
    if looks_like_classes(target):
        codes = encoded([target.cast(pl.String)])
        assert codes is not None
        classes = np.minimum(codes[0].astype(np.int64), _MOST_CLASSES - 1)
        hot = np.eye(classes.max() + 1)[classes]
        return hot if hot.shape[1] > 1 else None
    values = encoded([target])
    if values is None or not len(target) or not np.isfinite(values[0]).all():
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        centred = values[0] - values[0].mean()
        deviation = float(centred.std())
    if not 0 < deviation < np.inf:
        return None
    scaled: NDArray[np.float64] = (centred / deviation)[:, None]
    return scaled


def power_of(name: str, values: NDArray[np.float64], truth: NDArray[np.float64], *, ordered: bool) -> Power:
    """Return the power of one column; `truth` as shape (n, classes) one-hot, or (n, 1)."""
    fold = dealt(len(truth), _FOLDS, seed=0)
    predicted, prior = _by_tree(values, truth, fold) if ordered else _by_value(values, truth, fold)
    classes = truth.shape[1] > 1
    if classes:
        own, base = (np.log(np.maximum((each * truth).sum(axis=1), 1e-12)).mean() for each in (predicted, prior))
        left = own / base
    else:
        left = ((truth - predicted) ** 2).mean() / ((truth - prior) ** 2).mean()
    auc = None
    if truth.shape[1] == 2:
        from sklearn.metrics import roc_auc_score

        auc = float(roc_auc_score(truth[:, 1], predicted[:, 1]))
    return Power(column=name, power=float(np.clip(1 - left, 0, 1)), auc=auc, rows=len(truth))


Predicted = tuple[NDArray[np.float64], NDArray[np.float64]]
"""What other rows with values like it predict for each row, and what the mean of other rows predicts."""


def _by_tree(values: NDArray[np.float64], truth: NDArray[np.float64], fold: NDArray[np.int64]) -> Predicted:
    from sklearn.tree import DecisionTreeRegressor

    x = values[:, None].astype(np.float32)
    x[~np.isfinite(x)] = np.nan
    predicted, prior = np.empty_like(truth), np.empty_like(truth)
    leaf = int(np.clip(len(truth) // 100, 2, 50))
    for held in range(_FOLDS):
        known, asked = fold != held, fold == held
        tree = DecisionTreeRegressor(max_leaf_nodes=_LEAVES, min_samples_leaf=leaf, random_state=0)
        tree.fit(x[known], truth[known])
        rows = tree.tree_.n_node_samples[tree.apply(x[asked])][:, None]
        prior[asked] = truth[known].mean(axis=0)
        own = tree.predict(x[asked]).reshape(len(rows), -1)
        predicted[asked] = (own * rows + prior[asked]) / (rows + 1)  # as if each leaf held one mean row more
    return predicted, prior


def _by_value(values: NDArray[np.float64], truth: NDArray[np.float64], fold: NDArray[np.int64]) -> Predicted:
    leaves = np.where(np.isfinite(values), values + 1, 0).astype(np.int64)
    cells = fold * (leaves.max() + 1) + leaves
    shape = (_FOLDS, int(leaves.max()) + 1)
    sums = np.stack([np.bincount(cells, column, np.prod(shape)).reshape(shape) for column in truth.T], axis=-1)
    counts = np.bincount(cells, minlength=np.prod(shape)).reshape(shape)
    others, rows = sums.sum(axis=0) - sums, counts.sum(axis=0) - counts
    prior = others.sum(axis=1) / rows.sum(axis=1)[:, None]
    return ((others + prior[:, None, :]) / (rows[..., None] + 1))[fold, leaves], prior[fold]


def marked(powers: Sequence[Power]) -> tuple[Power, ...]:
    """Mark columns that say too much: nearly all, or much and far more than the next column says.

    `powers` come strongest first.
    """
    leaks = 0
    for place, one in enumerate(powers):
        left, next_left = 1 - one.power, 1 - (powers[place + 1].power if place + 1 < len(powers) else 0.0)
        if one.power >= _CERTAIN or (one.power >= _STRONG and left < _AHEAD * next_left):
            leaks = place + 1
    return tuple(replace(one, leak=place < leaks) for place, one in enumerate(powers))
