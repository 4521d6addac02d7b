"""What every test has: one thread, fixed seeds, a folder of its own, a toy experiment in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from postgres import backend as backend
from postgres import postgres as postgres

HERE = Path(__file__).parent

torch.set_num_threads(1)  # before any fixture trains: sums depend on the number of threads
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


LONGEST = ("test_launch", "test_resume", "test_distributed", "test_cli", "test_demo")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first, so that no process is left alone with one at the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def quiet_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds are fixed, the working folder is temporary, the ledger is in it."""
    from batteries.prepare.seed import seed_everything

    seed_everything(0)
    monkeypatch.delenv("BATTERIES_LEDGER", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def toy_folder(tmp_path: Path) -> Path:
    """An experiment folder holding the toy as experiment.py."""
    shutil.copy(HERE / "toy.py", tmp_path / "experiment.py")
    return tmp_path


@pytest.fixture
def change(toy_folder: Path) -> Callable[[str, str], None]:
    """Replace a text in the toy's file: change("metric = ...", "metric = 1")."""

    def replace(old: str, new: str) -> None:
        path = toy_folder / "experiment.py"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return replace
