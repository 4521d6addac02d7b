"""Standing: the board as it is shown, and how well validation foretells the other scores.

In:    the board, the scores of the ledger, the agreement with each leaderboard.
Out:   rows of the table; charts with noise bands; what was left out.
Next:  the page puts them into its template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from batteries.report import plots
from batteries.report.view import NONE, Figures, Plot, counted, rough, score, sentence
from batteries.score.agreement import Agreement
from batteries.score.board import Row

MOST_ROWS = 300
"""Of the table; a page with more would be slow to sort and to read."""
_MOST_BARS = 20  # entries of one chart
_MOST_POINTS = 40
_LABELS = ", where there is room"


@dataclass(frozen=True)
class BoardView:
    """The board, with the columns that hold anything."""

    rows: list[Row]
    total: int
    """Entries there are; the table holds at most `MOST_ROWS`."""
    metrics: dict[str, str]
    """Every metric on the board, and its better direction."""
    columns: list[str]
    """Of public, private and test, those with a score."""
    explained: dict[str, bool]
    """Whether noise of two standard deviations explains an entry's gap, where both noises are known."""
    plots: list[Plot]


def board(rows: Sequence[Row], events: Sequence[Mapping[str, Any]], agreed: Sequence[Agreement] = ()) -> BoardView:
    """Return the board as it is shown; `events` are the scores of the ledger."""
    noises = {(e["entry"], e["scope"]): e["noise"] for e in events if e["fold"] is None}
    explained = {}
    for row in rows:
        noise = noises.get((row.name, "test"))
        if row.gap is not None and row.noise is not None and noise is not None:
            explained[row.name] = abs(row.gap) <= 2 * float(np.hypot(row.noise, noise))
    charts = [_leaders(rows), _fold_boxes(rows, events), *(_agreement(each) for each in agreed), _tested(rows, noises)]
    return BoardView(
        rows=list(rows[:MOST_ROWS]),
        total=len(rows),
        metrics={row.metric: "higher" if row.higher_is_better else "lower" for row in rows},
        columns=[s for s in ("public", "private", "test") if any(getattr(row, s) is not None for row in rows)],
        explained=explained,
        plots=[chart for chart in charts if chart is not None],
    )


def _leaders(rows: Sequence[Row]) -> Plot | None:
    """The best entries with their noise, where at least two compare."""
    same = [row for row in rows if row.group == rows[0].group and row.valid is not None]
    points = [(row.name, float(row.valid), row.noise) for row in same[:_MOST_BARS] if row.valid is not None]
    if len(points) < 2:
        return None
    metric = same[0].metric
    label = f"Validation {metric} of {counted(len(points), 'entry', 'entries')}; best {points[0][0]},"
    label += f" {score(points[0][1])}"
    caption = "Bars and the band of the best entry are two standard deviations of the noise of the rows."
    caption += " Entries are scored on the same rows, so smaller differences may be real too."
    caption += f" The best {len(points)} of {len(same)} are drawn." if len(points) < len(same) else ""
    table = Figures(["entry", metric, "noise"], [[name, score(value), rough(noise)] for name, value, noise in points])
    return Plot(plots.intervals(points, label, x=f"validation {metric}"), caption, table)


def _fold_boxes(rows: Sequence[Row], events: Sequence[Mapping[str, Any]]) -> Plot | None:
    """The scores of the folds of the best entries side by side; None where none has two folds."""
    newest = {(e["entry"], e["fold"]): e["value"] for e in events if e["scope"] == "fold" and e["value"] is not None}
    values: dict[str, list[float]] = {}
    for (name, _), value in newest.items():
        values.setdefault(name, []).append(float(value))
    named = [row.name for row in rows if row.group == rows[0].group and len(values.get(row.name, ())) > 1]
    if not named:
        return None
    shown, metric = [(name, values[name]) for name in named[:_MOST_BARS]], rows[0].metric
    label = f"{metric} of the folds of {counted(len(shown), 'entry', 'entries')}, best validation first"
    caption = "Dots are folds; a box holds the middle half of them, the coloured line is the median."
    caption += f" The best {len(shown)} of {len(named)} are drawn." if len(shown) < len(named) else ""
    table = Figures(
        ["entry", "lowest", "median", "highest"],
        [[name, *(score(float(v)) for v in np.quantile(own, (0, 0.5, 1)))] for name, own in shown],
    )
    return Plot(plots.boxes(shown, label, x=f"{metric} of a fold"), caption, table)


