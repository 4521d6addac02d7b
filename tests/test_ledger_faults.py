"""What happens to the ledger: older and newer ones, locks, servers that are away, damage. No row is lost or made up."""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batteries.errors import BatteriesError, BusyError, CorruptError, ResourceError, ResumeError, UsageError
from batteries.files import write_sealed
from batteries.score import database
from batteries.score.journal import Journal
from batteries.score.leaderboard import leaderboard
from batteries.score.ledger import Ledger
from batteries.score.recover import check, recover
from batteries.score.schema import plain
from entries import entry_of
from goals import figure, times
from postgres import PASSWORD, Server
from processes import free_port
from test_ledger import add, both, config

COMPAT = Path(__file__).parent / "compat"
TABLES = ("entries", "scores", "members", "submissions", "looks", "uploads")


def everything(root: Path) -> dict[str, Any]:
    with Ledger(root) as ledger:
        return {name: getattr(ledger, name)() for name in TABLES}


def filled(root: Path) -> dict[str, Any]:
    """A ledger with some of everything; what is in it."""
    with Ledger(root) as ledger:
        for name in ("toy-001", "toy-002"):
            ledger.add_entry(config(name))
            for fold in range(3):
                add(ledger, 0.5 + fold / 7, entry=name, scope="fold", fold=fold, rows=10)
        ledger.add_entry(config("blend-001", kind="blend", members={"toy-001": 0.25, "toy-002": 0.75}))
        ledger.add_submission("s-1", entry="blend-001", file="s.csv", sha256="ab", rows=3, record={"how": "mean"})
        for value in (0.7, 0.8):
            ledger.add_score("blend-001", "public", value, submission="s-1", metric="auc", higher_is_better=True)
        ledger.add_look("toy-001", data="abc")
        ledger.add_upload("s-1", sha256="ab", target="kaggle:titanic", state="intent")
    return everything(root)


# --- older and newer schemas


def old_rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: [dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in names}


def same_as(old: dict[str, list[dict[str, Any]]], new: dict[str, Any]) -> None:
    for name in ("entries", "scores", "members", "submissions", "looks"):
        then, now = old.get(name, []), new[name]
        assert len(then) == len(now)
        for before, after in zip(then, now, strict=True):
            assert {key: value for key, value in before.items() if key != "config"} == {
                key: after[key] for key in before if key != "config"
            }


@pytest.mark.parametrize("schema", [1, 2])
def test_a_ledger_of_an_older_schema_is_migrated_without_losing_a_row(schema: int, tmp_path: Path) -> None:
    sample = COMPAT / f"ledger-schema-{schema}.db"
    shutil.copy(sample, tmp_path / "ledger.db")
    old = old_rows(sample)
    assert len(old["scores"]) == 11
    found = everything(tmp_path)
    same_as(old, found)
    assert (tmp_path / f"ledger-schema-{schema}.db").exists()
    assert old_rows(tmp_path / f"ledger-schema-{schema}.db") == old
    (tmp_path / "ledger.db").unlink()
    assert everything(tmp_path) == found  # from the journal


def test_a_migration_that_is_killed_or_done_by_two_at_once_ends_as_one(tmp_path: Path) -> None:
    script = "import sys; from batteries.score.ledger import Ledger; print(flush=True); Ledger(sys.argv[1]).close()"
    shutil.copy(COMPAT / "ledger-schema-2.db", tmp_path / "ledger.db")
    old = old_rows(tmp_path / "ledger.db")
    for wait in (0.0, 0.01, 0.02, 0.04, 0.08):
        migrating = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
        assert migrating.stdout is not None
        migrating.stdout.read(1)
        time.sleep(wait)
        migrating.kill()
        migrating.wait()
        migrating.stdout.close()
    together = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(2)]
    assert [each.wait() for each in together] == [0, 0]
    same_as(old, everything(tmp_path))


