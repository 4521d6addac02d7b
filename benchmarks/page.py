"""Page: every benchmark in turn, as docs/benchmarks.md.

    python benchmarks/page.py                # about half an hour, on a machine that does nothing else

In:    the programs of this folder.
Out:   docs/benchmarks.md, written whole once all are through.
Next:  a reader compares the ratios; seconds are of one machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from side_by_side import number, section, spread

from batteries.files import write_text

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
HEAD = """# Benchmarks

Contenders take turns, each in a process of its own, on one machine that does nothing else. Ratios hold on other
machines, seconds do not. `make bench` runs all of this again and writes this page; what each contender does, and why
it is fair, is in [benchmarks](../benchmarks/README.md)."""


def output(program: str, *arguments: str) -> str:
    """Run a program to its end and return what it printed; its progress shows meanwhile."""
    command = [sys.executable, HERE / program, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def saves(figures: dict[str, Any]) -> str:
    """The section of checkpoint.py, from its JSON."""
    header = ["case", "stall s", "spread", "ratio", "durable s", "spread", "ratio"]
    rows = []
    for case in figures["cases"]:
        cells = [case["case"]]
        for what in ("stall", "durable"):
            times = case.get(f"{what}_s")
            cells += [number(times and times["median"], 2), spread(times, 2) if times else "-"]
            cells += [number(case.get(f"{what}_ratio"), 2)]
        rows.append(cells)
    notes = (
        "Median seconds (least..most), and the median ratio to a plain save that is flushed, in the same round.",
        "`stall` is how long the training waits, `durable` how long until the file is on the disk, ours digested.",
    )
    about = {"title": "Saving a model with its optimizer", "settings": f"{figures['megabytes']} MB", "notes": notes}
    return section({**figures, **about}, header, rows)


def main() -> None:
    """Write the page."""
    sections = [output("overhead.py", "--markdown"), output("fashion.py", "--markdown")]
    sections.append(saves(json.loads(output("checkpoint.py", "--json"))))
    sections += [output("blend.py", "--markdown"), output("climb.py", "--markdown")]
    write_text(PAGE, "\n\n".join([HEAD, *sections]) + "\n")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
