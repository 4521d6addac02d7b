"""Launch: `batteries train --ddp 2` ends whatever happens to its processes, says who was at fault, and goes on."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from batteries.errors import UsageError
from batteries.train.launch import launch
from processes import command
from test_resume import assert_same, outcome, saved_in_the_middle_of_an_epoch, toy_in

FAULTS = '''
    def fault(self, phase):
        """Do what TOY_FAULT asks for, `step:1:SIGKILL`, when this rank first comes to that phase of fold 0."""
        import errno, os, signal, time

        wanted, rank, what = (os.environ.get("TOY_FAULT") or "::").split(":")
        if (wanted, rank) != (phase, os.environ.get("RANK")):
            if wanted == phase == "evaluation":
                time.sleep(60)  # the other rank is busy, and talks to nobody
            return
        Path("fault").write_text(repr(time.time()))
        if what == "ENOSPC":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if what == "ValueError":
            raise ValueError("a bad row")
        if what == "exit":
            os._exit(5)
        if what == "wait":
            while not Path("seen").exists():
                time.sleep(0.05)
            return
        if what.startswith("launcher"):
            os.kill(os.getppid(), getattr(signal, what.removeprefix("launcher-")))
            os.environ["TOY_FAULT"] = ""
            time.sleep(2)  # there is no more than a second of work left
            return
        os.kill(os.getpid(), getattr(signal, what))

    def table(self):
        self.fault("start")
        return rows(60)

    def training_step(self, model, batch):
        Toy.batches = getattr(Toy, "batches", 0) + 1
        if Toy.batches == 20:
            self.fault("step")
        return super().training_step(model, batch)

    def predict_step(self, model, inputs):
        self.fault("evaluation")
        return model(inputs).softmax(dim=1)

    def model(self):
        if Path("runs/toy-001/fold0/fold.json").exists():
            self.fault("between")
        elif os.replace is REPLACE:
            os.replace = lambda *paths: [self.fault("save") if "checkpoint" in str(paths[1]) else None, REPLACE(*paths)]
        return self.layers()

    def layers('''
HARD = ("--set", "average=ema", "--set", "accumulate=3", "--set", "batch_size=4")
AGAIN = "Saved checkpoints are intact; the same command goes on from there"


def faulty_toy(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = (Path(__file__).parent / "toy.py").read_text()
    for method in ("table", "predict_step"):  # ours come instead
        text = re.sub(rf"\n    def {method}\(.*?\n\n", "\n", text, flags=re.DOTALL)
    text = text.replace("import numpy as np", "import os\nfrom pathlib import Path\n\nimport numpy as np", 1)
    text = text.replace("\n\n@dataclass", "\n\nREPLACE = os.replace\n\n\n@dataclass", 1)
    (folder / "experiment.py").write_text(text.replace("\n    def model(", FAULTS, 1))
    return folder


@dataclass
class Result:
    """How a command ended."""

    code: int
    text: str
    """What it printed, errors too."""
    seconds: float
    """From the fault to the end, or from the start."""


def command_of(folder: Path, *more: str, processes: int = 2) -> list[str]:
    where = ["-C", str(folder), "train", "--ddp", str(processes), "--device", "cpu"]
    return [sys.executable, "-m", "batteries", *where, *HARD, *more]


def train(folder: Path, *more: str, processes: int = 2, fault: str = "") -> Result:
    """Run `batteries train --ddp`; nothing of it may be left afterwards."""
    mark = uuid4().hex
    began = time.time()
    (folder / "fault").unlink(missing_ok=True)
    done = subprocess.run(
        command_of(folder, *more, processes=processes),
        env={**os.environ, "TOY_FAULT": fault, "TOY_MARK": mark, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    if (folder / "fault").exists():
        began = float((folder / "fault").read_text())
    result = Result(done.returncode, done.stdout + done.stderr, time.time() - began)
    print(f"{fault or 'no fault'}: code {result.code} after {result.seconds:.1f} s\n{result.text}")
    assert left(mark) == []
    return result


def left(mark: str) -> list[str]:
    """Processes that were started with a mark in their environment and still run, a moment later."""
    for _ in range(20):
        if not (found := running(mark)):
            break
        time.sleep(0.1)
    return found


def running(mark: str) -> list[str]:
    """Processes that were started with a mark in their environment and run."""
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/environ") if marked(path, mark)]


def marked(path: Path, mark: str) -> bool:
    try:
        return mark.encode() in path.read_bytes()
    except OSError:  # ended meanwhile, or is another user's
        return False


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run of two processes that nothing happened to ends with."""
    folder = faulty_toy(tmp_path_factory.mktemp("whole"))
    ended = command(folder, 2, "train", *HARD, "--device", "cpu")
    assert [code for code, _ in ended] == [0, 0], ended
    return outcome(folder)


