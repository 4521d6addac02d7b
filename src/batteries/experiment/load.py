"""Load: from an experiment file to an Experiment object, with errors a user can act on.

In:    a folder, the name of a file in it, values for fields.
Out:   an Experiment; where in the user's file something went wrong.
Next:  every verb starts here.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from batteries.config import check_values, parse_overrides, to_plain
from batteries.errors import BatteriesError, ExperimentError
from batteries.experiment.base import Experiment
from batteries.experiment.imports import import_fresh
from batteries.experiment.metric import Metric

DEFAULT_FILE = "experiment.py"
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
    try:
        return import_fresh(path)
    except SyntaxError as error:
        where = f"{Path(error.filename or path).name}, line {error.lineno}" if error.lineno else path.name
        line = f": {error.text.strip()}" if error.text and error.text.strip() else ""
        raise ExperimentError(f"{where}: {error.msg}{line}\nMend it and run again.") from error
    except ModuleNotFoundError as error:
        if error.name is None:
            raise ExperimentError(describe(error, path.parent)) from error
        raise ExperimentError(f"{path.name} imports {error.name!r}, which is not installed: pip install it") from error
    except BatteriesError:
        raise
    except Exception as error:
        raise ExperimentError(describe(error, path.parent)) from error


def _experiment_class(module: ModuleType, path: Path) -> type[Experiment]:
    classes = [cls for cls in vars(module).values() if inspect.isclass(cls) and issubclass(cls, Experiment)]
    found = list(dict.fromkeys(cls for cls in classes if cls.__module__ == module.__name__))
    if not found:
        raise ExperimentError(f"{path.name} defines no experiment: write class Mine(bt.Experiment) in it")
    if len(found) > 1:
        names = ", ".join(cls.__name__ for cls in found)
        raise ExperimentError(f"{path.name} defines {len(found)} experiments ({names}); put each in a file of its own")
    _check_class(found[0], path)
    return found[0]


def _check_class(cls: type[Experiment], path: Path) -> None:
    known, inherited = cls.__dataclass_fields__, {field.name for field in fields(cls)}
    decorated = "__dataclass_fields__" in vars(cls)
    undeclared = [name for name in inspect.get_annotations(cls) if name not in known or name in inherited]
    if undeclared and not decorated:
        raise ExperimentError(
            f"{path.name}: {cls.__name__}.{undeclared[0]} is not a field; put @dataclass(kw_only=True) above it"
        )
    if not hasattr(cls, "metric"):
        raise ExperimentError(f"{path.name}: {cls.__name__} has no metric; add: metric = bt.Metric.accuracy()")
    for name, wanted in _misfits(cls):
        raise ExperimentError(f"{path.name}: {cls.__name__}.{name} must be {wanted}, got {getattr(cls, name)!r}")
    for name, signature in _REQUIRED.items():
        own_step = name == "loss" and cls.training_step is not Experiment.training_step
        if getattr(cls, name) is getattr(Experiment, name) and not own_step:
            raise ExperimentError(f"{path.name}: {cls.__name__} has no method {name}; add: def {signature}: ...")


def _misfits(cls: type[Experiment]) -> Iterator[tuple[str, str]]:
    """What is said about the class in a way that would fail only later, hours into a run."""
    metrics = (cls.metric, *cls.also) if isinstance(cls.also, tuple | list) else (cls.metric,)
    if not isinstance(cls.metric, Metric):
        yield "metric", "a Metric such as bt.Metric.accuracy()"
    elif cls.metric.fn is None:
        yield "metric", "a Metric with a function to call"
    elif not isinstance(cls.also, tuple | list) or not all(isinstance(m, Metric) and m.fn for m in metrics):
        yield "also", "a tuple of Metrics with a function each"
    elif len({metric.name for metric in metrics}) < len(metrics):
        yield "also", "Metrics with names of their own"
    if cls.folds is not None and not (
        is_dataclass(cls.folds) and hasattr(cls.folds, "assign") and not inspect.isclass(cls.folds)
    ):
        yield "folds", "None or a strategy such as bt.KFold(n=5)"
    for name in ("id", "target"):
        if not isinstance(getattr(cls, name), str):
            yield name, "the name of a column"
    if cls.classes is not None and (isinstance(cls.classes, str) or not all(isinstance(c, str) for c in cls.classes)):
        yield "classes", "None or a tuple of texts"
    if not isinstance(cls.keep, int) or cls.keep < 1:
        yield "keep", "a whole number >= 1"


def describe(error: BaseException, folder: Path) -> str:
    """One line for an error raised by the user's own code: file, line, function, kind and message."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).parent == folder.resolve()]
    kind = f"{type(error).__name__}: {error}"
    if not frames:
        return kind
    last = frames[-1]
    return f"{Path(last.filename).name}, line {last.lineno}, in {last.name}: {kind}"


def culprit(error: BaseException, folder: Path) -> tuple[str, bool]:
    """What failed, and whether it was the user's code: a frame in their folder, or a method called on an experiment."""
    text = describe(error, folder)
    if text != f"{type(error).__name__}: {error}":
        return text, True
    lines = [frame.line or "" for frame in traceback.extract_tb(error.__traceback__)]
    calls = [call.group(1) for line in lines if (call := re.search(r"\bexperiment\.(\w+)\(", line))]
    return (f"in {calls[-1]}: {text}", True) if calls else (text, False)


def experiment_name(experiment: Experiment) -> str:
    """`DigitsMlp` -> `digits-mlp`: what its runs are called."""
    return re.sub(r"(?<=[^A-Z_])(?=[A-Z])", "-", type(experiment).__name__).strip("_").lower()


def fields_of(experiment: Experiment) -> dict[str, Any]:
    """The experiment's fields as plain data."""
    plain: dict[str, Any] = to_plain(experiment)
    return plain


def code_digest(experiment: Experiment) -> str:
    """Digest of what the experiment's own files *say*: comments and layout do not count.

    Covers the file of the class and, step by step, every file of the same folder and its packages
    that it imports.
    """
    first = source_file(type(experiment))
    digest = sha256()
    for path, tree in sorted(_own_files(first).items()):
        digest.update(f"{path.relative_to(first.parent).as_posix()}\n{ast.dump(tree)}\n".encode())
    return digest.hexdigest()


def source_file(cls: type) -> Path:
    """The file a class was made in; its module's name may stand for another folder's file by now."""
    for member in vars(cls).values():
        if inspect.isfunction(member) and member.__module__ == cls.__module__ and "__file__" in member.__globals__:
            return Path(member.__globals__["__file__"]).resolve()
    return Path(inspect.getfile(cls)).resolve()


def _own_files(first: Path) -> dict[Path, ast.Module]:
    found: dict[Path, ast.Module] = {}
    todo = [first]
    while todo:
        path = todo.pop()
        if path in found or not path.is_file():
            continue
        found[path] = ast.parse(path.read_bytes())
        for node in ast.walk(found[path]):
            if isinstance(node, ast.Import):
                todo += [file for alias in node.names for file in _candidates(first.parent, alias.name)]
            elif isinstance(node, ast.ImportFrom):
                base = path.parents[node.level - 1] if node.level else first.parent
                for alias in node.names:  # what is imported may be a module itself
                    todo += _candidates(base, f"{node.module}.{alias.name}" if node.module else alias.name)
    return found


def _candidates(folder: Path, dotted: str) -> list[Path]:
    """Where a dotted name may lie: every file that importing it would run."""
    files = []
    for part in dotted.split("."):
        files += [folder / f"{part}.py", folder / part / "__init__.py"]
        folder = folder / part
    return files
