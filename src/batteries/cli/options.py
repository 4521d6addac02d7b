"""Options: what several verbs take, said once.

In:    nothing.
Out:   the types of the command's common arguments; the folder of all runs; the call itself.
Next:  the verbs name them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path("runs")
"""Of the experiment folder, in which every verb works."""

File = Annotated[str, typer.Argument(metavar="[EXPERIMENT]", help="The experiment's file, with or without .py.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
On = Annotated[str, typer.Option("--device", help="auto, cpu, cuda:1")]
Seed = Annotated[int | None, typer.Option(help="Another seed than the experiment's; makes a run of its own.")]
Set = Annotated[list[str], typer.Option("--set", metavar="FIELD=VALUE", help="Another value for a field; repeatable.")]


@dataclass(frozen=True)
class Call:
    """The command as it was typed, for other processes that run it too."""

    arguments: tuple[str, ...]
    folder: Path
    """Where it was typed; verbs work in another one with -C."""
