"""C1 to C10 of the catalogue: files that are damaged, hostile, foreign, of another version."""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import resource
import shutil
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import acts
import payloads
import pytest
import torch
from torch import nn

import batteries as bt
from batteries.errors import BatteriesError, CorruptError, ResumeError, WeightsError
from batteries.experiment.predictions import Predictions
from batteries.files import read_sealed
from batteries.prepare.folds import Folds
from batteries.score.verify import verify
from batteries.train.checkpoint import Checkpoints
from batteries.train.checkpoint_file import read_checkpoint
from goals import ALONE, figure, times
from test_resume import toy_in

SLOW = 2.0
"""Seconds within which a bad file is refused."""


@pytest.fixture(scope="module")
def trained(disk: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with folds, a run and a submission."""
    folder = toy_in(tmp_path_factory.mktemp("trained"))
    for arguments in (["train"], ["submit", "toy-001"]):
        ended = acts.command(folder, *arguments)
        assert ended.code == 0, ended.text
    return folder


# --- C1, C2, G3: cut, flipped, zeroed, anything


def damaged(data: bytes, draw: random.Random, kind: str) -> bytes:
    """One damaged version of a file; never the file itself."""
    place = draw.randrange(len(data))
    if kind == "flip":
        return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
    if kind == "cut":
        return data[:place]
    if kind == "zeroed":
        start, size = place // 512 * 512, draw.choice([512, 4096])
        changed = data[:start] + b"\0" * len(data[start : start + size]) + data[start + size :]
        return changed if changed != data else damaged(data, draw, kind)
    other = draw.randbytes(draw.randrange(1, 64))
    changed = draw.choice([data + other, other + data, data[:place] + other + data[place:], data[place:], data * 2])
    return changed if changed != data else data + b"\0"


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "checkpoint": ("runs/toy-001/fold0/stage-all/best.pt", read_checkpoint),
    "its record": ("runs/toy-001/fold0/stage-all/checkpoint-*.json", read_sealed),
    "config": ("runs/toy-001/config.json", read_sealed),
    "provenance": ("runs/toy-001/provenance.json", read_sealed),
    "out-of-fold predictions": ("runs/toy-001/oof.parquet", Predictions.load),
    "folds": ("runs/folds.parquet", Folds.load),
    "record of a submission": ("runs/submission-001/submission.json", read_sealed),
}
COUNTS = {"flip": (5000, 25), "cut": (2000, 15), "zeroed": (2000, 10), "other": (1000, 10)}


@pytest.mark.parametrize("artefact", READERS)
def test_c1_c2_no_damaged_file_is_believed_or_takes_long_to_refuse(
    tmp_path: Path, trained: Path, artefact: str
) -> None:
    pattern, read = READERS[artefact]
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    path = max(copy.glob(pattern)).resolve()
    if artefact == "checkpoint":
        best = max(path.parent.glob("checkpoint-*.pt"), key=lambda file: file.samefile(path))
        path.unlink()  # the links are hard links: one file by three names
        path = best
    data, draw, tried, slowest = path.read_bytes(), random.Random(artefact), 0, 0.0
    whole, harmless = read(path), 0
    for kind, (full, some) in COUNTS.items():
        for _ in range(times(full, some)):
            path.write_bytes(damaged(data, draw, kind))
            began = time.perf_counter()
            try:
                found = read(path)
            except CorruptError as error:
                assert path.name in str(error)  # noqa: PT017 - it need not be raised
            else:  # without the newline at its end, JSON says the same
                assert path.suffix == ".json"
                assert found == whole
                harmless += 1
            slowest, tried = max(slowest, time.perf_counter() - began), tried + 1
    assert slowest < SLOW
    assert harmless < tried / 50
    figure("G3", **{artefact: tried}, silently_different=0, slowest_s=round(slowest, 3))


def test_c2_a_flipped_bit_of_a_submission_is_found_by_verify(tmp_path: Path, trained: Path) -> None:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    path = tmp_path / "runs/submission-001/submission.csv"
    data, draw = path.read_bytes(), random.Random(0)
    for _ in range(times(5000, 20)):
        path.write_bytes(damaged(data, draw, "flip"))
        bad = [finding for finding in verify(path.parent) if finding.bad]
        assert [finding.file.name for finding in bad] == ["submission.csv"]


# --- C3: what is no file of ours


def strange(folder: Path) -> list[Path]:
    """Paths at which a reader may hang, run out of memory, or go round in circles."""
    folder.mkdir()
    for name, content in {"empty": b"", "garbage": random.Random(0).randbytes(9999), "text": b"hello\n"}.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    for name, target in {
        "loop": "loop", "dangling": "nowhere", "zero": "/dev/zero", "random": "/dev/urandom", "full": "/dev/full",
        "memory": "/proc/self/mem", "terminal": "/dev/tty", "to a folder": "folder", "to a pipe": "pipe",
    }.items():  # fmt: skip
        (folder / name).symlink_to(target)
    return sorted(folder.iterdir())


def _read_strange(path: str, reader: str) -> int:
    from batteries.experiment.prediction_files import read_predictions
    from batteries.train.weights import read_weights

    readers: dict[str, Callable[[Path], Any]] = {
        "checkpoint": read_checkpoint, "weights": read_weights, "record": read_sealed, "folds": Folds.load,
        "predictions": read_predictions, "out-of-fold": Predictions.load,
    }  # fmt: skip
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    try:
        readers[reader](Path(path))
    except BatteriesError as error:
        print(error)
        seconds, grown = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used
        print(f"{seconds:.2f} s and {grown / 1024:.0f} MB more")
        return error.exit_code if seconds < SLOW and grown < 200 * 1024 else 99
    return 0


@pytest.mark.usefixtures("disk")
@pytest.mark.parametrize("reader", ["checkpoint", "weights", "record", "folds", "predictions", "out-of-fold"])
def test_c3_what_is_no_file_of_ours_is_refused_at_once_in_little_memory(tmp_path: Path, reader: str) -> None:
    for path in strange(tmp_path / "strange"):
        ended = acts.run(tmp_path, _read_strange, [str(path), reader])
        assert ended.code in (2, 3, 4), f"{path.name}: {ended.code} {ended.text}"
        assert path.name in ended.text


# --- C4: small files that ask for much


def _bombs(folder: Path) -> dict[str, Path]:
    folder.mkdir()
    model = {"model": {"weight": torch.zeros(1000)}}
    torch.save(model, folder / "plain.pt")
    with zipfile.ZipFile(folder / "plain.pt") as plain:
        parts = {name: plain.read(name) for name in plain.namelist()}
    pickled = next(name for name in parts if name.endswith("data.pkl"))
    storage = next(name for name in parts if "/data/" in name)

    def packed(name: str, changed: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
        with zipfile.ZipFile(folder / name, "w", how) as file:
            for part, content in {**parts, **changed}.items():
                file.writestr(part, content)
        return folder / name

    numel = parts[pickled].replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f")  # 1,000 as 2**31 - 1, everywhere
    assert numel != parts[pickled]
    deeply = b"\x80\x02" + b"](" * 200_000 + b"K\x00" + b"e" * 200_000 + b"."
    torch.save(model, folder / "old.pt", _use_new_zipfile_serialization=False)
    old = (folder / "old.pt").read_bytes()
    (folder / "old.pt").write_bytes(old.replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f"))
    (folder / "nested.json").write_text("[" * 1_000_000)
    (folder / "wide.csv").write_text(",".join(f"c{i}" for i in range(100_000)) + "\n")
    return {
        "deflated zeros": packed("deflated.pt", {storage: b"\0" * (1 << 29)}, zipfile.ZIP_DEFLATED),
        "a pickle that swells": packed("swollen.pt", {pickled: b" " * (1 << 28)}, zipfile.ZIP_DEFLATED),
        "more numbers than bytes": packed("numel.pt", {pickled: numel}),
        "deep nesting": packed("nested.pt", {pickled: deeply}),
        "old format with more numbers than bytes": folder / "old.pt",
        "nested json": folder / "nested.json",
        "100,000 columns": folder / "wide.csv",
    }


@pytest.mark.usefixtures("disk")
def test_c4_a_small_file_that_asks_for_much_is_refused_before_it_gets_it(tmp_path: Path) -> None:
    for what, path in _bombs(tmp_path / "bombs").items():
        readers = {".pt": ["checkpoint", "weights"], ".json": ["record"], ".csv": ["predictions"]}[path.suffix]
        for reader in readers:
            ended = acts.run(tmp_path, _read_strange, [str(path), reader])
            assert ended.code in (3, 4), f"{what}, {reader}: {ended.code} {ended.text}"


# --- C5, C6, G5: files that would run something


def _load_all(folder: str) -> int:
    from batteries.train.weights import read_weights

    known, bad = set(sys.modules), []
    for path in sorted(Path(folder).glob("*.pt")):
        for read in (read_checkpoint, read_weights):
            try:
                read(path)
            except CorruptError:
                continue
            except BaseException as error:  # noqa: BLE001 - it must be none but a CorruptError
                bad.append(f"{path.name}: {type(error).__name__} {error}")
            else:
                bad.append(f"{path.name}: loaded")
    new = sorted(name for name in set(sys.modules) - known if name.split(".")[0] not in ("torch", "pickletools"))
    print(*bad, f"modules: {new}", sep="\n")
    return 1 if bad or new else 0


@pytest.mark.usefixtures("disk")
def test_c5_nothing_in_a_hostile_file_is_executed_or_imported(tmp_path: Path) -> None:
    canary, folder = tmp_path / "canary", tmp_path / "files"
    folder.mkdir()
    (tmp_path / "batteries_canary.py").write_text(f"import os; os.mkdir({str(canary)!r})")
    files = payloads.corpus(canary)
    for number, content in enumerate(files.values()):
        (folder / f"{number:03d}.pt").write_bytes(content)
    ended = acts.run(tmp_path, _load_all, [str(folder)], PYTHONPATH=str(tmp_path))
    assert ended.code == 0, ended.text
    assert not canary.exists()
    figure("G5", payloads=len(files), executed=0, imported=0)


def test_c5_the_payloads_do_run_where_pickles_are_trusted(tmp_path: Path) -> None:
    """Else the test above would pass for the wrong reason."""
    ran = 0
    for name, opcodes in payloads.calls(tmp_path / "canary").items():
        if not re.fullmatch(r"(os|posix|subprocess|builtins|pickle)\.(mkdir|system|exec|eval|call|loads)", name):
            continue
        pickle.loads(b"\x80\x02" + opcodes + b".")
        assert (tmp_path / "canary").is_dir(), name
        (tmp_path / "canary").rmdir()
        ran += 1
    assert ran >= 8


@pytest.mark.usefixtures("disk")
def test_c6_a_name_of_code_in_a_file_is_a_text_and_stays_one(tmp_path: Path, trained: Path) -> None:
    (tmp_path / "batteries_canary.py").write_text(f"import os; os.mkdir({str(tmp_path / 'canary')!r})")
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    stage = copy / "runs/toy-001/fold1/stage-all"
    kept = Checkpoints(stage, metric=bt.Metric.accuracy())
    assert kept.last is not None
    state = kept.last.load()
    evil = dict.fromkeys(("_target_", "_instantiator", "class_path", "experiment", "class"), "batteries_canary:main")
    kept.save({**state, **evil, "stage": {**evil}}, info={**kept.last.info, **evil})
    (copy / "runs/toy-001/fold1/fold.json").unlink()
    ended = acts.command(copy, "train", PYTHONPATH=str(tmp_path))
    assert ended.code in (0, 4, 5), ended.text
    assert not (tmp_path / "canary").exists()


# --- G5: the parser of records


def test_c5_a_million_garbled_records_crash_nothing(tmp_path: Path, trained: Path) -> None:
    data = (trained / "runs/submission-001/submission.json").read_bytes()
    draw, path = random.Random(0), tmp_path / "record.json"
    tokens = [b"{", b"}", b"[", b"]", b'"', b":", b",", b"null", b"NaN", b"1e999", b"\\u0000", b"\xff", b"-", b"[[[[[["]
    read = times(1_000_000, 3_000)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    for _ in range(read):
        changed = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(changed))
            changed[place : place + draw.randrange(3)] = draw.choice(tokens)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, changed, 0)
        try:
            found = read_sealed(path)
        except CorruptError:
            continue
        assert {**found, "seal": json.loads(data)["seal"]} == json.loads(data), changed
    os.close(descriptor)
    figure("G5", garbled_records=read, crashes=0)


# --- C7: weights of another architecture


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def _altered() -> dict[str, dict[str, torch.Tensor]]:
    own = _model().state_dict()
    return {
        "missing": {k: v for k, v in own.items() if k != "2.bias"},
        "extra": {**own, "3.weight": torch.ones(2)},
        "another shape": {**own, "0.weight": torch.ones(5, 3)},
        "transposed": {**own, "0.weight": torch.ones(3, 4)},
        "a scalar for a matrix": {**own, "0.weight": torch.tensor(1.0)},
        "broadcastable": {**own, "0.weight": torch.ones(4, 1)},
        "integers for floats": {**own, "2.bias": torch.tensor([1, 2])},
        "other names": {f"backbone.{k}": v for k, v in own.items()},
        "none at all": {},
    }


@pytest.mark.parametrize("how", _altered())
def test_c7_weights_of_another_architecture_are_refused_by_name_and_nothing_is_loaded(how: str) -> None:
    model = _model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if how == "integers for floats":  # PyTorch converts them without loss; the report says so
        assert len(bt.load_weights(model, _altered()[how]).other_type) == 1
        return
    with pytest.raises(WeightsError, match=r"weight|bias|no parameter") as caught:
        bt.load_weights(model, _altered()[how])
    assert caught.value.exit_code == 5
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# --- C8, C9, C10: other versions, foreign files


def test_c8_a_record_of_a_newer_version_is_refused_with_both_versions(tmp_path: Path) -> None:
    from batteries.files import write_sealed

    kept = Checkpoints(tmp_path, metric=bt.Metric.accuracy())
    kept.save({"model": {"w": torch.ones(2)}}, score=0.5)
    path = next(tmp_path.glob("checkpoint-*.json"))
    write_sealed(path, {**read_sealed(path), "schema": 99})
    with pytest.raises(ResumeError, match=r"schema 99, this Batteries .* reads 1 and older"):
        Checkpoints(tmp_path, metric=bt.Metric.accuracy())


def test_c10_plain_and_old_files_of_weights_load_and_foreign_ones_say_what_they_are(tmp_path: Path) -> None:
    model = _model()
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    torch.save(model.state_dict(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": OrderedDict(model.state_dict()), "epoch": 3}, tmp_path / "lightning.ckpt")
    for name in ("plain.pth", "old.pth"):
        assert len(bt.load_weights(_model(), tmp_path / name).loaded) == 9
    assert len(bt.load_weights(_model(), tmp_path / "lightning.ckpt", part="state_dict").loaded) == 9
    torch.save(model, tmp_path / "whole-model.pt")
    with pytest.raises(CorruptError, match=r"whole-model.pt"):
        bt.load_weights(_model(), tmp_path / "whole-model.pt")


# --- G15: what safety costs


@pytest.mark.skipif(not ALONE, reason="a measurement; only under make faults, after all others")
def test_the_price_of_a_safe_save_and_a_verified_load_is_measured(tmp_path: Path) -> None:
    state = {"model": {"weight": torch.rand(25_000_000)}}
    kept = Checkpoints(tmp_path, metric=bt.Metric.accuracy())

    def plainly() -> None:
        with open(tmp_path / "plain.pt", "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())

    safe, plain = best_of(lambda: kept.save(state)), best_of(plainly)
    verified, loaded = best_of(kept.last.load), best_of(lambda: torch.load(tmp_path / "plain.pt"))  # type: ignore[union-attr]
    figure("G15", save_ratio=round(safe / plain, 2), load_ms_per_mb_more=round((verified - loaded) * 1000 / 100, 2))


def best_of(do: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the quickest of several."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        do()
        seconds.append(time.perf_counter() - began)
    return min(seconds)
