"""New: an experiment folder that already runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from batteries.errors import NotSafeError, UsageError
from batteries.experiment.load import load_experiment
from batteries.prepare.new import new, templates
from batteries.prepare.table import test_table as held_back
from batteries.prepare.table import training_table


@pytest.mark.parametrize("template", templates())
def test_every_file_of_a_template_is_an_experiment_with_data(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = new("mine", template=template)
    files = sorted(path.name for path in folder.glob("*.py"))
    assert "experiment.py" in files
    for file in files:
        experiment = load_experiment(folder, file)
        assert len(training_table(experiment)) > 100
        assert held_back(experiment) is not None
        experiment.checked_stages()
        sys.modules.pop(Path(file).stem)


def test_the_folder_holds_the_files_of_the_template_and_nothing_else() -> None:
    assert new("mine", parent="a/b") == Path("a/b/mine")
    assert sorted(p.name for p in Path("a/b/mine").iterdir()) == ["experiment.py", "mlp.py"]
    assert [p.name for p in Path("a/b").iterdir()] == ["mine"]


def test_what_an_interrupted_start_left_is_cleared_away() -> None:
    half = Path(".mine.tmp")
    half.mkdir()
    (half / "old.py").write_text("")
    assert not (new("mine") / "old.py").exists()
    assert not half.exists()


def test_a_folder_that_exists_is_never_touched() -> None:
    Path("mine").mkdir()
    with pytest.raises(UsageError, match="mine exists already; choose another name, or go into it: batteries study"):
        new("mine")
    assert list(Path("mine").iterdir()) == []


def test_an_unknown_template_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="there is no template 'cats'; choose one of images"):
        new("mine", template="cats")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", ["../mine", "/tmp/mine", "", "a b", "con"])
def test_a_name_that_is_no_folder_here_is_refused(name: str) -> None:
    with pytest.raises(NotSafeError, match=r"experiment .* cannot be used as a file name"):
        new(name)
    assert list(Path().iterdir()) == []
