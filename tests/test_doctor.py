"""Doctor: what it says of this machine, and of one where something is wrong. The real one, as far as it goes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from batteries.cli.app import main
from batteries.report.doctor import _locking, doctor, file_system


def states(folder: Path) -> dict[str, str]:
    return {check.name: check.state for check in doctor(folder)}


def test_it_leaves_nothing_behind_and_finds_nothing_ill_here(tmp_path: Path) -> None:
    found = states(tmp_path / "not" / "made" / "yet")
    assert {"python", "torch", "disk", "memory", "writing", "locks", "clock"} <= set(found)
    assert "ill" not in found.values()
    assert list(tmp_path.iterdir()) == []


def test_whatever_is_not_well_comes_with_what_to_do(tmp_path: Path) -> None:
    assert all(bool(check.advice) == (check.state != "well") for check in doctor(tmp_path))


def test_a_folder_that_cannot_be_written_is_ill(capfd: pytest.CaptureFixture[str]) -> None:
    assert states(Path("/proc/self"))["writing"] == "ill"
    assert main(["-C", "/proc/self", "doctor"]) == 6
    out, err = capfd.readouterr()
    assert "ill      writing" in out
    assert "Traceback" not in err
    assert "-C FOLDER" in err


def test_the_kind_of_file_system_is_the_one_mounted_nearest() -> None:
    assert file_system(Path("/proc/self")) == "proc"
    assert file_system(Path("/dev/shm")) in ("tmpfs", "ramfs")


def test_a_package_with_a_known_hole_is_ill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "ray-2.40.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.40.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    ray = next(check for check in doctor(tmp_path) if check.name == "ray")
    assert (ray.state, ray.advice) == ("ill", "pip install 'ray>=2.54'")


def test_a_file_from_the_future_says_that_the_clock_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").touch()
    assert states(tmp_path)["clock"] == "well"
    os.utime(tmp_path / "run" / "file", (4e9, 4e9))
    assert states(tmp_path)["clock"] == "careful"


def test_more_threads_than_cores_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "9999")
    assert states(tmp_path)["cores"] == "careful"


def test_locks_are_tried_and_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    assert _locking(tmp_path / "file").state == "well"
    monkeypatch.setattr("fcntl.flock", lambda *_: None)  # as NFS without a lock service does
    assert _locking(tmp_path / "file").state == "ill"


def test_the_command_fits_80_columns_and_speaks_json(toy_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert max(map(len, capfd.readouterr().out.splitlines())) <= 80
    assert main(["doctor", "--json"]) == 0
    assert {"name", "state", "found", "advice"} == set(json.loads(capfd.readouterr().out)[0])
