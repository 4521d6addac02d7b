"""The verbs that learn on out-of-fold predictions: what calibrate, decide, stack and pseudo make and say."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from batteries.cli.app import main
from batteries.score.entry import open_entry

Says = Callable[[str], str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy's folder after two trainings."""
    folder = tmp_path_factory.mktemp("toy")
    shutil.copy(Path(__file__).parent / "toy.py", folder / "experiment.py")
    for line in ("train", "train --set width=12"):
        assert main(["-C", str(folder), *line.split()]) == 0
    return folder


@pytest.fixture
def says(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Says:
    """Return what a verb prints in a copy of that folder."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)

    def run(line: str) -> str:
        capfd.readouterr()
        assert main(line.split()) == 0, capfd.readouterr().err
        return capfd.readouterr().out

    return run


def test_calibrate_shows_what_it_is_worth_before_in_sample_and_nested(says: Says) -> None:
    out = says("calibrate toy-001")
    assert [line.split("  ")[0].strip() for line in out.splitlines()[2:5]] == ["before", "in sample", "nested"]
    made = json.loads(says("calibrate toy-001 --json"))
    learned = made["learned"]
    assert (made["entry"] == "calibrated-001") is learned["accepted"]
    assert learned["accepted"] is (learned["nested"]["log_loss"] < learned["before"]["log_loss"])
    assert f"{learned['nested']['log_loss']:.5f}" in out


def test_decide_says_the_rule_and_leaves_an_entry_alone_where_it_gains_nothing(says: Says) -> None:
    out = says("decide toy-001 --objective accuracy")
    made = json.loads(says("decide toy-001 --objective accuracy --json"))
    assert out.splitlines()[3].startswith("accuracy: ")
    if not made["learned"]["accepted"]:
        assert "toy-001 stays as it is" in out


def test_a_stack_is_an_entry_that_is_scored_blended_and_submitted_like_any_other(says: Says, tmp_path: Path) -> None:
    assert says("stack toy-001 toy-002 --model logistic").startswith("stack-001: accuracy ")
    assert open_entry(tmp_path / "runs", "stack-001").kind == "stack"
    assert "stack-001" in says("scores")
    assert says("blend stack-001 toy-001").startswith("blend-001: accuracy ")
    assert "submission-001" in says("submit stack-001")


def test_files_of_any_origin_are_blended_without_an_experiment(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.csv").write_text("id,score\n007,0.25\n7,0.5\n")
    (tmp_path / "b.csv").write_text("id,p\n7,1.0\n007,0.75\n")
    assert main(["blend", "a.csv", "b.csv", "--weights", "3,1", "--out", "c.csv"]) == 0
    assert (tmp_path / "c.csv").read_text() == "id,prediction\n007,0.375\n7,0.625\n"
    assert capfd.readouterr().out == "c.csv: mean of a.csv, b.csv\n"
    assert main(["blend", "a.csv", "b.csv"]) == 2
    assert "--out FILE" in capfd.readouterr().err
    (tmp_path / "b.csv").write_text("id,p\n007,0.6\n8,0.4\n")
    assert main(["blend", "a.csv", "b.csv", "--out", "c.csv"]) == 3
    assert "['7']" in capfd.readouterr().err


def test_fitted_weights_come_with_what_they_are_worth(says: Says, tmp_path: Path) -> None:
    out = says("blend toy-001 toy-002 --fit greedy")
    assert "On rows they were not fitted on" in out
    assert "blend-001: accuracy" in out
    found = json.loads(says("blend toy-001 toy-002 --fit greedy --json"))
    assert found["entry"] == "blend-001"
    assert found["valid"] == found["learned"]["score"], "the board shows the nested score"


def test_pseudo_counts_the_rows_it_wrote_for_every_fold(says: Says, tmp_path: Path) -> None:
    made = json.loads(says("pseudo toy-001 toy-002 --at-least 0.6 --json"))
    assert made["rows"] == sum(made["by_fold"].values()) > 0
    assert set(made["by_fold"]) <= {"0", "1"}
    assert (tmp_path / "runs" / "pseudo-001" / "pseudo.parquet").exists()
    assert f"pseudo-001: {made['rows']} rows" in says("pseudo toy-001 toy-002 --at-least 0.6")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("calibrate nobody", "nobody"),
        ("decide toy-001 --objective beauty", "beauty"),
        ("pseudo toy-001 --at-least 2", "at_least"),
        ("stack toy-001 toy-001 --model logistic", "twice"),
    ],
)
def test_wrong_use_is_one_clear_message(
    trained: Path, line: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["-C", str(trained), *line.split()]) in (2, 3)
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error
