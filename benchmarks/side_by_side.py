"""Side by side: cases that take turns, each in a process of its own, and what came of them.

In:    a program whose `--job NAME --result FILE` measures one case once.
Out:   medians, spreads and ratios as a table, as JSON, or as a section of docs/benchmarks.md.
Next:  overhead.py and fashion.py name the cases; page.py joins their sections.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "batteries", "lightning", "accelerate", "pytorch-ignite", "tqdm", "tensorboard")


@dataclass(frozen=True)
class Case:
    """One contender: where its code is, and the modules that must be there and are imported before any clock runs."""

    name: str
    where: str
    """`module:function`."""
    imports: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        packages = {name.partition(".")[0] for name in self.imports}
        return sorted(name for name in packages if importlib.util.find_spec(name) is None)

    def load(self) -> Callable[..., Any]:
        """Import all that the case needs, and return its function."""
        for name in self.imports:
            importlib.import_module(name)
        module, _, function = self.where.partition(":")
        loaded: Callable[..., Any] = getattr(importlib.import_module(module), function)
        return loaded


def options(description: str, *, rounds: int, threads: int, threads_why: str) -> argparse.ArgumentParser:
    """Return the options that every program has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"measurements of each case ({rounds})")
    parser.add_argument("--threads", type=int, default=threads, help=f"torch threads ({threads}: {threads_why})")
    parser.add_argument("--device", default="cpu", help="cpu, or the accelerator: cuda (cpu)")
    parser.add_argument("--only", action="append", metavar="CASE", help="this case only; may be repeated")
    parser.add_argument("--quick", action="store_true", help="seconds, not minutes: whether it runs, not how fast")
    parser.add_argument("--job", help=argparse.SUPPRESS)  # how the program calls itself, for one measurement
    parser.add_argument("--round", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--result", type=Path, help=argparse.SUPPRESS)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print everything that was measured")
    form.add_argument("--markdown", action="store_true", help="print a section for docs/benchmarks.md")
    return parser


def chosen(cases: Sequence[Case], only: Sequence[str] | None) -> tuple[list[Case], dict[str, list[str]]]:
    """Return the cases to run, and those left out with the packages they lack."""
    names = [case.name for case in cases]
    if unknown := sorted(set(only or ()) - set(names)):
        raise SystemExit(f"there is no case {unknown[0]!r}; there are: {', '.join(names)}")
    wanted = [case for case in cases if not only or case.name in only]
    lacking = {case.name: case.missing() for case in wanted if case.missing()}
    return [case for case in wanted if case.name not in lacking], lacking


def in_turn(
    program: str, jobs: Sequence[str], rounds: int, arguments: Iterable[str]
) -> dict[str, list[dict[str, Any]]]:
    """Measure every job once a round, each in a fresh process, each round beginning with the next job."""
    arguments = [*arguments]  # every job is to see them
    done: dict[str, list[dict[str, Any]]] = {job: [] for job in jobs}
    for number in range(rounds):
        first = number % len(jobs)
        for job in (*jobs[first:], *jobs[:first]):
            print(f"round {number + 1}/{rounds}: {job} ", end="", file=sys.stderr, flush=True)
            done[job].append(_measured(program, job, number, arguments))
            print(json.dumps(done[job][-1]), file=sys.stderr, flush=True)  # known even if the rest is stopped
    return done


def _measured(program: str, job: str, number: int, arguments: Iterable[str]) -> dict[str, Any]:
    """One process; what it prints goes to a file, which no progress bar takes for a terminal."""
    with tempfile.TemporaryDirectory() as folder:
        result, output = Path(folder) / "result.json", Path(folder) / "output"
        command = [sys.executable, program, "--job", job, "--round", str(number), "--result", str(result), *arguments]
        with open(output, "wb") as printed:
            ended = subprocess.run(command, stdout=printed, stderr=printed, cwd=folder, check=False)
        if ended.returncode or not result.exists():
            tail = output.read_text(errors="replace")[-3000:]
            raise SystemExit(f"{tail}\n{job} ended with {ended.returncode}: {' '.join(command)}")
        measured: dict[str, Any] = json.loads(result.read_text())
        return measured


def use_threads(number: int) -> None:
    """Fix torch's threads. Called in the measuring process before anything is computed."""
    import torch

    torch.set_num_threads(number)


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def ratio(values: Sequence[float], base: Sequence[float] | None) -> float | None:
    """Median over the rounds of a value over the base's of the same round; None without a base."""
    return statistics.median(a / b for a, b in zip(values, base, strict=True)) if base else None


def setting(device: str = "cpu") -> dict[str, Any]:
    """When, on what machine and with which versions."""
    versions = {name: version for name in PACKAGES if (version := _version(name))}
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": _cpu() if device == "cpu" else f"{_gpu()} beside {_cpu()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), **versions},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name()


def _cpu() -> str:
    """The model's name, with what decides the speed of bf16 on it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    special = [name for flag, name in (("avx512f", "AVX-512"), ("amx_bf16", "AMX")) if flag in flags]
    model = fields.get("model name") or platform.processor() or platform.machine()
    return f"{model} ({', '.join(special)})" if special else model


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False) -> str:
    """Lay out a table: first column left, the others right; at most 80 columns as text.

    >>> print(table(["case", "us"], [["hand", "1.0"]]))
    case   us
    hand  1.0
    """
    if markdown:
        marks = ["---", *["--:"] * (len(header) - 1)]
        return "\n".join(f"| {' | '.join(row)} |" for row in (header, marks, *rows))
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = []
    for row in (header, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def number(value: float | None, digits: int) -> str:
    """A number for a table; a dash for none.

    >>> number(1.234, 2), number(None, 2)
    ('1.23', '-')
    """
    return "-" if value is None else f"{value:.{digits}f}"


def spread(values: dict[str, float], digits: int) -> str:
    """Least to most: `1.2..1.4`."""
    return f"{values['low']:.{digits}f}..{values['high']:.{digits}f}"


def show(report: dict[str, Any], columns: Callable[[dict[str, Any]], tuple[list[str], list[list[str]]]]) -> None:
    """Print what a program found in the form that was asked for: `report["form"]` is text, json or markdown."""
    form = report.pop("form")
    if form == "json":
        print(json.dumps(report, indent=2))
        return
    header, rows = columns(report)
    lacking = [f"{name}: left out, {', '.join(packages)} not installed" for name, packages in report["missing"].items()]
    if form == "markdown":
        print(section({**report, "notes": [*report["notes"], *lacking]}, header, rows))
        return
    print("\n".join([table(header, rows), "", *report["notes"], *lacking]))


def section(report: dict[str, Any], header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A section of docs/benchmarks.md: when, on what and with what; the table; what its columns mean."""
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    machine = f"{report['cpu']}, {report['cores']} cores, {report['system']}"
    about = f"{report['date']}; {machine}; {versions}; {report['settings']}."
    notes = "\n".join(report["notes"])
    return f"## {report['title']}\n\n{about}\n\n{table(header, rows, markdown=True)}\n\n{notes}"


def form_of(arguments: argparse.Namespace) -> str:
    """Text, json or markdown."""
    return "json" if arguments.json else "markdown" if arguments.markdown else "text"
