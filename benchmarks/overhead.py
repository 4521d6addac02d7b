"""Overhead: what a step costs beside the arithmetic, in batteries, in loops by hand and in other libraries.

    python benchmarks/overhead.py            # about ten minutes; --quick for seconds
    python benchmarks/overhead.py --only batteries --only "hand-written loop"

A network of 64-64-10, batches of 32, AdamW, rows in memory, on the CPU unless `--device cuda`. `lean`
has nothing on; `typical` has a progress bar, running loss and accuracy, TensorBoard every 50 steps and a checkpoint
with the optimizer each epoch.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
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

BASE = "hand-written loop"
CASES = (
    Case(BASE, "overhead_loops:hand", ("tqdm",)),
    Case("best hand-written", "overhead_loops:best_hand", ("tqdm",)),
    Case("batteries", "overhead_ours:batteries", ("batteries",)),
    Case("Fabric", "overhead_peers:fabric", ("lightning.fabric", "tqdm")),
    Case("ignite", "overhead_peers:ignite", ("ignite.engine", "ignite.handlers", "ignite.metrics", "tqdm")),
    Case("accelerate", "overhead_peers:accelerate", ("accelerate", "tqdm")),
    Case("Lightning Trainer", "overhead_peers:lightning", ("lightning.pytorch", "tqdm")),
)
MODES = ("lean", "typical")
NOTES = (
    "Median microseconds a step over the rounds (least..most), and the median ratio to the lean hand-written",
    "loop of the same round. batteries in `typical` is `train_run`: exact resume, durable checkpoints and the",
    "guard against NaN are on, and one batch of held-out rows is validated each epoch, which no other does.",
)


def main() -> None:
    """Measure one job if asked to, else all of them in turn."""
    parser = options(__doc__.splitlines()[0], rounds=5, threads=1, threads_why="so small a network gains from no more")
    parser.add_argument("--steps", type=int, default=500, help="steps of an epoch (500)")
    parser.add_argument("--epochs", type=int, default=6, help="the first is warm-up and not counted (6)")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rounds, arguments.steps, arguments.epochs = 1, 60, 3
    if arguments.job:
        arguments.result.write_text(json.dumps(measure(arguments)))
        return
    cases, missing = chosen(CASES, arguments.only)
    jobs = [f"{case.name}/{mode}" for case in cases for mode in MODES]
    same = ["--device", arguments.device, "--threads", arguments.threads]
    same += ["--steps", arguments.steps, "--epochs", arguments.epochs]
    measured = in_turn(__file__, jobs, arguments.rounds, map(str, same))
    show(report(arguments, cases, missing, measured), columns)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one case in one mode once, in this process."""
    name, _, mode = arguments.job.rpartition("/")
    use_threads(arguments.threads)
    from overhead_loops import Work

    case = next(case for case in CASES if case.name == name).load()
    with tempfile.TemporaryDirectory() as folder:
        work = Work(arguments.steps, arguments.epochs, Path(folder), typical=mode == "typical", device=arguments.device)
        model = case(work)
        return {"step_s": statistics.median(work.step_times()), "accuracy": work.accuracy(model)}


def report(
    arguments: argparse.Namespace, cases: list[Case], missing: dict[str, list[str]], measured: dict[str, Any]
) -> dict[str, Any]:
    """All that is known, as plain data; times in microseconds."""
    times = {job: [1e6 * one["step_s"] for one in rounds] for job, rounds in measured.items()}
    base = times.get(f"{BASE}/lean")
    results = [
        {
            "case": case.name,
            "mode": mode,
            "step_us": summary(times[job]),
            "ratio": ratio(times[job], base),
            "accuracy": measured[job][-1]["accuracy"],
            "rounds": times[job],
        }
        for case in cases
        for mode in MODES
        for job in [f"{case.name}/{mode}"]
    ]
    settings = (
        f"rounds: {arguments.rounds}, {arguments.epochs - 1} epochs of {arguments.steps} steps after one of warm-up"
    )
    return {
        "form": form_of(arguments),
        "title": "Overhead of a step: MLP 64-64-10, batch 32, AdamW",
        **setting(arguments.device),
        "settings": f"{settings}, {arguments.threads} torch thread{'s' * (arguments.threads != 1)}",
        "cases": results,
        "missing": missing,
        "notes": NOTES,
    }


def columns(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """One line a contender, both modes side by side."""
    header = ["case", "lean us", "spread", "ratio", "typical us", "spread", "ratio"]
    lines: dict[str, list[str]] = {}
    for result in report["cases"]:
        times = result["step_us"]
        cells = [number(times["median"], 0), spread(times, 0), number(result["ratio"], 2)]
        lines.setdefault(result["case"], [result["case"]]).extend(cells)
    return header, list(lines.values())


if __name__ == "__main__":
    main()
