"""New: an experiment folder that already runs on real data.

In:    a name and a template.
Out:   a folder of one or two short Python files.
Next:  `batteries study` in it.
"""

from __future__ import annotations

import shutil
from importlib import resources
from pathlib import Path

from batteries.errors import UsageError
from batteries.files import safe_name


def templates() -> list[str]:
    """Names of the templates there are."""
    folder = resources.files("batteries.prepare") / "templates"
    return sorted(item.name for item in folder.iterdir() if item.is_dir() and not item.name.startswith("_"))


def new(name: str, *, template: str = "images", parent: Path | str = ".") -> Path:
    """Make the experiment folder `parent/name` from a template and return it.

    Raises
    ------
    UsageError
        When the folder exists, or there is no such template.

    """
    folder = Path(parent) / safe_name(name, "experiment")
    if template not in templates():
        raise UsageError(f"there is no template {template!r}; choose one of {', '.join(templates())}")
    if folder.exists():
        raise UsageError(f"{folder} exists already; choose another name, or go into it: batteries study")
    half_made = folder.with_name(f".{name}.tmp")
    shutil.rmtree(half_made, ignore_errors=True)
    with resources.as_file(resources.files("batteries.prepare") / "templates" / template) as source:
        shutil.copytree(source, half_made, ignore=shutil.ignore_patterns("__pycache__"))
    half_made.rename(folder)
    return folder
