"""Fit blend: an entry that is a blend whose weights are learned from its members' out-of-fold predictions.

In:    entries with the same rows, folds and metric.
Out:   a new entry, and what the weights are worth on rows that they were not fitted on.
Next:  the board shows the honest score; equal weights (`blend_entries`) are often as good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from batteries.combine.blend import Blend, check_entries, tests_of
from batteries.combine.derive import LEARNED, scored, warn_of_later_rows
from batteries.combine.fitted import Fit, Method, fit_weights
from batteries.combine.nested import NestedEstimate, nested
from batteries.combine.ranks import ranks
from batteries.errors import BlendError
from batteries.experiment import Metric
from batteries.experiment.predictions import Predictions
from batteries.files import digest_of, write_sealed
from batteries.score.entry import INHERITED, Entry, find_entry, write_entry
from batteries.score.grouping import resampling


def fit_blend(
    entries: Sequence[Entry],
    root: Path | str = "runs",
    *,
    metric: Metric | None = None,
    formula: Literal["mean", "rank"] = "mean",
    how: Fit | Method = "greedy",
    max_weight: float = 1.0,
    l2: float = 0.0,
    prune: bool = False,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[NestedEstimate, Entry]:
    """Fit the weights of a blend of entries, estimate what they are worth, and make an entry of it.

    Rows are joined by id. Out-of-fold predictions of the new entry are blended fold by fold with the weights that
    the other folds gave, so its score on the board is honest; test predictions with those of all rows. The same
    blend is not made twice.

    Parameters
    ----------
    entries
        At least one, of the same folds and metric, with a prediction for every row.
    metric
        What is improved; that of the entries' experiment unless given.
    formula
        `mean` blends predictions, `rank` their ranks among all rows; no target is looked at for those.
    how, max_weight, l2, prune, seed
        As for `fit_weights`.
    draws
        As for `nested`. Groups that the folds keep together are drawn whole.

    Raises
    ------
    BlendError
        When entries differ in folds or metric, have no targets, a weight is below 0, or for what `fit_weights`
        refuses.

    """
    if formula not in ("mean", "rank"):
        raise BlendError(f"weights are fitted for the blends mean and rank, got {formula!r}")
    check_entries(entries)
    metric = metric or entries[0].experiment().metric
    if (metric.name, metric.higher_is_better) != (entries[0].direction.name, entries[0].direction.higher_is_better):
        raise BlendError(
            f"{entries[0].name} is scored by {entries[0].direction.name}, weights are fitted for {metric.name}"
        )
    first = scored(entries[0])
    members: list[NDArray[Any]] = [scored(entry).align(first.ids).values for entry in entries]
    if formula == "rank":
        members = [ranks(member) for member in members]
    assert first.targets is not None
    assert first.folds is not None
    warn_of_later_rows(entries[0])
    settings: dict[str, Any] = {"max_weight": max_weight, "l2": l2, "prune": prune, "seed": seed}
    fit = partial(fit_weights, metric=metric, how=how, **settings)
    names = [entry.name for entry in entries]
    how_drawn = resampling(entries[0], first.ids)
    estimate = nested(
        members, first.targets, first.folds, metric, fit, names=names, draws=draws, seed=seed, how=how_drawn
    )
    if min(estimate.weights) < 0:
        raise BlendError(f"a weight is below 0 ({min(estimate.weights):.3f}); an entry takes none: fit_weights does")
    method: dict[str, Any] = asdict(how) if is_dataclass(how) and not isinstance(how, type) else {}
    about = {"by": estimate.fitted.how, **method, **settings}
    return estimate, _made(entries, Path(root), formula, about, estimate, first)


def _made(
    entries: Sequence[Entry],
    root: Path,
    formula: Literal["mean", "rank"],
    about: dict[str, Any],
    estimate: NestedEstimate,
    first: Predictions,
) -> Entry:
    blended = Blend(how=formula, weights=estimate.weights)
    config = {key: entries[0].config[key] for key in INHERITED}
    members = {entry.name: share for entry, share in zip(entries, blended.weights, strict=True)}
    config |= {**blended.options(), "fit": about, "members": members}
    config["identity"] = digest_of({**config, "of": [entry.config["identity"] for entry in entries]})
    if made := find_entry(root, config["identity"]):
        return made
    oof = Predictions(first.ids, estimate.values, targets=first.targets, folds=first.folds, about=first.about)
    return write_entry(
        root, "blend", config, oof, tests_of(entries, blended),
        more=lambda folder: write_sealed(folder / LEARNED, estimate.plain()),
    )  # fmt: skip
