"""Demo: the whole flow on real data, by the same verbs a user types.

In:    a folder to make.
Out:   an ordinary experiment folder with two runs, an average, blends, a submission and a report.
Next:  change `experiment.py` in it and train again.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

_FLOW = """
study
split
train
train mlp
average digits-001 --best 3
blend digits-001 mlp-001 --how mean
blend digits-001 mlp-001 --how power --power 2
blend digits-001 mlp-001 --how rank
submit blend-001
test
compare mlp-001 digits-001
report
scores
"""


def walk(folder: Path, run: Callable[[list[str]], object]) -> None:
    """Make `folder` from the images template, unless it is there, and run every verb of the flow in it."""
    began = time.monotonic()
    if not folder.exists():
        with chdir(folder.parent):
            _step(["new", folder.name, "--template", "images"], run)
    print(f"\n$ cd {shlex.quote(str(folder))}")
    with chdir(folder):
        for line in _FLOW.strip().splitlines():
            _step(shlex.split(line), run)
    print(f"\nThe whole flow took {time.monotonic() - began:.0f} s. Open {folder / 'runs' / 'report.html'};")
    print(f"then change {folder / 'experiment.py'} and run: batteries -C {folder} train")


def _step(arguments: list[str], run: Callable[[list[str]], object]) -> None:
    print(f"\n$ batteries {shlex.join(arguments)}")
    sys.stdout.flush()
    run(arguments)
