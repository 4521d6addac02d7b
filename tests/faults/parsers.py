"""Every parser of ours, as a function of a folder and some bytes, and how inputs of its kind are garbled.

    python tests/faults/parsers.py config --seconds 60

lets atheris (`pip install atheris`) look for inputs that reach new code, and adds them to `corpus/config/`. The
suite reads every input of the corpora, and garbled ones, each time it runs: test_fuzz.py.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from batteries import shapes
from batteries.combine.check_submission import check_submission
from batteries.combine.sample import Sample
from batteries.config import parse_overrides
from batteries.errors import BatteriesError
from batteries.experiment.prediction_files import read_predictions
from batteries.experiment.predictions import Predictions
from batteries.files import new_folder, read_sealed, safe_name, write_sealed
from batteries.prepare.folds import Folds
from batteries.prepare.made_elsewhere import read_assignment
from batteries.score.exchange import import_rows
from batteries.score.journal import Journal
from batteries.train.checkpoint_file import read_checkpoint
from batteries.train.weights import read_weights

CORPUS = Path(__file__).parent / "corpus"
SAMPLE = b"id,cat,dog\na,0.5,0.5\nb,0.5,0.5\n007,0.5,0.5\n"


def _put(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _file(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    return lambda folder, data: read(_put(folder, name, data))


def _sealed(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    """The input gets a right digest, as whoever makes a file in earnest would give it."""

    def parse(folder: Path, data: bytes) -> object:
        try:
            plain = json.loads(data)
            if not isinstance(plain, dict):
                return None
            write_sealed(folder / name, {key: value for key, value in plain.items() if key != "seal"})
        except (ValueError, RecursionError):  # no JSON that has a digest
            return None
        return read(folder / name)

    return parse


def _record(shape: type[shapes.Shape]) -> Callable[[Path, bytes], object]:
    return _sealed("record.json", lambda path: shapes.read_record(path, shape))


def _journal(folder: Path, data: bytes) -> object:
    _put(folder, "ledger.jsonl", data)
    return Journal(folder).read()


def _export(folder: Path, data: bytes) -> object:
    (root := Path(tempfile.mkdtemp(dir=folder))).joinpath("runs").mkdir()
    return _sealed("export.json", lambda path: import_rows(path, root / "runs"))(root, data)


def _numbers(folder: Path, data: bytes) -> object:
    root = Path(tempfile.mkdtemp(dir=folder))
    _put(root, ".numbers.json", data)
    return new_folder(root, "toy", lambda folder, name: None)


def _value(folder: Path, data: bytes) -> object:
    from toy import Toy

    return parse_overrides(Toy, [data.decode(errors="surrogateescape")])


class Parser(NamedTuple):
    """Something of ours that reads what others may have written."""

    parse: Callable[[Path, bytes], object]
    kind: str = "bytes"
    """`json`, `csv`, `text`, `bytes`: how inputs are garbled."""


# Parquet of other tools is left out: polars ends the process on some damaged ones, as docs/threats.md says
PARSERS = {
    "record": Parser(_file("record.json", read_sealed), "text"),
    "config": Parser(_record(shapes.Config), "json"),
    "config of a run": Parser(_record(shapes.RunConfig), "json"),
    "fold": Parser(_record(shapes.Fold), "json"),
    "checkpoint record": Parser(_record(shapes.CheckpointRecord), "json"),
    "checkpoint of a run": Parser(_record(shapes.CheckpointOfRun), "json"),
    "submission record": Parser(_record(shapes.WholeSubmission), "json"),
    "fitted weights": Parser(_record(shapes.FittedWeights), "json"),
    "ledger line": Parser(_journal, "text"),
    "ledger export": Parser(_export, "json"),
    "numbers": Parser(_numbers, "text"),
    "name": Parser(lambda folder, data: safe_name(data.decode(errors="surrogateescape")), "text"),
    "value": Parser(_value, "text"),
    "submission": Parser(
        _file("submission.csv", lambda path: check_submission(path, Sample.parse(SAMPLE, "sample"))), "csv"
    ),
    "sample": Parser(lambda folder, data: Sample.parse(data, "sample.csv"), "csv"),
    "predictions": Parser(_file("predictions.csv", read_predictions), "csv"),
    "out-of-fold predictions": Parser(_file("oof.parquet", Predictions.load)),
    "folds": Parser(_file("folds.parquet", Folds.load)),
    "folds of another tool": Parser(
        _file("folds.csv", lambda path: read_assignment(path, pl.Series("id", ["a", "b", "007"]))), "csv"
    ),
    "checkpoint": Parser(_file("checkpoint.pt", read_checkpoint)),
    "weights": Parser(_file("weights.pt", read_weights)),
    "safetensors": Parser(_file("weights.safetensors", read_weights)),
}


def attempt(name: str, folder: Path, data: bytes) -> str:
    """Let a parser read an input: `read` or `refused`. Whatever else it raises is a crash, and goes through."""
    try:
        PARSERS[name].parse(folder, data)
    except BatteriesError:
        return "refused"
    return "read"


# --- garbling

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 3, 2**70, 1.5, "", "x", "../x", "/etc/passwd", "a" * 300, [], {}, [1], {"a": 1}, "\0",
    "é", [[]], "1", "con", "nan",
)  # fmt: skip
PIECES = {
    "text": (b"{", b"}", b"[", b'"', b":", b",", b"null", b"NaN", b"1e999", b"\\u0000", b"\xff", b"-", b"[" * 5000,
             b"=", b"\n", b"\0", b"..", b"/", b"9" * 5000, b"\\ud800"),
    "csv": (b",", b'"', b"\n", b"\r", b"nan", b"1e999", b"", b"\0", b"\xff", b"\xef\xbb\xbf", b"id", b"0.5", b"=1+1",
            b"9" * 400, b'""', b"\t", b";"),
    "bytes": (b"\0", b"\xff", b"\x80" * 9, b"PAR1", b"PK\3\4", b"\0" * 64, b"\xff" * 8, b"\1"),
}  # fmt: skip


def garbled(data: bytes, draw: random.Random, kind: str) -> bytes:
    """An input as a careless or hostile hand would make it of a good one."""
    if kind == "json":
        try:
            value = json.loads(data)
            for _ in range(draw.randint(1, 3)):
                value = _changed(value, draw)
            return json.dumps(value).encode()
        except (ValueError, RecursionError):
            kind = "text"
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        place = draw.randrange(len(changed) + 1)
        if kind == "bytes" and changed and draw.random() < 0.5:
            changed[place % len(changed)] ^= 1 << draw.randrange(8)
        else:
            changed[place : place + draw.choice((0, 0, 1, 2, 8, 64))] = draw.choice(PIECES[kind])
    return bytes(changed[: draw.randrange(len(changed) + 1)] if draw.random() < 0.05 else changed)


def _changed(value: Any, draw: random.Random) -> Any:
    """The same JSON with one value dropped, added or of another type, anywhere in it."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key, how = draw.choice(list(value)), draw.random()
        if how < 0.2:
            return {name: each for name, each in value.items() if name != key}
        return {**value, "new": draw.choice(ODD)} if how < 0.3 else {**value, key: _changed(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        place = draw.randrange(len(value))
        return [*value[:place], *([] if draw.random() < 0.3 else [_changed(value[place], draw)]), *value[place + 1 :]]
    return draw.choice(ODD)


def corpus(name: str) -> list[bytes]:
    """The inputs kept for a parser: good ones, and those that once reached new code or crashed it."""
    return [path.read_bytes() for path in sorted((CORPUS / name.replace(" ", "-")).iterdir())]


def keep(name: str, data: bytes) -> None:
    """Add an input to the corpus of a parser, named by its content."""
    folder = CORPUS / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / sha256(data).hexdigest()[:16]).write_bytes(data)


def _search(name: str, seconds: int) -> None:
    """Let atheris look for inputs that reach new code, and keep them and what crashes."""
    folder = Path(tempfile.mkdtemp())
    found = folder / "found"
    found.mkdir()
    for data in corpus(name):
        (found / sha256(data).hexdigest()).write_bytes(data)
    if not (child := os.fork()):
        _let_loose(name, seconds, folder, found)  # ends its process
    os.waitpid(child, 0)
    known = set(corpus(name))
    new = {path.read_bytes() for path in (*found.iterdir(), *folder.glob("crash-*"), *folder.glob("timeout-*"))} - known
    for data in new:
        keep(name, data)
    print(f"{name}: {len(new)} inputs more in {CORPUS / name.replace(' ', '-')}")


def _let_loose(name: str, seconds: int, folder: Path, found: Path) -> None:
    import atheris

    for module in [module for key, module in sys.modules.items() if key.startswith("batteries.")]:
        for each in vars(module).values():
            if getattr(each, "__module__", "") == module.__name__ and hasattr(each, "__code__"):
                atheris.instrument_func(each)

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        return garbled(data, random.Random(seed), PARSERS[name].kind)[:most]

    options = [f"-max_total_time={seconds}", "-max_len=4096", f"-artifact_prefix={folder}/", str(found)]
    atheris.Setup(["fuzz", *options], lambda data: attempt(name, folder, data), custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parser", choices=PARSERS)
    parser.add_argument("--seconds", type=int, default=60)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parents[1]))
    _search(arguments.parser, arguments.seconds)
