"""The scoring verbs: what scores, test and compare print."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from batteries.cli.app import main
from batteries.score.ledger import Ledger

Says = Callable[[str], str]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy's folder after three trainings."""
    folder = tmp_path_factory.mktemp("toy")
    shutil.copy(Path(__file__).parent / "toy.py", folder / "experiment.py")
    for line in ("train", "train --set width=12", "train --set width=2"):
        assert main(["-C", str(folder), *line.split()]) == 0
    return folder


@pytest.fixture
def says(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Says:
    """Return what a verb prints in a copy of that folder, if all of it is in 80 columns."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)

    def run(line: str) -> str:
        assert main(line.split()) == 0
        out, err = capfd.readouterr()
        assert err == ""
        narrow = line.startswith(("scores", "test", "compare")) and "--json" not in line
        assert not narrow or max(map(len, out.splitlines())) <= 80
        return out

    return run


def test_compare_says_it_in_words_first_and_figures_after(says: Says) -> None:
    lines = says("compare toy-001 toy-003 --draws 500").splitlines()
    assert lines[0].startswith(("toy-003 is ", "toy-001 and toy-003 cannot be told"))
    out = "\n".join(lines)
    for figure in ("accuracy of toy-001", "95 % interval over 500 resamples of rows", "p, paired bootstrap"):
        assert figure in out
    several = says("compare toy-001 toy-002 toy-003 --draws 500")
    assert "is the best of 3, +" in several.replace("\n", " ")
    assert "accuracy; beside toy-001: " in several


def test_compare_shows_every_part_of_a_column_that_is_asked_for(says: Says) -> None:
    out = says("compare toy-001 toy-002 --by label --groups y --draws 500")
    assert "toy-002 beside toy-001 in accuracy, by label" in out
    assert "resamples of groups of y" in out
    found = json.loads(says("compare toy-001 toy-002 --by x --block 6 --draws 500 --json"))
    assert found["by"] == "x"
    assert len(found["comparisons"][0]["segments"]) == 10
    assert found["comparisons"][0]["over"] == "blocks of 6 rows"


def test_compare_foretells_the_shake_up_and_knows_the_public_gap(says: Says) -> None:
    out = says("compare toy-001 toy-002 --public 10 --draws 500").replace("\n", " ")
    assert "toy-001 and toy-002: A public part of 10 rows moves the gap of the two by ±0." in out
    for number in (1, 2):
        says(f"submit toy-00{number}")
        says(f"leaderboard submission-00{number} 0.{number}")
    found = json.loads(says("compare toy-001 toy-002 --public 10 --private 40 --draws 500 --json"))["shake_up"][0]
    assert (found["gap"], found["private"]) == (pytest.approx(0.1), 40)
    assert "the +0.10000 seen there" in found["sentence"]


def test_wrong_use_of_compare_gives_one_message(says: Says, capfd: pytest.CaptureFixture[str]) -> None:
    for line, message in {
        "compare toy-001 toy-001": "toy-001 is named twice",
        "compare toy-001 toy-002 --by colour": "the training table has no column 'colour'; it has id, x, y, label",
        "compare toy-001 toy-002 --groups x --block 3": "groups and blocks cannot be resampled at once",
        "compare toy-001 toy-002 --private 3": "--private is the rest of --public ROWS; give both",
        "compare toy-001 toy-002 --public 30": "toy-001 has 30 test rows, 30 of them public; say how many rows are pri",
        "compare toy-001 toy-002 --draws 3": "needs 100 draws or more",
    }.items():
        assert main(line.split()) == 2
        out, err = capfd.readouterr()
        assert message in err
        assert out == ""


def test_test_gives_an_interval_and_says_so_when_it_served_for_a_second_entry(says: Says) -> None:
    first = says("test toy-001")
    assert {"from", "to", "explained"} <= set(first.split())
    assert "note:" not in first
    assert "note: this test set was looked at 2 times, for 2 entries" in says("test toy-002")
    found = json.loads(says("test toy-001 --json"))[0]
    assert (found["looks"], found["entries"]) == (3, ["toy-001", "toy-002"])
    assert found["low"] <= found["test"] <= found["high"]


def test_scores_says_how_validation_and_leaderboard_agree(says: Says) -> None:
    assert "leaderboard over" not in says("scores")
    says("submit toy-001")
    says("leaderboard submission-001 0.9")
    assert "over 1 submission: no correlation (too few, 5 say" in says("scores").replace("\n", " ")
    with Ledger("runs") as ledger:
        known = ledger.entries()[0]["config"]
        for number in range(2, 8):
            name = f"toy-9{number}"
            ledger.add_entry({**known, "name": name, "identity": name})
            metric = {"metric": "accuracy", "higher_is_better": True}
            ledger.add_score(name, "oof", number / 10, **metric)  # type: ignore[arg-type]
            ledger.add_submission(f"submission-9{number}", entry=name, file="x", sha256=name, rows=30)
            ledger.add_score(name, "public", number / 10, submission=f"submission-9{number}", **metric)  # type: ignore[arg-type]
    assert "validation and public leaderboard over 7 submissions: Spearman 1.00, 95 % " in says("scores")
