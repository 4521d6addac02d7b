"""Generate: the experiment file of a folder of data, as a person would have begun it.

In:    Guesses.
Out:   the text of experiment.py.
Next:  `new` puts it into a folder.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from batteries.prepare.folder.guess import Guesses
from batteries.prepare.folder.layout import IMAGES

_WIDE = 120
_LARGEST = 64
"""Pixels on the longer side to begin with."""
_WORK = 60_000
"""Rows an experiment first trains on in all, epochs times rows: a minute or so."""


def generate(guesses: Guesses, name: str) -> str:
    """Return the text of an experiment file for what was guessed."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    with resources.as_file(resources.files("batteries.prepare") / "templates" / "_from") as folder:
        environment = Environment(
            loader=FileSystemLoader(folder), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined,
            keep_trailing_newline=False,
        )  # fmt: skip
        environment.filters["literal"] = _literal
        environment.filters["literals"] = _literals
        specific = _of_images(guesses) if guesses.images else _of_table(guesses)
        text = environment.get_template(f"{guesses.kind}.jinja").render({**_common(guesses, name), **specific})
    return re.sub(r"\n{4,}", "\n\n\n", text.rstrip()) + "\n"


def _common(guesses: Guesses, name: str) -> dict[str, Any]:
    layout, task = guesses.layout, guesses.task
    files = {part: _inside(guesses, path) for part, path in _tables(guesses).items()}
    rows = guesses.rows
    second = {"auc": "log_loss", "accuracy": "log_loss", "log_loss": "accuracy", "rmse": "mae", "mae": "rmse"}
    predicts = ", ".join(guesses.targets[:4]) + (", ..." if len(guesses.targets) > 4 else "")
    return {
        "name": _class_name(name),
        "title": f"{predicts} from {layout.folder.name}/.",
        "predicts": f"Predicts {predicts}.".replace("\\", "").replace('"', "'"),
        "notes": [line for each in guesses.reasons for line in _note(f"{each.what}: {each.guess} ({each.why})")],
        "data": str(layout.folder.resolve()),
        **{"train": None, "test": None, "sample": None, **files},
        "csv": any(not path.lower().endswith(".parquet") for path in files.values()),
        "parquet": any(path.lower().endswith(".parquet") for path in files.values()),
        "selects": bool(guesses.texts) and any(path.lower().endswith(".parquet") for path in files.values()),
        "as_written": guesses.texts,
        "tabs": any(path.lower().endswith(".tsv") for path in files.values()),
        "cast": '.with_columns(cs.by_name(AS_WRITTEN, require_all=False).cast(pl.String))' if guesses.texts else "",
        "metric": guesses.metric,
        "also": None if task == "labels" else second.get(guesses.metric),
        "id": guesses.id,
        "target": "targets" if len(guesses.targets) > 1 else guesses.targets[0],
        "classes": guesses.classes,
        "folds": guesses.folds,
        "task": task,
        "single": task in ("binary", "number"),
        "outputs": guesses.outputs,
        "target_type": "int64" if task == "classes" else "float32",
        "labelled": guesses.test_has_target,
        "epochs": max(5, min(30, _WORK // max(1, rows))),
        "batch_size": 32 if rows < 2_000 else 64 if rows < 50_000 else 256,
    }  # fmt: skip


def _tables(guesses: Guesses) -> dict[str, Path]:
    layout = guesses.layout
    given = {"train": layout.train, "test": layout.test, "sample": layout.sample}
    return {} if layout.train is None else {part: path for part, path in given.items() if path is not None}


def _inside(guesses: Guesses, path: Path) -> str:
    return path.relative_to(guesses.layout.folder).as_posix()


def _of_table(guesses: Guesses) -> dict[str, Any]:
    roles = guesses.roles
    counts = ["len(NUMBERS)"] * bool(roles.numbers) + ["len(MISSING)"] * bool(roles.missing)
    num_numbers = " + ".join(counts + ["3 * len(DATES)"] * bool(roles.dates))
    terms = [num_numbers] * bool(num_numbers) + ["8 * len(CATEGORIES)"] * bool(roles.categories)
    parts = ['self.numbers(inputs["numbers"])'] * bool(num_numbers) + ["*embedded"] * bool(roles.categories)
    parts += ['self.words(inputs["words"])'] * bool(roles.words)
    named = {"NUMBERS": roles.numbers, "MISSING": roles.missing, "CATEGORIES": roles.categories,
             "DATES": roles.dates, "WORDS": roles.words}  # fmt: skip
    constants = [(name, _literals(list(values), 0, start=len(name) + 3)) for name, values in named.items() if values]
    return {
        "numbers": roles.numbers,
        "missing": roles.missing,
        "dates": roles.dates,
        "categories": roles.categories,
        "words": roles.words,
        "num_numbers": num_numbers,
        "inputs": " + ".join(terms + ["32"] * bool(roles.words)),
        "parts": parts,
        "input_type": "dict[str, Tensor]",
        "constants": constants + [("BUCKETS", "1 << 14")] * bool(roles.words) + _targets_constants(guesses),
        "lr": "1e-2" if roles.words else "3e-3",
        "train_steps": _steps(guesses, "train"),
        "test_steps": _steps(guesses, "test"),
    }


def _of_images(guesses: Guesses) -> dict[str, Any]:
    assert guesses.images is not None
    size, mode = _look(guesses.layout.images)
    suffixes = sorted({path.suffix.lower() for path in guesses.layout.images} & IMAGES)
    constants = [] if guesses.layout.train else [("SUFFIXES", "{" + ", ".join(map(_literal, suffixes)) + "}")]
    return {
        "size": size,
        "mode": mode,
        "input_type": "Tensor",
        "channels": 3 if mode == "RGB" else 1,
        "parts": (guesses.images.train, guesses.images.test),
        "constants": constants + _targets_constants(guesses),
        "lr": "3e-3",
        "train_steps": _steps(guesses, "train"),
        "test_steps": _steps(guesses, "test"),
    }


def _targets_constants(guesses: Guesses) -> list[tuple[str, str]]:
    written = [f"{_literal(name)}: pl.String" for name in sorted(guesses.texts)]
    constants = [("AS_WRITTEN", _wrapped(written, "{}", 0, 13))] * bool(written)
    if len(guesses.targets) > 1:
        constants.append(("TARGETS", _literals(list(guesses.targets), 0, start=10)))
    if guesses.centre:
        one = len(guesses.centre) == 1
        for name, numbers in (("CENTRE", guesses.centre), ("SCALE", guesses.scale)):
            constants.append((name, repr(numbers[0]) if one else _wrapped([repr(n) for n in numbers], "[]", 0, 9)))
    return constants


def _steps(guesses: Guesses, part: str) -> list[str]:
    """What is done to a table once it is read."""
    steps = []
    if part in guesses.numbered:
        steps.append(f".with_row_index({_literal(guesses.id)})")
    with_target = part == "train" or guesses.test_has_target
    if part == "train" and guesses.dropped:
        wanted = "TARGETS" if len(guesses.targets) > 1 else _literal(guesses.targets[0])
        steps.append(f".drop_nulls({wanted})")
    if with_target and len(guesses.targets) > 1:
        steps.append(".with_columns(targets=pl.concat_list(pl.col(TARGETS).cast(pl.Float32))).drop(TARGETS)")
    if guesses.images and guesses.layout.train:
        steps += _path(guesses.images.column, guesses.images.test if part == "test" else guesses.images.train)
    return steps


def _path(column: str, pattern: str | None) -> Iterator[str]:
    """The step that adds the column of the images' paths."""
    if pattern is not None:
        before, after = pattern.split("{}")
        start = "{DATA}/" + before.replace("{", "{{").replace("}", "}}")
        end = f", pl.lit({_literal(after)})" if after else ""
        yield f".with_columns(path=pl.concat_str(pl.lit(f{_literal(start)}), {_literal(column)}{end}))"


def _look(images: Sequence[Path]) -> tuple[tuple[int, int], str]:
    """Height, width and mode to bring images to, from some of them."""
    from PIL import Image

    sizes, modes = [], set()
    for path in images[:: max(1, len(images) // 20)]:
        try:
            with Image.open(path) as image:
                sizes.append((image.height, image.width))
                modes.add(image.mode)
        except OSError:  # told when it is decoded
            continue
    height, width = sorted(sizes)[len(sizes) // 2] if sizes else (_LARGEST, _LARGEST)
    shrink = min(1.0, _LARGEST / max(height, width))
    return (max(8, round(height * shrink)), max(8, round(width * shrink))), "L" if modes <= {"L", "1"} else "RGB"


def _class_name(name: str) -> str:
    words = re.findall(r"[A-Za-z0-9]+", name)
    joined = "".join(word[0].upper() + word[1:] for word in words)
    return joined if joined[0].isalpha() and joined not in ("Net", "Bytes", "Path", "Tensor") else f"My{joined}"


def _note(text: str) -> list[str]:
    text = text.replace("\\", "/").replace('"""', "'''")
    return textwrap.wrap(text, _WIDE - 4, initial_indent="- ", subsequent_indent="  ")


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _literals(names: Sequence[str], indent: int, *, start: int = 14) -> str:
    """A list or tuple of texts, on one line if there is room."""
    brackets = "()" if isinstance(names, tuple) else "[]"
    return _wrapped([_literal(name) for name in names], brackets, indent, start)


def _wrapped(items: Sequence[str], brackets: str, indent: int, start: int) -> str:
    line = ", ".join(items)
    if indent + start + len(line) + 2 <= _WIDE:
        return f"{brackets[0]}{line}{brackets[1]}"
    inner = " " * (indent + 4)
    return f"{brackets[0]}\n" + "".join(f"{inner}{item},\n" for item in items) + " " * indent + brackets[1]
