"""Progress: a person sees where the work is; a log file gets a line now and then."""

from __future__ import annotations

import io
import sys
import time

import pytest

from batteries import progress
from batteries.progress import Progress


def test_short_work_writes_nothing_to_a_log_file(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("folds", total=5) as work:
        for _ in range(5):
            work.advance()
    assert capsys.readouterr() == ("", "")


def test_long_work_writes_lines_to_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    with Progress("folds", total=4) as work:
        work.note("stage head")
        work.advance()
        work.advance(2)
    assert capsys.readouterr() == ("", "folds: 25% stage head\nfolds: 75% stage head\n")


def test_work_of_unknown_length_is_no_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    with Progress("rows", total=0) as work:
        work.advance()
    assert capsys.readouterr().err.startswith("rows: ")


def test_hidden_progress_is_silent(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_LINE_EVERY", 0.0)
    with Progress("folds", total=2, show=False) as work:
        work.advance()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_a_bar_with_title_and_note(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(progress, "_BAR_EVERY", 0.0)
    with Progress("folds", total=2) as work:
        work.note("head")
        work.advance(2)
        time.sleep(0.15)
    shown = sys.stderr.getvalue()
    assert "folds" in shown
    assert "head" in shown
    assert "100%" in shown


def test_an_error_inside_goes_through_and_the_bar_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(ZeroDivisionError), Progress("folds", total=2):
        raise ZeroDivisionError
    with Progress("again", total=1):  # two live bars would be an error of rich
        pass


def test_lines_of_a_log_file_come_at_growing_pauses(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 0
    monkeypatch.setattr(time, "monotonic", lambda: seconds)
    with Progress("steps", total=1000) as work:
        for seconds in range(1, 201):
            work.note(f"at {seconds} s")
            work.advance(5)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" at ")[1] for line in lines] == ["5 s", "15 s", "35 s", "75 s", "135 s", "195 s"]
    assert lines[0] == "steps: 2% at 5 s"


def test_hidden_progress_never_looks_at_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    with Progress("steps", total=10, show=False) as work:
        monkeypatch.setattr(time, "monotonic", None)
        for _ in range(10):
            work.advance()
