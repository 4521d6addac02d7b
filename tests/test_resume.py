"""Resume: stopped at any instant and started again, a run ends as one that was never stopped. Byte for byte."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import batteries as bt
import killing
from batteries.errors import Interrupted
from batteries.experiment import load_experiment
from batteries.files import read_sealed
from batteries.train.checkpoint import Checkpoints
from batteries.train.log import read_metrics
from batteries.train.run import train_run

HARD = ("--set", "average=ema", "--set", "accumulate=3", "--set", "batch_size=4")
"""Averages, groups with a short last one, augmentation, dropout and batch norm, all at once."""

MOMENT = '''    def training_step(self, model, batch):
        """Do to ourselves what the test asks for at the n-th batch of this process."""
        import os, signal

        Toy.batches = getattr(Toy, "batches", 0) + 1
        name, _, number = os.environ.get("TOY_SIGNAL", "").partition(":")
        if name and Toy.batches == int(number):
            os.kill(os.getpid(), getattr(signal, name))
        return super().training_step(model, batch)

    def model('''


def toy_in(folder: Path) -> Path:
    """An experiment folder whose experiment can signal its own process."""
    folder.mkdir(parents=True, exist_ok=True)
    text = (Path(__file__).parent / "toy.py").read_text()
    (folder / "experiment.py").write_text(text.replace("    def model(", MOMENT, 1))
    return folder


STORMY = (*HARD, "--fold", "0")


def stormy_in(folder: Path, *, saving: bool = True) -> Path:
    """The same with clipping, another schedule and lines within epochs; `saving` after every update."""
    path = toy_in(folder) / "experiment.py"
    text = path.read_text()
    text = text.replace("accumulate=self.accumulate)", 'accumulate=self.accumulate, clip=0.5, schedule="one-cycle")')
    often = f"    log_every = 2\n    save_every = {0.0 if saving else 600.0}\n"
    path.write_text(text.replace("    metric = ", f"{often}    metric = ", 1))
    return folder


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run promises: predictions, metrics, scores to the byte; the best state of every stage to the bit.

    Weights are compared as numbers, since a state that went through a file is pickled in other bytes.
    """
    root = folder / "runs" / "toy-001"
    found: dict[str, Any] = {
        str(path.relative_to(root)): path.read_bytes()
        for name in ("oof.parquet", "test.parquet", "metrics.jsonl")
        for path in root.rglob(name)
    }
    for path in root.rglob("fold.json"):  # numbers of checkpoints count saves, those on a signal too
        result = {key: value for key, value in read_sealed(path).items() if key != "checkpoint"}
        found[str(path.relative_to(root))] = result
    for stage in root.rglob("stage-*"):
        checkpoints = Checkpoints(stage, metric=bt.Metric.accuracy())
        assert (stage / "best.pt").samefile(checkpoints.best()[0].path)
        for number, checkpoint in enumerate([*checkpoints.best(2), checkpoints.last]):
            assert checkpoint is not None
            state = torch.load(checkpoint.path, weights_only=True)
            found[f"{stage.relative_to(root)} {number}"] = checkpoint.score, checkpoint.info["step"], plain(state)
    return found


