"""What every test has: one thread, fixed seeds, a folder of its own, a toy experiment in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def quiet_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One torch thread, seeds fixed, the working folder is temporary."""
    import torch

    from batteries.prepare.seed import seed_everything

    torch.set_num_threads(1)
    seed_everything(0)
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
