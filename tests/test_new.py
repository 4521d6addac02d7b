"""New: an experiment folder that already runs."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline

from batteries.cli.app import main
from batteries.errors import NotSafeError, UsageError
from batteries.experiment.load import load_experiment
from batteries.files import read_sealed
from batteries.prepare.new import new, templates
from batteries.prepare.table import test_table as held_back
from batteries.prepare.table import training_table


@pytest.fixture(autouse=True)
def modules_forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test imports an experiment.py of its own."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in ("experiment", "mlp", "docstrings"):
        sys.modules.pop(name, None)


def rmse_of_a_line(table: pl.DataFrame, fold: np.ndarray) -> float:
    """What linear regression scores out-of-fold."""
    inputs = table.drop("id", "target").cast(pl.Float64).to_numpy()
    targets = table["target"].to_numpy()
    guessed = np.zeros(len(table))
    for k in range(5):
        guessed[fold == k] = LinearRegression().fit(inputs[fold != k], targets[fold != k]).predict(inputs[fold == k])
    return float(np.sqrt(((guessed - targets) ** 2).mean()))


def test_tabular_trains_above_the_baseline_it_states() -> None:
    folder = new("mine", template="tabular")
    assert main(["-C", "mine", "train"]) == 0
    table = training_table(load_experiment(folder))
    fold = pl.read_parquet("mine/runs/folds.parquet")["fold"].to_numpy()
    line, stated = rmse_of_a_line(table, fold), float(re.search(r"([\d.]+) by linear", stated_in(folder))[1])
    assert line == pytest.approx(stated, abs=0.06)
    oof = pl.read_parquet("mine/runs/diabetes-001/oof.parquet")
    assert float(((oof["prediction"] - oof["target"]) ** 2).mean() ** 0.5) < line - 0.3  # type: ignore[operator, arg-type]


def test_text_trains_above_the_baseline_it_states() -> None:
    folder = new("mine", template="text")
    assert main(["-C", "mine", "train", "--fold", "1"]) == 0
    experiment = load_experiment(folder)
    table, fold = training_table(experiment), pl.read_parquet("mine/runs/folds.parquet")["fold"].to_numpy()
    texts, targets = table["text"].to_numpy(), experiment.targets(table)
    words = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=500))
    baseline = words.fit(texts[fold != 1], targets[fold != 1]).score(texts[fold == 1], targets[fold == 1])
    stated = float(re.search(r"([\d.]+) by logistic", stated_in(folder))[1])
    assert baseline == pytest.approx(stated, abs=0.08)  # one fold of five
    scored = read_sealed(Path("mine/runs/docstrings-001/fold1/fold.json"))["scores"]["accuracy"]
    assert scored > baseline


def stated_in(folder: Path) -> str:
    """The docstring of the experiment's file."""
    return ast.get_docstring(ast.parse((folder / "experiment.py").read_text())) or ""


@pytest.mark.parametrize("template", templates())
def test_a_template_is_at_most_three_short_files_and_states_a_baseline(template: str) -> None:
    folder = new("mine", template=template)
    files = sorted(folder.rglob("*"))
    assert len(files) <= 3
    assert all(len(path.read_text().splitlines()) <= 100 for path in files)
    assert "To beat" in stated_in(folder)


@pytest.mark.parametrize("template", templates())
def test_every_experiment_of_a_template_has_data(template: str) -> None:
    folder = new("mine", template=template)
    files = sorted(path.name for path in folder.glob("*.py"))
    assert "experiment.py" in files
    for file in set(files) - {"docstrings.py"}:
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
    with pytest.raises(UsageError, match="there is no template 'cats'; choose one of images, tabular, text"):
        new("mine", template="cats")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", ["../mine", "/tmp/mine", "", "a b", "con"])
def test_a_name_that_is_no_folder_here_is_refused(name: str) -> None:
    with pytest.raises(NotSafeError, match=r"experiment .* cannot be used as a file name"):
        new(name)
    assert list(Path().iterdir()) == []
