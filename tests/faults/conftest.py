"""What the fault suite has more than other tests: a disk that fails on demand."""

from __future__ import annotations

import shutil
import time

import acts
import pytest

from goals import figure

BEGAN = time.monotonic()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Note how long the suite took, once."""
    if not hasattr(session.config, "workerinput"):
        figure("G16", minutes=round((time.monotonic() - BEGAN) / 60, 1))


@pytest.fixture(scope="session")
def disk() -> None:
    """Processes of `acts` can be made to fail or die at any act on a file."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc: the shim that lets a disk fail cannot be compiled")
    acts.preload()
