"""Kaggle through its official client, against a server on this machine that speaks the client's protocol."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from kagglesdk import kaggle_env

import batteries as bt
from batteries.cli.app import main
from batteries.errors import BusyError, CorruptError, Interrupted, NotSafeError, UnclearError, UsageError
from batteries.files import locked
from batteries.score import kaggle as client
from batteries.score import upload as module
from batteries.score.credentials import scrub
from batteries.score.kaggle import Kaggle
from batteries.score.ledger import Ledger
from batteries.score.upload import Upload, pull, send
from kaggle_server import SIGNED, TOKEN, KaggleServer, kaggle_server

ROOT = Path("runs")
TEXT = "id,y\n1,0.5\n"
MARK = sha256(TEXT.encode()).hexdigest()[:12]
SITE = """
import os
from kagglesdk import kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = os.environ["TEST_KAGGLE"]
"""


def make(name: str = "submission-001", text: str = TEXT, entry: str = "toy-001") -> Path:
    """A submission as `batteries submit` leaves it, of a made-up run."""
    file = ROOT / name / "submission.csv"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with Ledger(ROOT) as ledger:
        ledger.add_entry(
            {
                "name": entry,
                "kind": "run",
                "experiment": {"name": "toy"},
                "fields": {"seed": 0},
                "identity": f"id-{entry}",
                "folds": {"digest": "abc", "n": 2},
                "metric": {"name": "auc", "higher_is_better": True},
            }
        )
        ledger.add_score(entry, "oof", 0.9, metric="auc", higher_is_better=True)
        digest = sha256(text.encode()).hexdigest()
        ledger.add_submission(name, entry=entry, file="submission.csv", sha256=digest, rows=1)
    return file


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KaggleServer]:
    """The service, reached with a token from the environment; every wait is short."""
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(module, "_POLL", 0.01)
    with kaggle_server() as told:
        endpoint = f"http://127.0.0.1:{told.port}"
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, endpoint)
        yield told


@pytest.fixture
def sent(server: KaggleServer) -> KaggleServer:
    """The service, and a submission to send."""
    make()
    return server


def go(**how: Any) -> Upload:
    return send("submission-001", "titanic", ROOT, **{"wait": 5.0, "progress": False, **how})


def states() -> list[str]:
    with Ledger(ROOT) as ledger:
        return [row["state"] for row in ledger.uploads()]


def test_a_submission_is_sent_and_its_score_stands_on_the_board(sent: KaggleServer) -> None:
    sent.pending = 2
    found = go()
    assert (found.state, found.public, found.private, found.ref, found.new, found.left) == (
        *("scored", 0.9732, None, 1000, True, 4),
    )
    assert found.sentence == "submission-001: sent to kaggle:titanic as 1000, 4 left today; public score 0.97320"
    assert sent.uploaded == TEXT.encode()
    assert sent.submissions[0]["description"] == f"submission-001 {MARK}"
    assert states() == ["intent", "sent", "scored"]
    assert bt.scores(ROOT)[0].public == 0.9732
    assert sent.did("ListSubmissions") == 4  # once before it is sent
    assert set(sent.headers[2:]) <= {f"Bearer {TOKEN}", ""}


def test_the_intent_is_in_the_ledger_before_anything_is_sent(sent: KaggleServer) -> None:
    seen = {}
    sent.watch = lambda method: seen.setdefault(method, states())
    go()
    assert (seen["GetSubmissionLimits"], seen["StartSubmissionUpload"]) == ([], ["intent"])


def test_the_same_file_is_not_sent_twice_unless_asked(sent: KaggleServer) -> None:
    first = go()
    second = go()
    assert (second.new, second.ref, second.public, second.left) == (False, first.ref, first.public, None)
    assert second.sentence.startswith("submission-001: was sent before to kaggle:titanic as 1000; public score")
    assert sent.did("CreateSubmission") == 1
    sent.public = "0.98"
    again = go(again=True)
    assert (again.new, again.ref, again.public) == (True, 1001, 0.98)
    assert sent.did("CreateSubmission") == 2
    assert bt.scores(ROOT)[0].public == 0.98
    before = states()
    assert go().ref == 1001
    assert states() == before


def test_another_name_of_the_same_bytes_is_the_same_file(sent: KaggleServer) -> None:
    go()
    make("submission-002", entry="toy-002")
    assert not send("submission-002", "titanic", ROOT, progress=False).new
    assert [row.public for row in bt.scores(ROOT)] == [0.9732, 0.9732]
    before = states()
    assert [each.public for each in pull(ROOT)] == [0.9732, 0.9732]
    assert states() == before
    assert sent.did("CreateSubmission") == 1
    assert send("submission-002", "digits", ROOT, progress=False).target == "kaggle:digits"


def test_an_upload_that_was_noted_without_details_hinders_nothing(sent: KaggleServer) -> None:
    with Ledger(ROOT) as ledger:
        digest = sha256(TEXT.encode()).hexdigest()
        ledger.add_upload("submission-001", sha256=digest, target="kaggle:titanic", state="failed")
    assert go().new


def test_a_reached_limit_stops_before_anything_is_noted_or_sent(sent: KaggleServer) -> None:
    sent.allowed = 0
    with pytest.raises(
        BusyError, match="kaggle:titanic allows no more submissions today, or in all; nothing"
    ) as caught:
        go()
    assert caught.value.exit_code == 8
    assert (sent.did("StartSubmissionUpload"), states()) == (0, [])


def test_the_first_submission_of_a_team_has_no_limit_yet(sent: KaggleServer) -> None:
    sent.allowed = sent.total = 0
    assert (go().state, sent.did("CreateSubmission")) == ("scored", 1)


@pytest.mark.parametrize("fault", ["after", "silent"])
def test_what_was_taken_without_an_answer_is_found_and_not_sent_again(
    fault: str, sent: KaggleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER", 0.5)
    sent.fails = {"CreateSubmission": fault}
    with pytest.raises(UnclearError, match="did not say whether it took the submission") as caught:
        go()
    assert caught.value.exit_code == 8
    assert "Run the same again: it looks into kaggle:titanic's list" in str(caught.value)
    assert states() == ["intent", "unknown"]
    found = go()
    assert (found.state, found.new, found.public) == ("scored", False, 0.9732)
    assert (sent.did("CreateSubmission"), len(sent.submissions)) == (1, 1)


def test_what_was_not_taken_is_sent_again_once_the_list_can_be_believed(
    sent: KaggleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent.fails = {"CreateSubmission": "before"}
    with pytest.raises(UnclearError):
        go()
    sent.fails = {}
    with pytest.raises(BusyError, match="was being sent 0 s ago and kaggle:titanic does not list it yet; run the same"):
        go()
    assert sent.did("CreateSubmission") == 1
    monkeypatch.setattr(module, "SETTLE", 0.0)
    assert go().new
    assert states() == ["intent", "unknown", "failed", "intent", "sent", "scored"]
    assert len(sent.submissions) == 1


def test_asking_for_another_try_needs_no_waiting(sent: KaggleServer) -> None:
    sent.fails = {"CreateSubmission": "before"}
    with pytest.raises(UnclearError):
        go()
    sent.fails = {}
    assert go(again=True).new


def test_a_lost_ledger_does_not_send_again_what_the_service_lists(sent: KaggleServer) -> None:
    go()
    for file in (*ROOT.glob("ledger*"), ROOT / "submission-001" / "submission.csv"):
        file.unlink()
    (ROOT / "submission-001" / ".lock").unlink()
    (ROOT / "submission-001").rmdir()
    make()
    assert (go().new, sent.did("CreateSubmission"), states()) == (False, 1, ["scored"])


@pytest.mark.parametrize(
    ("method", "fault", "error", "message"),
    [
        ("CreateSubmission", 400, UsageError, r"Kaggle refuses \(400: no CreateSubmission for Bearer \*\*\*\)"),
        ("CreateSubmission", 403, UsageError, "accept the rules first: kaggle.com/competitions/titanic/rules"),
        ("StartSubmissionUpload", 404, UsageError, "is there a competition at kaggle.com/competitions/titanic?"),
        ("StartSubmissionUpload", 500, BusyError, "try again later"),
        ("StartSubmissionUpload", "before", BusyError, "cannot be reached"),
        ("PUT", 500, BusyError, "its upload failed; nothing was submitted, run again"),
    ],
)
def test_what_was_refused_is_noted_as_failed_and_can_be_sent_again(
    method: str, fault: int | str, error: type[Exception], message: str, sent: KaggleServer
) -> None:
    sent.fails = {method: fault}
    with pytest.raises(error, match=message) as caught:
        go()
    assert not isinstance(caught.value, UnclearError)
    assert states() == ["intent", "failed"]
    sent.fails = {}
    assert go().new


def test_a_failing_service_is_unclear_when_it_was_asked_to_take_the_file(sent: KaggleServer) -> None:
    sent.fails = {"CreateSubmission": 500}
    with pytest.raises(UnclearError):
        go()
    assert states() == ["intent", "unknown"]


def test_an_answer_of_somebody_else_is_no_answer(sent: KaggleServer) -> None:
    sent.fails = {"CreateSubmission": "html"}
    with pytest.raises(UnclearError):
        go()
    sent.fails = {"ListSubmissions": "html"}
    with pytest.raises(BusyError, match="gave no answer that can be read"):
        go()


@pytest.mark.parametrize("text", ["", "None", "nan"])
def test_a_score_that_is_not_told_is_none(text: str, sent: KaggleServer) -> None:
    sent.public = text
    found = go()
    assert (found.state, found.public) == ("scored", None)
    assert found.sentence.endswith("the service tells no score")


def test_what_has_no_score_yet_is_fetched_later(sent: KaggleServer) -> None:
    sent.pending = 1
    found = go(wait=0.0)
    assert (found.state, found.public) == ("sent", None)
    assert found.sentence.endswith("no score yet (pending)")
    assert [(each.state, each.public) for each in pull(ROOT)] == [("sent", None)]
    sent.private = "0.9"
    assert [(each.state, each.public, each.private) for each in pull(ROOT, "submission-001")] == [
        ("scored", 0.9732, 0.9)
    ]
    row = bt.scores(ROOT)[0]
    assert (row.public, row.private) == (0.9732, 0.9)
    before = states()
    pull(ROOT)
    assert states() == before
    sent.private = "0.8"  # as after a rescore
    pull(ROOT)
    assert bt.scores(ROOT)[0].private == 0.8


def test_a_service_that_fails_while_the_score_is_waited_for_does_no_harm(sent: KaggleServer) -> None:
    def fail_twice(method: str) -> None:
        sent.fails = {"ListSubmissions": 500} if 2 <= sent.did("ListSubmissions") <= 3 else {}

    sent.watch = fail_twice
    assert go().state == "scored"
    assert sent.did("ListSubmissions") == 4


def test_a_file_that_the_service_cannot_score_is_failed_and_not_sent_again(sent: KaggleServer) -> None:
    sent.error = "Submission contains null values"
    found = go()
    assert (found.state, found.public) == ("failed", None)
    assert found.sentence.endswith("the service could not score it (Submission contains null values)")
    assert (go().state, sent.did("CreateSubmission")) == ("failed", 1)


def test_a_submission_far_back_in_the_list_is_found(sent: KaggleServer) -> None:
    sent.add(f"mine {MARK}")
    for number in range(45):
        sent.add(f"by hand {number}")
    assert (go().new, go().ref) == (False, 1000)


def test_a_second_process_that_sends_the_same_waits_for_no_one(sent: KaggleServer) -> None:
    with locked(ROOT / "submission-001"), pytest.raises(BusyError, match="submission-001 is in use by process"):
        go()
    assert sent.calls == []


def test_of_two_names_of_the_same_bytes_one_is_sent_at_a_time(sent: KaggleServer) -> None:
    make("submission-002", entry="toy-002")
    make("submission-003", "id,y\n1,0.9\n", entry="toy-003")
    with locked(ROOT / "submission-001"):
        with pytest.raises(BusyError, match="submission-001 is in use by process"):
            send("submission-002", "titanic", ROOT)
        assert sent.calls == []
        assert send("submission-003", "titanic", ROOT, wait=0).new


def test_a_file_that_was_changed_is_not_sent(sent: KaggleServer) -> None:
    (ROOT / "submission-001" / "submission.csv").write_text("id,y\n1,0.6\n")
    with pytest.raises(CorruptError, match="is not the file that was checked; make it again: batteries submit toy-001"):
        go()
    assert sent.calls == []


def test_wrong_names_are_refused(sent: KaggleServer) -> None:
    with pytest.raises(UsageError, match="no submission 'submission-9'; submissions: submission-001"):
        send("submission-9", "titanic", ROOT)
    with pytest.raises(UsageError, match="'a/b' is no competition's name; it is the last part of its address"):
        send("submission-001", "a/b", ROOT)
    with pytest.raises(UsageError, match="nothing was sent to Kaggle from here"):
        pull(ROOT)
    with pytest.raises(UsageError, match="nothing of submission-001 was sent"):
        pull(ROOT, "submission-001")
    with pytest.raises((UsageError, NotSafeError)):
        send("../submission-001", "titanic", ROOT)
    with pytest.raises(UsageError, match="elsewhere has no ledger; make a submission first"):
        pull("elsewhere")


def test_a_missing_client_is_named(sent: KaggleServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kaggle.api.kaggle_api_extended", None)
    with pytest.raises(UsageError, match=r"client cannot be loaded .*; run: pip install 'batteries\[kaggle\]'"):
        go()


def test_a_token_that_the_service_does_not_know_is_a_usage_error(
    server: KaggleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fails = {"IntrospectToken": 401}
    with pytest.raises(UsageError, match=r"refuses \(401: .*\*\*\*\); make a new token at kaggle.com/settings"):
        Kaggle("titanic")
    server.fails = {}
    monkeypatch.setenv("KAGGLE_API_TOKEN", "expired")
    with pytest.raises(UsageError, match="no Kaggle credentials that the service accepts"):
        Kaggle("titanic")


@pytest.mark.parametrize("name", ["kaggle.json", "access_token", "credentials.json"])
def test_credentials_that_others_can_read_are_refused(
    name: str, server: KaggleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path.home() / ".kaggle" / name
    file.parent.mkdir()
    file.write_text(json.dumps({"username": "someone", "key": TOKEN}))
    for mode in (0o644, 0o640, 0o604):
        file.chmod(mode)
        with pytest.raises(UsageError, match=rf"other users can read it; run: chmod 600 \S+{name}$"):
            Kaggle("titanic")
    assert server.calls == []
    file.chmod(0o600)
    Kaggle("titanic")
    monkeypatch.setenv("KAGGLE_API_TOKEN", str(file))
    file.chmod(0o644)
    with pytest.raises(UsageError, match="chmod 600"):
        Kaggle("titanic")


def test_signatures_of_addresses_and_every_form_of_a_secret_are_removed() -> None:
    assert scrub("a?b c", []) == "a?b c"
    assert scrub("(url: /up/x?sig=1 (Caused by", []) == "(url: /up/x?*** (Caused by"
    assert scrub("abcd abc", ["abc", "abcd"]) == "*** ***"


class Command:
    """The command in a process of its own, that reaches the service."""

    def __init__(self, server: KaggleServer, folder: Path, **environment: str) -> None:
        site = folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(SITE)
        source = Path(bt.__file__).parent.parent
        self.environment = {
            **os.environ,
            "PYTHONPATH": f"{site}{os.pathsep}{source}",
            "TEST_KAGGLE": f"http://127.0.0.1:{server.port}",
            **environment,
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "batteries", *arguments],
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        return process.returncode, out + err


@pytest.fixture
def trained(server: KaggleServer, toy_folder: Path, capfd: pytest.CaptureFixture[str]) -> KaggleServer:
    """The service, and an entry to submit."""
    assert main(["train"]) == 0
    capfd.readouterr()
    return server


def test_the_command_submits_sends_and_says_what_is_next(
    trained: KaggleServer, capfd: pytest.CaptureFixture[str]
) -> None:
    line = "submit toy-001 --to kaggle titanic"
    assert main(line.split()) == 0
    out = capfd.readouterr().out
    assert out.endswith(
        "submission-001: sent to kaggle:titanic as 1000, 4 left today; public score\n0.97320\nNext: batteries scores\n"
    )
    assert main(line.split()) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert (
        "submission-001: was sent before to kaggle:titanic as 1000; public score 0.97320 nothing was sent now" in said
    )
    trained.pending = 99
    assert main([*line.split(), "--again", "--wait", "0", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)["upload"]
    assert (found["state"], found["new"], found["ref"]) == ("sent", True, 1001)
    trained.pending, trained.error = 0, "wrong ids"
    assert main(["leaderboard", "--pull"]) == 0
    out = capfd.readouterr().out
    assert "without a score: submission-001" in out
    assert "wrong ids" in out
    assert main(line.split()) == 3
    assert "could not score it (wrong ids). Mend it and submit the mended entry" in capfd.readouterr().err
    trained.allowed = 0
    assert main([*line.split(), "--again"]) == 8


def test_the_command_pulls_scores(sent: KaggleServer, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["leaderboard", "--pull"]) == 2
    assert "nothing was sent to Kaggle from here" in capfd.readouterr().err
    go(wait=0.0)
    sent.private = "0.9"
    assert main(["leaderboard", "submission-001", "--pull", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [(each["state"], each["public"], each["private"]) for each in found] == [("scored", 0.9732, 0.9)]
    assert main(["leaderboard", "--pull"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[2].split() == ["submission-001", "kaggle:titanic", "scored", "0.97320", "0.90000"]
    assert main(["leaderboard", "submission-001", "0.5"]) == 0
    assert bt.scores(ROOT)[0].public == 0.5


def test_wrong_use_of_the_command_gives_one_message(sent: KaggleServer, capfd: pytest.CaptureFixture[str]) -> None:
    for line, message in {
        "submit toy-001 --to mars titanic": "--to mars: this service is not known; write --to kaggle COMPETITION",
        "submit toy-001 --again": "--again sends the same file once more; say where",
        "submit runs/submission-001/submission.csv --to kaggle titanic": "--to sends the submission of an entry",
        "leaderboard": "give a submission and its score",
        "leaderboard submission-001": "give a submission and its score",
        "leaderboard submission-001 0.5 --pull": "leave out SCORE and --private",
        "leaderboard submission-9 --pull": "there is no submission 'submission-9'; submissions: submission-001",
    }.items():
        assert main(line.split()) == 2, line
        out, err = capfd.readouterr()
        assert message in err
        assert out == ""
    assert sent.calls == []


def command_lines() -> str:
    """The command lines of all processes."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().decode(errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    return "\n".join(lines)


