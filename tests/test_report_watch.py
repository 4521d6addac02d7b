"""`batteries report` as a process: it watches a folder, outlives what cannot be reported, and opens a browser."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from batteries.score.ledger import Ledger
from entries import entry_of

PATIENCE = 60.0
COMMAND = (sys.executable, "-m", "batteries", "report")


class Watching:
    """A process whose lines of output are read as they come."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "--watch", "--every", "0.5", *arguments],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.lines: queue.Queue[str] = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.rstrip())

    def line(self) -> str:
        return self.lines.get(timeout=PATIENCE)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextmanager
def watching(folder: Path) -> Iterator[Watching]:
    started = Watching(folder)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One entry with its score."""
    values, targets = np.random.default_rng(0).dirichlet(np.ones(3), size=90), np.arange(90) % 3
    entry = entry_of(tmp_path / "runs", "toy-001", values, targets, targets)
    with Ledger(tmp_path / "runs") as ledger:
        ledger.add_entry(entry.config)
        ledger.add_score(entry.name, "oof", 0.5, metric="log_loss", higher_is_better=False)
    return tmp_path


def test_watching_makes_the_page_once_goes_on_after_an_error_and_ends_with_a_still_page(folder: Path) -> None:
    page = folder / "runs" / "report.html"
    with watching(folder) as watch:
        assert watch.line() == "the report: runs/report.html; made again as runs change, looked at every 0.5 s"
        assert watch.line() == "Ctrl-C ends it"
        assert "location.reload" in page.read_text()
        made_at = page.stat().st_mtime_ns
        with pytest.raises(queue.Empty):
            watch.lines.get(timeout=1.2)
        assert page.stat().st_mtime_ns == made_at
        (folder / "runs").rename(folder / "away")
        gone = watch.line()
        assert " not made again: runs holds nothing to report yet" in gone
        (folder / "away").rename(folder / "runs")
        assert watch.line().endswith(" made again")
        (folder / "runs" / "toy-001" / "oof.parquet").write_bytes(b"torn")
        assert "warning: left out: runs/toy-001/oof.parquet" in watch.line()
        assert watch.line().endswith(" made again")
        assert watch.stop() == 130
    assert "location.reload" not in page.read_text()


def test_watching_says_at_once_that_there_is_nothing_yet(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "--watch"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert "nothing to report yet" in done.stderr


def test_open_shows_the_page_in_the_browser_the_reader_chose(folder: Path) -> None:
    browser = folder / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {folder}/opened\n')
    browser.chmod(0o755)
    environment = {**os.environ, "BROWSER": f"{browser} %s"}
    subprocess.run([*COMMAND, "--open"], cwd=folder, env=environment, check=True, timeout=PATIENCE)
    assert (folder / "opened").read_text().strip() == (folder / "runs" / "report.html").resolve().as_uri()


def test_open_says_where_the_page_is_when_there_is_no_browser(folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("BROWSER", "DISPLAY")}
    done = subprocess.run(
        [*COMMAND, "--open"], cwd=folder, env={**environment, "PATH": str(folder)}, capture_output=True, text=True,
        check=True, timeout=PATIENCE,
    )  # fmt: skip
    assert f"no browser could be started; open it yourself: file://{folder.resolve()}/runs/report.html" in done.stderr
