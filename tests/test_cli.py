"""The command: what it prints, its exit codes, and one clear message for every wrong use."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batteries.cli.app import _explained as explained
from batteries.cli.app import main
from batteries.errors import DataError, Interrupted, PeerError

VERBS = """
new study split train verify scores average blend stack calibrate decide pseudo
submit reproduce leaderboard test compare report doctor demo ledger
""".split()


def told(error: Exception) -> Exception:
    """As an error of rank 0 comes to the others."""
    error.told = True  # type: ignore[attr-defined]
    return error


@pytest.fixture
def trained(toy_folder: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    """The toy's folder after `train` and `train --set width=12`."""
    assert main(["train"]) == 0
    assert main(["train", "--set", "width=12"]) == 0
    capfd.readouterr()
    return toy_folder


def test_help_lists_the_verbs_in_the_order_of_the_flow(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = re.findall(r"^  ([a-z]+) {2,}\S", capfd.readouterr().out.partition("Commands:")[2], flags=re.MULTILINE)
    assert listed == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_in_80_columns(verb: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    out = capfd.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "..." not in out.splitlines()[2]


def test_the_flow_by_its_verbs(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for line in (
        "study",
        "split",
        "average toy-001 --best 2",
        "blend toy-001 toy-002 --how rank --weights 2,1",
        "submit blend-001",
        "reproduce submission-001",
        "leaderboard submission-001 -0.5 --private",
        "test",
        "compare toy-001 toy-002",
        "report",
        "scores",
    ):
        assert main(line.split()) == 0, line
    out, err = capfd.readouterr()
    assert err == ""
    assert "average-001: accuracy" in out
    assert "blend-001: accuracy" in out
    assert "submission-001 (blend-001): private score -0.50000 noted" in out
    assert [
        line for line in out.splitlines() if len(line) > 80 and "runs/" not in line and "told apart" not in line
    ] == []


def test_a_submission_is_shown_beside_the_previous_one(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["submit", "toy-001"]) == 0
    assert re.search(r"label +now\n─+\n0 +\d+\n", capfd.readouterr().out)
    assert main(["submit", "toy-002"]) == 0
    out = capfd.readouterr().out
    assert "beside submission-001: 30 rows\n" in out
    assert re.search(r"label +now +before\n─+\n0 +\d+ +\d+\n", out)
    assert re.search(r"\d+\.\d\d% of rows have another label\n", out)
    assert "submission-002: 30 rows of toy-002, whole numbers and texts written as they are\n" in out
    Path("sample.csv").write_text("id,a,b,c\n" + "".join(f"{id},0.2,0.3,0.5\n" for id in range(1029, 999, -1)))
    assert main(["submit", "toy-001", "--sample", "sample.csv", "--digits", "4"]) == 0
    out = capfd.readouterr().out
    assert "note: not compared: submission-002 has no columns in common with the submission\n" in out
    assert "4 significant digits: largest change" in out
    assert Path("runs/submission-003/submission.csv").read_text().startswith("id,a,b,c\n1029,0.")
    assert main(["submit", "toy-002", "--sample", "sample.csv", "--against", "submission-009"]) == 2
    assert "there is no submission or file 'submission-009'; submissions: submission-003" in capfd.readouterr().err
    assert not Path("runs/submission-004").exists()


@pytest.mark.parametrize(
    "line",
    [
        "study",
        "split",
        "train",
        "train --dry-run",
        "verify toy-001",
        "scores",
        "test",
        "compare toy-001 toy-002",
        "submit toy-001",
    ],
)
def test_json_is_all_that_is_printed(line: str, trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*line.split(), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)


def test_the_board_as_json_has_every_score(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["scores", "--json"])
    rows = json.loads(capfd.readouterr().out)
    assert {row["name"] for row in rows} == {"toy-001", "toy-002"}
    assert set(rows[0]) >= {
        "valid",
        "noise",
        "fold_mean",
        "fold_deviation",
        "folds",
        "public",
        "private",
        "test",
        "gap",
    }


def test_a_score_that_is_worse_than_every_fold_alone_is_explained(
    toy_folder: Path, change: Callable[[str, str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    """As an AUC over models of which one is surer than the others."""
    assert main(["train"]) == 0
    assert "every fold alone" not in capfd.readouterr().out
    change(
        "    metric = bt.Metric.accuracy()",
        '    metric = bt.Metric("shared", lambda t, p: 1 / len(p), higher_is_better=True)',
    )
    assert main(["train"]) == 0
    out = " ".join(capfd.readouterr().out.split())
    assert "shared 0.01667 on all held-out rows; runs/toy-002 That is worse than every fold alone (0.03333 to" in out
    assert main("blend toy-002 --how rank --within-folds".split()) == 0


def test_a_finished_run_is_not_trained_again(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 0
    assert "toy-001 is already complete" in capfd.readouterr().out
    assert sorted(path.name for path in Path("runs").glob("toy-*")) == ["toy-001", "toy-002"]


WRONG_FILES = {
    "a syntax error": (
        "lr: float = 0.05",
        "lr: float = = 0.05",
        2,
        r"experiment.py, line \d+: invalid syntax: lr: float = = 0.05",
    ),
    "a missing method": (
        "def loss(",
        "def los(",
        2,
        r"experiment.py: Toy has no method loss; add: def loss\(self, outputs",
    ),
    "no metric": (
        "    metric = bt.Metric.accuracy()\n",
        "",
        2,
        r"Toy has no metric; add: metric = bt.Metric.accuracy\(\)",
    ),
    "no target column": (
        'target = "label"',
        'target = "price"',
        3,
        r"Toy.table\(\) has no target column 'price'; it has id, x",
    ),
    "no id column": (
        'target = "label"',
        'id = "key"; target = "label"',
        3,
        r"has no id column 'key'; it has id, x, y, label",
    ),
    "duplicate ids": (
        "first, first + n)",
        "first, first + n) // 2",
        3,
        r"ids in 'id' occur more than once \(first: \[0, 1",
    ),
    "a metric that is NaN": (
        "bt.Metric.accuracy()",
        'bt.Metric("bad", lambda y, p: float("nan"), higher_is_better=True)',
        7,
        r"fold 0 head: bad was not finite in any of 4 epochs; look at the metric",
    ),
    "a metric that fails": (
        "bt.Metric.accuracy()",
        'bt.Metric("bad", lambda y, p: 1 / 0, higher_is_better=True)',
        2,
        r"metric 'bad' failed on targets \(30,\) int64 and predictions \(30, 3\) float32: division by zero",
    ),
    "a model that fails": (
        "nn.Linear(2, self.width)",
        "nn.Linear(2, self.wide)",
        2,
        r"experiment.py, line \d+, in model: Attr",
    ),
    "a loss that is no number": (
        "return nn.functional.cross",
        "return outputs + nn.functional.cross",
        2,
        "loss must return one",
    ),
    "a learning rate below zero": (
        "epochs=4, lr=self.lr",
        "epochs=4, lr=-1",
        2,
        "stage 'head': lr must be above 0, got -1",
    ),
    "a package that is missing": (
        "import polars as pl",
        "import polars as pl, nosuch",
        2,
        "imports 'nosuch', which is not inst",
    ),
}


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_experiment_gives_one_message_and_its_exit_code(
    name: str, change: Callable[[str, str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    old, new, code, message = WRONG_FILES[name]
    change(old, new)
    assert main(["train", "--json"]) == code
    out, err = capfd.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert re.search(message, errors[0]), errors[0]
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("frobnicate", 2, "No such command 'frobnicate'"),
        ("train", 2, r"has no experiment.py: go to an experiment folder, or make one: batteries new"),
        ("-C nowhere train", 2, "no folder nowhere; make one: batteries new NAME"),
        ("scores", 2, "has no ledger; batteries train makes it"),
        ("average toy-001", 2, "there is no 'toy-001' in runs; entries: none yet"),
        ("blend ../x y", 3, "entry '../x' cannot be used as a file name"),
        ("submit blend-001", 2, "there is no 'blend-001'"),
        ("test", 2, "no entry to test"),
        ("report", 2, "nothing to report yet"),
        ("new a/b", 3, "experiment 'a/b' cannot be used"),
        ("new x --template nosuch", 2, "no template 'nosuch'; choose one of images"),
        ("train --device cuda:7", 2, "no experiment.py"),
        ("train --ddp 2", 2, "no experiment.py"),
        ("train --dp --ddp 2", 2, "--dp is one process for all devices, --ddp one for each; give one of them"),
        ("train --dry-run --fold 1", 2, "--dry-run rehearses fold 0; leave out --fold"),
        ("train --resume ../toy-001", 3, "run '../toy-001' cannot be used as a file name"),
        ("verify toy-001", 2, "runs/toy-001 holds no entry and no submission"),
        ("verify ../toy-001", 3, "cannot be used as a file name"),
        ("leaderboard submission-001 high", 2, "Invalid value for 'score'"),
    ],
)
def test_wrong_use_gives_one_message_and_its_exit_code(
    line: str, code: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == code
    out, err = capfd.readouterr()
    assert re.search(message, err.replace("\n", " ")), err
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("train --set width=wide", 2, r"Toy.width = 'wide': Input should be a valid integer"),
        ("train --set wide=3", 2, "Toy has no field 'wide'; its fields are accumulate, average, batch_size"),
        ("train --set width", 2, "write name=value"),
        ("train --set width=wide --ddp 2", 2, r"Toy.width = 'wide': Input should be a valid integer"),
        ("train --ddp 1", 2, "--ddp 1: give 2 processes or more, or leave it out for one"),
        ("train --fold 7", 2, "no fold 7; folds are numbered 0 to 1"),
        ("train --device cuda:7", 2, r"device 'cuda:7' cannot be used .*this machine has only cpu"),
        ("train --timeout 0", 2, "--timeout 0: give the seconds that a process waits for the others, above 0"),
        ("train --resume toy-009", 2, "toy-009 is not a run; runs there: toy-001, toy-002"),
        ("blend toy-001 toy-002 --weights a,b", 2, "write numbers with commas between them"),
        ("blend toy-001 toy-002 --how best", 2, "'best' is not one of"),
    ],
)
def test_wrong_arguments_give_one_message(
    line: str, code: int, message: str, trained: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == code
    err = capfd.readouterr().err
    assert re.search(message, err.replace("\n", " ")), err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(toy_folder: Path, change: Callable[[str, str], None]) -> None:
    change("nn.Linear(2, self.width)", "nn.Linear(2, self.wide)")
    with pytest.raises(AttributeError):
        main(["--debug", "train"])


def test_changing_the_table_after_the_split_is_refused(
    toy_folder: Path, change: Callable[[str, str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["split"]) == 0
    change("return rows(60)", "return rows(63)")
    assert main(["train"]) == 3
    assert "the folds were made from another table: its ids changed (60 rows then, 63 now)" in capfd.readouterr().err


def test_a_damaged_prediction_file_is_refused(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = Path("runs/toy-001/oof.parquet")
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    assert main(["blend", "toy-001", "toy-002"]) == 4
    assert "runs/toy-001/oof.parquet" in capfd.readouterr().err


# --- verify


def test_the_files_of_a_run_are_verified(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "toy-001"]) == 0
    out, err = capfd.readouterr()
    assert re.fullmatch(r"toy-001: (\d+) of \1 files are intact\n", out)
    assert err == ""


def test_what_is_not_intact_is_shown_and_ends_with_4(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    stage = Path("runs/toy-001/fold0/stage-all")
    damaged, missing = sorted(stage.glob("checkpoint-*.pt"))[:2]
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    missing.unlink()
    assert main(["verify", "toy-001"]) == 4
    out, err = capfd.readouterr()
    assert max(map(len, out.splitlines())) <= 80
    assert re.search(rf"^damaged   fold0/stage-all/{damaged.name}\n {{10}}its digest is not", out, flags=re.MULTILINE)
    assert re.search(rf"^missing   fold0/stage-all/{missing.name}\n", out, flags=re.MULTILINE)
    assert re.search(r"toy-001: \d+ of \d+ files are intact", out)
    assert re.fullmatch(
        r"error: toy-001: damaged or missing files: [23]. Restore them from a copy,"
        r" or move runs/toy-001 away and train again\n",
        err,
    )
    assert main(["verify", "toy-001", "--json"]) == 4
    found = json.loads(capfd.readouterr().out)
    states = {Path("runs/toy-001", each["file"]): each["state"] for each in found["findings"]}
    assert (states[damaged], states[missing]) == ("damaged", "missing")


def test_what_a_killed_process_left_is_shown_and_is_no_error(trained: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("runs/toy-001/.fold.json.1.tmp").touch()
    assert main(["verify", "toy-001"]) == 0
    assert "leftover" in capfd.readouterr().out


# --- rehearsal, processes


def test_a_dry_run_says_much_in_few_lines_and_keeps_nothing(
    toy_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--dry-run", "--device", "cpu", "--set", "average=swa"]) == 0
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert len(lines) <= 12
    assert max(map(len, lines)) <= 80
    assert lines[1] == "Toy, 67 parameters; a batch: (8, 2) float32, (8) int64"
    assert [line.split()[0] for line in lines[3:5]] == ["head", "all"]
    assert "saved, stopped and gone on with, predicted in " in out
    assert lines[-1].startswith("the whole run: 2 folds, about ")
    assert not Path("runs").exists()
    assert err == ""


def test_a_dry_run_finds_what_is_wrong(
    toy_folder: Path, change: Callable[[str, str], None], capfd: pytest.CaptureFixture[str]
) -> None:
    change("nn.Linear(2, self.width)", "nn.Linear(3, self.width)")
    assert main(["train", "--dry-run"]) == 2
    assert "shapes cannot be multiplied" in capfd.readouterr().err
    assert not Path("runs").exists()


def test_training_keeps_what_the_process_was_prepared_with(trained: Path) -> None:
    settings = json.loads(Path("runs/toy-001/provenance.json").read_text())["settings"]
    assert settings.keys() >= {"keep_memory", "matmul", "threads"}


@pytest.fixture
def second_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if torchrun had started this process as the second."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("RANK", "1")


@pytest.mark.usefixtures("second_rank")
def test_errors_of_later_ranks_name_the_rank(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 2
    assert re.match(r"error: rank 1: .* has no experiment.py", capfd.readouterr().err)


@pytest.mark.usefixtures("second_rank")
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Interrupted.by(15), 143),
        (told(DataError("of rank 0")), 3),
        (told(ValueError("of rank 0")), 2),
        (told(MemoryError()), 6),
    ],
)
def test_what_the_first_rank_says_no_other_repeats(error: Exception, code: int) -> None:
    assert explained(error, []) == (code, "")


@pytest.mark.usefixtures("second_rank")
def test_a_lost_peer_is_said_by_the_rank_that_lost_it_unless_our_launcher_says_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = PeerError("rank 1 of 2 lost another process")
    assert explained(lost, []) == (9, "error: rank 1 of 2 lost another process")
    monkeypatch.setenv("BATTERIES_LAUNCH", "somewhere")
    assert explained(lost, []) == (9, "")


def test_an_error_of_all_processes_is_said_once_and_the_folder_is_the_one_given(
    toy_folder: Path, change: Callable[[str, str], None]
) -> None:
    change(
        "        return nn.functional.cross", "        raise ValueError('of all')\n        return nn.functional.cross"
    )
    folder = toy_folder / "inside"
    folder.mkdir()
    (toy_folder / "experiment.py").rename(folder / "experiment.py")
    line = ["-C", "inside", "train", "--ddp", "2", "--device", "cpu"]
    code = f"import sys; from batteries.cli.app import main; sys.exit(main({line}))"
    done = subprocess.run([sys.executable, "-c", code, "not", "these"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: (rank 1: )?experiment.py, line \d+, in loss: ValueError: of all\n"
        r"For the traceback: batteries --debug ...\n",
        done.stderr,
    ), done.stderr
    assert (folder / "runs/folds.parquet").exists()
    assert not list((folder / "runs").glob("toy-*"))


def test_scores_loads_no_torch(trained: Path) -> None:
    code = "import sys; from batteries.cli.app import main; main(['scores']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_new_makes_a_folder_that_runs(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "mine"]) == 0
    assert sorted(path.name for path in Path("mine").iterdir()) == ["experiment.py", "mlp.py"]
    assert main(["-C", "mine", "split"]) == 0
    assert main(["new", "mine"]) == 2
    assert "mine exists already; choose another name" in capfd.readouterr().err


def test_a_folder_that_cannot_be_written_to_is_named_with_a_way_out() -> None:
    code, text = explained(PermissionError(errno.EACCES, "Permission denied", "runs"), ["train"])
    assert (code, text.splitlines()[0]) == (
        6,
        "error: runs: Permission denied; what was there is untouched. Next: make it readable and writable, or work in"
        " a folder of yours (-C FOLDER), and run again",
    )
