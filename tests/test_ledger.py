"""The ledger: appended, whole, shared by many writers."""

from __future__ import annotations

import multiprocessing
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from batteries.errors import BusyError, CorruptError, UsageError
from batteries.score import ledger as module
from batteries.score.ledger import Ledger


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
    return ledger.add_score("toy-001", "oof", value, **{"metric": "auc", "higher_is_better": True, **changes})


def test_scores_are_appended_and_the_direction_travels_with_each(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        assert add(ledger, 0.9, rows=100)
        assert add(ledger, 0.95, rows=100)
        assert [(row["value"], row["higher_is_better"]) for row in ledger.scores()] == [(0.9, True), (0.95, True)]


def test_repeating_the_newest_score_adds_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        assert [add(ledger, 0.9), add(ledger, 0.9), add(ledger, 0.9, fold=1), add(ledger, 0.8), add(ledger, 0.9)] == [
            *(True, False, True, True, True)
        ]


def test_a_score_that_is_not_finite_is_kept_as_such(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        add(ledger, float("nan"))
        row = ledger.scores()[0]
        assert (row["value"], row["finite"]) == (None, False)


def test_blends_keep_members_and_weights(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("blend-001", kind="blend", members={"a": 0.25, "b": 0.75}))
        assert [(row["member"], row["weight"]) for row in ledger.members()] == [("a", 0.25), ("b", 0.75)]


def test_an_entry_is_added_once_and_another_of_the_same_name_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        ledger.add_entry(config("toy-001"))
        assert len(ledger.entries()) == 1
        with pytest.raises(UsageError, match="knows another 'toy-001'"):
            ledger.add_entry(config("toy-001", identity="other"))


def _write(root: Path, writer: int) -> None:
    with Ledger(root) as ledger:
        for number in range(25):
            ledger.add_score("toy-001", "fold", writer + number / 100, fold=writer, metric="auc", higher_is_better=True)


def test_many_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(tmp_path, writer)) for writer in range(4)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    with Ledger(tmp_path) as ledger:
        assert sorted(row["value"] for row in ledger.scores()) == sorted(
            w + n / 100 for w in range(4) for n in range(25)
        )


def test_a_locked_ledger_is_busy_after_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
    monkeypatch.setattr(module, "_WAIT", 0.1)
    holder = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(BusyError, match="another process has been writing"):
        Ledger(tmp_path)
    holder.close()


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database, but long enough to look at" * 20)
    with pytest.raises(CorruptError, match="no ledger"):
        Ledger(tmp_path)
    assert (tmp_path / "ledger.db").read_bytes().startswith(b"not a database")


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Ledger(tmp_path).close()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        connection.execute("UPDATE about SET value = '99' WHERE key = 'schema'")
    connection.close()
    with pytest.raises(UsageError, match="schema 99, this one knows 2"):
        Ledger(tmp_path)


def test_a_ledger_of_schema_1_is_read_and_kept_and_counts_looks_from_now_on(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        add(ledger, 0.9)
        before = ledger.entries(), ledger.scores()
    with sqlite3.connect(tmp_path / "ledger.db") as connection:  # as the first version wrote it
        connection.execute("DROP TABLE looks")
        connection.execute("UPDATE about SET value = '1' WHERE key = 'schema'")
    connection.close()
    with Ledger(tmp_path) as ledger:
        assert (ledger.entries(), ledger.scores(), ledger.looks()) == (*before, [])
        assert len(ledger.add_look("toy-001", data="abc")) == 1
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        assert connection.execute("SELECT value FROM about WHERE key = 'schema'").fetchall() == [("2",)]
    connection.close()


def test_a_look_is_kept_with_those_before_it_and_apart_from_other_test_sets(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        looks = [ledger.add_look("toy-001", data=data) for data in ("abc", "other", "abc")]
        assert [len(each) for each in looks] == [1, 1, 2]
        assert [look["data"] for look in ledger.looks()] == ["abc", "other", "abc"]
        with pytest.raises(UsageError, match="refused a row that fits no entry"):
            ledger.add_look("nobody", data="abc")
