"""Blend: several predictions of the same rows into one.

In:    arrays of one shape; or entries with the same rows, folds and metric.
Out:   an array; or a new entry whose out-of-fold and test predictions are the blend of its members'.
Next:  the board scores it, `submit` writes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from batteries.errors import BlendError
from batteries.experiment.predictions import Predictions
from batteries.files import digest_of
from batteries.score.entry import INHERITED, Entry, find_entry, write_entry

How = Literal["mean", "geometric", "power", "rank"]
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Blend:
    """How several predictions become one: a formula and the share of each member.

    The same object is applied to out-of-fold and to test predictions.

    >>> Blend(how="mean", weights=(3.0, 1.0))([np.array([1.0]), np.array([5.0])])
    array([2.])
    """

    how: How = "mean"
    weights: tuple[float, ...]
    """Finite, 0 or above, not all 0; divided by their sum when made."""
    power: float = 2.0
    """The p of `power`; the other formulas do not read it."""

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise BlendError(f"there is no blend {self.how!r}; choose one of {', '.join(get_args(How))}")
        weights = np.asarray(self.weights, dtype=np.float64)
        if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
            raise BlendError(f"weights must be finite, 0 or above and not all 0, got {list(self.weights)}")
        if not np.isfinite(self.power):
            raise BlendError(f"power must be a finite number, got {self.power}")
        object.__setattr__(self, "weights", tuple((weights / weights.sum()).tolist()))

    def __call__(self, members: Sequence[NDArray[Any]]) -> Array:
        """Blend arrays of one shape, as `blend` says."""
        arrays = _checked(members)
        if len(arrays) != len(self.weights):
            raise BlendError(f"{len(arrays)} members need {len(arrays)} weights, got {len(self.weights)}")
        if self.how == "mean":
            return _mean(arrays, self.weights)
        if self.how == "rank":
            return _mean(map(ranks, arrays), self.weights)
        return _power_mean(arrays, self.weights, self.power if self.how == "power" else 0.0)


def blend(
    members: Sequence[NDArray[Any]], *, how: How = "mean", weights: Sequence[float] | None = None, power: float = 2.0
) -> Array:
    """Return one array from several of the same shape.

    Parameters
    ----------
    members
        Arrays of shape (n,) or (n, columns), rows in the same order, finite.
    how
        `mean`: sum of w x.
        `geometric`: exp of the sum of w log x, for x >= 0; one zero with a weight makes the result zero.
        `power`: the power mean (sum of w x^p)^(1/p), for x >= 0 (x > 0 if p < 0); p = 0 is `geometric`.
        `rank`: mean of ranks, each column of each member alone, ties averaged, scaled to r / n in (0, 1].
        Its result is an order, not a probability.
    weights
        One a member, 0 or above, not all 0; divided by their sum. Equal by default.
    power
        The p of `power`.

    Returns
    -------
    float64 array of the members' shape.

    Raises
    ------
    BlendError
        When shapes differ, a value is not finite or not in the domain, or weights make no average.

    Notes
    -----
    Power means: Hardy, Littlewood & Polya, Inequalities, 1934. Sums run in float64.

    >>> blend([np.array([0.3]), np.array([0.8])], how="power", power=2).round(4)
    array([0.6042])

    """
    equal = (1.0,) * len(members)
    if not members:
        raise BlendError("there is nothing to blend: give at least one member")
    return Blend(how=how, weights=equal if weights is None else tuple(weights), power=power)(members)


def _checked(members: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    arrays = [np.asarray(member) for member in members]
    for number, array in enumerate(arrays, 1):
        if array.shape != arrays[0].shape:
            raise BlendError(f"member {number} has shape {array.shape}, member 1 has {arrays[0].shape}")
        if array.dtype.kind not in "fiub":
            raise BlendError(f"member {number} holds {array.dtype}, not numbers")
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise BlendError(f"member {number} has {bad} values that are NaN or infinite; predict them again")
    return arrays


def _mean(arrays: Iterable[NDArray[Any]], shares: Sequence[float]) -> Array:
    total: Array | None = None
    for array, share in zip(arrays, shares, strict=True):
        part = np.multiply(array, share, dtype=np.float64)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total


def _power_mean(arrays: Sequence[NDArray[Any]], shares: Sequence[float], power: float) -> Array:
    """Stable for large powers: everything is divided by the largest member first."""
    used = [(array, share) for array, share in zip(arrays, shares, strict=True) if share > 0]
    for array, _ in used:
        if (array < 0).any() or (power < 0 and (array == 0).any()):
            domain = "above 0" if power < 0 else "0 or above"
            raise BlendError(
                f"power and geometric means need values {domain}, found {array.min()}; use how='mean' or 'rank'"
            )
    kept = [share for _, share in used]
    if power == 0:
        with np.errstate(divide="ignore"):  # log 0 = -inf, and exp of it is the 0 that is meant
            logs = _mean((np.log(array, dtype=np.float64) for array, _ in used), kept)
        geometric: Array = np.exp(logs)
        return geometric
    largest = np.maximum.reduce([array for array, _ in used]).astype(np.float64)
    scale = np.where(largest > 0, largest, 1.0)
    sums = _mean(((array / scale) ** power for array, _ in used), kept)
    result: Array = scale * sums ** (1.0 / power)
    return result


def ranks(array: NDArray[Any]) -> Array:
    """Ranks of each column alone, ties averaged, divided by n: float64 in (0, 1].

    >>> ranks(np.array([0.2, 0.9, 0.2, 0.2])).tolist()
    [0.5, 1.0, 0.5, 0.5]
    """
    from scipy.stats import rankdata

    ranked: Array = rankdata(array, method="average", axis=0) / len(array)
    return ranked


def blend_entries(
    entries: Sequence[Entry],
    root: Path | str = "runs",
    *,
    how: How = "mean",
    weights: Sequence[float] | None = None,
    power: float = 2.0,
) -> Entry:
    """Blend entries into a new one, out-of-fold and test predictions with the same weights.

    Rows are joined by id. Members must share folds and metric and cover every row. The same blend of
    the same members is not made twice: the first is returned.

    Raises
    ------
    BlendError
        Fewer than one member, one named twice, or folds, metric, columns or test rows that differ.

    """
    _check_entries(entries)
    blended = Blend(how=how, weights=(1.0,) * len(entries) if weights is None else tuple(weights), power=power)
    config = _config(entries, blended)
    if made := find_entry(Path(root), config["identity"]):
        return made
    oof = _blended([entry.oof(complete=True) for entry in entries], blended)
    tests = [test for entry in entries if (test := entry.test()) is not None]
    if tests and len(tests) != len(entries):
        without = [entry.name for entry in entries if entry.test() is None]
        raise BlendError(f"{', '.join(without)} has no test predictions, the other members have")
    return write_entry(Path(root), "blend", config, oof, _blended(tests, blended) if tests else None)


def _config(entries: Sequence[Entry], blended: Blend) -> dict[str, Any]:
    if len(blended.weights) != len(entries):
        raise BlendError(f"{len(entries)} members need {len(entries)} weights, got {len(blended.weights)}")
    config = {key: entries[0].config[key] for key in INHERITED}
    members = {entry.name: share for entry, share in zip(entries, blended.weights, strict=True)}
    config |= {"how": blended.how, "power": blended.power if blended.how == "power" else None, "members": members}
    return {**config, "identity": digest_of({**config, "of": [entry.config["identity"] for entry in entries]})}


def _blended(parts: Sequence[Predictions], combine: Blend) -> Predictions:
    first = parts[0]
    values = combine([part.align(first.ids).values for part in parts])
    return Predictions(first.ids, values, targets=first.targets, folds=first.folds, about=first.about)


def _check_entries(entries: Sequence[Entry]) -> None:
    if not entries:
        raise BlendError("there is nothing to blend: name at least one entry")
    names = [entry.name for entry in entries]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BlendError(f"{sorted(twice)[0]} is named twice; give it a larger weight instead")
    first = entries[0]
    for entry in entries[1:]:
        if entry.config["folds"]["digest"] != first.config["folds"]["digest"]:
            raise BlendError(f"{entry.name} and {first.name} were trained on different folds; train both on one split")
        if entry.config["metric"] != first.config["metric"]:
            raise BlendError(
                f"{entry.name} is scored by {entry.direction.name}, {first.name} by {first.direction.name}"
            )
