"""Adversarial: can a classifier tell training rows from test rows, and by which columns?

In:    the training and test tables, and which columns it may see.
Out:   its out-of-fold AUC, pooled and of each fold, beside what relabelling at random reaches; the telling columns.
Next:  advice on columns to leave out, and on how far validation can be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.study.encode import dealt, encoded
from batteries.prepare.study.facts import Column, Group
from batteries.prepare.study.findings import Adversarial, Telling

MOST_ROWS = 10_000  # of each table
MOST_COLUMNS = 200
_FOLDS = 5
_LEAST_ROWS = 40
_DRAWS = 999
_JUDGED = 1_000  # rows of each fold on which columns are shuffled
_LEVEL, _LEAST_AUC = 0.005, 0.55
_SHOWN = 10


def adversarial_of(
    train: pl.DataFrame, test: pl.DataFrame, columns: Sequence[Column], groups: Sequence[Group], *, seed: int = 0
) -> Adversarial | None:
    """Fit gradient boosting to tell the tables apart, five folds, every row judged by a model that has not seen it.

    Left out, because each would tell the tables apart without meaning anything: ids, dates, groups, columns that only
    one table has, and columns that rise or fall with the place in the table. None where nothing can be compared.

    The p-value is that of a permutation test: within each fold the labels are shuffled over the predictions 999
    times, and the mean AUC of the folds is compared.
    """
    excluded: list[tuple[str, str]] = []
    features: list[str] = []
    for column in columns:
        reason = _reason(column, train, test, {group.column for group in groups})
        if reason is not None:
            excluded += [(column.name, reason)] if reason else []
        elif len(features) < MOST_COLUMNS:
            features.append(column.name)
        else:
            excluded.append((column.name, f"more than {MOST_COLUMNS} columns"))
    tables = [_some(table.select(features), MOST_ROWS, seed) for table in (train, test)]
    shown = {name: np.concatenate(v) for name in features if (v := encoded([t[name] for t in tables])) is not None}
    if not shown or min(len(table) for table in tables) < _LEAST_ROWS:
        return None
    label = np.repeat([0, 1], [len(table) for table in tables])
    auc, folds, drops, ranks = _judge(np.stack(list(shown.values()), axis=1), label, seed)
    null = _relabelled(ranks, seed)
    p_value = (1 + int((null >= np.mean(folds) - 1e-12).sum())) / (_DRAWS + 1)
    low, high = np.quantile(null, [0.025, 0.975])
    telling = sorted(zip(shown, drops, strict=True), key=lambda pair: -pair[1])[:_SHOWN]
    return Adversarial(
        auc=auc,
        folds=tuple(folds),
        band=(float(low), float(high)),
        p_value=p_value,
        clear=p_value <= _LEVEL and auc >= _LEAST_AUC,
        columns=tuple(Telling(column=name, drop=float(drop)) for name, drop in telling),
        excluded=tuple(excluded),
        train_rows=len(tables[0]),
        test_rows=len(tables[1]),
    )


def _reason(column: Column, train: pl.DataFrame, test: pl.DataFrame, groups: set[str]) -> str | None:
    """Why a column is not shown; empty where it need not be said, None where it is shown."""
    name = column.name
    if column.role in ("target", "image", "other"):
        return ""
    if name not in test.columns:
        return "only in training"
    if column.role == "id" or column.role == "text":
        return column.role if column.role == "id" else "text"
    if column.role == "time" or train[name].dtype.is_temporal() or test[name].dtype.is_temporal():
        return "a time"
    if name in groups:
        return "a group"
    if column.constant and train[name].n_unique() == test[name].n_unique() == 1:
        return None if train[name].head(1).to_list() != test[name].head(1).to_list() else ""
    if any(_counts_rows(table[name]) for table in (train, test)):
        return "rises or falls with the place in the table"
    return None


def _counts_rows(column: pl.Series) -> bool:
    """Whether a column of many different numbers is in order from the first row to the last."""
    if not column.dtype.is_numeric() or column.null_count() or len(column) < 3 or column.n_unique() < len(column) / 2:
        return False
    return bool(column.is_sorted() or column.is_sorted(descending=True))


def _some(table: pl.DataFrame, most: int, seed: int) -> pl.DataFrame:
    return table if len(table) <= most else table.sample(most, seed=seed)


Ranks = list[tuple[NDArray[np.float64], int]]
"""For each fold the ranks of its predictions, and how many of its rows are of the test table."""


def _judge(
    x: NDArray[np.float64], label: NDArray[np.int64], seed: int
) -> tuple[float, list[float], list[float], Ranks]:
    """Pooled AUC, AUC of each fold, mean drop for each column shuffled, ranks in each fold."""
    from scipy.stats import rankdata
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    n = len(label)
    fold = np.empty(n, dtype=np.int64)
    for value in (0, 1):  # stratified
        fold[label == value] = dealt(int((label == value).sum()), _FOLDS, seed + value)
    leaf = int(np.clip(n // 40, 3, 20))
    pooled, ranks, drops, aucs = np.empty(n), [], np.zeros(x.shape[1]), []
    for held in range(_FOLDS):
        model = HistGradientBoostingClassifier(
            max_iter=50,
            max_leaf_nodes=15,
            max_bins=64,
            min_samples_leaf=leaf,
            learning_rate=0.1,
            early_stopping=False,
            random_state=seed,
        )
        rows = np.flatnonzero(fold == held)
        model.fit(x[fold != held], label[fold != held])
        pooled[rows] = model.decision_function(x[rows])
        aucs.append(float(roc_auc_score(label[rows], pooled[rows])))
        ranks.append((rankdata(pooled[rows]), int(label[rows].sum())))
        drops += _drops(model, x[rows], label[rows], seed) / _FOLDS
    return float(roc_auc_score(label, pooled)), aucs, drops.tolist(), ranks


def _drops(model: object, x: NDArray[np.float64], label: NDArray[np.int64], seed: int) -> NDArray[np.float64]:
    """How much the AUC falls when one column after the other is shuffled (Breiman 2001)."""
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(seed)
    some = random.permutation(len(label))[:_JUDGED]
    x, label = x[some], label[some]
    score = model.decision_function  # type: ignore[attr-defined]
    whole = roc_auc_score(label, score(x))
    drops = np.empty(x.shape[1])
    for column in range(x.shape[1]):
        kept = x[:, column].copy()
        x[:, column] = kept[random.permutation(len(kept))]
        drops[column] = whole - roc_auc_score(label, score(x))
        x[:, column] = kept
    return drops


def _relabelled(ranks: Ranks, seed: int) -> NDArray[np.float64]:
    """Mean AUC of the folds for each of 999 relabellings: a sum of as many ranks as there are test rows."""
    random = np.random.default_rng(seed)
    mean = np.zeros(_DRAWS)
    for values, positives in ranks:
        others = len(values) - positives
        sums = np.array([random.permutation(values)[:positives].sum() for _ in range(_DRAWS)])
        mean += (sums - positives * (positives + 1) / 2) / (positives * others) / len(ranks)
    return mean
