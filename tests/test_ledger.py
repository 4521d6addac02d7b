"""The ledger: appended, whole, shared by many writers; the same tests on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from batteries.errors import UsageError
from batteries.score.journal import Journal
from batteries.score.leaderboard import leaderboard
from batteries.score.ledger import Ledger
from batteries.score.upload import send
from goals import figure, times

COMPAT = Path(__file__).parent / "compat"
both = pytest.mark.usefixtures("backend")


def config(name: str, **changes: Any) -> dict[str, Any]:
    """The config.json of a made-up run."""
    return {
        "name": name,
        "kind": "run",
        "experiment": {"name": "toy"},
        "fields": {"seed": 42},
        "identity": f"id-{name}",
        "folds": {"digest": "abc", "n": 5},
        "metric": {"name": "auc", "higher_is_better": True},
        **changes,
    }


def add(ledger: Ledger, value: float, **changes: Any) -> bool:
    given = {"entry": "toy-001", "scope": "oof", "metric": "auc", "higher_is_better": True, **changes}
    return ledger.add_score(value=value, **given)


@both
def test_scores_are_appended_and_the_direction_travels_with_each(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        assert add(ledger, 0.9, rows=100)
        assert add(ledger, 0.95, rows=100)
        assert [(row["value"], row["higher_is_better"]) for row in ledger.scores()] == [(0.9, True), (0.95, True)]


@both
def test_repeating_the_newest_score_adds_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        assert [add(ledger, 0.9), add(ledger, 0.9), add(ledger, 0.9, fold=1), add(ledger, 0.8), add(ledger, 0.9)] == [
            *(True, False, True, True, True)
        ]


@both
def test_a_score_that_is_not_finite_is_kept_as_such(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        add(ledger, float("nan"))
        row = ledger.scores()[0]
        assert (row["value"], row["finite"]) == (None, False)


@both
def test_blends_keep_members_and_weights(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("blend-001", kind="blend", members={"a": 0.25, "b": 0.75}))
        assert [(row["member"], row["weight"]) for row in ledger.members()] == [("a", 0.25), ("b", 0.75)]


@both
def test_an_entry_is_added_once_and_another_of_the_same_name_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        ledger.add_entry(config("toy-001"))
        assert len(ledger.entries()) == 1
        with pytest.raises(UsageError, match="knows another 'toy-001'"):
            ledger.add_entry(config("toy-001", identity="other"))


@both
def test_a_look_is_kept_with_those_before_it_and_apart_from_other_test_sets(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        looks = [ledger.add_look("toy-001", data=data) for data in ("abc", "other", "abc")]
        assert [len(each) for each in looks] == [1, 1, 2]
        assert [look["data"] for look in ledger.looks()] == ["abc", "other", "abc"]
        with pytest.raises(UsageError, match="refused a row that fits no entry"):
            ledger.add_look("nobody", data="abc")


@both
def test_submissions_keep_their_record_and_every_step_of_sending_them(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        for _ in range(2):
            ledger.add_submission("s-1", entry="toy-001", file="s.csv", sha256="ab", rows=3, record={"a": [1.5]})
        ledger.add_submission("s-2", entry="toy-001", file="s.csv", sha256="cd", rows=3)
        assert [row["record"] for row in ledger.submissions()] == [{"a": [1.5]}, None]
        with pytest.raises(UsageError, match="knows another 's-1'"):
            ledger.add_submission("s-1", entry="toy-001", file="s.csv", sha256="ef", rows=3)
        sent = {"sha256": "ab", "target": "kaggle:titanic"}
        ledger.add_upload("s-1", state="intent", **sent)
        ledger.add_upload("s-1", state="intent", **sent)
        ledger.add_upload("s-1", state="sent", detail={"ref": 7}, **sent)
        ledger.add_upload("s-2", state="unknown", **sent)
        assert [row["state"] for row in ledger.uploads()] == ["intent", "intent", "sent", "unknown"]
        assert ledger.uploads("s-1")[-1]["detail"] == {"ref": 7}
        assert set(ledger.uploads()[0]) == {"number", "submission", "sha256", "target", "state", "detail", "at"}
        with pytest.raises(UsageError, match="fits no entry"):
            ledger.add_upload("s-3", state="intent", **sent)
        with pytest.raises(UsageError, match="got 'done'"):
            ledger.add_upload("s-1", state="done", **sent)  # type: ignore[arg-type]


@both
def test_both_leaderboard_scores_of_one_submission_are_kept_and_minus_zero_is_a_score(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        for value in (0.7, 0.8, -0.0, 1e-300, 0.1 + 0.2):
            assert add(ledger, value, submission="s-1", rows=1)
        assert [row["value"] for row in ledger.scores()] == [0.7, 0.8, 0.0, 1e-300, 0.1 + 0.2]


@both
def test_folders_that_share_a_database_keep_to_their_own_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    if backend == "sqlite":
        monkeypatch.setenv("BATTERIES_LEDGER", str(tmp_path / "shared.db"))
    folders = [tmp_path / name / "runs" for name in ("one", "two")]
    for number, folder in enumerate(folders):
        with Ledger(folder) as ledger:
            ledger.add_entry(config("toy-001", identity=str(number)))
            add(ledger, number)
    for number, folder in enumerate(folders):
        with Ledger(folder) as ledger:
            assert [row["identity"] for row in ledger.entries()] == [str(number)]
            assert [row["value"] for row in ledger.scores()] == [number]
        assert not (folder / "ledger.db").exists()


def test_a_new_place_of_a_ledger_takes_in_all_that_its_folder_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, before = tmp_path / "runs", tmp_path / "nothing"
    with Ledger(root) as ledger:
        ledger.add_entry(config("toy-001"))
        add(ledger, 0.9, scope="public")
    monkeypatch.setenv("BATTERIES_LEDGER", str(tmp_path / "shared.db"))
    assert Ledger.exists(root)
    assert not Ledger.exists(before)
    with Ledger(root) as ledger:
        assert [row["value"] for row in ledger.scores()] == [0.9]


def test_of_many_submissions_an_error_names_the_newest(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        for number in range(1, 15):
            ledger.add_submission(f"s-{number}", entry="toy-001", file="s.csv", sha256="ab", rows=3)
    for ask in (lambda: leaderboard("s-99", 0.5, tmp_path), lambda: send("s-99", "titanic", tmp_path)):
        with pytest.raises(
            UsageError, match=r"there is no submission 's-99'; submissions: s-14, s-13, .*, s-3, \.\.\.$"
        ):
            ask()


# --- many writers, and writers that are killed

_WRITERS = """
import os, sys
from batteries.score.ledger import Ledger

