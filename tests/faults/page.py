"""Write docs/reliability.md from the figures that one run of the suite noted: `make faults` calls it at its end."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from catalogue import CATALOGUE

GOALS = {
    "G1": ("kill -9 at random moments, final weights compared bit for bit", "200 kills, 100 %",
           "no tool tests it; one compares state after clean stops, 6-7 cases"),
    "G2": ("killed at every act on a file: training, and the verbs named", "all points, nothing lost",
           "SQLite's own crash loops; no tool for training"),
    "G3": ("damaged files refused", "10,000 checkpoints, 0 believed, each <= 2 s",
           "bit flips noticed: torch.load 4 %, safetensors 0.4 %, DCP 10 %, orbax 2 %"),
    "G4": ("the disk refuses at every act", "all points, 0 damaged, the message names the file",
           "SQLite only; Lightning 1 test"),
    "G5": ("hostile files", ">= 60 payloads, 0 executed; 1,000,000 garbled records, 0 crashes",
           "safetensors 38.4 million inputs, 0 crashes; picklescan 46 files"),
    "G6": ("SIGTERM and SIGINT at moments of every phase", "60 moments, all saved, resumed bit for bit",
           "Lightning: exit code 143 tested"),
    "G7": ("writers of one ledger at once", "16 x 200 rows, 0 lost, 0 doubled, <= 30 s",
           "optuna: 10 processes, 200 rows"),
    "G8": ("writers of the ledger killed; its file damaged", "200 kills, 0 rows lost; 500 files, 0 believed",
           "SQLite itself; its integrity check misses 10 % of flips"),
    "G9": ("a rank dead, a rank hung", "<= 10 s; <= timeout + 10 s; 20 of each; 0 orphans",
           "torchrun with gloo: 2.9 s; 7.7 s with a timeout of 5 s"),
    "G10": ("something else than before on a resume", "40 cases, 0 silent", "transformers, accelerate: silent"),
    "G11": ("stopped three times in one epoch, 0 and 2 loader processes, 1-2-1 ranks", "every row once",
            "field report: 15 of 20 wrong"),
    "G12": ("malformed predictions and submissions", ">= 40 kinds refused, 0 of 20 valid ones", "Kaggle's own parser"),
    "G13": ("hostile names", "60 names x every verb, 0 files outside", "MLflow: four rounds of CVEs"),
    "G14": ("secrets in the environment", "0 hits in files, messages, command lines", "kaggle's client: a warning"),
    "G15": ("price of a safe save", "<= 1.6 x torch.save at 100 MB; verified load <= +1.5 ms/MB", "Fabric: no digest"),
    "G16": ("time of the suite", "<= 20 min on 2 cores", "-"),
}  # fmt: skip
"""What is measured, the target, and the best figure known of another tool (FAULTS, dated 2026-11)."""
PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def combined(notes: list[dict[str, Any]]) -> str:
    """Notes of one goal as one text: counts are added up, of `..._s` and ratios the largest is taken, 0 comes last."""
    total: dict[str, Any] = {}
    for note in notes:
        for name, value in note.items():
            if name == "goal":
                continue
            largest = name.endswith("_s") or "ratio" in name or "per" in name
            total[name] = value if name not in total else max(total[name], value) if largest else total[name] + value
    return ", ".join(f"{name.removesuffix('_s').replace('_', ' ')} {value:,}{' s' * name.endswith('_s')}"
                     for name, value in sorted(total.items(), key=lambda item: item[1] == 0))  # fmt: skip


def page(figures: Path) -> str:
    """The whole page as Markdown."""
    notes = [json.loads(line) for line in figures.read_text().splitlines()]
    lines = [
        "# Reliability",
        "",
        f"Measured {date.today().isoformat()} in one run of `make faults` on {os.cpu_count()} cores, Python"
        f" {platform.python_version()}, PyTorch {version('torch')}.",
        "The suite makes disks refuse, kills processes and damages files in earnest: [tests/faults](../tests/faults).",
        "Who could hand us a hostile file: [threats.md](threats.md).",
        "",
        "| goal | what | target | reached | best figure known of another tool |",
        "| --- | --- | --- | --- | --- |",
    ]
    for goal, (what, target, other) in GOALS.items():
        reached = combined([note for note in notes if note["goal"] == goal]) or "not measured in this run"
        lines.append(f"| {goal} | {what} | {target} | {reached} | {other} |")
    lines += ["", "## The catalogue", "", "| fault | what | what is promised | tests |", "| --- | --- | --- | --- |"]
    for fault in CATALOGUE:
        tests = ", ".join(f"`{file}`" for file in dict.fromkeys(test.partition("::")[0] for test in fault.tests))
        lines.append(f"| {fault.name} | {fault.what} | {fault.promise} | {tests} |")
    lines += [
        "",
        "Without a test, as there is nothing yet that could fail so: D5, D6 (no verb uses a cluster), S2 (no archive",
        "is read).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(Path(sys.argv[1])), encoding="utf-8")
    print(f"written: {PAGE}")