def plain(value: Any) -> Any:
    """Tensors as their bytes, so that states compare bit for bit."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list | tuple) else value


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert [name for name in wanted if found.get(name) != wanted[name]] == []
    assert found.keys() == wanted.keys()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """What a run that nobody stopped ends with, and how many moments it has at which it could be killed."""
    folder = toy_in(tmp_path_factory.mktemp("whole"))
    code, printed = killing.train(folder, *HARD)
    assert code == 0, printed
    return outcome(folder), int(printed.rpartition("moments: ")[2])


# --- killed


@pytest.mark.parametrize("share", [0.15, 0.56, 0.68, 0.97])
def test_killed_once_it_ends_as_if_never_killed(
    tmp_path: Path, whole: tuple[dict[str, Any], int], share: float
) -> None:
    wanted, moments = whole
    toy_in(tmp_path)
    assert killing.train(tmp_path, *HARD, kill_at=int(share * moments))[0] == -signal.SIGKILL
    code, printed = killing.train(tmp_path, *HARD)
    assert code == 0, printed
    assert_same(outcome(tmp_path), wanted)
    assert "goes on" in printed


def test_killed_again_and_again_it_ends_as_if_never_killed(tmp_path: Path, whole: tuple[dict[str, Any], int]) -> None:
    wanted, moments = whole
    toy_in(tmp_path)
    kills = 0
    while killing.train(tmp_path, *HARD, kill_at=61)[0] == -signal.SIGKILL:
        kills += 1
        assert kills < moments, "no progress between kills"
    assert kills >= 4
    assert_same(outcome(tmp_path), wanted)


def test_a_kill_leaves_nothing_half_written_behind_once_the_run_is_complete(
    tmp_path: Path, whole: tuple[dict[str, Any], int]
) -> None:
    toy_in(tmp_path)
    for kill_at in (40, 60):
        killing.train(tmp_path, *HARD, kill_at=kill_at)
    assert killing.train(tmp_path, *HARD)[0] == 0
    stages = list((tmp_path / "runs").rglob("stage-*"))
    assert len(stages) == 4
    for stage in stages:
        checkpoints = Checkpoints(stage, metric=bt.Metric.accuracy())
        files = {f"checkpoint-{c.number:06d}.{end}" for c in checkpoints._all for end in ("pt", "json")}
        assert {path.name for path in stage.iterdir()} == files | {"last.pt", "best.pt"}


# --- at thirty random moments


def moments_of(storms: int, *, seed: int, between: tuple[float, float] = (0.0, 1.0)) -> list[float]:
    """Shares of a run, drawn at random, one from each of `storms` equal parts of it."""
    draw = random.Random(seed)
    low, high = between
    return [round(low + (high - low) * (part + draw.random()) / storms, 3) for part in range(storms)]


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """How a run that saves at the end of epochs only ends, and how many moments one has that saves at every update."""
    folder = stormy_in(tmp_path_factory.mktemp("calm"), saving=False)
    code, printed = killing.train(folder, *STORMY)
    assert code == 0, printed
    saving = stormy_in(tmp_path_factory.mktemp("saving"))
    code, printed = killing.train(saving, *STORMY)
    assert code == 0, printed
    assert_same(outcome(saving), outcome(folder))
    return outcome(folder), int(printed.rpartition("moments: ")[2])


@pytest.mark.parametrize("share", moments_of(30, seed=1))
def test_killed_at_a_random_moment_it_ends_bit_for_bit_as_if_never_killed(
    tmp_path: Path, calm: tuple[dict[str, Any], int], share: float
) -> None:
    wanted, moments = calm
    stormy_in(tmp_path)
    assert killing.train(tmp_path, *STORMY, kill_at=max(1, int(share * moments)))[0] == -signal.SIGKILL
    code, printed = killing.train(tmp_path, *STORMY)
    assert code == 0, printed
    assert_same(outcome(tmp_path), wanted)


@pytest.mark.parametrize("share", moments_of(15, seed=2, between=(0.05, 0.93)))
def test_asked_to_stop_at_a_random_moment_it_leaves_with_143_and_goes_on_bit_for_bit(
    tmp_path: Path, calm: tuple[dict[str, Any], int], share: float
) -> None:
    wanted, moments = calm
    stormy_in(tmp_path)
    code, printed = killing.train(tmp_path, *STORMY, kill_at=int(share * moments), signum=signal.SIGTERM)
    assert code == 143, printed
    assert "stopped by SIGTERM in fold 0 of toy-001; all is saved." in printed
    code, printed = killing.train(tmp_path, *STORMY)
    assert code == 0, printed
    assert_same(outcome(tmp_path), wanted)


def test_a_run_killed_within_an_epoch_goes_on_within_it(tmp_path: Path, calm: tuple[dict[str, Any], int]) -> None:
    stormy_in(tmp_path)
    killing.train(
        tmp_path, *STORMY, variable="SIGKILL:31"
    )  # the seventh batch of the fourth epoch, in its third update
    assert saved_in_the_middle_of_an_epoch(tmp_path)
    assert killing.train(tmp_path, *STORMY, variable="SIGKILL:2")[0] == -signal.SIGKILL
    last = Checkpoints(tmp_path / "runs/toy-001/fold0/stage-head", metric=bt.Metric.accuracy()).last
    assert last is not None
    assert (last.info["epoch"], last.info["update"]) in [(3, 1), (3, 2)]  # the second save may not have been ended
    assert killing.train(tmp_path, *STORMY)[0] == 0
    assert_same(outcome(tmp_path), calm[0])


# --- asked to stop


def saved_in_the_middle_of_an_epoch(folder: Path) -> bool:
    newest = max((folder / "runs").rglob("checkpoint-*.json"), key=lambda path: path.stat().st_mtime_ns)
    last = Checkpoints(newest.parent, metric=bt.Metric.accuracy()).last
    return last is not None and last.info["update"] > 0 and last.score is None


def test_ctrl_c_saves_in_the_middle_of_an_epoch_and_leaves_with_130_and_one_line(
    tmp_path: Path, whole: tuple[dict[str, Any], int]
) -> None:
    toy_in(tmp_path)
    stopped = subprocess.run(
        [sys.executable, "-m", "batteries", "train", *HARD],
        cwd=tmp_path,
        env={**os.environ, "TOY_SIGNAL": "SIGINT:21", "OMP_NUM_THREADS": "1"},  # other sums with other threads
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert stopped.returncode == 130
    assert stopped.stderr == (
        "stopped by SIGINT in fold 0 of toy-001; all is saved. The same command goes on from there\n"
    )
    assert saved_in_the_middle_of_an_epoch(tmp_path)
    assert killing.train(tmp_path, *HARD)[0] == 0
    assert_same(outcome(tmp_path), whole[0])


@pytest.mark.parametrize("batch", [68, 72])
def test_sigterm_does_the_same_with_143(tmp_path: Path, whole: tuple[dict[str, Any], int], batch: int) -> None:
    toy_in(tmp_path)
    code, printed = killing.train(tmp_path, *HARD, variable=f"SIGTERM:{batch}")
    assert code == 143
    assert "stopped by SIGTERM in fold 1 of toy-001; all is saved." in printed
    assert saved_in_the_middle_of_an_epoch(tmp_path)
    assert killing.train(tmp_path, *HARD)[0] == 0
    assert_same(outcome(tmp_path), whole[0])


WORKERS = """class Stopping(torch.utils.data.Dataset):
    def __init__(self, points, labels):
        self.points, self.labels = points, labels

    def __len__(self):
        return len(self.points)

    def __getitem__(self, row):
        import multiprocessing, os, signal

        if torch.utils.data.get_worker_info() and os.environ.get("TOY_SIGNAL") == "all:0" and row == 20:
            os.kill(multiprocessing.parent_process().pid, signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return self.points[row], self.labels[row]


@dataclass(kw_only=True)
class Toy("""


def test_sigterm_to_the_loaders_workers_too_leaves_with_143_and_a_run_that_goes_on(tmp_path: Path) -> None:
    path = toy_in(tmp_path) / "experiment.py"
    text = path.read_text().replace("@dataclass(kw_only=True)\nclass Toy(", WORKERS)
    samples = "        return Stopping(points, torch.from_numpy(self.targets(rows).copy()))\n        return points, "
    path.write_text(text.replace("        return points, ", samples))
    workers = ("--set", "num_workers=2", "--fold", "0")
    code, printed = killing.train(tmp_path, *workers, variable="all:0")
    assert code == 143, printed
    assert "saved. The same command goes on from there" in printed
    assert killing.train(tmp_path, *workers)[0] == 0


def test_a_second_process_on_the_same_run_leaves_at_once_with_code_8(tmp_path: Path) -> None:
    toy_in(tmp_path)
    first = killing.start(tmp_path, *HARD, variable="SIGSTOP:5")
    assert first.pid is not None
    status = Path(f"/proc/{first.pid}/stat")
    until = time.monotonic() + 30
    while status.read_text().rpartition(") ")[2][0] != "T" and time.monotonic() < until:
        time.sleep(0.01)
    code, printed = killing.train(tmp_path, *HARD)
    assert code == 8
    assert f"runs/toy-001 is in use by process {first.pid} on " in printed
    first.kill()
    first.join()
    assert killing.train(tmp_path, *HARD)[0] == 0  # the lock of a dead process holds nobody up


# --- in one process, where each moment can be chosen by what the experiment does


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., bt.Run]]:
    """Train the toy in this process: `toy(average="swa")`."""
    toy_in(tmp_path)

    def trained(folder: Path = tmp_path, **fields: object) -> bt.Run:
        return train_run(load_experiment(folder, values=fields), folder / "runs", device="cpu", progress=False)

    yield trained
    sys.modules.pop("experiment", None)


class Crash(Exception):
    """What a user's code may raise at any time."""


def crashing(monkeypatch: pytest.MonkeyPatch, folder: Path, method: str, number: int) -> None:
    """Let the experiment's `method` fail when it is called for the `number`-th time."""
    cls = type(load_experiment(folder))
    real, calls = getattr(cls, method), []

    def call(*arguments: object, **named: object) -> object:
        calls.append(method)
        if len(calls) == number:
            raise Crash(f"{method}, call {number}")
        return real(*arguments, **named)

    monkeypatch.setattr(cls, method, call)


@pytest.mark.parametrize(
    ("average", "method", "number"),
    [
        (None, "model", 2),
        (None, "predict_step", 9),
        (None, "targets", 5),
        ("swa", "training_step", 22),
        ("swa", "dataset", 9),
        ("swa", "optimizer", 3),
    ],
)
def test_code_of_the_user_that_fails_anywhere_loses_nothing(
    tmp_path: Path,
    toy: Callable[..., bt.Run],
    monkeypatch: pytest.MonkeyPatch,
    references: Callable[..., dict[str, Any]],
    method: str,
    number: int,
    average: str | None,
) -> None:
    with monkeypatch.context() as patched:
        crashing(patched, tmp_path, method, number)
        with pytest.raises(Crash, match=method):
            toy(average=average)
    toy(average=average)
    assert_same(outcome(tmp_path), references(average=average))


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """The outcome of an uninterrupted run with the given fields, made once."""
    made: dict[str, dict[str, Any]] = {}

    def reference(**fields: object) -> dict[str, Any]:
        if str(fields) not in made:
            folder = toy_in(tmp_path_factory.mktemp("reference"))
            train_run(load_experiment(folder, values=fields), folder / "runs", device="cpu", progress=False)
            made[str(fields)] = outcome(folder)
        return made[str(fields)]

    return reference


@pytest.mark.parametrize("batch", [1, 3, 4, 16, 17, 24, 25])
def test_interrupted_in_the_first_last_or_any_update_of_an_epoch_or_stage_it_goes_on(
    tmp_path: Path,
    toy: Callable[..., bt.Run],
    monkeypatch: pytest.MonkeyPatch,
    references: Callable[..., dict[str, Any]],
    batch: int,
) -> None:
    """Four batches an epoch: four epochs of the first stage, two of the second, then the next fold."""
    monkeypatch.setattr(type(load_experiment(tmp_path)), "batches", 0, raising=False)
    monkeypatch.setenv("TOY_SIGNAL", f"SIGTERM:{batch}")
    with pytest.raises(Interrupted, match=f"stopped by SIGTERM in fold {batch // 25} of toy-001"):
        toy(average="swa")
    monkeypatch.delenv("TOY_SIGNAL")
    toy(average="swa")
    assert_same(outcome(tmp_path), references(average="swa"))


PATIENT = """        return [bt.Stage("only", epochs=9, lr=1e-6, patience=2), bt.Stage("then", epochs=1, lr=self.lr)]
        return ["""


def test_patience_runs_out_at_the_same_epoch_after_a_resume(
    tmp_path: Path, toy: Callable[..., bt.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "experiment.py"
    path.write_text(path.read_text().replace("        return [\n", PATIENT))
    other = tmp_path / "whole"
    other.mkdir()
    shutil.copy(path, other)
    with monkeypatch.context() as patched:
        crashing(patched, tmp_path, "training_step", 10)
        with pytest.raises(Crash):
            toy()
    run = toy()
    only = [row["epoch"] for row in read_metrics(run.fold_folder(0) / "metrics.jsonl") if row["stage"] == "only"]
    assert only[-1] < 9
    toy(other)
    assert_same(outcome(tmp_path), outcome(other))


def test_a_damaged_newest_checkpoint_is_trained_again_from_the_one_before(
    tmp_path: Path,
    toy: Callable[..., bt.Run],
    monkeypatch: pytest.MonkeyPatch,
    references: Callable[..., dict[str, Any]],
) -> None:
    with monkeypatch.context() as patched:
        crashing(patched, tmp_path, "training_step", 11)
        with pytest.raises(Crash):
            toy(average=None)
    newest = tmp_path / "runs/toy-001/fold0/stage-head/checkpoint-000002.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with pytest.warns(UserWarning, match=r"checkpoint-000002.pt: was changed or damaged .* going back"):
        toy(average=None)
    assert_same(outcome(tmp_path), references(average=None))


def test_a_stage_that_is_over_is_not_trained_again_though_its_newest_checkpoint_is_damaged(
    tmp_path: Path,
    toy: Callable[..., bt.Run],
    monkeypatch: pytest.MonkeyPatch,
    references: Callable[..., dict[str, Any]],
) -> None:
    with monkeypatch.context() as patched:
        crashing(patched, tmp_path, "training_step", 21)
        with pytest.raises(Crash):
            toy(average=None)
    newest = tmp_path / "runs/toy-001/fold0/stage-head/checkpoint-000004.pt"
    content = newest.read_bytes()
    newest.write_bytes(b"damaged")
    toy(average=None)
    newest.write_bytes(content)
    assert_same(outcome(tmp_path), references(average=None))


DRAWING = """    def dataset(self, rows, *, training):
        points, labels = self.drawn(rows, training=training)
        return points + 0.01 * torch.randn(points.shape), labels

    def drawn("""


def test_a_dataset_that_draws_while_it_is_made_draws_the_same_after_a_resume(
    tmp_path: Path, toy: Callable[..., bt.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "experiment.py"
    path.write_text(path.read_text().replace("    def dataset(", DRAWING))
    other = tmp_path / "whole"
    other.mkdir()
    shutil.copy(path, other)
    with monkeypatch.context() as patched:
        crashing(patched, tmp_path, "training_step", 10)
        with pytest.raises(Crash):
            toy()
    toy()
    toy(other)
    assert_same(outcome(tmp_path), outcome(other))
