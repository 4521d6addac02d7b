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


def test_advancing_costs_little(monkeypatch: pytest.MonkeyPatch) -> None:
    with Progress("steps", total=100_000) as work:
        started = time.perf_counter()
        for _ in range(100_000):
            work.advance()
    assert time.perf_counter() - started < 1  # 0.02 s measured; a step of training is a millisecond
