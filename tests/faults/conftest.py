"""What the fault suite has more than other tests: a disk that fails on demand."""

from __future__ import annotations

import shutil

import acts
import pytest


@pytest.fixture(scope="session")
def disk() -> None:
    """Processes of `acts` can be made to fail or die at any act on a file."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: the shim that lets a disk fail cannot be compiled")
    acts.preload()
