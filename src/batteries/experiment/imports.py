"""Imports: the modules of an experiment folder, as its files are now.

In:    the path of a Python file.
Out:   the module, imported by its bare name so that worker processes find it again.
Next:  `load` looks for the experiment in it.

Two folders may both have an `experiment.py`, and a notebook may load a file again after an edit:
Python would hand back the module it already has. Modules of another folder, and modules whose file
changed, are forgotten first.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from batteries.errors import ExperimentError
from batteries.files import digest_file

_AS_LOADED = "__batteries_digest__"
_NEVER = {"__main__", "batteries"}


def import_fresh(path: Path) -> ModuleType:
    """Import the file at `path`, an absolute one; what it raises goes through."""
    folder = path.parent
    if str(folder) in sys.path:
        sys.path.remove(str(folder))
    sys.path.insert(0, str(folder))
    _forget_others(folder)
    importlib.invalidate_caches()
    with _no_racy_caches(folder):
        module = importlib.import_module(path.stem)
    for own in _namesakes(folder):
        vars(own)[_AS_LOADED] = _digest(own)
    if _origin(module) != path:
        raise ExperimentError(f"{path.name} hides the installed module {path.stem!r}; rename the file")
    return module


def _forget_others(folder: Path) -> None:
    """Forget modules that hide this folder's: namesakes from another folder, and its own if a file changed since."""
    namesakes = _namesakes(folder)
    own = [module for module in namesakes if _origin(module).is_relative_to(folder)]
    changed = any(vars(module).get(_AS_LOADED) != _digest(module) for module in own)
    for module in namesakes:
        if changed or module not in own:
            del sys.modules[module.__name__]


@contextmanager
def _no_racy_caches(folder: Path) -> Iterator[None]:
    """Keep Python from caching files of the last seconds: its caches tell edits apart by the second only."""
    young = any(abs(time.time() - path.stat().st_mtime) < 2 for path in folder.glob("*.py"))
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, sys.dont_write_bytecode or young
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _namesakes(folder: Path) -> list[ModuleType]:
    """Loaded modules, not installed ones, whose first name is that of a file or package of `folder`."""
    names = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/*.py")}
    installed = [Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)]
    loaded = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in names - _NEVER]
    return [
        module
        for module in loaded
        if _origin(module).is_relative_to(folder)
        or not any(_origin(module).is_relative_to(prefix) for prefix in installed)
    ]


def _origin(module: ModuleType) -> Path:
    """The file of a module, the folder of a package without one; the interpreter's for built-in ones."""
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), sys.base_prefix)
    return Path(file).parent.resolve() / Path(file).name


def _digest(module: ModuleType) -> str:
    origin = _origin(module)
    return digest_file(origin) if origin.is_file() else ""
