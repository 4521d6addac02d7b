"""Common: the rows that compared entries have in common.

In:    entries with complete out-of-fold predictions on one split.
Out:   the targets, and everyone's predictions in one order.
Next:  `compare` and `shakeup` score them on the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.errors import DataError, UsageError
from batteries.experiment.predictions import Predictions
from batteries.score.entry import Entry


def aligned(entries: Sequence[Entry]) -> tuple[NDArray[Any], list[Predictions]]:
    """Return the targets and each entry's predictions, rows in the order of the first.

    Raises
    ------
    UsageError
        For fewer than two entries, or one that is named twice.
    DataError
        When folds, targets or ids differ, or rows are missing.

    """
    names = [entry.name for entry in entries]
    if len(entries) < 2:
        raise UsageError(f"a comparison needs two entries or more, got {', '.join(names) or 'none'}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{twice[0]} is named twice; compare it with others")
    for entry in entries[1:]:
        if entry.config["folds"]["digest"] != entries[0].config["folds"]["digest"]:
            raise DataError(
                f"{names[0]} and {entry.name} were trained on different folds; scores on them do not compare"
            )
    parts = [entries[0].oof(complete=True)]
    parts += [entry.oof(complete=True).align(parts[0].ids) for entry in entries[1:]]
    targets = parts[0].targets
    if targets is None:
        raise DataError(f"the out-of-fold predictions of {names[0]} hold no targets; train it again")
    for name, part in zip(names, parts, strict=True):
        if part.targets is None or not np.array_equal(part.targets, targets):
            raise DataError(
                f"{names[0]} and {name} have other targets for the same rows; scores on them do not compare"
            )
    return targets, parts
