"""Runs: how each run learned, fold by fold and stage by stage.

In:    the run folders: metrics.jsonl, timings.jsonl and fold.json of every fold.
Out:   charts of loss, scores, learning rate and gradient norm over the updates; the scores of the folds; the speed.
Next:  the report shows one block a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import numpy as np

from batteries.report import plots
from batteries.report.view import Plot, counted, rough, score, size
from batteries.train.log import read_metrics
from batteries.train.record import Run

MOST_RUNS = 12
"""Runs whose curves are drawn; each takes some 100 kB of the page."""
MOST_WAITING = 4
"""Of them, runs that have no place on the board yet: those that train."""
_MORE_METRICS = 2  # beside the one that ranks

Lines = dict[int, list[dict[str, Any]]]


@dataclass(frozen=True)
class RunView:
    """What the report shows of one run."""

    name: str
    about: str
    speed: str
    """Median speed and what held it up; empty where it was not measured."""
    folds: list[int]
    plots: list[Plot]


def chosen(runs: Sequence[Run], places: Mapping[str, int]) -> list[Run]:
    """Return the runs whose curves are drawn: at most `MOST_RUNS`, the newest without a place, then the best."""
    waiting = [run for run in runs if run.name not in places][-MOST_WAITING:]
    best = sorted((run for run in runs if run.name in places), key=lambda run: places[run.name])
    names = {run.name for run in [*waiting, *best][:MOST_RUNS]}
    return [run for run in runs if run.name in names]


def views(runs: Sequence[Run], attempt: Callable[..., Any]) -> list[RunView]:
    """Return what there is to show of each run; those without any measurement are left out."""
    shown = [attempt(lambda run=run: _view(run, attempt), None) for run in runs]
    return [view for view in shown if view is not None]


def _view(run: Run, attempt: Callable[..., Any]) -> RunView | None:
    lines: Lines = {fold: read_metrics(run.fold_folder(fold) / "metrics.jsonl") for fold in range(run.num_folds)}
    lines = {fold: rows for fold, rows in lines.items() if rows}
    if not lines:
        return None
    finished = run.finished_folds()
    stages = ", ".join(f"{stage['name']} ({counted(stage['epochs'], 'epoch')})" for stage in run.config["stages"])
    about = f"{len(finished)} of {counted(run.num_folds, 'fold')} finished; stages {stages}"
    about += f"; seed {run.config['fields']['seed']}"
    shown = [*_curves(run, lines), *_fold_scores(run, finished)]
    return RunView(run.name, about, attempt(lambda: _speed(run), ""), list(lines), shown)


def _speed(run: Run) -> str:
    """Say how fast training went, over all folds, from what was measured between lines of the log."""
    files = (run.fold_folder(fold) / "timings.jsonl" for fold in range(run.num_folds))
    rows = [row for path in files for row in read_metrics(path)]
    parts = []
    if speeds := _values(rows, "speed/samples_per_second"):
        parts.append(f"{rough(float(np.median(speeds)))} samples/s (median)")
    if waits := _values(rows, "speed/data_wait"):
        parts.append(f"{np.median(waits):.0%} of the time waiting for data")
    peaks = {place: _values(rows, f"memory/{place}_mb") for place in ("device", "process")}
    parts += [f"at most {size(int(max(each) * 2**20))} of {place} memory" for place, each in peaks.items() if each]
    return "; ".join(parts)


def _values(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [float(row[key]) for row in rows if row.get(key) is not None]


def _curves(run: Run, lines: Lines) -> list[Plot]:
    metric = run.config["metric"]
    up = "higher" if metric["higher_is_better"] else "lower"
    loss = "Mean loss between two lines of the log, or of each epoch of a stage that has more epochs than lines."
    wanted: list[tuple[tuple[str, ...], str, str]] = [(("step/loss", "train/loss"), "training loss", loss)]
    best = f"On the held-out fold; {up} is better."
    wanted.append(((f"valid/{metric['name']}",), f"validation {metric['name']}", best))
    more = run.config["also"][:_MORE_METRICS]
    wanted += [((f"valid/{other}",), f"validation {other}", "On the held-out fold.") for other in more]
    wanted.append(
        (
            ("lr",),
            "learning rate",
            "The schedule as it was, of the first group of parameters; folds that are alike cover each other.",
        )
    )
    wanted.append((("step/grad_norm",), "gradient norm", "Of the whole gradient, before it was clipped."))
    charts = (_curve(run.name, lines, keys, title, caption) for keys, title, caption in wanted)
    return [chart for chart in charts if chart is not None]


def _curve(name: str, lines: Lines, keys: Sequence[str], title: str, caption: str) -> Plot | None:
    folds = {fold: _pieces(rows, *keys) for fold, rows in lines.items()}
    pieces = [(fold, piece) for fold, own in folds.items() for piece in own]
    if not pieces:
        return None
    finite = [[value for _, values in own for value in values if not isnan(value)] for own in folds.values()]
    known = [values[-1] for values in finite if values]
    label = f"{title.capitalize()} of {name} over the updates, {counted(len(lines), 'fold')};"
    label += f" mean of the last values {score(float(np.mean(known)))}" if known else " no finite values"
    log = any("loss" in key or key == "step/grad_norm" for key in keys)
    return Plot(plots.curves(pieces, label, y=title, stages=_stages(lines), log=log), caption)


def _pieces(rows: Sequence[Mapping[str, Any]], *keys: str) -> list[plots.Points]:
    """The points of one fold, cut where a stage begins: its weights may come from an earlier epoch.

    Of several numbers, each stage shows the one with more points.
    """
    stages: dict[str, dict[str, tuple[list[float], list[float]]]] = {}
    for row in rows:
        for key in keys:
            if key in row:
                found = stages.setdefault(str(row.get("stage", "")), {})
                steps, values = found.setdefault(key, ([], []))
                steps.append(float(row["step"]))
                values.append(float("nan") if row[key] is None else float(row[key]))
    shown = [[found[key] for key in keys if key in found] for found in stages.values()]
    return [max(points, key=lambda of: len(of[0])) for points in shown]


def _stages(lines: Lines) -> list[tuple[float, str]]:
    """Where each stage begins, as the mean over the folds of the last update before it."""
    ends: dict[str, list[float]] = {}
    for rows in lines.values():
        before = 0.0
        for number, row in enumerate(rows):
            if number == 0 or row.get("stage") != rows[number - 1].get("stage"):
                ends.setdefault(str(row.get("stage", "")), []).append(before)
            before = float(row["step"])
    return [(float(np.mean(steps)), stage) for stage, steps in ends.items()]


def _fold_scores(run: Run, finished: Sequence[int]) -> list[Plot]:
    metric = str(run.config["metric"]["name"])
    found = {fold: run.fold_result(fold)["scores"].get(metric) for fold in finished}
    values = {fold: float(value) for fold, value in found.items() if value is not None}
    if not values:
        return []
    numbers = np.array(list(values.values()))
    mean = f"{metric} of {run.name}: mean {score(float(numbers.mean()))} over {counted(len(numbers), 'fold')}"
    spread = f", standard deviation {rough(float(numbers.std(ddof=1)))}" if len(numbers) > 1 else ""
    caption = f"One dot a fold; the line is their mean, {score(float(numbers.mean()))}"
    caption += f", the band one standard deviation, {rough(float(numbers.std(ddof=1)))}." if len(numbers) > 1 else "."
    return [Plot(plots.dots(values, mean + spread, x=f"validation {metric}"), caption)]
