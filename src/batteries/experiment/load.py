"""Load: from an experiment file to an Experiment object, with errors a user can act on.

In:    a folder, the name of a file in it, values for fields.
Out:   an Experiment; where in the user's file something went wrong.
Next:  every verb starts here.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import traceback
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from batteries.config import check_values, parse_overrides, to_plain
from batteries.errors import BatteriesError, ExperimentError
from batteries.experiment.base import Experiment
from batteries.files import digest_file

DEFAULT_FILE = "experiment.py"
_AS_LOADED = "__batteries_digest__"
_REQUIRED = {
    "table": "table(self) -> pl.DataFrame",
    "dataset": "dataset(self, rows, *, training)",
    "model": "model(self) -> nn.Module",
    "loss": "loss(self, outputs, targets) -> Tensor",
}


def load_experiment(
    folder: Path | str = ".",
    file: str = DEFAULT_FILE,
    *,
    values: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
) -> Experiment:
    """Import the experiment in `folder/file` and make it with the given field values.

    Parameters
    ----------
    folder, file
        Where it is; `file` may be given without `.py`.
    values
        Fields as plain data, as a run's config.json keeps them.
    overrides
        Fields as typed: `["lr=1e-3"]`; they win over `values`.

    Raises
    ------
    ExperimentError
        The file is missing, is not Python, fails when imported, or holds no complete experiment.
    ConfigError
        A field does not exist or has a value of another type.

    Example
    -------
    >>> load_experiment("digits", "mlp", overrides=["width=64"])  # doctest: +SKIP

    """
    path = _experiment_path(Path(folder), file)
    cls = _experiment_class(_import(path), path)
    given = {**check_values(cls, values or {}), **parse_overrides(cls, overrides)}
    try:
        return cls(**given)
    except BatteriesError:
        raise
    except Exception as error:
        raise ExperimentError(describe(error, path.parent)) from error


def _experiment_path(folder: Path, file: str) -> Path:
    name = file if file.endswith(".py") else f"{file}.py"
    path = folder.resolve() / name
    if Path(name).name != name or not Path(name).stem.isidentifier():
        raise ExperimentError(f"{file!r} is not an experiment's name; give a file of {folder}, such as {DEFAULT_FILE}")
    if not path.is_file():
        others = sorted(p.name for p in folder.glob("*.py"))
        hint = (
            f"it has {', '.join(others)}" if others else "go to an experiment folder, or make one: batteries new NAME"
        )
        raise ExperimentError(f"{folder.resolve()} has no {name}: {hint}")
    if path.stem in sys.stdlib_module_names:
        raise ExperimentError(f"{name} hides Python's own module {path.stem!r}; rename the file")
    return path


def _import(path: Path) -> ModuleType:
    folder = str(path.parent)
    if sys.path[:1] != [folder]:
        sys.path.insert(0, folder)
    _forget_others(path.parent)
    importlib.invalidate_caches()
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # caches tell edits apart by the second only
    try:
        module = importlib.import_module(path.stem)
    except SyntaxError as error:
        line = (error.text or "").strip()
        raise ExperimentError(
            f"{Path(error.filename or path).name}, line {error.lineno}: {error.msg}: {line}\nMend it and run again."
        ) from error
    except ModuleNotFoundError as error:
        raise ExperimentError(f"{path.name} imports {error.name!r}, which is not installed: pip install it") from error
    except BatteriesError:
        raise
    except Exception as error:
        raise ExperimentError(describe(error, path.parent)) from error
    finally:
        sys.dont_write_bytecode = writes
    for own in _loaded(path.parent):
        vars(own)[_AS_LOADED] = _digest(own)
    return module


def _forget_others(folder: Path) -> None:
    """Forget modules that hide this folder's: namesakes from another folder, and its own if a file changed since."""
    for stem in (p.stem for p in folder.glob("*.py")):
        file = getattr(sys.modules.get(stem), "__file__", None)
        if file and Path(file).resolve().parent != folder and not file.startswith((sys.prefix, sys.base_prefix)):
            del sys.modules[stem]
    own = _loaded(folder)
    if any(vars(module).get(_AS_LOADED) != _digest(module) for module in own):
        for module in own:
            del sys.modules[module.__name__]


def _loaded(folder: Path) -> list[ModuleType]:
    modules = [sys.modules.get(path.stem) for path in folder.glob("*.py")]
    return [m for m in modules if m is not None and Path(m.__file__ or "").resolve().parent == folder]


def _digest(module: ModuleType) -> str:
    file = Path(module.__file__ or "")
    return digest_file(file) if file.is_file() else ""


def _experiment_class(module: ModuleType, path: Path) -> type[Experiment]:
    found = [
        cls
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, Experiment) and cls.__module__ == module.__name__
    ]
    if not found:
        raise ExperimentError(f"{path.name} defines no experiment: write class Mine(bt.Experiment) in it")
    if len(found) > 1:
        names = ", ".join(cls.__name__ for cls in found)
        raise ExperimentError(f"{path.name} defines {len(found)} experiments ({names}); put each in a file of its own")
    _check_class(found[0], path)
    return found[0]


def _check_class(cls: type[Experiment], path: Path) -> None:
    if undeclared := [n for n in vars(cls).get("__annotations__", {}) if n not in cls.__dataclass_fields__]:
        raise ExperimentError(
            f"{path.name}: {cls.__name__}.{undeclared[0]} is not a field; put @dataclass(kw_only=True) above it"
        )
    if not hasattr(cls, "metric"):
        raise ExperimentError(f"{path.name}: {cls.__name__} has no metric; add: metric = bt.Metric.accuracy()")
    for name, signature in _REQUIRED.items():
        own_step = name == "loss" and cls.training_step is not Experiment.training_step
        if getattr(cls, name) is getattr(Experiment, name) and not own_step:
            raise ExperimentError(f"{path.name}: {cls.__name__} has no method {name}; add: def {signature}: ...")


def describe(error: BaseException, folder: Path) -> str:
    """One line for an error raised by the user's own code: file, line, function, kind and message."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent == folder.resolve()]
    kind = f"{type(error).__name__}: {error}"
    if not frames:
        return kind
    last = frames[-1]
    return f"{Path(last.filename).name}, line {last.lineno}, in {last.name}: {kind}"


def experiment_name(experiment: Experiment) -> str:
    """`DigitsMlp` -> `digits-mlp`: what its runs are called."""
    name = type(experiment).__name__
    return "".join(
        f"-{c.lower()}" if c.isupper() and i and not name[i - 1].isupper() else c.lower() for i, c in enumerate(name)
    )


def fields_of(experiment: Experiment) -> dict[str, Any]:
    """The experiment's fields as plain data."""
    fields: dict[str, Any] = to_plain(experiment)
    return fields


def code_digest(experiment: Experiment) -> str:
    """Digest of what the experiment's own files *say*: comments and layout do not count.

    Covers the file of the class and, step by step, every file of the same folder that it imports.
    """
    digest = sha256()
    for path, tree in sorted(_own_files(Path(inspect.getfile(type(experiment))).resolve()).items()):
        digest.update(f"{path.name}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()


def _own_files(first: Path) -> dict[Path, ast.Module]:
    found: dict[Path, ast.Module] = {}
    todo = [first]
    while todo:
        path = todo.pop()
        if path in found or not path.is_file():
            continue
        found[path] = ast.parse(path.read_text())
        for node in ast.walk(found[path]):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            else:
                continue
            todo += [first.parent / f"{name.partition('.')[0]}.py" for name in names]
    return found