def test_a_process_that_is_killed_while_it_sends_has_sent_once(trained: KaggleServer, tmp_path: Path) -> None:
    command = Command(trained, tmp_path)
    trained.fails = {"CreateSubmission": "silent"}
    process = command.start("submit", "toy-001", "--to", "kaggle", "titanic")
    for _ in range(600):
        if trained.submissions or process.poll() is not None:
            break
        time.sleep(0.1)
    assert trained.submissions, process.communicate()
    lines = command_lines()
    assert "titanic" in lines
    assert TOKEN not in lines
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert states() == ["intent"]
    trained.fails, trained.pending = {}, 999
    process = command.start("submit", "toy-001", "--to", "kaggle", "titanic")
    for _ in range(600):
        if trained.did("ListSubmissions") > 2 or process.poll() is not None:  # it waits for the score
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert (process.returncode, trained.did("CreateSubmission"), states()) == (130, 1, ["intent", "sent"]), said
    assert "submission-001 is sent; for its score later: batteries leaderboard submission-001 --pull" in said


def test_ctrl_c_while_it_is_sent_is_noted_and_nothing_is_sent_twice(
    sent: KaggleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ANSWER", 20.0)
    reader = threading.main_thread().ident
    assert reader is not None
    sent.fails = {"CreateSubmission": "silent"}

    def stop(method: str) -> None:
        if method == "CreateSubmission":
            threading.Timer(0.2, signal.pthread_kill, (reader, signal.SIGINT)).start()

    sent.watch = stop
    with pytest.raises(Interrupted, match="stopped while submission-001 was sent") as caught:
        go()
    assert (caught.value.exit_code, states()) == (130, ["intent", "unknown"])
    assert (go().new, sent.did("CreateSubmission")) == (False, 1)


def everything(folder: Path, *but: Path) -> str:
    """All that is in the files below a folder, and their names."""
    files = [path for path in folder.rglob("*") if path.is_file() and path not in but]
    return "\n".join(f"{path} {path.read_bytes().decode(errors='replace')}" for path in files)


def test_a_token_is_in_no_file_output_or_error(trained: KaggleServer, tmp_path: Path) -> None:
    """The service answers with it, the client prints it where VERBOSE is set, and --debug shows tracebacks."""
    held = Path.home() / ".kaggle" / "kaggle.json"
    held.parent.mkdir()
    held.write_text(json.dumps({"username": "someone", "key": "key-7d1c90ab"}))
    held.chmod(0o600)
    command = Command(trained, tmp_path, VERBOSE="1")
    submit = ("--debug", "submit", "toy-001", "--to", "kaggle", "titanic")
    trained.fails = {"CreateSubmission": 400}
    said = [command(*submit)]
    trained.fails = {}
    said.append(command(*submit))
    for method, fault in {"ListSubmissions": 500, "IntrospectToken": 401}.items():
        trained.fails = {method: fault}
        said.append(command("--debug", "leaderboard", "--pull"))
    trained.fails = {"ListSubmissions": 403}
    del command.environment["KAGGLE_API_TOKEN"]  # so that the pair of kaggle.json is used
    said.append(command("--debug", "leaderboard", "--pull"))
    assert [code for code, _ in said] == [1, 0, 1, 1, 1], said  # 1: --debug shows the traceback
    assert "no ListSubmissions for Basic ***" in said[4][1]
    texts = everything(tmp_path, held) + "".join(text for _, text in said)
    basic = b64encode(b"someone:key-7d1c90ab").decode()
    assert f"Basic {basic}" in trained.headers
    assert f"Bearer {TOKEN}" in trained.headers
    for secret in (TOKEN, "key-7d1c90ab", basic, SIGNED):
        assert secret not in texts
