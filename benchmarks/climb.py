"""Climb for AUC: weights of 30 members of 200,000 rows, beside the package hillclimbers.

    python benchmarks/climb.py               # about five minutes; --quick for seconds, on few rows
    python benchmarks/climb.py --only hillclimbers --only "batteries climb" --step 0.02

Made-up probabilities of models of different noise. The first three take the same steps: mix in the member that helps
most, at its best share of a grid, each at most once; so they must end at the same AUC. The clock runs from members in
memory to the blend; reading, importing and the last AUC are outside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from side_by_side import (
    Case,
    chosen,
    form_of,
    in_turn,
    number,
    options,
    ratio,
    setting,
    show,
    spread,
    summary,
    use_threads,
)

BASE = "hillclimbers"
CASES = (
    Case(BASE, "climb_cases:hillclimbers", ("pandas", "hillclimbers", "sklearn.metrics")),
    Case("scikit-learn loop", "climb_cases:loop", ("sklearn.metrics",)),
    Case("batteries climb", "climb_cases:climb", ("batteries.combine.fitted",)),
    Case("batteries greedy", "climb_cases:greedy", ("batteries.combine.fitted",)),
)
NOTES = (
    "Median seconds over the rounds (least..most), and the median ratio to hillclimbers in the same round; `tried` are",
    "the blends whose AUC was taken, `ms` the time for one. `AUC` is scikit-learn's of the final blend, on the rows it",
    "was fitted on. `memory` is the most that the process held during the climb: the members are 1, what was there",
    "besides at its beginning is not counted (Linux). Greedy selection does other steps, and more of them.",
)


def main() -> None:
    """Measure one job if asked to, else all of them in turn."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = options(__doc__.splitlines()[0], rounds=3, threads=cores, threads_why="all cores")
    parser.add_argument("--members", type=int, default=30)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--step", type=float, default=0.1, help="width of the grid of shares (0.1)")
    parser.add_argument("--dtype", choices=("float64", "float32"), default="float64", help="of the members (float64)")
    arguments = parser.parse_args()
    if arguments.job:
        arguments.result.write_text(json.dumps(measure(arguments)))
        return
    if arguments.quick:
        arguments.rounds, arguments.members, arguments.rows, arguments.step = 1, 5, 2000, 0.25
    cases, missing = chosen(CASES, arguments.only)
    same = {name: getattr(arguments, name) for name in ("threads", "members", "rows", "step", "dtype")}
    words = [word for name, value in same.items() for word in (f"--{name}", str(value))]
    measured = in_turn(__file__, [case.name for case in cases], arguments.rounds, words)
    show(report(arguments, missing, measured), columns)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one case once, in this process."""
    use_threads(arguments.threads)
    from climb_cases import made_up
    from sklearn.metrics import roc_auc_score

    case = next(case for case in CASES if case.name == arguments.job).load()
    members, targets = made_up(arguments.members, arguments.rows, arguments.dtype, seed=arguments.round)
    run = case(members, targets, arguments.step)  # whatever form of the input the contender wants
    size, before = sum(member.nbytes for member in members), _memory("VmRSS")
    if before:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    began = time.perf_counter()
    blended, tried = run()
    seconds = time.perf_counter() - began
    peak = _memory("VmHWM")
    return {
        "climb_s": seconds,
        "tried": tried,
        "auc": float(roc_auc_score(targets, blended)),
        "memory": None if before is None or peak is None else 1 + (peak - before) / size,
    }


def _memory(what: str) -> int | None:
    """Bytes of this process as the kernel counts them; None where it does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(what)), None)


def report(
    arguments: argparse.Namespace, missing: dict[str, list[str]], measured: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """All that is known, as plain data."""
    base = [one["climb_s"] for one in measured[BASE]] if BASE in measured else None
    results = []
    for name, rounds in measured.items():
        times, memory = [one["climb_s"] for one in rounds], [one["memory"] for one in rounds if one["memory"]]
        results.append(
            {
                "case": name,
                "climb_s": summary(times),
                "ratio": ratio(times, base),
                "tried": statistics.median(one["tried"] for one in rounds),
                "tried_ms": statistics.median(1000 * one["climb_s"] / one["tried"] for one in rounds),
                "auc": summary([one["auc"] for one in rounds]),
                "memory": max(memory) if memory else None,
                "rounds": rounds,
            }
        )
    about = f"{arguments.members} members of {arguments.rows:,} rows, {arguments.dtype}, step {arguments.step}"
    return {
        "form": form_of(arguments),
        "title": "Fitting the weights of a blend for AUC",
        **setting(),
        "settings": f"rounds: {arguments.rounds}, {about}, {arguments.threads} torch threads",
        "cases": results,
        "missing": missing,
        "notes": NOTES,
    }


def columns(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """One line a contender."""
    header = ["case", "climb s", "spread", "ratio", "tried", "ms", "AUC", "memory"]
    rows = []
    for result in report["cases"]:
        times = [number(result["climb_s"]["median"], 2), spread(result["climb_s"], 2), number(result["ratio"], 3)]
        work = [number(result["tried"], 0), number(result["tried_ms"], 2), number(result["auc"]["median"], 6)]
        rows.append([result["case"], *times, *work, number(result["memory"], 2)])
    return header, rows


if __name__ == "__main__":
    main()
