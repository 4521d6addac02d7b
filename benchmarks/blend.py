"""Blend: mean, power mean and ranked average of 50 members of 1,000,000 rows, beside other libraries.

    python benchmarks/blend.py            # a few minutes; --quick for seconds
    python benchmarks/blend.py --only batteries --only polars

Members are float32 and lie in memory as each library keeps columns. Beside the time stand the memory that a blend
takes beyond them, as a share of theirs, and how far its values are from float64 sums and average ranks.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from blend_cases import POWER, Columns
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

BASE = "batteries"
CASES = (
    Case(BASE, "blend_cases:batteries", ("batteries",)),
    Case("NumPy", "blend_cases:numpy", ("numpy",)),
    Case("SciPy", "blend_cases:scipy", ("scipy.stats",)),
    Case("pandas", "blend_cases:pandas", ("pandas",)),
    Case("polars", "blend_cases:polars", ("polars",)),
    Case("torch", "blend_cases:torch", ("torch",)),
)
BLENDS = ("mean", "power", "rank")
LACKING = ("SciPy/mean",)
"""Blends that a library has no function for."""
NOTES = (
    "Median seconds (least..most), the median ratio to batteries in the same round, the peak of memory beyond the",
    "members as a share of theirs, and the largest error against sums in float64 and average ranks. The power is",
    f"{POWER:g}. NumPy ranks by argsort, so its ties are in the order of rows; SciPy has no plain mean of its own.",
)


def main() -> None:
    """Measure one job if asked to, else all of them in turn."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = options(__doc__.splitlines()[0], rounds=3, threads=cores, threads_why="all cores")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of a member (1,000,000)")
    parser.add_argument("--members", type=int, default=50, help="members (50)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.rows, arguments.members = 1, 20_000, 10
    if arguments.job:
        arguments.result.write_text(json.dumps(measure(arguments)))
        return
    cases, missing = chosen(CASES, arguments.only)
    jobs = [f"{case.name}/{blend}" for blend in BLENDS for case in cases if f"{case.name}/{blend}" not in LACKING]
    same = ["--threads", arguments.threads, "--rows", arguments.rows, "--members", arguments.members]
    measured = in_turn(__file__, jobs, arguments.rounds, map(str, same))
    show(report(arguments, cases, missing, measured), columns)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one blend of one case once, in this process, after a small one that loads what it needs."""
    name, _, blend = arguments.job.rpartition("/")
    case = next(case for case in CASES if case.name == name).load()
    if name == "torch":
        use_threads(arguments.threads)
    case(members(1000, arguments.members))[blend]()
    held = members(arguments.rows, arguments.members)
    size, sample = sum(column.nbytes for column in held), [column[:5000].copy() for column in held]
    expected = _ranks(held) if blend == "rank" else _means(sample, POWER if blend == "power" else 1.0)
    run = case(held)[blend]
    del held
    before = _reset_peak()
    began = time.perf_counter()
    result = run()
    seconds = time.perf_counter() - began
    peak = _status("VmHWM") - before
    error = float(np.abs(np.asarray(result)[: len(expected)] - expected).max())
    return {"seconds": seconds, "memory": peak / size, "error": error}


def members(rows: int, count: int) -> Columns:
    """Columns that are alike, as predictions of one target are; some values tie."""
    generator = np.random.default_rng(0)
    base = generator.random(rows, dtype=np.float32)
    return [(base + generator.random(rows, dtype=np.float32)) / 2 for _ in range(count)]


def _means(sample: Columns, power: float) -> Any:
    return np.mean(np.stack(sample).astype(np.float64) ** power, axis=0) ** (1 / power)


def _ranks(columns: Columns) -> Any:
    """Average ranks of all rows, of which the first are compared."""
    total = np.zeros(5000)
    for column in columns:
        ordered, first = np.sort(column), column[:5000]
        total += np.searchsorted(ordered, first) + np.searchsorted(ordered, first, side="right") + 1
    return total[: len(columns[0])] / (2 * len(columns) * len(columns[0]))


def _reset_peak() -> int:
    """Bytes in memory now, from which on the kernel keeps the peak again."""
    Path("/proc/self/clear_refs").write_text("5")  # https://docs.kernel.org/filesystems/proc.html
    return _status("VmRSS")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024


def report(
    arguments: argparse.Namespace, cases: list[Case], missing: dict[str, list[str]], measured: dict[str, Any]
) -> dict[str, Any]:
    """All that is known, as plain data."""
    times = {job: [one["seconds"] for one in rounds] for job, rounds in measured.items()}
    results = [
        {
            "case": case.name,
            "blend": blend,
            "seconds": summary(times[job]),
            "ratio": ratio(times[job], times.get(f"{BASE}/{blend}")),
            "memory": max(one["memory"] for one in measured[job]),
            "error": max(one["error"] for one in measured[job]),
            "rounds": measured[job],
        }
        for blend in BLENDS
        for case in cases
        for job in [f"{case.name}/{blend}"]
        if job in measured
    ]
    return {
        "form": form_of(arguments),
        "title": f"Blending {arguments.members} members of {arguments.rows:,} rows, float32",
        **setting(),
        "settings": f"rounds: {arguments.rounds}, {arguments.threads} torch threads",
        "cases": results,
        "missing": missing,
        "notes": NOTES,
    }


def columns(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """One line a blend of a contender."""
    header = ["blend", "case", "s", "spread", "ratio", "memory", "error"]
    rows = [
        [
            result["blend"],
            result["case"],
            number(result["seconds"]["median"], 3),
            spread(result["seconds"], 3),
            number(result["ratio"], 2),
            number(result["memory"], 2),
            f"{result['error']:.0e}",
        ]
        for result in report["cases"]
    ]
    return header, rows


if __name__ == "__main__":
    main()
