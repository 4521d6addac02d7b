"""Climbs: the same steps by other packages, by hand, and by batteries.

In:    members, targets, the width of the grid.
Out:   a function that climbs and returns the blend, and how many blends it scored.
Next:  climb.py measures them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Arrays = list[np.ndarray]
Climbing = Callable[[], tuple[np.ndarray, int]]
LARGEST = 0.5


def made_up(members: int, rows: int, dtype: str, *, seed: int) -> tuple[Arrays, np.ndarray]:
    """Probabilities of models of different noise, no two of which agree, and the truth; three rows in ten are 1."""
    generator = np.random.default_rng(seed)
    targets = (generator.random(rows) < 0.3).astype(np.int64)
    truth = generator.normal(0, 1, rows) + 1.5 * targets
    noise = generator.uniform(0.8, 3.0, members)
    return [(1 / (1 + np.exp(1 - truth - generator.normal(0, n, rows)))).astype(dtype) for n in noise], targets


def hillclimbers(members: Arrays, targets: np.ndarray, step: float) -> Climbing:
    """Its own frames of members and of a few test rows, without its plots."""
    import pandas as pd
    from hillclimbers import climb_hill, partial
    from sklearn.metrics import roc_auc_score

    tried = 0

    def counted(truth: Any, predictions: Any) -> float:
        nonlocal tried
        tried += 1
        return float(roc_auc_score(truth, predictions))

    names = [f"m{number}" for number in range(len(members))]
    frame = pd.DataFrame(dict(zip(names, members, strict=True)))
    arguments = {
        "train": pd.DataFrame({"target": targets}),
        "oof_pred_df": frame,
        "test_pred_df": frame.iloc[:10],
        "target": "target",
        "objective": "maximize",
        "eval_metric": partial(counted),
        "precision": step,
        "plot_hill": False,
        "return_oof_preds": True,
    }
    return lambda: (climb_hill(**arguments)[1], tried)


def loop(members: Arrays, targets: np.ndarray, step: float) -> Climbing:
    """By hand over arrays, with scikit-learn's AUC."""
    from sklearn.metrics import roc_auc_score

    return lambda: climbed(members, step, lambda blend: float(roc_auc_score(targets, blend)))


def climbed(members: Arrays, step: float, score: Callable[[np.ndarray], float]) -> tuple[np.ndarray, int]:
    """Mix in the member that helps most, at its best share, until none does."""
    alone = [score(member) for member in members]
    left = sorted(range(len(members)), key=lambda member: -alone[member])
    blend, best, tried = members[left[0]], alone[left.pop(0)], len(members)
    while left:
        scores = {}
        for member in left:
            for share in np.arange(step, LARGEST + 0.01, step).tolist():
                scores[member, share] = score((1 - share) * blend + share * members[member])
        tried += len(scores)
        (member, share), found = max(scores.items(), key=lambda item: item[1])
        if found <= best:
            break
        blend, best = (1 - share) * blend + share * members[member], found
        left.remove(member)
    return blend, tried


def climb(members: Arrays, targets: np.ndarray, step: float) -> Climbing:
    """`fit_weights` with the same grid."""
    from batteries.combine.climb import Climb

    return _ours(members, targets, Climb(step=step))


def greedy(members: Arrays, targets: np.ndarray, step: float) -> Climbing:
    """`fit_weights` as it is."""
    from batteries.combine.greedy import Greedy

    return _ours(members, targets, Greedy())


def _ours(members: Arrays, targets: np.ndarray, how: Any) -> Climbing:
    import batteries as bt
    from batteries.combine.fitted import fit_weights

    def run() -> tuple[np.ndarray, int]:
        fitted = fit_weights(members, targets, bt.Metric.auc(), how=how)
        return fitted(members), fitted.evaluations

    return run
