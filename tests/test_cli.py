"""The command: what it prints, its exit codes, and one clear message for every wrong use."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from batteries.cli.app import main

VERBS = """new study split train verify scores average blend submit leaderboard test compare report demo""".split()


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


@pytest.mark.parametrize(
    "line", ["study", "split", "train", "scores", "test", "compare toy-001 toy-002", "submit toy-001"]
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
        ("train --fold 7", 2, "no fold 7; folds are numbered 0 to 1"),
        ("train --device cuda:7", 2, r"device 'cuda:7' cannot be used .*this machine has only cpu"),
        ("train --resume toy-009", 2, "toy-009 is not a run; runs there: toy-001, toy-002"),
        ("blend toy-001 toy-002 --weights a,b", 2, "write numbers with commas between them"),
        ("blend toy-001 toy-002 --how median", 2, "'median' is not one of"),
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


def test_scores_loads_no_torch(trained: Path) -> None:
    code = "import sys; from batteries.cli.app import main; main(['scores']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_new_makes_a_folder_that_runs(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "mine"]) == 0
    assert sorted(path.name for path in Path("mine").iterdir()) == ["experiment.py", "mlp.py"]
    assert main(["-C", "mine", "split"]) == 0
    assert main(["new", "mine"]) == 2
    assert "mine exists already; choose another name" in capfd.readouterr().err
