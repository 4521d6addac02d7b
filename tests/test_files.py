"""Files are written whole or not at all, a seal notices any change, and names stay in their folder."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batteries.errors import BusyError, CorruptError, NotSafeError, ResourceError
from batteries.files import (
    canonical_json,
    digest_file,
    digest_of,
    locked,
    new_folder,
    read_sealed,
    safe_name,
    sweep,
    write_atomic,
    write_sealed,
    write_text,
)

HOSTILE = [
    *("", ".", "..", "../a", "a/b", "/etc/passwd", "~", "~root", "a\\b", "C:", "a:b", "%2e%2e/a"),
    *("a\x00b", "a\n", "\na", "a\tb", " a", "a ", "a b", ".hidden", "-rf", "_a", "a.", "*", "a?", "$HOME", "a|b"),
    *("CON", "con", "nul.txt", "COM1", "lpt9.log", "aux.", "é", "\u202egnp", "\uff0e\uff0e", "a" * 81, "a" * 300),
]


def here() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_could_leave_its_folder_or_that_some_system_refuses_is_refused(name: str) -> None:
    with pytest.raises(NotSafeError, match=r"stage .* cannot be used as a file name; use letters, digits"):
        safe_name(name, "stage")


@pytest.mark.parametrize("name", ["a", "digits-001", "A.b_c-9", "0", "console", "com10", "a" * 80, "a..b"])
def test_a_plain_name_comes_back_unchanged(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize("name", [3, None, b"a", Path("a")])
def test_a_name_that_is_no_text_is_refused(name: Any) -> None:
    with pytest.raises(NotSafeError, match="cannot be used as a file name"):
        safe_name(name)


def test_a_written_file_has_the_digest_that_was_returned() -> None:
    digest = write_atomic(Path("a"), lambda file: [file.write(b"one"), file.write(memoryview(b"two"))])
    assert Path("a").read_bytes() == b"onetwo"
    assert digest == digest_file(Path("a")) == hashlib.sha256(b"onetwo").hexdigest()


@pytest.mark.parametrize("size", [0, 1, (8 << 20) - 1, 8 << 20, (8 << 20) + 1, 20 << 20])
@pytest.mark.parametrize("threads", [True, False])
def test_one_large_piece_has_the_digest_of_its_bytes(monkeypatch: pytest.MonkeyPatch, size: int, threads: bool) -> None:
    def none(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    if not threads:
        monkeypatch.setattr(threading.Thread, "start", none)
    piece = random.Random(size).randbytes(size)
    digest = write_atomic(Path("a"), lambda file: [file.write(each) for each in (b"head", piece, piece, b"tail")])
    assert digest == digest_file(Path("a")) == hashlib.sha256(b"head" + piece + piece + b"tail").hexdigest()


def test_a_large_file_has_the_digest_of_its_bytes_whatever_the_pieces() -> None:
    data = os.urandom(5 << 20)
    pieces = [data, b"", data[:7], memoryview(data)[3:], bytes(9 << 20), b"x", data]
    digest = write_atomic(Path("a"), lambda file: [file.write(piece) for piece in pieces])
    assert digest == digest_file(Path("a")) == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_a_large_write_that_fails_leaves_neither_file_nor_thread() -> None:
    def fail(file: BinaryIO) -> None:
        file.write(bytes(20 << 20))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(Path("a"), fail)
    assert here() == []
    assert "digest" not in {thread.name for thread in threading.enumerate()}


def test_a_write_that_fails_half_way_leaves_the_old_file_and_nothing_else() -> None:
    def fail(file: BinaryIO) -> None:
        file.write(b"new")
        raise KeyboardInterrupt

    write_text(Path("a"), "old")
    with pytest.raises(KeyboardInterrupt):
        write_atomic(Path("a"), fail)
    assert Path("a").read_text() == "old"
    assert here() == ["a"]


def test_a_full_disk_is_reported_with_the_file_and_the_bytes_free() -> None:
    def fill(file: BinaryIO) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ResourceError, match=r"a: no space left \([\d,]+ bytes free\); the previous version is unt"):
        write_atomic(Path("a"), fill)
    assert here() == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [("missing/a", "No such file or directory"), ("file/a", "Not a directory"), ("folder", "Is a directory")],
)
def test_a_place_that_cannot_be_written_is_named_with_the_reason(path: str, reason: str) -> None:
    Path("file").write_text("")
    Path("folder").mkdir()
    with pytest.raises(ResourceError, match=f"{path}: cannot be written \\({reason}\\)"):
        write_text(Path(path), "x")
    assert here() == ["file", "folder"]


def test_a_name_too_long_for_the_system_is_an_error_of_ours() -> None:
    with pytest.raises(ResourceError, match="File name too long"):
        write_text(Path("a" * 255), "x")


def test_a_written_file_honours_the_umask() -> None:
    before = os.umask(0o027)
    try:
        write_text(Path("a"), "x")
    finally:
        os.umask(before)
    assert Path("a").stat().st_mode & 0o777 == 0o640


def test_one_value_has_one_canonical_text_whatever_the_order_of_its_keys() -> None:
    assert canonical_json({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of(1) != digest_of(1.0) != digest_of("1")


def test_digests_do_not_change_between_versions() -> None:
    assert digest_of({"lr": 1e-3, "names": ["a", "b"]}).startswith("7afc576f1c0fbf30")


def test_nan_has_no_digest() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_of(float("nan"))


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(data=st.dictionaries(st.text("abc", max_size=4), PLAIN, max_size=4))
def test_what_is_sealed_is_read_back_equal(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "sealed.json"
    write_sealed(path, data)
    assert read_sealed(path) == data


def test_keys_that_are_numbers_are_read_back_as_texts() -> None:
    write_sealed(Path("a.json"), {"folds": {9: 1, 10: (2, 3)}})
    assert read_sealed(Path("a.json")) == {"folds": {"9": 1, "10": [2, 3]}}


def test_a_sealed_file_keeps_the_order_in_which_a_person_wrote_it() -> None:
    write_sealed(Path("a.json"), {"z": 1, "a": 2})
    assert list(read_sealed(Path("a.json"))) == ["z", "a"]


def test_no_flipped_bit_of_a_sealed_file_gives_other_data() -> None:
    path, data = Path("a.json"), {"score": 0.125, "name": "ü-1", "list": [1, 2.5, None, True], "none": -1e-7}
    write_sealed(path, data)
    whole = path.read_bytes()
    refused = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert read_sealed(path) == data  # a blank between two values may be another blank
        except CorruptError:
            refused += 1
    assert refused > 0.95 * 8 * len(whole)


def test_a_sealed_file_cut_off_anywhere_is_refused() -> None:
    write_sealed(Path("a.json"), {"score": 0.125, "rows": 3})
    whole = Path("a.json").read_bytes()
    for length in range(len(whole) - 2):  # the last two are the brace and the end of its line
        Path("b.json").write_bytes(whole[:length])
        with pytest.raises(CorruptError, match=r"b\.json: "):
            read_sealed(Path("b.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read"),
        (b"\xff\xfe", "cannot be read"),
        (b"[" * 100_000, "cannot be read"),
        (b'{"a": NaN, "seal": "x"}', "cannot be read"),
        (b'{"a": 1e999, "seal": "x"}', "cannot be read"),
        (b'{"a": "\\ud800", "seal": "x"}', "cannot be read"),
        (b"[1]", "is not a record of Batteries"),
        (b'{"a": 1}', "is not a record of Batteries"),
        (b'{"a": 1, "seal": 2}', "is not a record of Batteries"),
        (b'{"a": 1, "seal": "00"}', "was changed or damaged after it was written"),
    ],
)
def test_a_file_that_is_no_sealed_record_is_refused(content: bytes, message: str) -> None:
    Path("a.json").write_bytes(content)
    with pytest.raises(CorruptError, match=message):
        read_sealed(Path("a.json"))


def test_a_missing_file_a_folder_and_a_pipe_are_refused_at_once() -> None:
    Path("folder").mkdir()
    os.mkfifo("pipe")
    for name, message in (("missing", "cannot be read"), ("folder", "is not a file"), ("pipe", "is not a file")):
        with pytest.raises(CorruptError, match=f"{name}: {message}"):
            read_sealed(Path(name))
    with pytest.raises(CorruptError, match="is not a file"):
        read_sealed(Path("/dev/zero"))


def test_a_name_for_the_seal_in_the_data_is_a_mistake_of_ours() -> None:
    with pytest.raises(AssertionError):
        write_sealed(Path("a.json"), {"seal": 1})


def test_a_locked_folder_is_busy_for_everyone_else_and_free_again_afterwards() -> None:
    with locked(Path("run")), pytest.raises(BusyError, match=f"run is in use by process {os.getpid()} on "):  # noqa: SIM117
        with locked(Path("run")):
            pass
    with locked(Path("run")):
        pass


def test_a_lock_ends_with_its_owner_even_when_that_is_killed() -> None:
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time; from pathlib import Path; from batteries.files import locked\n"
            "with locked(Path('run')): print(flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )
    with holder:
        assert holder.stdout
        holder.stdout.readline()
        with pytest.raises(BusyError, match=f"process {holder.pid} on "), locked(Path("run")):
            pass
        holder.kill()
    deadline = time.monotonic() + 5
    while True:
        try:
            with locked(Path("run")):
                break
        except BusyError:
            assert time.monotonic() < deadline
    assert f"process {os.getpid()} on" in Path("run/.lock").read_text()


def test_folders_are_numbered_after_the_highest_there_is() -> None:
    def new(stem: str) -> str:
        return new_folder(Path("runs"), stem, lambda folder, name: write_text(folder / "name", name)).name

    assert [new("digits") for _ in range(2)] == ["digits-001", "digits-002"]
    assert Path("runs/digits-002/name").read_text() == "digits-002"
    Path("runs/digits-999").mkdir()
    Path("runs/digits-mlp-2000").mkdir()
    Path("runs/digits-abc").mkdir()
    assert [new("digits"), new("digits"), new("digits-mlp")] == ["digits-1000", "digits-1001", "digits-mlp-2001"]


def test_a_folder_whose_files_cannot_be_written_does_not_appear() -> None:
    def fill(folder: Path, name: str) -> None:
        write_text(folder / "half", name)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        new_folder(Path("runs"), "digits", fill)
    assert list(Path("runs").iterdir()) == []


def test_of_two_processes_that_ask_for_one_name_the_second_gets_the_next() -> None:
    def fill(folder: Path, name: str) -> None:
        write_text(folder / "name", name)
        if name == "digits-001":  # another process is quicker
            new_folder(Path("runs"), "digits", fill_other)

    def fill_other(folder: Path, name: str) -> None:
        write_text(folder / "name", "other")

    assert new_folder(Path("runs"), "digits", fill).name == "digits-002"
    assert Path("runs/digits-001/name").read_text() == "other"
    assert Path("runs/digits-002/name").read_text() == "digits-002"


def test_a_folder_is_not_made_outside_its_root() -> None:
    with pytest.raises(NotSafeError):
        new_folder(Path("runs"), "../a", lambda folder, name: None)
    assert here() == []


def test_a_sealed_file_is_plain_json() -> None:
    write_sealed(Path("a.json"), {"name": "ü"})
    assert json.loads(Path("a.json").read_text(encoding="utf-8"))["name"] == "ü"


def test_what_a_killed_process_left_is_swept_away_and_nothing_else() -> None:
    for name in ("a/.oof.parquet.123.tmp", "a/b/.fold.json.9.tmp", "a/oof.parquet", "a/.lock"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_text(Path(name), "x")
    sweep(Path("a"))
    assert sorted(str(path) for path in Path("a").rglob("*") if path.is_file()) == ["a/.lock", "a/oof.parquet"]
