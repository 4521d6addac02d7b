"""Trackers: the numbers of a training shown elsewhere, with the real programs that show them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from batteries.errors import UsageError
from batteries.train import trackers
from batteries.train.log import MetricLog
from batteries.train.trackers import TensorBoard, WandB

DOCS = Path(__file__).parent.parent / "docs" / "trackers.md"

OFFLINE = """
import sys
from batteries.train.log import MetricLog
from batteries.train.trackers import WandB

with MetricLog("log", tensorboard=False, trackers=[
    WandB("digits", name="digits-001/fold0", mode="offline", folder="kept", config={"lr": 0.001})
]) as log:
    for step in (50, 100):
        log.write(step=step, stage="head", **{"train/loss": 1 / step})
    log.measure(step=100, **{"speed/samples_per_second": 1000.0})
"""

READ = """
import json, struct, sys
from pathlib import Path
from wandb.proto.wandb_internal_pb2 import Record

data, at = Path(sys.argv[1]).read_bytes(), 7  # a LevelDB log behind a head of 7 bytes, in one block here
assert data[:4] == b":W&B" and len(data) < 2**15
found = {"history": []}
while at < len(data):
    length, whole = struct.unpack_from("<HB", data, at + 4)
    assert whole == 1
    record = Record.FromString(data[at + 7 : at + 7 + length])
    at += 7 + length
    kind = record.WhichOneof("record_type")
    if kind == "run":
        found["run"] = {"id": record.run.run_id, "name": record.run.display_name, "host": record.run.host}
        found["config"] = {item.key: json.loads(item.value_json) for item in record.run.config.update}
    if kind == "history":
        items = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        found["history"].append({k: json.loads(v) for k, v in items.items() if not k.startswith("_")})
print(json.dumps(found))
"""


def run(code: str, *arguments: str, folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own: wandb keeps a service beside and hooks into the interpreter."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=folder, env={**clean, "HOME": str(home)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A log with WandB, offline, written twice as a resumed run does, in a home that was empty."""
    pytest.importorskip("wandb")
    folder, home = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("home")
    done = [run(OFFLINE, folder=folder, home=home) for _ in range(2)]
    return {
        "done": done,
        "folder": folder,
        "home": home,
        "runs": sorted(folder.glob("kept/wandb/offline-run-*/*.wandb")),
    }


def test_wandb_offline_keeps_numbers_and_config(offline: dict[str, Any]) -> None:
    read = run(READ, str(offline["runs"][0]), folder=offline["folder"], home=offline["home"])
    assert read.returncode == 0, read.stderr
    found = json.loads(read.stdout)
    assert found["run"] == {"id": offline["runs"][0].stem.removeprefix("run-"), "name": "digits-001/fold0", "host": ""}
    assert found["config"]["lr"] == 0.001
    assert found["history"] == [
        {"update": 50, "train/loss": 0.02},
        {"update": 100, "train/loss": 0.01},
        {"update": 100, "speed/samples_per_second": 1000.0},
    ]


def test_wandb_offline_is_quiet_and_writes_to_its_folder_only(offline: dict[str, Any]) -> None:
    for done in offline["done"]:
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(path.name for path in offline["folder"].iterdir()) == ["kept", "log"]
    assert sorted(path.name for path in (offline["folder"] / "kept").iterdir()) == ["wandb"]
    assert list(offline["home"].rglob("*")) == []


def test_a_resumed_run_has_the_id_that_it_had(offline: dict[str, Any]) -> None:
    assert len(offline["runs"]) == 2
    assert len({path.name for path in offline["runs"]}) == 1


def test_other_names_and_projects_are_other_runs() -> None:
    pytest.importorskip("wandb")
    ids = {WandB(project, name=name)._id for project in ("a", "b") for name in ("a", "b")}
    assert len(ids) == 4
    assert WandB("a")._id is None


def test_wandb_that_is_not_installed_is_said_before_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"wandb is not installed; run pip install 'batteries\[track\]'"):
        WandB("digits")


def test_a_folder_that_wandb_left_is_not_taken_for_wandb(tmp_path: Path) -> None:
    (tmp_path / "wandb").mkdir()
    code = "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]; sys.path.insert(0, '.')\n"
    code += f"sys.path.append({str(Path(trackers.__file__).parents[2])!r})\n"
    code += "from batteries.train.trackers import WandB; WandB('digits')"
    done = run(code, folder=tmp_path, home=tmp_path)
    assert "UsageError: wandb is not installed" in done.stderr


def test_the_csv_tracker_of_the_docs_works(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(blocks) == 1
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    tracker = names["Csv"](tmp_path / "numbers.csv")
    for step in (1, 2):
        with MetricLog(tmp_path, tensorboard=False, trackers=[tracker]) as log:
            log.write(step=step, stage="head", loss=0.5, lr=float("nan"))
    assert (tmp_path / "numbers.csv").read_text() == "1,loss,0.5\n1,lr,nan\n2,loss,0.5\n2,lr,nan\n"
    tracker._file.close()


def test_tensorboard_may_be_written_again_after_it_was_closed(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    for step in (1, 2):
        board.write(step, {"loss": float(step)})
        board.close()
    board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 2.0)]


def test_tensorboard_that_is_never_written_leaves_no_file(tmp_path: Path) -> None:
    TensorBoard(tmp_path / "board").close()
    assert not (tmp_path / "board").exists()
