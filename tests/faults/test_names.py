"""S1 to S7 of the catalogue: hostile names, secrets, sockets, code in a config, modes of files."""

from __future__ import annotations

import os
import stat
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import acts
import pytest

import batteries as bt
from batteries.cli.app import main
from batteries.errors import BatteriesError
from batteries.files import safe_name
from goals import FULL, figure
from test_launch import listening
from test_resume import toy_in

NAMES = [
    "..", "../x", "../../x", "x/../../y", "./x", "x/", "/x", "/etc/x", "//x", "/tmp/batteries-x", "~", "~root", "~/x",
    "$HOME", "${HOME}/x", "%HOME%", "`id`", "$(id)", "x;id", "x|id", "x&id", "x>y", "x<y", "*", "?", "[a-z]", "{a,b}",
    "x\0y", "x\ny", "x\ry", "x\ty", " ", "", " x", "x ", ".", "...", ".hidden", ".git", "-x", "--help=x", "x.", "CON",
    "con.txt", "NUL", "aux.pt", "COM1", "LPT9.log", "x" * 81, "x" * 300, "x" * 5000, "\\x", "..\\x", "C:\\x", "C:x",
    "%2e%2e", "%2e%2e%2fx", "..%2fx", "x%00y", "\u202ex", "\u2025/x", "\uff0e\uff0e/x", "x\u200b", "e\u0301", "\u00e9",
    "link", "link/x", "linked",
]  # fmt: skip
"""Names that leave their folder, that some system reads as something else, or that nobody can type again."""
ENTRIES: dict[str, Callable[[str], list[str]]] = {
    "new": lambda name: ["new", "--", name],
    "folder": lambda name: ["-C", name, "scores"],
    "experiment": lambda name: ["train", "--dry-run", "--", name],
    "resume": lambda name: ["train", f"--resume={name}"],
    "verify": lambda name: ["verify", "--", name],
    "average": lambda name: ["average", "--", name],
    "blend": lambda name: ["blend", "--", "toy-001", name],
    "stack": lambda name: ["stack", "--", name, name],
    "calibrate": lambda name: ["calibrate", "--", name],
    "decide": lambda name: ["decide", "--", name],
    "pseudo": lambda name: ["pseudo", "--", name],
    "submit": lambda name: ["submit", "--", name],
    "leaderboard": lambda name: ["leaderboard", "--", name, "0.5"],
    "test": lambda name: ["test", "--", name],
    "compare": lambda name: ["compare", "--", "toy-001", name],
}
"""Verbs that take a name, and how it is given."""


@pytest.fixture(scope="module")
def world(disk: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment folder with one run; around it what must not be touched, and links that lead there."""
    outside = tmp_path_factory.mktemp("world")
    folder = toy_in(outside / "inside" / "toy")
    ended = acts.command(folder, "train")
    assert ended.code == 0, ended.text
    (outside / "secret").mkdir()
    (outside / "secret" / "config.json").write_text("{}")
    (folder / "link").symlink_to(outside / "secret")
    (folder / "runs" / "link").symlink_to(outside / "secret")
    (folder / "runs" / "linked").symlink_to(outside / "nowhere")
    return outside


def seen(world: Path) -> dict[str, tuple[int, int]]:
    """Everything outside the experiment's own `runs`, with sizes and times."""
    own = world / "inside" / "toy" / "runs"
    paths = [path for path in world.rglob("*") if own not in path.parents and "__pycache__" not in path.parts]
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths if path != own}


@pytest.mark.parametrize("entry", ENTRIES)
def test_s1_no_name_leaves_its_folder(
    world: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], entry: str
) -> None:
    monkeypatch.chdir(world / "inside" / "toy")
    before, tried = seen(world), 0
    etc = sorted(Path("/etc").iterdir()), sorted(Path("/").iterdir())
    names = [name for name in NAMES if (entry, name) != ("new", "linked")]  # a good name for a new folder
    for name in names if FULL else names[::5]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = main(ENTRIES[entry](name))
        printed = capfd.readouterr()
        assert code in ({2, 3} if (entry, name) not in HARMLESS else {0, 2, 3}), f"{name!r}: {code} {printed.err}"
        assert "Traceback" not in printed.err
        assert seen(world) == before, f"{entry} {name!r} touched something"
        tried += 1
    assert (sorted(Path("/etc").iterdir()), sorted(Path("/").iterdir())) == etc
    figure("G13", **{entry: tried}, outside=0)


