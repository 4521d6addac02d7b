"""Page: every benchmark in turn, as docs/benchmarks.md.

    python benchmarks/page.py                # about half an hour, on a machine that does nothing else

In:    the programs of this folder.
Out:   docs/benchmarks.md, written whole once all are through.
Next:  a reader compares the ratios; seconds are of one machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from batteries.files import write_text

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
PROGRAMS = ("overhead.py", "fashion.py")
HEAD = """# Benchmarks

Contenders take turns, each in a process of its own, on one machine that does nothing else. Ratios hold on other
machines, seconds do not. `make bench` runs all of this again and writes this page; what each contender does, and why
it is fair, is in [benchmarks](../benchmarks/README.md)."""


def section(program: str) -> str:
    """Run a program to its end and return its section; its progress shows meanwhile."""
    done = subprocess.run([sys.executable, HERE / program, "--markdown"], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def main() -> None:
    """Write the page."""
    write_text(PAGE, "\n\n".join([HEAD, *map(section, PROGRAMS)]) + "\n")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