@both
def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    from sqlalchemy import text

    with Ledger(tmp_path) as ledger, ledger.database.transaction(writes=True) as connection:
        connection.execute(text("UPDATE about SET value = '99' WHERE key = 'schema'"))
        connection.execute(text("UPDATE about SET value = '7.1' WHERE key = 'version'"))
    with pytest.raises(ResumeError, match=r"was written by Batteries 7\.1, this is .*schema 99, this one knows 3"):
        Ledger(tmp_path)


# --- somebody else writes


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """Another program that holds the ledger until it is told to end; nobody waits for it for long."""
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
    hold = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN EXCLUSIVE'); print(); input()"
    with subprocess.Popen(
        [sys.executable, "-uc", hold, str(tmp_path / "ledger.db")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.read(1)
        monkeypatch.setattr(database, "WAIT", 0.2)
        yield holder
        holder.kill()


def test_a_locked_ledger_names_who_holds_it_and_rows_wait_in_the_folder(
    tmp_path: Path, held: subprocess.Popen[bytes]
) -> None:
    ledger = Ledger(tmp_path)
    assert add(ledger, 0.9)
    assert add(ledger, float("nan"), fold=1)
    with pytest.raises(BusyError, match=rf"process {held.pid} \(python"):
        ledger.scores()
    with pytest.raises(BusyError, match=r"has been writing for 0 s. 2 new rows are kept in .*ledger\.jsonl; the next"):
        ledger.close()
    held.communicate(b"\n")
    for _ in range(2):
        assert [row["value"] for row in everything(tmp_path)["scores"]] == [0.9, None]


def test_a_leaderboard_score_typed_while_the_ledger_is_held_is_not_lost(
    tmp_path: Path, held: subprocess.Popen[bytes]
) -> None:
    entry_of(tmp_path, "toy-001", np.ones(60), np.ones(60), np.arange(60) % 2, identity="id-toy-001")
    (tmp_path / "submission-001").mkdir()
    made = {"name": "submission-001", "entry": "toy-001", "file": "s.csv", "sha256": "ab", "rows": 3}
    write_sealed(tmp_path / "submission-001" / "submission.json", made)
    with pytest.raises(UsageError, match="no submission 'submission-002'; submissions: submission-001"):
        leaderboard("submission-002", 0.5, tmp_path)
    with pytest.raises(BusyError, match="1 new row is kept"):
        leaderboard("submission-001", 0.5, tmp_path)
    held.communicate(b"\n")
    assert [(row["scope"], row["value"]) for row in everything(tmp_path)["scores"]] == [("public", 0.5)]


def test_the_file_has_a_rollback_journal_which_any_file_system_bears(tmp_path: Path) -> None:
    filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


def test_a_writer_on_a_server_is_waited_for_and_named(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATTERIES_LEDGER", postgres.make("busy"))
    with Ledger(tmp_path) as holder:
        holder.add_entry(config("toy-001"))
        monkeypatch.setattr(database, "WAIT", 0.2)
        ledger = Ledger(tmp_path)
        with holder.database.transaction(writes=True):
            assert ledger.entries()
            add(ledger, 0.9)
        who = rf"batteries on .*, process {os.getpid()} \(server process \d+\) has been writing for 0 s. 1 new row is"
        with pytest.raises(BusyError, match=who):
            ledger.close()
    assert [row["value"] for row in everything(tmp_path)["scores"]] == [0.9]


# --- servers that are away


def test_rows_wait_for_a_server_that_is_away_and_the_password_is_nowhere(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATTERIES_LEDGER", postgres.make("away"))
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
    said = []
    wrong = ["a wrong password", "another port", "no such database"]
    urls = [
        postgres.url("away", password=PASSWORD + "wrong"),
        postgres.url("away", port=free_port()),
        postgres.url("nosuch"),
    ]
    for number, url in enumerate(urls):
        monkeypatch.setenv("BATTERIES_LEDGER", url)
        with pytest.raises(BusyError, match="1 new row is kept") as caught, Ledger(tmp_path) as ledger:
            add(ledger, number / 10)
        assert caught.value.exit_code == 8, wrong[number]
        said.append("".join(traceback.format_exception(caught.value)))
    for url in ("postgresql://u:canary-7Zq@h:port/x", "nosuch://u:canary-7Zq@h/x", "sqlite://"):
        monkeypatch.setenv("BATTERIES_LEDGER", url)
        with pytest.raises(UsageError) as refused:
            Ledger(tmp_path)
        said.append("".join(traceback.format_exception(refused.value)))
    assert "canary" not in "".join(said)
    monkeypatch.setenv("BATTERIES_LEDGER", postgres.url("away"))
    for _ in range(2):
        assert [row["value"] for row in everything(tmp_path)["scores"]] == [0.0, 0.1, 0.2]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]


def test_a_server_that_drops_in_the_middle_loses_and_doubles_nothing(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATTERIES_LEDGER", postgres.make("drops"))
    with Ledger(tmp_path) as ledger:
        ledger.add_entry(config("toy-001"))
        add(ledger, 0.1)
    append = Journal.append

    def stopping(self: Journal, rows: Any) -> tuple[int, int]:
        if first.pop("time", None):
            postgres.stop()  # after the row was inserted, before it is committed
        return append(self, rows)

    first = {"time": 1}
    monkeypatch.setattr(Journal, "append", stopping)
    ledger = Ledger(tmp_path)
    assert add(ledger, 0.2)
    assert add(ledger, 0.3)
    with pytest.raises(BusyError, match="2 new rows are kept"):
        ledger.close()
    postgres.start()
    for _ in range(2):
        assert [row["value"] for row in everything(tmp_path)["scores"]] == [0.1, 0.2, 0.3]


def test_without_its_driver_the_extra_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.setenv("BATTERIES_LEDGER", "postgresql://u:canary@127.0.0.1/x")
    with pytest.raises(UsageError, match=r"pip install 'batteries\[postgres\]'"):
        Ledger(tmp_path)


# --- a database that was lost, exchanged or damaged


def test_another_database_takes_in_what_the_folder_knows(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = filled(tmp_path)
    monkeypatch.setenv("BATTERIES_LEDGER", postgres.make("moved"))
    assert everything(tmp_path) == here
    with Ledger(tmp_path) as ledger:
        ledger.add_score("toy-001", "oof", 0.123, metric="auc", higher_is_better=True)
    there = everything(tmp_path)
    monkeypatch.delenv("BATTERIES_LEDGER")
    assert everything(tmp_path) == there


@both
def test_a_journal_that_was_lost_is_written_again(tmp_path: Path) -> None:
    filled(tmp_path)
    before = Journal(tmp_path).read().rows
    (tmp_path / "ledger.jsonl").unlink()
    everything(tmp_path)
    assert sorted(map(str, Journal(tmp_path).read().rows)) == sorted(map(str, before))


@both
def test_a_row_that_is_kept_in_the_folder_while_another_is_written_is_entered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path)
    append = Journal.append
    kept = [("looks", plain("looks", {"entry": "toy-002", "data": "kept", "at": "2026", "event": "e" * 32}))]

    def after_another(self: Journal, rows: Any) -> tuple[int, int]:
        if kept:
            append(Journal(tmp_path), [kept.pop()])
        return append(self, rows)

    monkeypatch.setattr(Journal, "append", after_another)
    with Ledger(tmp_path) as ledger:
        ledger.add_look("toy-002", data="written")
    assert sorted(row["data"] for row in everything(tmp_path)["looks"]) == ["abc", "kept", "written"]


def test_a_full_disk_leaves_ledger_and_journal_as_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, size = filled(tmp_path), Journal(tmp_path).size()
    with Ledger(tmp_path) as ledger:

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ResourceError, match=r"ledger\.jsonl: no space left \([\d,]+ bytes free\)"):
            ledger.add_look("toy-001", data="new")
        monkeypatch.undo()
    assert Journal(tmp_path).size() == size
    assert everything(tmp_path) == before


@contextmanager
def no_file_grows_beyond(size: int) -> Iterator[None]:
    """The system refuses to write there, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_disk_with_room_for_a_part_of_a_line_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    before, journal = filled(tmp_path), (tmp_path / "ledger.jsonl")
    (tmp_path / "ledger.jsonl").write_bytes(journal.read_bytes() + b" " * 100_000 + b"\n")  # larger than the database
    with pytest.warns(UserWarning, match="1 are damaged"):
        assert everything(tmp_path) == before
    written = journal.read_bytes()
    full = no_file_grows_beyond(len(written) + 10)
    with Ledger(tmp_path) as ledger, full, pytest.raises(ResourceError, match=r"ledger\.jsonl: cannot be written"):
        ledger.add_look("toy-001", data="new")
    assert journal.read_bytes() == written
    assert everything(tmp_path) == before


def test_a_disk_without_room_for_the_database_is_no_damage_and_the_row_is_entered_later(tmp_path: Path) -> None:
    filled(tmp_path)
    size = (tmp_path / "ledger.db").stat().st_size
    with (
        no_file_grows_beyond(size),
        pytest.raises(ResourceError, match=r"ledger\.db: cannot be used \(.*Next: make room"),
        Ledger(tmp_path) as ledger,
    ):
        ledger.add_entry(config("toy-003", more="x" * (size // 2)))
    assert [row["name"] for row in everything(tmp_path)["entries"]] == ["toy-001", "toy-002", "blend-001", "toy-003"]


def test_a_disk_that_fails_while_what_a_killed_writer_left_is_undone_is_no_damage(tmp_path: Path) -> None:
    before, killed = filled(tmp_path / "whole"), tmp_path / "killed"
    with closing(sqlite3.connect(tmp_path / "whole" / "ledger.db", isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size = 1")  # so that half a transaction is in the file
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE entries SET config = ?", ["x" * 100_000])
        shutil.copytree(tmp_path / "whole", killed)
    with no_file_grows_beyond(0), pytest.raises(ResourceError, match=r"ledger\.db: cannot be used \(disk I/O error; "):
        Ledger(killed)
    assert everything(killed) == before


def test_a_disk_without_room_for_a_copy_of_an_older_ledger_is_no_damage(tmp_path: Path) -> None:
    shutil.copy(COMPAT / "ledger-schema-2.db", tmp_path / "ledger.db")
    before = (tmp_path / "ledger.db").read_bytes()
    with (
        no_file_grows_beyond(4096),
        pytest.raises(ResourceError, match=r"ledger\.db: cannot be used \(.*Next: make room"),
    ):
        Ledger(tmp_path)
    assert (tmp_path / "ledger.db").read_bytes() == before


def test_a_part_of_a_line_is_stepped_over(tmp_path: Path) -> None:
    before = filled(tmp_path)
    with open(tmp_path / "ledger.jsonl", "a", encoding="utf-8") as file:
        file.write('{"table": "scores", "row": {"ent')
    with pytest.warns(UserWarning, match="0 lines do not fit the ledger and 1 are damaged"):
        assert everything(tmp_path) == before
    with Ledger(tmp_path) as ledger:
        ledger.add_look("toy-002", data="abc")
    after = everything(tmp_path)
    (tmp_path / "ledger.db").unlink()
    with pytest.warns(UserWarning, match="1 are damaged"):
        assert everything(tmp_path) == after


def test_a_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database, but long enough to look at" * 20)
    with pytest.raises(CorruptError, match=r"is damaged or no ledger .*run: batteries ledger recover"):
        Ledger(tmp_path)
    assert (tmp_path / "ledger.db").read_bytes().startswith(b"not a database")


@both
def test_a_row_that_was_changed_or_taken_away_is_noticed(tmp_path: Path) -> None:
    from sqlalchemy import text

    filled(tmp_path)
    changes = {
        "UPDATE scores SET value = 0.99 WHERE number = 2": r"1 of 8 rows of scores are not as .*\(first: number 2\)",
        "UPDATE scores SET value = 0.5 WHERE number = 1": "",
        "DELETE FROM looks": "looks has 0 rows, 1 were written",
    }
    with Ledger(tmp_path) as ledger:
        for change, message in changes.items():
            with ledger.database.transaction(writes=True) as connection:
                connection.execute(text(change))
            if message:
                with pytest.raises(CorruptError, match=message):
                    ledger.looks() if "looks" in change else ledger.scores()


# --- check and recover


def flipped(path: Path, generator: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    path.write_bytes(data)


def test_one_flipped_bit_is_refused_rebuilt_or_harmless_but_never_believed(tmp_path: Path) -> None:
    flips, generator = times(500, 40), random.Random(7)
    whole = tmp_path / "whole"
    filled(whole)
    with Ledger(whole) as ledger:  # pages that are full of rows, so that most bits mean something
        rows = [plain("scores", {**ledger.scores()[-1], "fold": n, "event": f"{n:032x}"}) for n in range(120)]
        ledger.enter([("scores", row) for row in rows])
    before = everything(whole)
    refused = 0
    for number in range(flips):
        root = tmp_path / f"damaged-{number}"
        shutil.copytree(whole, root)
        flipped(root / "ledger.db", generator)
        try:
            assert everything(root) == before, number
        except BatteriesError:
            refused += 1
            if number % 2:  # without its journal, what can be read in the file is all there is
                assert recover(root).kept == root / "ledger-damaged-1.db"
                assert everything(root) == before, number
        shutil.rmtree(root)
    figure("G8", damaged_files=flips, refused=refused, harmless=flips - refused, believed=0)
    assert 0 < refused < flips


def test_a_truncated_file_is_refused_or_rebuilt(tmp_path: Path) -> None:
    whole, generator = tmp_path / "whole", random.Random(8)
    before = filled(whole)
    size = (whole / "ledger.db").stat().st_size
    for length in [0, 1, 99, 100, 4096, size - 1, *(generator.randrange(size) for _ in range(10))]:
        root = tmp_path / f"cut-{length}"
        shutil.copytree(whole, root)
        os.truncate(root / "ledger.db", length)
        try:
            assert everything(root) == before, length
        except BatteriesError:
            recover(root)
            assert everything(root) == before, length


@both
def test_a_flipped_bit_in_the_journal_is_found_and_mended(tmp_path: Path) -> None:
    before, generator = filled(tmp_path), random.Random(9)
    assert check(tmp_path).problems + check(tmp_path).notes == ()
    flipped(tmp_path / "ledger.jsonl", generator)
    assert everything(tmp_path) == before
    assert "1 lines are damaged" in check(tmp_path).notes[0]
    recover(tmp_path)
    assert check(tmp_path).notes == ()
    assert everything(tmp_path) == before


def test_without_its_journal_a_damaged_file_gives_back_what_is_intact_in_it(tmp_path: Path) -> None:
    before = filled(tmp_path)
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
        connection.execute("UPDATE scores SET value = 0.9 WHERE number = 1")
        connection.commit()
    (tmp_path / "ledger.jsonl").unlink()
    with pytest.raises(CorruptError, match="run: batteries ledger recover"):
        everything(tmp_path)
    found = recover(tmp_path)
    assert found.kept == tmp_path / "ledger-damaged-1.db"
    after = everything(tmp_path)
    wanted = [row for row in before["scores"] if row["number"] != 1]
    assert [row["at"] for row in after["scores"]] == [row["at"] for row in wanted]
    assert {name: after[name] for name in TABLES if name != "scores"} == {
        name: before[name] for name in TABLES if name != "scores"
    }
    assert check(tmp_path).notes == ()


def test_a_damaged_database_on_a_server_is_left_alone(
    tmp_path: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy import text

    monkeypatch.setenv("BATTERIES_LEDGER", postgres.make("damaged"))
    before = filled(tmp_path)
    with Ledger(tmp_path) as ledger, ledger.database.transaction(writes=True) as connection:
        connection.execute(text("UPDATE scores SET rows = 9"))
    with pytest.raises(CorruptError, match="or name an empty one: it takes in all that"):
        recover(tmp_path)
    monkeypatch.setenv("BATTERIES_LEDGER", postgres.make("empty"))
    assert everything(tmp_path) == before
