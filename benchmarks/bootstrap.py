"""Bootstrap: what many resamples of AUC cost for two models, beside computing each with scikit-learn.

In:    --rows, --draws; two models whose scores are made up.
Out:   seconds and peak memory, ours measured whole, scikit-learn's from a few draws, as a table or JSON.
Next:  `batteries compare` asks for as many resamples.

Each case is a process of its own, since peak memory is of a process. scikit-learn's loop scores --few of the
draws and is multiplied up. Before the clock starts, both models are scored once, so that imports are not in it.

    python benchmarks/bootstrap.py --rows 100000 --draws 10000
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import side_by_side
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from batteries.experiment import Metric
from batteries.score.noise import resampled

OURS, LOOP = "batteries", "scikit-learn loop"
Models = list[NDArray[np.float32]]


def made_up(rows: int) -> tuple[NDArray[np.int64], Models]:
    """Return targets, three of ten positive, and two models of much the same worth."""
    random = np.random.default_rng(0)
    targets = (random.random(rows) < 0.3).astype(np.int64)
    return targets, [(targets + random.normal(size=rows)).astype(np.float32) for _ in range(2)]


def ours(targets: NDArray[np.int64], models: Models, draws: int) -> NDArray[np.float64]:
    """Score all draws."""
    return resampled(Metric.auc(), targets, models, draws=draws)


def loop(targets: NDArray[np.int64], models: Models, draws: int) -> NDArray[np.float64]:
    """Draw rows and score both models on them, again and again."""
    random, scores = np.random.default_rng(1), np.empty((draws, 2))
    for draw in range(draws):
        rows = random.integers(0, len(targets), len(targets))
        scores[draw] = [roc_auc_score(targets[rows], model[rows]) for model in models]
    return scores


CASES: dict[str, Callable[..., NDArray[np.float64]]] = {OURS: ours, LOOP: loop}


def measure(case: str, rows: int, draws: int, of: int) -> dict[str, Any]:
    """Time one case; `of` is how many draws are wanted."""
    targets, models = made_up(rows)
    CASES[case](targets, models, 1)
    before = _peak()
    began, used = time.perf_counter(), time.process_time()
    scores = CASES[case](targets, models, draws)
    seconds, busy = time.perf_counter() - began, time.process_time() - used
    gains = scores[:, 1] - scores[:, 0]
    return {
        "seconds": seconds * of / draws,
        "processor": busy * of / draws,
        "grown_mb": _peak() - before,
        "peak_mb": _peak(),
        "deviation": float(gains.std(ddof=1)),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(figures: dict[str, Any]) -> str:
    """Return the figures for people."""
    rows = [
        [
            result["case"],
            side_by_side.number(result["seconds"]["median"], 1),
            side_by_side.spread(result["seconds"], 1),
            side_by_side.number(result["processor"]["median"], 1),
            side_by_side.number(result["ratio"], 3),
            side_by_side.number(result["grown_mb"]["median"], 0),
            side_by_side.number(result["peak_mb"]["median"], 0),
        ]
        for result in figures["cases"]
    ]
    header = ["case", "seconds", "spread", "processor", "ratio", "grown MB", "peak MB"]
    about = f"{figures['draws']:,} resamples of AUC, two models, {figures['rows']:,} rows; {figures['cores']} cores"
    extrapolated = f"the loop's seconds are of {figures['few']} resamples, multiplied up"
    return "\n".join(
        [f"{about}, load {figures['load']}, {figures['date']}", side_by_side.table(header, rows), extrapolated]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What many resamples of AUC cost for two models.")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of each model (100,000)")
    parser.add_argument("--draws", type=int, default=10_000, help="resamples (10,000)")
    parser.add_argument("--few", type=int, default=20, help="of these, those that the loop really scores (20)")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each case (3)")
    parser.add_argument("--json", action="store_true", help="print everything that was measured")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # how the program calls itself, for one measurement
    parser.add_argument("--round", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    few = min(options.few, options.draws)
    if options.job:
        draws = options.draws if options.job == OURS else few
        options.result.write_text(json.dumps(measure(options.job, options.rows, draws, options.draws)))
        return
    given = ["--rows", str(options.rows), "--draws", str(options.draws), "--few", str(few)]
    done = side_by_side.in_turn(str(Path(__file__).resolve()), list(CASES), options.rounds, given)
    base = [result["seconds"] for result in done[LOOP]]
    cases = [
        {
            "case": case,
            **{what: side_by_side.summary([result[what] for result in results]) for what in results[0]},
            "ratio": side_by_side.ratio([result["seconds"] for result in results], base),
        }
        for case, results in done.items()
    ]
    sizes = {"rows": options.rows, "draws": options.draws, "few": few}
    figures = {**side_by_side.setting(), **sizes, "load": round(os.getloadavg()[0], 2), "cases": cases}
    print(json.dumps(figures, indent=1) if options.json else table(figures))


if __name__ == "__main__":
    main()