def _agreement(agreed: Agreement) -> Plot | None:
    """Validation against a leaderboard over all submissions."""
    pairs = agreed.pairs[-_MOST_POINTS:]
    if len(pairs) < 2:
        return None
    where = f"{agreed.board} leaderboard"
    label = f"Validation {agreed.metric} against the {where} for {counted(len(pairs), 'submission')}"
    numbers = [pair.submission.rpartition("-")[2].lstrip("0") for pair in pairs]
    points = [(number, pair.valid, pair.board) for number, pair in zip(numbers, pairs, strict=True)]
    noises: tuple[list[float | None], list[float | None]] = ([pair.noise for pair in pairs], [None] * len(pairs))
    svg = plots.against(
        points,
        label,
        x=f"validation {agreed.metric}",
        y=where,
        x_noise=noises[0],
        y_noise=noises[1],
        unlike=[pair.outlier for pair in pairs],
    )
    reading = _reading(points, pairs[0].noise, line=plots.meeting(points, *noises))
    caption = f"{sentence(agreed.sentence)} Numbers are submissions{_LABELS}. {reading}"
    caption += f" The newest {len(pairs)} are drawn." if len(pairs) < len(agreed.pairs) else ""
    rows = [
        [pair.submission, pair.entry, score(pair.valid), rough(pair.noise), score(pair.board), _remark(pair)]
        for pair in pairs
    ]
    return Plot(svg, caption, Figures(["submission", "entry", "validation", "noise", agreed.board, "remark"], rows))


def _remark(pair: Any) -> str:
    return (
        ", ".join(
            words for words, holds in (("unlike the others", pair.outlier), ("other folds", pair.other_folds)) if holds
        )
        or NONE
    )


def _reading(points: Sequence[tuple[str, float, float]], noise: float | None, *, line: bool) -> str:
    """What the line, the bars and the band say."""
    bars = "" if noise is None else "; bars are one standard deviation"
    if line:
        return f"On the dashed line both scores agree{bars}{', the band is two' if bars else ''}."
    return f"Every score here is {'above' if points[0][2] > points[0][1] else 'below'} all of validation{bars}."


def _tested(rows: Sequence[Row], noises: Mapping[tuple[str, str], float | None]) -> Plot | None:
    """Validation against the test set, for the metric of the best entry, if two entries have both."""
    both = [
        (str(number), row, row.valid, row.test)
        for number, row in enumerate(rows, 1)
        if row.metric == rows[0].metric and row.valid is not None and row.test is not None
    ]
    if len(both) < 2:
        return None
    shown, metric = both[:_MOST_POINTS], rows[0].metric
    label = f"Validation {metric} against the test set for {len(shown)} entries"
    points = [(number, valid, test) for number, _, valid, test in shown]
    bars = [row.noise for _, row, *_ in shown], [noises.get((row.name, "test")) for _, row, *_ in shown]
    svg = plots.against(points, label, x=f"validation {metric}", y="test set", x_noise=bars[0], y_noise=bars[1])
    reading = _reading(points, shown[0][1].noise, line=plots.meeting(points, *bars))
    caption = f"Numbers are places on the board{_LABELS}. {reading}"
    caption += f" The best {len(shown)} of {len(both)} are drawn." if len(shown) < len(both) else ""
    table = [[row.name, score(valid), score(test)] for _, row, valid, test in shown]
    return Plot(svg, caption, Figures(["entry", "validation", "test"], table))