def write(root, writer, rows, told):
    with Ledger(root) as ledger:
        for number in range(rows):
            value = writer + number / 1000
            assert ledger.add_score("toy-001", "fold", value, fold=writer, metric="auc", higher_is_better=True)
            os.write(told, b"%r\\n" % value)
            os.fsync(told)

root, first, last, rows, told = sys.argv[1], *map(int, sys.argv[2:5]), os.open(sys.argv[5], os.O_APPEND | os.O_WRONLY)
for writer in range(first, last):
    if not os.fork():
        code = 1
        try:
            write(root, writer, rows, told)
            code = 0
        finally:
            os._exit(code)
codes = [os.wait()[1] for _ in range(first, last)]
sys.exit(any(codes))
"""


def writers(root: Path, first: int, last: int, rows: int) -> subprocess.Popen[bytes]:
    """Processes that write scores, and note in the file `told` which ones they were told are there."""
    (root / "told").touch()
    arguments = [str(root), str(first), str(last), str(rows), str(root / "told")]
    return subprocess.Popen([sys.executable, "-c", _WRITERS, *arguments], start_new_session=True)


def told(root: Path) -> list[float]:
    return [float(line) for line in (root / "told").read_text().split("\n") if line]


@both
def test_sixteen_writers_at_once_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    rows = times(200, 12)
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
    began = time.monotonic()
    assert writers(tmp_path, 0, 16, rows).wait() == 0
    figure("G7", rows=16 * rows, lost=0, doubled=0, slowest_s=round(time.monotonic() - began, 1))
    wanted = sorted(w + n / 1000 for w in range(16) for n in range(rows))
    with Ledger(tmp_path) as ledger:
        assert sorted(row["value"] for row in ledger.scores()) == wanted
    assert sorted(row["value"] for name, row in Journal(tmp_path).read().rows if name == "scores") == wanted


@both
def test_killed_writers_lose_no_row_that_they_acknowledged(tmp_path: Path) -> None:
    kills = times(200, 20)
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
    for first in range(0, kills, 5):
        before, deadline = len(told(tmp_path)) if first else 0, time.monotonic() + 60
        group = writers(tmp_path, first, min(first + 5, kills), 1000)
        while len(told(tmp_path)) < before + 3:
            assert time.monotonic() < deadline, "no writer writes"
            time.sleep(0.01)
        time.sleep(0.013 * (first % 7))
        os.killpg(group.pid, signal.SIGKILL)
        assert group.wait() == -signal.SIGKILL
    with Ledger(tmp_path) as ledger:
        values = [row["value"] for row in ledger.scores()]
    figure("G8", kills=kills, rows_acknowledged=len(told(tmp_path)), rows_lost=0)
    assert set(told(tmp_path)) <= set(values)
    assert len(values) == len(set(values))
