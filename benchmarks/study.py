"""Study: time and memory of a study of 1,000,000 rows x 50 columns, with a test table of a third of the rows.

    python benchmarks/study.py               # about a minute; --rows 20000 for seconds
    python benchmarks/study.py --json

Made-up columns of what tables hold: normal and skewed numbers, counts, categories of 2 to 1,000 values, codes as texts,
missing values, a date, an id, a target that depends on some of them. The clock runs from tables in memory to advice.
`memory` is the most the process held besides during the study (Linux), as a multiple of what polars says the training
table takes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import threading
import time
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

import batteries as bt


def main() -> None:
    """Make the tables, study them, print what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    train = table(arguments.rows, arguments.columns, seed=0)
    test = table(arguments.rows // 3, arguments.columns, seed=1).drop("target").with_columns(pl.col("id") + 10**9)
    bt.study(train.head(500), test.head(500), target="target", show=False)  # imports and warms up
    with Memory() as memory:
        began, worked = time.perf_counter(), time.process_time()
        found = bt.study(train, test, target="target")
        seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    size = train.estimated_size()
    report = {
        "rows": len(train),
        "test_rows": len(test),
        "columns": train.width,
        "table_mb": size / 1e6,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "memory": memory.most / size,
        "flaws": found.flaws,
        "sampled": found.sampled,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "versions": {"python": platform.python_version(), "polars": pl.__version__, "numpy": np.__version__},
    }
    if arguments.json:
        print(json.dumps(report, indent=1))
        return
    print(f"{len(train):,} + {len(test):,} rows x {train.width} columns, {size / 1e6:.0f} MB, {report['cores']} cores:")
    print(f"{seconds:.1f} s, {cpu:.1f} s of CPU, {memory.most / size:.2f} times the table's memory besides it")
    print(f"flaws: {', '.join(found.flaws) or 'none, as there are none'}")
    for what, rows, all_rows in found.sampled:
        print(f"  {what}: {rows:,} of {all_rows:,} rows")


def table(rows: int, columns: int, seed: int) -> pl.DataFrame:
    """Columns of every kind, in turn; the target follows three of them."""
    random = np.random.default_rng(seed)
    made: dict[str, object] = {"id": np.arange(rows)}
    for number in range(columns - 3):
        kind = number % 6
        if kind == 0:
            made[f"normal{number}"] = random.normal(size=rows)
        elif kind == 1:
            made[f"skewed{number}"] = np.exp(random.normal(size=rows))
        elif kind == 2:
            made[f"count{number}"] = random.poisson(20, rows)
        elif kind == 3:
            made[f"category{number}"] = random.choice([f"value {i}" for i in range(2 + 10 * number)], rows)
        elif kind == 4:
            made[f"code{number}"] = random.integers(0, 1000, rows).astype(np.int16)
        else:
            values = random.normal(size=rows)
            made[f"holes{number}"] = pl.Series(values).set(pl.Series(random.random(rows) < 0.2), None)
    frame = pl.DataFrame(made)
    days = pl.Series("day", random.integers(0, 365, rows)).cast(pl.Int32)
    signal = frame["normal0"].to_numpy() + np.log(frame["skewed1"].to_numpy()) + random.normal(size=rows)
    return frame.with_columns(
        pl.lit(date(2024, 1, 1)) + pl.duration(days=days), target=pl.Series((signal > 1).astype(int))
    )


class Memory:
    """The most this process holds while it is entered, beside what it held before; looked at every 5 ms."""

    most = 0

    def __enter__(self) -> Memory:
        self._before, self._ended = _resident(), threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.005):
            self.most = max(self.most, _resident() - self._before)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
