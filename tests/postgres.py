"""A PostgreSQL server of the tests' own, on 127.0.0.1, that ends with them however they end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from processes import free_port

PASSWORD = "canary-7Zq@4/x"
USER = "batteries"
_WATCH = """
import os, shutil, signal, subprocess, sys
os.setsid()
sys.stdin.read()  # until the tests are gone
subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


@dataclass(frozen=True)
class Server:
    """A running server; `url(name)` is that of one of its databases."""

    port: int
    folder: Path
    programs: Path

    def url(self, name: str, *, password: str = PASSWORD, port: int | None = None) -> str:
        quoted = password.replace("@", "%40").replace("/", "%2F")
        return f"postgresql://{USER}:{quoted}@127.0.0.1:{port or self.port}/{name}"

    def make(self, name: str) -> str:
        """A new empty database; return its URL."""
        import psycopg

        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]
        return self.url(name)

    def control(self, *arguments: str) -> None:
        """Run pg_ctl."""
        _run(_as_user([str(self.programs / "pg_ctl"), "-D", str(self.folder / "data"), "-w", *arguments]))

    def stop(self) -> None:
        self.control("stop", "-m", "immediate")

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -c unix_socket_directories= -c max_connections=60"
        self.control("start", "-l", str(self.folder / "log"), "-o", options)


def missing() -> str | None:
    """Why no server can be started here; None where one can."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "needs psycopg"
    if _programs() is None:
        return "needs PostgreSQL's programs: apt-get install postgresql"
    if os.getuid() == 0 and shutil.which("runuser") is None:
        return "needs runuser: PostgreSQL does not run as root"
    return None


@contextmanager
def server() -> Iterator[Server]:
    """Start a server in a folder of its own, in about a second."""
    programs = _programs()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="batteries-postgres-"))
    (folder / "password").write_text(PASSWORD)
    if os.getuid() == 0:
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres")
    running = Server(free_port(), folder, programs)
    data = ["-D", str(folder / "data"), "-U", USER, "-A", "scram-sha-256", f"--pwfile={folder / 'password'}"]
    _run(_as_user([str(programs / "initdb"), *data, "-N", "-E", "UTF8", "--locale=C"]))
    stop = _as_user([str(programs / "pg_ctl"), "-D", str(folder / "data"), "-m", "immediate", "stop"])
    watcher = subprocess.Popen([sys.executable, "-c", _WATCH, str(folder), *stop], stdin=subprocess.PIPE)
    try:
        running.start()
        yield running
    finally:
        assert watcher.stdin is not None
        watcher.stdin.close()
        watcher.wait(30)


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def _as_user(command: list[str]) -> list[str]:
    return ["runuser", "-u", "postgres", "--", *command] if os.getuid() == 0 else command


def _run(command: list[str]) -> None:
    began = time.monotonic()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", timeout=60
    )
    assert done.returncode == 0, f"{command} after {time.monotonic() - began:.1f} s: {done.stdout.decode()}"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The server of all tests of a process."""
    if reason := missing():
        pytest.skip(reason)
    with server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where ledgers of the test are: a file in their folder, or a new database of the server."""
    if request.param == "postgresql":
        running: Server = request.getfixturevalue("postgres")
        monkeypatch.setenv("BATTERIES_LEDGER", running.make(uuid4().hex))
    return str(request.param)
