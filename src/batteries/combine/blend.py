"""Blend: several predictions of the same rows into one.

In:    arrays of one shape; or entries with the same rows, folds and metric.
Out:   an array; or a new entry whose out-of-fold and test predictions are the blend of its members'.
Next:  the board scores it, `submit` writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
    arrays = _checked(members)
    shares = _shares(weights, len(arrays))
    if how == "mean":
        return _mean(arrays, shares)
    if how == "rank":
        return _mean(map(ranks, arrays), shares)
    if how == "geometric":
        return _power_mean(arrays, shares, 0.0)
    if how == "power":
        return _power_mean(arrays, shares, power)
    raise BlendError(f"there is no blend {how!r}; choose one of {', '.join(get_args(How))}")


def _checked(members: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    arrays = [np.asarray(member) for member in members]
    if not arrays:
        raise BlendError("there is nothing to blend: give at least one member")
    for number, array in enumerate(arrays, 1):
        if array.shape != arrays[0].shape:
            raise BlendError(f"member {number} has shape {array.shape}, member 1 has {arrays[0].shape}")
        if array.dtype.kind not in "fiub":
            raise BlendError(f"member {number} holds {array.dtype}, not numbers")
        if not np.isfinite(array).all():
            bad = int((~np.isfinite(array)).sum())
            raise BlendError(f"member {number} has {bad} values that are NaN or infinite; predict them again")
    return arrays


def _shares(weights: Sequence[float] | None, count: int) -> Array:
    shares = np.full(count, 1.0) if weights is None else np.asarray(weights, dtype=np.float64)
    if shares.shape != (count,):
        raise BlendError(f"{count} members need {count} weights, got {shares.size}")
    if not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise BlendError(f"weights must be finite, 0 or above and not all 0, got {shares.tolist()}")
    normalised: Array = shares / shares.sum()
    return normalised


def _mean(arrays: Any, shares: Array) -> Array:
    total: Array | None = None
    for array, share in zip(arrays, shares, strict=True):
        part = np.multiply(array, share, dtype=np.float64)
        total = part if total is None else np.add(total, part, out=total)
    assert total is not None
    return total


def _power_mean(arrays: Sequence[NDArray[Any]], shares: Array, power: float) -> Array:
    """Stable for large powers: everything is divided by the largest member first."""
    if not np.isfinite(power):
        raise BlendError(f"power must be a finite number, got {power}")
    used = [(array, share) for array, share in zip(arrays, shares, strict=True) if share > 0]
    for array, _ in used:
        if (array < 0).any() or (power < 0 and (array == 0).any()):
            domain = "above 0" if power < 0 else "0 or above"
            raise BlendError(
                f"power and geometric means need values {domain}, found {array.min()}; use how='mean' or 'rank'"
            )
    if power == 0:
        with np.errstate(divide="ignore"):  # log 0 = -inf, and exp of it is the 0 that is meant
            logs: Array = np.exp(
                _mean([np.log(array, dtype=np.float64) for array, _ in used], np.array([s for _, s in used]))
            )
        return logs
    largest = np.maximum.reduce([array for array, _ in used]).astype(np.float64)
    scale = np.where(largest > 0, largest, 1.0)
    sums = _mean(((array / scale) ** power for array, _ in used), np.array([share for _, share in used]))
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
    shares = _shares(weights, len(entries))
    config = _config(entries, how, power if how == "power" else None, shares.tolist())
    if made := find_entry(Path(root), config["identity"]):
        return made
    combine = partial(blend, how=how, weights=shares.tolist(), power=power)
    oof = _blended([entry.oof(complete=True) for entry in entries], combine)
    tests = [test for entry in entries if (test := entry.test()) is not None]
    if tests and len(tests) != len(entries):
        without = [entry.name for entry in entries if entry.test() is None]
        raise BlendError(f"{', '.join(without)} has no test predictions, the other members have")
    return write_entry(Path(root), "blend", config, oof, _blended(tests, combine) if tests else None)


def _config(entries: Sequence[Entry], how: How, power: float | None, shares: Sequence[float]) -> dict[str, Any]:
    config = {key: entries[0].config[key] for key in INHERITED}
    members = {entry.name: share for entry, share in zip(entries, shares, strict=True)}
    config |= {"how": how, "power": power, "members": members}
    return {**config, "identity": digest_of({**config, "of": [entry.config["identity"] for entry in entries]})}


def _blended(parts: Sequence[Predictions], combine: Callable[[list[NDArray[Any]]], Array]) -> Predictions:
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
