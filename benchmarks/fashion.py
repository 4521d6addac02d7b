"""Fashion-MNIST: a whole job, two epochs of 60,000 images and the test set, beside the floor of this machine.

    python benchmarks/fashion.py             # about ten minutes; --quick for seconds, on made-up images
    python benchmarks/fashion.py --data FOLDER --only "batteries bf16"

A network of two convolutions (206,922 parameters), batches of 128, AdamW at 1e-3 throughout, on the CPU unless
`--device cuda`. The clock runs from bytes in memory to the predictions for the test set; reading files and importing
packages are outside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
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

BASE = "limit fp32"
CASES = (
    Case(BASE, "fashion_loops:limit_fp32"),
    Case("limit bf16", "fashion_loops:limit_bf16"),
    Case("hand-written", "fashion_loops:hand"),
    Case("batteries", "fashion_ours:fp32", ("batteries",)),
    Case("batteries bf16", "fashion_ours:bf16", ("batteries",)),
    Case("Fabric", "fashion_peers:fabric", ("lightning.fabric",)),
    Case("ignite", "fashion_peers:ignite", ("ignite.engine",)),
    Case("accelerate", "fashion_peers:accelerate", ("accelerate",)),
    Case("Lightning", "fashion_peers:lightning", ("lightning.pytorch",)),
)
NOTES = (
    "Median seconds over the rounds (least..most) of the whole job, training and predicting 10,000 test images,",
    "and the median ratio to `limit fp32` of the same round; `train` is the training alone. A limit has one batch",
    "in memory and does nothing but forward, backward and step (`limit bf16`: with channels last and the fused",
    "optimizer). Each round has another seed; `right %` is the accuracy on the test set. `faults` are the pages",
    "that the kernel handed out anew in a training step.",
)


def main() -> None:
    """Measure one job if asked to, else all of them in turn."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser = options(__doc__.splitlines()[0], rounds=3, threads=cores, threads_why="all cores")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"), metavar="FOLDER")
    arguments = parser.parse_args()
    if arguments.job:
        arguments.result.write_text(json.dumps(measure(arguments)))
        return
    if arguments.quick:
        arguments.rounds = 1
    cases, missing = chosen(CASES, arguments.only)
    same = ["--device", arguments.device, "--threads", arguments.threads, "--epochs", arguments.epochs]
    same += ["--data", arguments.data.resolve()]
    quick = ["--quick"] if arguments.quick else []
    measured = in_turn(__file__, [case.name for case in cases], arguments.rounds, [*map(str, same), *quick])
    show(report(arguments, missing, measured), columns)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one case once, in this process."""
    use_threads(arguments.threads)
    import torch
    import torch._dynamo  # the first optimizer would, in the middle of the job; some libraries have before it
    from fashion_loops import Work, made_up, read

    case = next(case for case in CASES if case.name == arguments.job).load()
    images, labels = made_up(1280, 0) if arguments.quick else read(arguments.data, "train")
    test_images, test_labels = made_up(400, 1) if arguments.quick else read(arguments.data, "t10k")
    work = Work(images, labels, arguments.epochs, seed=arguments.round, device=arguments.device)
    torch.zeros(1, device=arguments.device)  # an accelerator takes seconds to begin
    faults, began = _faults(), time.perf_counter()
    predict = case(work)
    trained, faults = time.perf_counter(), _faults() - faults
    logits = None if predict is None else predict(test_images)
    ended = time.perf_counter()
    return {
        "job_s": ended - began,
        "train_s": trained - began,
        "faults_per_step": faults / work.steps,
        "accuracy": None if logits is None else float((logits.argmax(dim=1) == test_labels).float().mean()),
    }


def _faults() -> int:
    """Page faults of this process that needed no disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def report(
    arguments: argparse.Namespace, missing: dict[str, list[str]], measured: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """All that is known, as plain data."""
    base = [one["job_s"] for one in measured[BASE]] if BASE in measured else None
    results = []
    for name, rounds in measured.items():
        times = [one["job_s"] for one in rounds]
        accuracies = [one["accuracy"] for one in rounds if one["accuracy"] is not None]
        results.append(
            {
                "case": name,
                "job_s": summary(times),
                "ratio": ratio(times, base),
                "train_s": summary([one["train_s"] for one in rounds]),
                "accuracy": summary(accuracies) if accuracies else None,
                "faults_per_step": statistics.median(one["faults_per_step"] for one in rounds),
                "rounds": rounds,
            }
        )
    data = "1,280 made-up images" if arguments.quick else "60,000 images"
    settings = f"rounds: {arguments.rounds}, {arguments.epochs} epochs of {data}, {arguments.threads} torch threads"
    return {
        "form": form_of(arguments),
        "title": "A whole job: Fashion-MNIST, small CNN, batch 128",
        **setting(arguments.device),
        "settings": settings,
        "cases": results,
        "missing": missing,
        "notes": NOTES,
    }


def columns(report: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """One line a contender."""
    header = ["case", "job s", "spread", "ratio", "train s", "right %", "spread", "faults"]
    rows = []
    for result in report["cases"]:
        job, accuracy = result["job_s"], result["accuracy"]
        percent = accuracy and {name: 100 * value for name, value in accuracy.items()}
        scores = [number(percent["median"], 1), spread(percent, 1)] if percent else ["-", "-"]
        times = [number(job["median"], 1), spread(job, 1), number(result["ratio"], 2)]
        train, faults = number(result["train_s"]["median"], 1), number(result["faults_per_step"], 0)
        rows.append([result["case"], *times, train, *scores, faults])
    return header, rows


if __name__ == "__main__":
    main()
