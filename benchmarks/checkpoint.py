"""Checkpoint: what a save costs the training, and when the file is safe, beside ways of doing it by hand.

In:    a model and its AdamW state of about --mb megabytes, a --folder on the disk in question.
Out:   medians, least and most of every case, and ratios to a plain torch.save with fsync, as a table or JSON.
Next:  docs/design/0003 says what was chosen and why.

All cases take turns in one process, each round beginning with the next case. `stall` is how long the caller
waits; `durable` is how long until the file is on the disk (for ours: digested and recorded too). A case that
does not flush is not durable when it returns; its column stays empty.

    python benchmarks/checkpoint.py --mb 605 --rounds 7 --folder /data/tmp
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import side_by_side
import torch
from torch import nn

import batteries as bt

PLAIN = "torch.save + fsync"
WIDTH = 1024
Case = Callable[[dict[str, Any]], tuple[float, float | None]]
"""Saves a state; returns stall and durable in seconds."""


def state_of(megabytes: int) -> dict[str, Any]:
    """Return the states of a model and its AdamW after one update: three times the weights."""
    layers = max(1, round(megabytes * 1e6 / 12 / (WIDTH * WIDTH + WIDTH)))
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(layers)))
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def size_of(state: Any) -> int:
    """Bytes of all tensors in a state."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    return sum(map(size_of, state.values())) if isinstance(state, dict) else 0


def flush(path: Path) -> None:
    """Wait until a file, or all files of a folder, are on the disk."""
    for file in [path] if path.is_file() else [inner for inner in path.rglob("*") if inner.is_file()]:
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())


def cases(folder: Path) -> dict[str, Case]:
    """Return the contenders; each has a folder of its own."""

    def by_hand(state: dict[str, Any], name: str, *, fsync: bool, copies: tuple[str, ...] = ()) -> tuple[float, Any]:
        path, began = folder / name, time.perf_counter()
        torch.save(state, path)
        if fsync:
            flush(path)
        for copy in copies:
            shutil.copyfile(path, folder / copy)
        spent = time.perf_counter() - began
        return spent, spent if fsync else None

    def checkpoints(name: str) -> bt.Checkpoints:
        return bt.Checkpoints(folder / name, metric=bt.Metric("auc", higher_is_better=True), keep=1)

    soon, sync = checkpoints("soon"), checkpoints("sync")

    def ours_soon(state: dict[str, Any]) -> tuple[float, float]:
        began = time.perf_counter()
        saving = soon.save_soon(state)
        stall = time.perf_counter() - began
        saving.result()
        return stall, time.perf_counter() - began

    def ours_sync(state: dict[str, Any]) -> tuple[float, float]:
        began = time.perf_counter()
        sync.save(state)
        spent = time.perf_counter() - began
        return spent, spent

    return {
        PLAIN: lambda state: by_hand(state, "plain.pt", fsync=True),
        "torch.save": lambda state: by_hand(state, "unsafe.pt", fsync=False),
        "torch.save + copies to best, last": lambda state: by_hand(
            state, "copied.pt", fsync=False, copies=("best.pt", "last.pt")
        ),
        "torch.distributed.checkpoint.async_save": distributed(folder / "distributed"),
        "batteries save_soon": ours_soon,
        "batteries save": ours_sync,
    }


def distributed(folder: Path) -> Case:
    """PyTorch's own way behind the training, in a group of one process; flushed here, as it does not."""
    import torch.distributed as dist
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

    stager = DefaultStager(StagingOptions(False, False, False, False))

    def save(state: dict[str, Any]) -> tuple[float, float]:
        if not dist.is_initialized():
            dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        shutil.rmtree(folder, ignore_errors=True)
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            saving: Any = checkpoint.async_save(state, checkpoint_id=folder, async_stager=stager)
            saving = getattr(saving, "upload_completion", saving)
            stall = time.perf_counter() - began
            saving.result()
        flush(folder)
        return stall, time.perf_counter() - began

    return save


def measured(contenders: dict[str, Case], state: dict[str, Any], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Let every case take its turn, once before the rounds that count: the first fills memory."""
    times: dict[str, dict[str, list[float]]] = {name: {"stall": [], "durable": []} for name in contenders}
    names = list(contenders)
    for number in range(rounds + 1):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            print(f"round {number}/{rounds}: {name}", file=sys.stderr, flush=True)
            stall, durable = contenders[name](state)
            os.sync()  # what one case left to be written is not the next one's burden
            if number:
                times[name]["stall"].append(stall)
                if durable is not None:
                    times[name]["durable"].append(durable)
    return times


def report(times: dict[str, dict[str, list[float]]], size: int) -> dict[str, Any]:
    """Return all figures; ratios are medians over the rounds, to the plain save of the same round."""
    base = times[PLAIN]["durable"]
    results = [
        {
            "case": name,
            **{f"{what}_s": side_by_side.summary(values) for what, values in both.items() if values},
            **{f"{what}_ratio": side_by_side.ratio(values, base) for what, values in both.items() if values},
        }
        for name, both in times.items()
    ]
    load = os.getloadavg()[0]
    return {**side_by_side.setting(), "megabytes": round(size / 1e6), "load": round(load, 2), "cases": results}


def table(figures: dict[str, Any]) -> str:
    """Return the figures for people."""
    lines = [
        f"{figures['megabytes']} MB on {figures['cores']} cores, load {figures['load']}, {figures['date']};"
        " seconds: median (least-most)",
        f"{'':40}{'stall':>20}{'durable':>20}{'ratio':>7}",
    ]
    for result in figures["cases"]:
        cells = [
            f"{value['median']:.2f} ({value['low']:.2f}-{value['high']:.2f})" if value else "not"
            for value in (result.get("stall_s"), result.get("durable_s"))
        ]
        ratio = f"{result['durable_ratio']:.2f}" if "durable_ratio" in result else ""
        lines.append(f"{result['case']:40}{cells[0]:>20}{cells[1]:>20}{ratio:>7}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What a save costs the training, and when the file is safe.")
    parser.add_argument("--mb", type=int, default=605, help="megabytes of model and AdamW state (605)")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each case (7)")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (the system's temporary folder)")
    parser.add_argument("--json", action="store_true", help="print everything that was measured")
    options = parser.parse_args()
    state = state_of(options.mb)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        figures = report(measured(cases(Path(folder)), state, options.rounds), size_of(state))
    print(json.dumps(figures, indent=1) if options.json else table(figures))


if __name__ == "__main__":
    main()
