"""Verify: every damaged, missing or left over file of an entry is named, and no other."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from batteries.cli.app import main
from batteries.errors import UsageError
from batteries.experiment import Metric
from batteries.experiment.predictions import Predictions
from batteries.files import digest_file, write_sealed
from batteries.score.verify import verify, verify_all
from batteries.train.checkpoint import Checkpoints
from entries import whole_config, whole_fold


def predictions(folds: list[int] | None) -> Predictions:
    return Predictions(pl.Series("id", [1, 2, 3, 4]), np.arange(4.0), folds=None if folds is None else np.array(folds))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The files of a run of two folds with two stages, written by those who write them in training."""
    folder = tmp_path / "toy-001"
    folder.mkdir()
    write_sealed(folder / "config.json", whole_config())
    write_sealed(folder / "provenance.json", {"torch": "2"})
    for fold in (0, 1):
        part, log = folder / f"fold{fold}", b""
        for stage in ("head", "all"):
            checkpoints = Checkpoints(part / f"stage-{stage}", metric=Metric("auc", higher_is_better=True), keep=1)
            for epoch, score in enumerate((0.5, 0.7, 0.6)):
                log += b'{"step": %d, "valid/auc": 0.5}\n' % epoch
                state = {"model": {"w": torch.rand(300)}, "epoch": epoch}
                checkpoints.save(state, score=score, info={"log": len(log)})
        (part / "metrics.jsonl").write_bytes(log)
        predictions([fold] * 4).save(part / "oof.parquet")
        predictions(None).save(part / "test.parquet")
        write_sealed(part / "fold.json", whole_fold(fold))
    predictions([0, 0, 1, 1]).save(folder / "oof.parquet")
    predictions(None).save(folder / "test.parquet")
    (folder / "train.log").write_text("trained\n")
    return folder


@pytest.fixture
def average(tmp_path: Path) -> Path:
    folder = tmp_path / "average-001"
    folder.mkdir()
    made = whole_config("average-001", kind="average", checkpoints={"0": ["checkpoint-000002.pt"]}, data={"test": None})
    write_sealed(folder / "config.json", made)
    torch.save({"model": {"w": torch.rand(300)}}, folder / "fold0.pt")
    predictions([0, 0, 1, 1]).save(folder / "oof.parquet")
    return folder


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 128
    path.write_bytes(data)


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def bad(folder: Path) -> list[str]:
    return [str(finding.file) for finding in verify(folder) if finding.bad]


def looked_at(folder: Path) -> list[str]:
    return [str(finding.file) for finding in verify(folder)]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_intact_entry_has_nothing_bad_and_every_file_of_it_is_looked_at(run: Path, average: Path) -> None:
    for folder in (run, average):
        before = content(folder)
        assert {finding.state for finding in verify(folder)} == {"intact"}
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert set(looked_at(folder)) == files - {"train.log"}
        assert content(folder) == before


@pytest.mark.parametrize("damage", [flip, cut, os.unlink])
def test_whatever_file_is_damaged_or_lost_is_named_and_no_other(
    run: Path, average: Path, damage: Callable[[Path], None]
) -> None:
    for folder in (run, average):
        for name in looked_at(folder):
            if name.endswith(("last.pt", "best.pt")) and damage is not os.unlink:
                continue  # they are the checkpoints themselves
            copy = folder.with_name("copy")
            subprocess.run(["cp", "-a", folder, copy], check=True)  # keeps the hard links
            damage(copy / name)
            assert bad(copy) == [name], name
            shutil.rmtree(copy)


def test_no_flipped_bit_of_recorded_weights_is_believed(average: Path) -> None:
    path = average / "fold0.pt"
    write_sealed(average / "weights.json", {"fold0.pt": digest_file(path)})
    whole = path.read_bytes()
    assert bad(average) == []
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert bad(average) == ["fold0.pt"]


def test_what_a_killed_process_left_is_named_as_harmless(run: Path) -> None:
    stage = run / "fold0/stage-all"
    (stage / ".checkpoint-000004.pt.12.tmp").write_bytes(b"half")
    (stage / "checkpoint-000004.pt").write_bytes(b"whole, but without its record")
    with open(run / "fold0/metrics.jsonl", "ab") as file:
        file.write(b'{"step": 9, "val')
    assert bad(run) == []
    left = {finding.file.name for finding in verify(run) if finding.state == "leftover"}
    assert left == {".checkpoint-000004.pt.12.tmp", "checkpoint-000004.pt"}


def test_a_run_that_has_not_finished_a_fold_misses_nothing(run: Path) -> None:
    for path in (*run.glob("*.parquet"), *run.glob("fold*/*.parquet"), *run.glob("fold*/fold.json")):
        path.unlink()
    assert bad(run) == []


def test_links_made_of_names_are_followed_and_others_than_ours_are_told(run: Path) -> None:
    stage = run / "fold0/stage-all"
    (stage / "last.pt").unlink()
    (stage / "last.pt").symlink_to("checkpoint-000003.pt")
    assert bad(run) == []
    (stage / "last.pt").unlink()
    (stage / "last.pt").write_bytes(b"another file")
    assert bad(run) == ["fold0/stage-all/last.pt"]
    (stage / "last.pt").unlink()
    (stage / "last.pt").symlink_to("checkpoint-000099.pt")
    assert bad(run) == ["fold0/stage-all/last.pt"]


def test_a_folder_without_an_entry_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError, match="holds no entry and no submission"):
            verify(folder)


# --- all there is


def test_everything_below_runs_is_looked_at(toy_folder: Path) -> None:
    for arguments in (["train"], ["submit", "toy-001"]):
        assert main(arguments) == 0
    names = {str(finding.file) for finding in verify_all("runs")}
    assert {"folds.parquet", "ledger.db", "toy-001/oof.parquet", "submission-001/submission.csv"} <= names
    assert [finding for finding in verify_all("runs") if finding.state != "intact"] == []
    for name in ("folds.parquet", "ledger.db", "submission-001/sample.csv", "submission-001/submission.csv"):
        path = Path("runs") / name
        data = path.read_bytes()
        changed = bytearray(data)
        changed[-2 if name.endswith("csv") else data.rfind(b"toy-001" if name == "ledger.db" else b"id")] ^= 1
        path.write_bytes(bytes(changed))
        assert [str(finding.file) for finding in verify_all("runs") if finding.bad] == [name]
        assert main(["verify"]) == 4
        path.write_bytes(data)
    assert main(["verify", "submission-001"]) == 0


def test_where_nothing_is_yet_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds nothing yet; begin with: batteries split"):
        verify_all(tmp_path)
