"""Workers: whatever goes wrong with one is named, and none is left behind."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from batteries.errors import ExperimentError, ResourceError
from batteries.train import workers as workers_module
from batteries.train.loaders import Loader


class Told(Dataset[Any]):
    """Notes the process that reads; does something bad at one row."""

    def __init__(self, folder: Path, bad: Callable[[], object] = bool, *, at: int = 5, size: int = 40) -> None:
        self.folder = folder
        self.bad = bad
        self.at = at
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, row: int) -> int:
        (self.folder / str(os.getpid())).touch()
        if row == self.at:
            self.bad()
        return row


class Flowing(IterableDataset[int]):
    """The same as a stream."""

    def __init__(self, inner: Told) -> None:
        self.inner = inner

    def __iter__(self) -> Iterator[int]:
        return (self.inner[row] for row in range(len(self.inner)))

    def __len__(self) -> int:
        return len(self.inner)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pids").mkdir()
    return tmp_path / "pids"


def living(folder: Path) -> list[int]:
    """Processes noted there that are still running, this one aside."""
    pids = {int(path.name) for path in folder.iterdir()} - {os.getpid()}
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


OPTIONS = {"batch_size": 2, "labelled": False, "num_workers": 2, "timeout": 30.0, "collate": list}
"""Lists of numbers: memory shared with a stopped worker could not be opened."""


def loader(dataset: Any, **options: Any) -> Loader:
    return Loader(dataset, **{**OPTIONS, **options})


def die(signum: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), signum)


class TwoArguments(Exception):
    """Cannot be made again from one message, as torch would."""

    def __init__(self, what: str, number: int) -> None:
        super().__init__(what, number)


class Unpicklable(Exception):
    """Holds what no queue can carry."""

    def __init__(self) -> None:
        super().__init__("no way", lambda: None)


def fail() -> None:
    raise TwoArguments("bad pixel", 7)


@pytest.mark.parametrize(
    ("bad", "how"),
    [
        (die, r"was killed by SIGKILL"),
        (lambda: die(signal.SIGSEGV), r"was killed by SIGSEGV"),
        (lambda: os._exit(3), r"ended itself with code 3"),
    ],
)
def test_a_dead_worker_is_named_with_the_rows_it_was_reading(
    folder: Path, bad: Callable[[], object], how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ResourceError, match=rf"worker 0 of 2 \(process \d+\) {how} at row 5 of Told") as caught:
        list(loader(Told(folder, bad)).epoch(0))
    assert caught.value.exit_code == 6
    assert len(list(folder.iterdir())) == 2
    assert living(folder) == []


def stop() -> None:
    time.sleep(0.5)  # its earlier batch is sent: stopped in the middle of that, it would hold up the others too
    die(signal.SIGSTOP)


@pytest.mark.parametrize("bad", [lambda: time.sleep(1000), stop])
def test_a_hung_worker_is_named_and_ended(folder: Path, bad: Callable[[], object]) -> None:
    message = r"worker 0 of 2 gave nothing for 2 s, at row 5 of Told\. .*raise the loader's timeout"
    with pytest.raises(ResourceError, match=message):
        list(loader(Told(folder, bad), timeout=2).epoch(0))
    assert len(list(folder.iterdir())) == 2
    assert living(folder) == []


@pytest.mark.parametrize(("bad", "how"), [(die, "was killed by SIGKILL"), (lambda: time.sleep(1000), "gave nothing")])
def test_a_stream_whose_worker_fails_is_named_too(folder: Path, bad: Callable[[], object], how: str) -> None:
    with pytest.raises(ResourceError, match=rf"worker 0 of 1 .*{how}.* at sample 5 of Flowing"):
        list(loader(Flowing(Told(folder, bad)), timeout=2).epoch(0))
    assert len(list(folder.iterdir())) == 1
    assert living(folder) == []


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("stream", [False, True])
def test_an_exception_of_the_dataset_comes_as_it_is_and_names_the_row(folder: Path, workers: int, stream: bool) -> None:
    told = Told(folder, fail)
    with pytest.raises(TwoArguments) as caught:
        list(loader(Flowing(told) if stream else told, num_workers=workers).epoch(0))
    assert caught.value.args == ("bad pixel", 7)
    notes = "\n".join(caught.value.__notes__)
    assert ("while reading sample 5 of Flowing" if stream else "while reading row 5 of Told") in notes
    if workers:
        used = 1 if stream else workers
        assert f"in worker 0 of {used}; there:\nTraceback" in notes
        assert 'raise TwoArguments("bad pixel", 7)' in notes
    assert living(folder) == []


def test_an_exception_that_no_queue_can_carry_is_told_by_its_name(folder: Path) -> None:
    def bad() -> None:
        raise Unpicklable

    with pytest.raises(RuntimeError, match=r"Unpicklable: \('no way'") as caught:
        list(loader(Told(folder, bad)).epoch(0))
    assert "raise Unpicklable" in caught.value.__notes__[-1]


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_ours_in_a_worker_stays_one(folder: Path, stream: bool) -> None:
    def refuse(samples: list[Any]) -> Any:
        raise ExperimentError("no")

    told = Told(folder)
    with pytest.raises(ExperimentError, match=r"^no\b"):
        list(loader(Flowing(told) if stream else told, collate=refuse).epoch(0))


def test_a_worker_that_dies_meanwhile_raises_in_the_loader_and_nowhere_else(folder: Path) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    batches = loader(Told(folder, size=400)).epoch(0)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) is before
    for pid in living(folder)[:1]:
        os.kill(pid, signal.SIGKILL)
    for _ in range(20):
        time.sleep(0.01)  # PyTorch's handler of SIGCHLD would raise here
    with pytest.raises(ResourceError, match="was killed by SIGKILL"):
        list(batches)
    assert signal.getsignal(signal.SIGCHLD) is before
    assert living(folder) == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_is_left_to_the_main_process(folder: Path, signum: int) -> None:
    batches = loader(Told(folder, size=400)).epoch(0)
    next(batches)
    for pid in living(folder):
        os.kill(pid, signum)
    assert len(list(batches)) == 199
    assert living(folder) == []


@pytest.mark.parametrize("stream", [False, True])
def test_workers_end_with_an_epoch_that_is_left_early(folder: Path, stream: bool) -> None:
    told = Told(folder, size=400)
    batches = loader(Flowing(told) if stream else told).epoch(0)
    next(batches)
    assert len(living(folder)) in (1, 2)
    batches.close()
    assert living(folder) == []


def test_workers_in_a_long_sample_are_not_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_module, "_PATIENCE", 0.5)
    batches = loader(Told(folder, lambda: time.sleep(1000))).epoch(0)
    next(batches)
    batches.close()
    assert living(folder) == []


MAIN = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_workers import Told, loader
import time
batches = loader(Told(Path({folder!r}), lambda: time.sleep({hang}), size=400)).epoch(0)
next(batches)
print("begun", flush=True)
{then}
"""


KILL = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(("then", "hang"), [("", 1000), ("1 / 0", 0), (KILL, 0), (KILL, 1000)])
def test_workers_end_with_the_main_process(folder: Path, then: str, hang: int) -> None:
    script = MAIN.format(tests=str(Path(__file__).parent), folder=str(folder), then=then, hang=hang)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "begun\n", done.stderr
    assert len(list(folder.iterdir())) in (1, 2)
    patience = time.monotonic() + 60  # they look for their parent every few seconds
    while living(folder) and time.monotonic() < patience:
        time.sleep(0.1)
    assert living(folder) == []


class Threads(Dataset[Any]):
    """How many threads PyTorch uses, and how many workers there are."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> Any:
        info = get_worker_info()
        assert info is not None
        return torch.get_num_threads(), info.num_workers


def test_a_worker_uses_one_thread() -> None:
    for batch in loader(Threads(), timeout=math.inf).epoch(0):
        assert batch.inputs == [(1, 2), (1, 2)]
