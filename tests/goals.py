"""How often each fault is tried, and where the figures go.

`make tests` tries each some times; `make faults` as often as the goals of docs/reliability.md ask.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

FULL = os.environ.get("FAULTS") == "full"
ALONE = os.environ.get("FAULTS") == "alone"
"""Whether nothing else runs meanwhile: for measurements."""


def times(full: int, some: int) -> int:
    """How often: `full` under `make faults`, else `some`."""
    return full if FULL else some


def figure(goal: str, **figures: float | int | str) -> None:
    """Note what was measured for a goal, `G1`; several notes of one goal are shown together."""
    if "FAULTS_FIGURES" in os.environ:
        with open(Path(os.environ["FAULTS_FIGURES"]), "a", encoding="utf-8") as file:
            file.write(json.dumps({"goal": goal, **figures}) + "\n")