def test_a_rank_killed_in_any_phase_ends_all_is_named_and_the_same_command_goes_on(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    """One run, killed five times on its way; bit for bit the one that was not."""
    faulty_toy(tmp_path)
    for fault in ("start:1", "save:0", "step:1", "evaluation:1", "between:0"):
        result = train(tmp_path, fault=f"{fault}:SIGKILL")
        assert result.code == 9
        assert result.text.count(f"error: rank {fault[-1]} of 2 was killed by SIGKILL. {AGAIN}\n") == 1
        assert "Traceback" not in result.text
        assert result.seconds < 30, fault  # 10 and less where nothing else runs; the busy rank would take 60
    result = train(tmp_path)
    assert result.code == 0
    assert "goes on: folds 1 are to do" in result.text
    assert_same(outcome(tmp_path), whole)


def test_a_rank_that_is_stopped_ends_all_after_the_timeout_is_named_and_does_not_answer(tmp_path: Path) -> None:
    result = train(faulty_toy(tmp_path), "--timeout", "5", fault="step:1:SIGSTOP")
    assert result.code == 9
    assert "error: rank 1 of 2 hung: it was silent for too long. Saved checkpoints are intact" in result.text
    waited, answer = result.text.split("rank 1 (pid ")
    assert re.search(r"^rank 0 \(pid \d+\) waited here, most recent call last:\n  File .*, in train\n", waited, re.M)
    assert " in _summed\n" in waited  # of the batch norms: not where the error was caught, but where it came from
    assert re.match(r"\d+\) did not answer; it is stopped\nerror: rank 1 of 2 hung", answer)
    assert 5 <= result.seconds < 35  # 15 and less where nothing else runs


def test_of_several_ranks_the_one_that_hangs_is_named_and_its_stack_is_shown(tmp_path: Path) -> None:
    result = train(faulty_toy(tmp_path), "--timeout", "5", processes=3, fault="step:1:wait")
    assert result.code == 9
    assert "error: rank 1 of 3 hung: it was silent for too long. Saved checkpoints are intact" in result.text
    (stack,) = re.findall(r"^rank 1 \(pid \d+\) is here:\n((?:(?!rank |error: ).*\n)+)", result.text, re.M)
    assert re.search(r'File ".*experiment.py", line \d+ in fault\n.* in training_step\n', stack)
    for rank in (0, 2):
        assert len(re.findall(rf"^rank {rank} \(pid \d+\) (?:waited|is) here", result.text, re.M)) == 1
    assert 5 <= result.seconds < 35


def test_the_processes_listen_to_their_own_machine_only(tmp_path: Path) -> None:
    mark = uuid4().hex
    started = subprocess.Popen(
        command_of(faulty_toy(tmp_path)),
        env={**os.environ, "TOY_FAULT": "step:1:wait", "TOY_MARK": mark, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    try:
        while not (tmp_path / "fault").exists():
            assert started.poll() is None
            time.sleep(0.1)
        processes = running(mark)
        found = listening(processes)
    finally:
        (tmp_path / "seen").touch()
    assert started.wait(60) == 0
    assert len(processes) >= 3
    assert found
    assert set(found) <= {"127.0.0.1", "::1"}


def listening(processes: list[str]) -> list[str]:
    """Addresses of the sockets on which some processes wait for others to come."""
    links = [str(link.readlink()) for process in processes for link in Path(f"/proc/{process}/fd").iterdir()]
    own = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    found = []
    for path, family in (("/proc/net/tcp", socket.AF_INET), ("/proc/net/tcp6", socket.AF_INET6)):
        for line in Path(path).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and inode in own:
                words = [bytes.fromhex(local.split(":")[0][i : i + 8])[::-1] for i in range(0, len(local) - 5, 8)]
                found.append(socket.inet_ntop(family, b"".join(words)))
    return found


def test_an_error_of_one_rank_ends_all_with_its_code_and_its_words(tmp_path: Path) -> None:
    result = train(faulty_toy(tmp_path), fault="step:1:ValueError")
    assert result.code == 2
    assert "rank 1: " in result.text
    assert result.text.count("a bad row") == 1
    assert "Traceback" not in result.text
    assert result.seconds < 30


def test_a_rank_that_ends_without_a_word_is_named(tmp_path: Path) -> None:
    result = train(faulty_toy(tmp_path), fault="step:1:exit")
    assert result.code == 9
    assert f"error: rank 1 of 2 ended itself with code 5 and said nothing. {AGAIN}" in result.text
    assert "Traceback" not in result.text


def test_a_full_disk_under_the_first_rank_ends_all_with_6(tmp_path: Path) -> None:
    result = train(faulty_toy(tmp_path), fault="save:0:ENOSPC")
    assert result.code == 6
    assert result.text.count("no space left") == 1
    assert result.seconds < 30


def test_signals_to_the_launcher_save_and_end_with_their_codes_and_the_run_goes_on(
    tmp_path: Path, whole: dict[str, Any]
) -> None:
    faulty_toy(tmp_path)
    for signal, code in (("SIGTERM", 143), ("SIGINT", 130), ("SIGKILL", -9)):
        result = train(tmp_path, fault=f"step:0:launcher-{signal}")
        assert result.code == code
        came = "SIGTERM" if signal == "SIGKILL" else signal  # what the ranks get when nobody leads them any more
        assert len(re.findall(f"stopped by {came} in fold . of toy-001; all is saved", result.text)) == 1
        assert "Traceback" not in result.text
        assert saved_in_the_middle_of_an_epoch(tmp_path)
    assert train(tmp_path).code == 0
    assert_same(outcome(tmp_path), whole)


def test_ranks_that_read_other_data_are_refused(tmp_path: Path) -> None:
    path = toy_in(tmp_path) / "experiment.py"
    text = path.read_text().replace("return rows(60)", "import os; return rows(60, first=int(os.environ['RANK']))")
    path.write_text(text)
    ended = command(tmp_path, 2, "train", "--device", "cpu")
    assert [code for code, _ in ended] == [3, 3]
    assert all("gave other data in the process of rank 1 than in that of rank 0" in text for _, text in ended)
    assert not list((tmp_path / "runs").glob("toy-*"))


def test_one_process_is_no_job_and_a_job_is_not_started_within_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--ddp 1: give 2 processes or more"):
        launch(["train"], 1, say=print)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with pytest.raises(UsageError, match="leave it out under torchrun"):
        launch(["train"], 2, say=print)