HARMLESS = {("test", ""), *(("folder", name) for name in ("", "./x", ".", "x/", "/x"))}


@pytest.mark.parametrize("name", NAMES)
def test_s1_a_name_of_a_metric_a_stage_or_a_folder_is_checked_when_it_is_given(name: str) -> None:
    if name == "linked" or name == "link":
        return  # plain names; what lies there is looked at when it is opened
    for make in (
        lambda: bt.Metric(name, higher_is_better=True),
        lambda: bt.Stage(name, epochs=1, lr=0.1),
        lambda: safe_name(name),
    ):
        with pytest.raises(BatteriesError):
            make()


# --- S4


def test_s4_nothing_listens_while_a_run_trains(disk: None, tmp_path: Path) -> None:
    folder = toy_in(tmp_path / "toy")
    process = acts.start(folder, acts._batteries, [str(folder), ["train"]], TOY_SIGNAL="SIGSTOP:9")
    while Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "T":
        time.sleep(0.02)
    try:
        assert listening([str(process.pid)]) == []
    finally:
        os.kill(process.pid, 18)
        process.join(60)
    assert process.exitcode == 0


# --- S5


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.mkdir [canary]", "__import__('os').mkdir('canary')", "${oc.env:HOME}", "{{7*7}}",
        "$(mkdir canary)", "`mkdir canary`", "os.mkdir('canary')", "lambda: 1", "eval('1')", "file:///etc/passwd",
        "[__import__('os')]", '[{"__reduce__": "os"}]',
    ],
)  # fmt: skip
def test_s5_a_value_on_the_command_line_is_a_value_and_nothing_is_run(
    toy_folder: Path, capfd: pytest.CaptureFixture[str], value: str
) -> None:
    for field in ("width", "lr", "nosuch"):
        assert main(["train", "--dry-run", "--set", f"{field}={value}"]) in (2, 3)
    assert not (toy_folder / "canary").exists()
    assert "Traceback" not in capfd.readouterr().err


# --- S7


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
def test_s7_files_honour_the_umask_and_nothing_is_writable_by_all_unasked(
    disk: None, tmp_path: Path, umask: int
) -> None:
    folder = toy_in(tmp_path / "toy")
    ended = acts.run(folder, _with_umask, [str(folder), umask])
    assert ended.code == 0, ended.text
    for path in (folder / "runs").rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if not path.is_symlink():
            assert mode & umask == 0, path
            assert not mode & stat.S_IWOTH or umask == 0, path
            assert not mode & (stat.S_ISUID | stat.S_ISGID), path


def _with_umask(folder: str, umask: int) -> int:
    os.umask(umask)
    for arguments in (["train"], ["average", "toy-001", "--best", "2"], ["submit", "average-001"], ["report"]):
        if code := acts._batteries(folder, arguments):
            return code
    return 0


# --- S3, G14

TOKEN = "canary-7f3a9c-token"
WORDS = {
    "KAGGLE_KEY": TOKEN,
    "KAGGLE_USERNAME": "somebody",
    "KAGGLE_API_TOKEN": TOKEN,
    "WANDB_API_KEY": TOKEN,
    "BATTERIES_LEDGER": f"postgresql+psycopg://me:{TOKEN}@127.0.0.1:1/none",
    "HF_TOKEN": TOKEN,
}


def test_s3_no_secret_of_the_environment_is_written_printed_or_given_to_a_process(disk: None, tmp_path: Path) -> None:
    folder = toy_in(tmp_path / "toy")
    calls = [
        ["study"], ["train"], ["scores"], ["submit", "toy-001"], ["leaderboard", "submission-001", "0.9"], ["test"],
        ["--debug", "scores"], ["--debug", "submit", "nosuch"], ["report"], ["verify", "toy-001"],
    ]  # fmt: skip
    told = []
    with watched_commands() as commands:
        for variables in ({k: v for k, v in WORDS.items() if k != "BATTERIES_LEDGER"}, WORDS):
            told += [acts.command(folder, *arguments, **variables).text for arguments in calls]
    assert not [text for text in told if TOKEN in text]
    assert not [line for line in commands if TOKEN in line]
    hits = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert hits == []
    figure("G14", files=sum(path.is_file() for path in tmp_path.rglob("*")), commands=len(told), hits=0)


class watched_commands:  # noqa: N801 - used as a function
    """Collect the command lines of all processes that run meanwhile."""

    def __enter__(self) -> set[str]:
        self.seen: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self.seen

    def _watch(self) -> None:
        while not self._end.wait(0.05):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                except OSError:
                    continue

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
