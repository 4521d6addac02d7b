"""New: an experiment folder that already runs, on real data or on one's own.

In:    a name, and a template or a folder of data.
Out:   a folder of one to three short Python files; what was guessed of the data.
Next:  `batteries study` in it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from batteries.errors import UsageError
from batteries.files import safe_name, write_text
from batteries.prepare.folder.generate import generate
from batteries.prepare.folder.guess import Guesses, guess
from batteries.prepare.folder.layout import find_layout


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
    if template not in templates():
        raise UsageError(f"there is no template {template!r}; choose one of {', '.join(templates())}")

    def fill(folder: Path) -> None:
        with resources.as_file(resources.files("batteries.prepare") / "templates" / template) as source:
            shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"))

    return _made(_free(name, parent), fill)


def new_from(
    name: str,
    data: Path | str,
    *,
    target: Sequence[str] = (),
    id: str | None = None,
    metric: str | None = None,
    parent: Path | str = ".",
) -> tuple[Path, Guesses]:
    """Make the experiment folder `parent/name` for a folder of data; return it and what was guessed.

    The data stay where they are: the experiment reads them lazily from there.

    Parameters
    ----------
    data
        Holds train.csv with test.csv and sample_submission.csv if there are any (or .parquet, .tsv, .csv.gz),
        one table alone, or images in one folder a class, also below train/ and test/.
    target, id, metric
        Said instead of guessed: columns to predict, the column that names rows, a metric such as `auc`.

    Raises
    ------
    UsageError
        When the experiment's folder exists, or a column or metric is named that there is not.
    DataError
        When the files cannot be read, or no target can be told.

    Example
    -------
    >>> folder, guesses = new_from("titanic", "data/titanic")  # doctest: +SKIP
    >>> [(reason.what, reason.guess) for reason in guesses.reasons][:2]  # doctest: +SKIP
    [('training', 'train.csv'), ('test', 'test.csv')]

    """
    folder = _free(name, parent)
    guesses = guess(find_layout(Path(data)), target=target, id=id, metric=metric)
    text = generate(guesses, name)

    def fill(folder: Path) -> None:
        folder.mkdir(parents=True)
        write_text(folder / "experiment.py", text)

    return _made(folder, fill), guesses


def _free(name: str, parent: Path | str) -> Path:
    folder = Path(parent) / safe_name(name, "experiment")
    if folder.exists():
        raise UsageError(f"{folder} exists already; choose another name, or go into it: batteries study")
    return folder


def _made(folder: Path, fill: Callable[[Path], object]) -> Path:
    """The folder, filled under another name first."""
    half_made = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(half_made, ignore_errors=True)
    fill(half_made)
    half_made.rename(folder)
    return folder
