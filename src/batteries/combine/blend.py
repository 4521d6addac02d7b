"""Blend: several predictions of the same rows into one.

In:    arrays of one shape; predictions with ids; or entries with the same rows, folds and metric.
Out:   an array; predictions; or a new entry whose out-of-fold and test predictions are the blend of its members'.
Next:  the board scores it, `submit` writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf, isfinite, isnan
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from batteries.combine import formulas, votes
from batteries.combine.checks import NOT_NEGATIVE, NUMBERS, POSITIVE, PROBABILITIES, Domain
from batteries.combine.ranks import rank_mean
from batteries.combine.walk import Plan, refuse_not_finite, walk
from batteries.errors import BlendError
from batteries.experiment.predictions import Predictions
from batteries.files import digest_of
from batteries.score.entry import INHERITED, Entry, find_entry, write_entry

How = Literal[
    "mean",
    "geometric",
    "logit",
    "harmonic",
    "power",
    "rank",
    "median",
    "trimmed",
    "vote",
    "mean_of_powers",
    "mean_of_sharpened",
    "mean_of_rank_powers",
]
ORDERS = ("rank", "mean_of_rank_powers", "mean_of_powers")
"""Formulas whose results order rows, but are on no scale that the members had."""
_OF_RANKS = ("rank", "mean_of_rank_powers")
_READ: dict[str, tuple[str, ...]] = {
    "geometric": ("clip", "normalize"),
    "logit": ("clip", "multilabel"),
    "harmonic": ("clip",),
    "power": ("power", "clip"),
    "trimmed": ("trim",),
    "vote": ("multilabel",),
    "mean_of_powers": ("power",),
    "mean_of_sharpened": ("power", "multilabel"),
    "mean_of_rank_powers": ("power",),
}
"""The options that a formula reads; the others read none."""
_POWERS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "power": ("a number", lambda power: not isnan(power)),
    "mean_of_powers": ("a finite number other than 0", lambda power: isfinite(power) and power != 0),
    "mean_of_sharpened": ("a finite number above 0", lambda power: isfinite(power) and power > 0),
    "mean_of_rank_powers": ("a finite number other than 0", lambda power: isfinite(power) and power != 0),
}
_ROUNDING = 1e-12
"""Shares that add up to 1 but for this are not divided again, so that a recorded blend has the very same ones."""
Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Blend:
    """How several predictions become one: a formula, the share of each member, and what the formula reads beside.

    The same object is applied to out-of-fold and to test predictions. `blend` says what the formulas are.

    >>> Blend(how="mean", weights=(3.0, 1.0))([np.array([1.0]), np.array([5.0])])
    array([2.])
    """

    how: How = "mean"
    weights: tuple[float, ...]
    """Finite, 0 or above, not all 0; divided by their sum when made. All the same for `median` and `trimmed`."""
    power: float = 2.0
    """The exponent of the formulas that have one."""
    trim: int = 1
    """How many members `trimmed` leaves out at each end."""
    clip: float | None = None
    """How near to 0 (for `logit` to 1, too) a value may come; nearer ones are moved, and counted in a warning."""
    normalize: bool = False
    """Whether `geometric` divides each row by its sum."""
    multilabel: bool = False
    """Whether columns are labels of their own, not the classes of one choice."""

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise BlendError(f"there is no blend {self.how!r}; choose one of {', '.join(get_args(How))}")
        weights = np.asarray(self.weights, dtype=np.float64)
        if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
            raise BlendError(f"weights must be finite, 0 or above and not all 0, got {list(self.weights)}")
        if self.how in ("median", "trimmed") and weights.min() != weights.max():
            raise BlendError(f"{self.how!r} takes all members alike; leave out the weights {list(self.weights)}")
        if abs(weights.sum() - 1) > _ROUNDING:
            weights = weights / weights.sum()
        object.__setattr__(self, "weights", tuple(weights.tolist()))
        self._check_options()

    def _check_options(self) -> None:
        for name, given in (("clip", self.clip is not None), ("normalize", self.normalize)):
            if given and name not in _READ.get(self.how, ()):
                takers = ", ".join(how for how, read in _READ.items() if name in read)
                raise BlendError(f"{self.how!r} does not read {name}={getattr(self, name)}; it is for {takers}")
        if self.clip is not None and not (0 < self.clip < 0.5 and 1 - self.clip < 1):
            raise BlendError(f"clip must be above 0 and below 0.5, such as 1e-7, got {self.clip}")
        if self.how in _POWERS and not _POWERS[self.how][1](self.power):
            raise BlendError(f"{self.how!r} needs a power that is {_POWERS[self.how][0]}, got {self.power}")
        most = (len(self.weights) - 1) // 2
        if self.how == "trimmed" and not 1 <= self.trim <= most:
            raise BlendError(
                f"{self.how!r} of {len(self.weights)} members can leave out from 1 to {most} of them at each end,"
                f" got trim={self.trim}; how='mean' leaves out none"
            )

    def options(self) -> dict[str, Any]:
        """Return the formula and what it reads, as plain data: beside members and shares, all that decides."""
        read = {name: getattr(self, name) for name in _READ.get(self.how, ())}
        if "power" in read and not isfinite(self.power):
            read["power"] = str(self.power)  # JSON knows no infinity
        return {"how": self.how, **read}

    def __call__(
        self, members: Sequence[NDArray[Any]], *, folds: NDArray[Any] | None = None, out: Array | None = None
    ) -> Array:
        """Blend arrays of one shape, as `blend` says; into `out`, a float64 array of that shape, if it is given."""
        arrays = _checked(members)
        if len(arrays) != len(self.weights):
            raise BlendError(f"{len(arrays)} members need {len(arrays)} weights, got {len(self.weights)}")
        if folds is not None and self.how not in _OF_RANKS:
            raise BlendError(f"folds are for blends of ranks ({', '.join(_OF_RANKS)}), not for {self.how!r}")
        numbered = list(zip(self.weights, enumerate(arrays, 1), strict=True))
        refuse_not_finite([one for share, one in numbered if share == 0])
        used, shares = [one for share, one in numbered if share > 0], [share for share in self.weights if share > 0]
        if self.how in _OF_RANKS:
            power = self.power if self.how == "mean_of_rank_powers" else 1.0
            return rank_mean(used, shares, folds=folds, power=power, out=out)
        result = np.empty(arrays[0].shape) if out is None else out
        walk(self._plan(used, shares), used, result)
        return result

    def _plan(self, used: Sequence[tuple[int, NDArray[Any]]], shares: Sequence[float]) -> Plan:
        arrays = [array for _, array in used]
        classes = arrays[0].ndim == 2 and arrays[0].shape[1] > 1 and not self.multilabel
        if self.normalize and not classes:
            raise BlendError(f"normalize needs columns that are classes, got {arrays[0].shape}; see how='logit'")
        domain, formula = self._formula(classes, arrays)
        if domain is POSITIVE and self.clip is not None:
            domain = NOT_NEGATIVE
        sums = classes and self.how in ("logit", "mean_of_sharpened")
        given = formula if self.how in ("median", "trimmed") else partial(formula, shares=shares)
        return Plan(how=self.how, formula=given, domain=domain, classes=sums, clip=self.clip)

    def _formula(self, classes: bool, arrays: Sequence[NDArray[Any]]) -> tuple[Domain, Callable[..., Array]]:
        power = -1.0 if self.how == "harmonic" else self.power
        scale = POSITIVE if -inf < power < 0 else NOT_NEGATIVE
        match self.how:
            case "geometric":
                return NOT_NEGATIVE, formulas.opinion_pool if self.normalize else formulas.geometric
            case "logit":
                return PROBABILITIES, formulas.opinion_pool if classes else formulas.logit
            case "harmonic" | "power":
                return scale, partial(formulas.power_mean, power=power)
            case "mean_of_powers":
                return scale, partial(formulas.mean_of_powers, power=power)
            case "mean_of_sharpened":
                sharpened = formulas.sharpened_classes if classes else formulas.sharpened_binary
                return PROBABILITIES, partial(sharpened, power=power)
            case "median":
                return NUMBERS, formulas.median
            case "trimmed":
                return NUMBERS, partial(formulas.trimmed_mean, trim=self.trim)
            case "vote" if classes:
                return PROBABILITIES, votes.vote_of_classes
            case "vote":
                codes = not self.multilabel and votes.are_codes(arrays)
                return (NUMBERS, votes.vote_of_codes) if codes else (PROBABILITIES, votes.vote_of_yes_and_no)
        return NUMBERS, formulas.mean


def blend(
    members: Sequence[NDArray[Any]],
    *,
    how: How = "mean",
    weights: Sequence[float] | None = None,
    power: float = 2.0,
    trim: int = 1,
    clip: float | None = None,
    normalize: bool = False,
    multilabel: bool = False,
    folds: NDArray[Any] | None = None,
) -> Array:
    """Return one array from several of the same shape.

    Parameters
    ----------
    members
        Arrays of shape (n,) or (n, columns), rows in the same order, finite.
    how
        `mean`: sum of w x.
        `geometric`: exp of the sum of w log x, x >= 0; a zero makes the result zero. With `normalize` each row
        of classes is divided by its sum: the logarithmic opinion pool.
        `logit`: sigmoid of the sum of w logit p. Columns that are classes (rows add up to 1) get the softmax of
        the sum of w log p instead, which for two classes is the same.
        `harmonic`: 1 / (sum of w / x), x > 0.
        `power`: the power mean (sum of w x^p)^(1/p), x >= 0 (x > 0 if p < 0); p = 0 is `geometric`, p = -1
        `harmonic`, p = inf the largest and p = -inf the least member.
        `rank`: mean of ranks r / n, each column of each member alone, ties averaged.
        `median`: the middle member, or the mean of both in the middle.
        `trimmed`: mean without the `trim` largest and the `trim` least of the members.
        `vote`: the class of most members. Of one column: class codes, whole numbers; or probabilities, with the
        result 1 where most say 0.5 or more, else 0. Of columns that are classes: 1 for the class that is most
        often the most probable one, else 0. Of equal shares, the largest summed probability, then the least code.
        `mean_of_powers`, `mean_of_sharpened`, `mean_of_rank_powers`: see the notes.
    weights
        One a member, 0 or above, not all 0; divided by their sum. Equal by default.
    power, trim, clip, normalize, multilabel
        What some of the formulas read: see `Blend`.
    folds
        Shape (n,), for blends of ranks: rows are ranked among those of their fold, as the models of two folds
        have two scales.

    Returns
    -------
    float64 array of the members' shape. Beside it, memory is taken for a few megabytes a core, and for ranks 12
    bytes a row and core, of cores no more than 0.13 of the members' memory allows.

    Raises
    ------
    BlendError
        When shapes differ, a value is not finite or not in the domain, or weights make no average; when rows
        have no result, such as the `logit` of 0 and 1. Nothing is clipped unless `clip` asks for it.

    Warns
    -----
    When values were clipped, and when all ranks of a column are equal.

    Notes
    -----
    Sums run in float64. Power means: Hardy, Littlewood & Polya, Inequalities, 1934.

    Five things are called power averaging. `power` has the members' own scale. `mean_of_powers`, sum of w x^p,
    leaves out the root: the same order, so the same AUC, but no probability. `mean_of_sharpened` makes each
    member surer, p^a / (sum over classes of p^a), and averages that: probabilities again. `mean_of_rank_powers`
    is the sum of w (r / n)^a. A power of a blend changes no order at all. A high power means that the most
    confident member wins.

    Results of `rank`, `mean_of_rank_powers` and `mean_of_powers` are an order, not probabilities; ranks are not
    comparable between sets of rows.

    >>> blend([np.array([0.3]), np.array([0.8])], how="power", power=2).round(4)
    array([0.6042])

    """
    if not members:
        raise BlendError("there is nothing to blend: give at least one member")
    equal = (1.0,) * len(members)
    shares = equal if weights is None else tuple(weights)
    chosen = Blend(
        how=how, weights=shares, power=power, trim=trim, clip=clip, normalize=normalize, multilabel=multilabel
    )
    return chosen(members, folds=folds)


def _checked(members: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    arrays = [np.asarray(member) for member in members]
    for number, array in enumerate(arrays, 1):
        if array.shape != arrays[0].shape:
            raise BlendError(f"member {number} has shape {array.shape}, member 1 has {arrays[0].shape}")
        if array.dtype.kind not in "fiub" or array.itemsize > 8:
            raise BlendError(f"member {number} holds {array.dtype}, not numbers of 64 bits at most")
    if arrays and (arrays[0].ndim not in (1, 2) or not arrays[0].size):
        raise BlendError(f"members must be (n,) or (n, columns) with at least one row, got {arrays[0].shape}")
    return arrays


def blend_predictions(parts: Sequence[Predictions], combine: Blend, *, within_folds: bool = False) -> Predictions:
    """Blend predictions of the same ids, in the order of the first; its targets, folds and notes are kept.

    With `within_folds`, rows are ranked among those of their fold.

    >>> import polars as pl
    >>> parts = [Predictions(pl.Series([1, 2]), np.array([0.2, 0.4])), Predictions(pl.Series([2, 1]), np.ones(2))]
    >>> blend_predictions(parts, Blend(how="mean", weights=(1.0, 1.0))).values.tolist()
    [0.6, 0.7]
    """
    if not parts:
        raise BlendError("there is nothing to blend: give at least one member")
    first = parts[0]
    if within_folds and first.folds is None:
        raise BlendError("the predictions know no folds to rank within; blend them without within_folds")
    folds = first.folds if within_folds else None
    values = combine([first.values, *(part.align(first.ids).values for part in parts[1:])], folds=folds)
    return Predictions(first.ids, values, targets=first.targets, folds=first.folds, about=first.about)


def blend_entries(
    entries: Sequence[Entry],
    root: Path | str = "runs",
    *,
    how: How = "mean",
    weights: Sequence[float] | None = None,
    power: float = 2.0,
    trim: int = 1,
    clip: float | None = None,
    normalize: bool = False,
    multilabel: bool = False,
    within_folds: bool = False,
) -> Entry:
    """Blend entries into a new one, out-of-fold and test predictions with the same weights.

    Rows are joined by id. Members must share folds and metric and cover every row. The same blend of
    the same members is not made twice: the first is returned. Formulas and options are those of `blend`; with
    `within_folds`, out-of-fold predictions are ranked fold by fold, and test predictions as a whole.

    Raises
    ------
    BlendError
        Fewer than one member, one named twice, or folds, metric, columns or test rows that differ.

    """
    check_entries(entries)
    shares = (1.0,) * len(entries) if weights is None else tuple(weights)
    blended = Blend(
        how=how, weights=shares, power=power, trim=trim, clip=clip, normalize=normalize, multilabel=multilabel
    )
    config = _config(entries, blended, within_folds)
    if made := find_entry(Path(root), config["identity"]):
        return made
    oofs = [entry.oof(complete=True) for entry in entries]
    oof = blend_predictions(oofs, blended, within_folds=within_folds)
    return write_entry(Path(root), "blend", config, oof, tests_of(entries, blended))


def tests_of(entries: Sequence[Entry], blended: Blend) -> Predictions | None:
    """Blend the test predictions of entries; None where they have none."""
    tests = [test for entry in entries if (test := entry.test()) is not None]
    if tests and len(tests) != len(entries):
        without = [entry.name for entry in entries if entry.test() is None]
        raise BlendError(f"{', '.join(without)} has no test predictions, the other members have")
    return blend_predictions(tests, blended) if tests else None


def _config(entries: Sequence[Entry], blended: Blend, within_folds: bool) -> dict[str, Any]:
    if len(blended.weights) != len(entries):
        raise BlendError(f"{len(entries)} members need {len(entries)} weights, got {len(blended.weights)}")
    config = {key: entries[0].config[key] for key in INHERITED}
    members = {entry.name: share for entry, share in zip(entries, blended.weights, strict=True)}
    config |= {**blended.options(), "within_folds": within_folds, "members": members}
    return {**config, "identity": digest_of({**config, "of": [entry.config["identity"] for entry in entries]})}


def check_entries(entries: Sequence[Entry], what: str = "blend", hint: str = "give it a larger weight instead") -> None:
    """Refuse entries that cannot be combined: none, one twice, other folds or another metric."""
    if not entries:
        raise BlendError(f"there is nothing to {what}: name at least one entry")
    names = [entry.name for entry in entries]
    if twice := {name for name in names if names.count(name) > 1}:
        raise BlendError(f"{sorted(twice)[0]} is named twice; {hint}")
    first = entries[0]
    for entry in entries[1:]:
        if entry.config["folds"]["digest"] != first.config["folds"]["digest"]:
            raise BlendError(f"{entry.name} and {first.name} were trained on different folds; train both on one split")
        if entry.config["metric"] != first.config["metric"]:
            raise BlendError(
                f"{entry.name} is scored by {entry.direction.name}, {first.name} by {first.direction.name}"
            )
