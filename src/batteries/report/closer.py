"""Closer: where the best entry is right and wrong, from its out-of-fold predictions.

In:    an entry; names of classes where the study knows them.
Out:   confusion, predicted against true, calibration, the hardest rows.
Next:  the report shows it below the board.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from batteries.combine.blend import ORDERS
from batteries.combine.reliability import calibration_error, reliability
from batteries.experiment.predictions import Predictions
from batteries.report import plots
from batteries.report.evaluation import Outcome, confusion, hardest, outcome_of
from batteries.report.view import Figures, Matrix, Plot, figure, percent, rough
from batteries.score.entry import Entry

_MOST_CLASSES = 20  # in a confusion matrix; above, only the commonest mistakes are listed
_MOST_POINTS = 1500
_MISTAKES = 12


@dataclass(frozen=True)
class CloserView:
    """What the report shows of the best entry."""

    name: str
    task: str
    rows: int
    matrix: Matrix | None = None
    mistakes: list[tuple[str, str, int]] = field(default_factory=list)
    """True class, predicted class, rows; the commonest first."""
    plots: list[Plot] = field(default_factory=list)
    hardest: list[dict[str, Any]] = field(default_factory=list)


def closer(entry: Entry, names: Sequence[str] | None) -> CloserView | None:
    """Return what there is to say of an entry; None where its predictions are of no known kind."""
    oof = entry.oof()
    outcome = outcome_of(oof, ranks=entry.config.get("how") in ORDERS)
    if outcome is None:
        return None
    if outcome.task == "number":
        return CloserView(
            entry.name, "number", len(oof), plots=_errors(entry.name, outcome), hardest=_largest_errors(oof, outcome)
        )
    classes = _names(names, outcome.values.shape[1])
    counts = confusion(outcome)
    return CloserView(
        entry.name,
        "classes",
        len(oof),
        matrix=_matrix(counts, classes) if len(classes) <= _MOST_CLASSES else None,
        mistakes=_mistakes(counts, classes),
        plots=_calibration(entry.name, outcome, classes) if outcome.probabilities else [],
        hardest=_least_expected(oof, outcome, classes),
    )


def _names(names: Sequence[str] | None, count: int) -> list[str]:
    return list(names) if names is not None and len(names) == count else [str(code) for code in range(count)]


def _matrix(counts: Any, classes: list[str]) -> Matrix:
    """The diagonal is coloured by its share of the row, mistakes by their share of the commonest one."""
    mistakes = counts - np.diag(np.diag(counts))
    strength = mistakes / max(1, mistakes.max())
    totals = counts.sum(axis=1)
    np.fill_diagonal(strength, np.diag(counts) / np.maximum(1, totals))
    return Matrix(
        classes,
        [[f"{count:,}" if count else "" for count in row] for row in counts.tolist()],
        strength.round(2).tolist(),
        [percent(int(counts[i, i]) / total) if total else "" for i, total in enumerate(totals.tolist())],
    )


def _mistakes(counts: Any, classes: list[str]) -> list[tuple[str, str, int]]:
    off = counts - np.diag(np.diag(counts))
    order = np.argsort(-off, axis=None, kind="stable")[:_MISTAKES]
    places = [divmod(int(place), len(classes)) for place in order]
    return [(classes[true], classes[said], int(off[true, said])) for true, said in places if off[true, said]]


def _calibration(name: str, outcome: Outcome, classes: list[str]) -> list[Plot]:
    bins = reliability(outcome.values, outcome.targets)
    error = calibration_error(bins)
    binary = len(classes) == 2
    x = f"stated probability of {classes[1]}" if binary else "stated probability of the predicted class"
    y = f"share that is {classes[1]}" if binary else "share that is right"
    points = [(each.stated, each.observed, each.deviation, each.rows) for each in bins]
    label = f"Calibration of {name}: {x} against {y} in {len(bins)} bins; expected calibration error {rough(error)}"
    meaning = (
        f"of 10 rows with a stated probability of 0.8, 8 are {classes[1]}; below it, too much is stated"
        if binary
        else "a stated probability of 0.8 is right in 8 of 10 rows; below it, the entry is too sure of itself"
    )
    caption = (
        f"On the dashed line, {meaning}. Larger dots hold more rows, bars are one standard deviation."
        f" The mean distance from the line (expected calibration error, 10 bins) is {rough(error)}."
    )
    table = Figures(
        ["stated", "observed", "deviation", "rows"],
        [[f"{at:.3f}", f"{to:.3f}", rough(deviation), f"{count:,}"] for at, to, deviation, count in points],
    )
    return [Plot(plots.reliability(points, label, x=x, y=y), caption, table)]


def _errors(name: str, outcome: Outcome) -> list[Plot]:
    total = len(outcome.targets)
    rows = np.arange(total)
    if total > _MOST_POINTS:
        rows = np.sort(np.random.default_rng(0).choice(total, _MOST_POINTS, replace=False))
    errors = outcome.values - outcome.targets
    label = f"Predicted against true values of {name}; mean error {figure(float(errors.mean()))}"
    shown = f"{_MOST_POINTS:,} of {total:,} rows, drawn at random" if len(rows) < total else f"All {total:,} rows"
    caption = f"{shown}. On the dashed line the prediction is exact; the mean error is {figure(float(errors.mean()))}."
    found = [
        Plot(
            plots.scatter(outcome.targets[rows], outcome.values[rows], label, x_label="true", y_label="predicted"),
            caption,
        )
    ]
    low, high = (float(edge) for edge in np.quantile(errors, (0.005, 0.995)))
    if low < high:
        counts = np.histogram(errors, bins=30, range=(low, high))[0]
        label = f"Errors of {name}, from {figure(low)} to {figure(high)}"
        caption = "Predicted minus true; half a percent of the rows is left out at each end."
        found.append(Plot(plots.spread(counts.tolist(), (low, high), label, x="predicted minus true"), caption))
    return found


def _least_expected(oof: Predictions, outcome: Outcome, classes: list[str]) -> list[dict[str, Any]]:
    said = outcome.values.argmax(axis=1)
    return [
        {
            "id": oof.ids[row],
            "fold": _fold(oof, row),
            "true": classes[int(outcome.targets[row])],
            "predicted": classes[int(said[row])],
            "value": value,
        }
        for row, value in hardest(outcome)
    ]


def _largest_errors(oof: Predictions, outcome: Outcome) -> list[dict[str, Any]]:
    return [
        {
            "id": oof.ids[row],
            "fold": _fold(oof, row),
            "true": float(outcome.targets[row]),
            "predicted": float(outcome.values[row]),
            "value": value,
        }
        for row, value in hardest(outcome)
    ]


def _fold(oof: Predictions, row: int) -> int | None:
    return None if oof.folds is None else int(oof.folds[row])
