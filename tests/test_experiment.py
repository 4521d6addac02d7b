"""Experiment files: a right one is loaded as it is now, a wrong one is refused with where and what to do."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import batteries as bt
from batteries.errors import ConfigError, DataError, ExperimentError
from batteries.experiment.load import code_digest, describe, experiment_name, fields_of, load_experiment

Change = Callable[[str, str], None]


@pytest.fixture(autouse=True)
def own_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Folders of one test are not searched in the next."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in list(sys.modules):
        if name.partition(".")[0] in ("experiment", "other", "helper", "parts"):
            del sys.modules[name]


def refused(toy_folder: Path, message: str, **given: Any) -> None:
    with pytest.raises(ExperimentError, match=message) as caught:
        load_experiment(toy_folder, **given)
    assert caught.value.exit_code == 2


# What is loaded


def test_the_experiment_of_a_folder_is_loaded_with_its_defaults(toy_folder: Path) -> None:
    toy = load_experiment(toy_folder)
    assert type(toy).__name__ == "Toy"
    assert fields_of(toy) == {
        "seed": 42,
        "batch_size": 8,
        "num_workers": 0,
        "lr": 0.05,
        "width": 8,
        "average": None,
        "accumulate": 1,
    }


def test_typed_values_win_over_recorded_ones(toy_folder: Path) -> None:
    toy = load_experiment(toy_folder, values={"lr": 0.1, "width": 4}, overrides=["lr=0.2", "average=ema"])
    assert (toy.lr, toy.width, toy.average) == (0.2, 4, "ema")  # type: ignore[attr-defined]


def test_a_file_can_be_named_with_and_without_its_ending(toy_folder: Path) -> None:
    (toy_folder / "other.py").write_text((toy_folder / "experiment.py").read_text().replace("class Toy", "class Other"))
    for name in ("other", "other.py"):
        assert type(load_experiment(toy_folder, name)).__name__ == "Other"


def test_an_experiment_can_be_pickled_by_its_import_path(toy_folder: Path) -> None:
    toy = load_experiment(toy_folder, overrides=["lr=0.5"])
    assert pickle.loads(pickle.dumps(toy)) == toy


def test_loading_twice_gives_one_class(toy_folder: Path) -> None:
    assert type(load_experiment(toy_folder)) is type(load_experiment(toy_folder))


def test_an_edited_file_is_loaded_as_it_is_now(toy_folder: Path, change: Change) -> None:
    before = load_experiment(toy_folder)
    change("lr: float = 0.05", "lr: float = 0.06")  # the same size, within the same second
    after = load_experiment(toy_folder)
    assert (before.lr, after.lr) == (0.05, 0.06)  # type: ignore[attr-defined]


def test_an_edited_helper_is_loaded_as_it_is_now(toy_folder: Path, change: Change) -> None:
    (toy_folder / "helper.py").write_text("RATE = 0.1\n")
    change("import batteries as bt\n", "import batteries as bt\nfrom helper import RATE\n")
    change("lr: float = 0.05", "lr: float = RATE")
    assert load_experiment(toy_folder).lr == 0.1  # type: ignore[attr-defined]
    (toy_folder / "helper.py").write_text("RATE = 0.2\n")
    assert load_experiment(toy_folder).lr == 0.2  # type: ignore[attr-defined]


def test_two_folders_have_modules_and_packages_of_the_same_names(toy_folder: Path, change: Change) -> None:
    change("import batteries as bt\n", "import batteries as bt\nfrom helper import WIDTH\nfrom parts.net import RATE\n")
    change("lr: float = 0.05", "lr: float = RATE")
    change("width: int = 8", "width: int = WIDTH")
    loaded = []
    for number in (1, 2):
        folder = toy_folder / f"place{number}"
        (folder / "parts").mkdir(parents=True)
        (folder / "experiment.py").write_text((toy_folder / "experiment.py").read_text())
        (folder / "helper.py").write_text(f"WIDTH = {number}\n")
        (folder / "parts/net.py").write_text(f"RATE = 0.{number}\n")
        loaded.append(load_experiment(folder))
    assert [(e.width, e.lr) for e in loaded] == [(1, 0.1), (2, 0.2)]  # type: ignore[attr-defined]
    first = load_experiment(toy_folder / "place1")
    assert (first.width, first.lr) == (1, 0.1)  # type: ignore[attr-defined]


def test_two_names_for_one_class_are_one_experiment(toy_folder: Path) -> None:
    with open(toy_folder / "experiment.py", "a") as file:
        file.write("\nBaseline = Toy\n")
    assert type(load_experiment(toy_folder)).__name__ == "Toy"


def test_an_experiment_may_build_on_another_files(toy_folder: Path) -> None:
    (toy_folder / "other.py").write_text(
        "from dataclasses import dataclass\nfrom experiment import Toy\n\n"
        "@dataclass(kw_only=True)\nclass Wide(Toy):\n    width: int = 64\n"
    )
    assert load_experiment(toy_folder, "other").width == 64  # type: ignore[attr-defined]


def test_a_training_step_of_its_own_needs_no_loss(toy_folder: Path, change: Change) -> None:
    change("def loss(self, outputs: Tensor, targets: Tensor)", "def training_step(self, model, batch)")
    load_experiment(toy_folder)


def test_loading_does_not_read_the_users_files_as_bytecode(toy_folder: Path) -> None:
    load_experiment(toy_folder)
    assert [p.name for p in toy_folder.glob("__pycache__/experiment*")] == []


# What is refused: the file


def test_a_folder_without_the_file_says_what_there_is(toy_folder: Path) -> None:
    refused(toy_folder, r"has no mlp\.py: it has experiment\.py", file="mlp")
    (toy_folder / "experiment.py").unlink()
    refused(toy_folder, r"has no experiment\.py: go to an experiment folder, or make one: batteries new NAME")
    refused(toy_folder / "missing", r"missing has no experiment\.py")


@pytest.mark.parametrize("file", ["../experiment", "/etc/passwd", "a b", "", "..", "exp-2", "a/b.py"])
def test_a_name_that_is_no_module_of_the_folder_is_refused(toy_folder: Path, file: str) -> None:
    refused(toy_folder, "is not an experiment's name; give a file of .*, such as experiment.py", file=file)


def test_a_file_that_hides_a_module_is_refused(toy_folder: Path) -> None:
    for name in ("random", "numpy"):
        (toy_folder / f"{name}.py").write_text((toy_folder / "experiment.py").read_text())
    refused(toy_folder, r"random\.py hides Python's own module 'random'; rename the file", file="random")
    refused(toy_folder, r"numpy\.py hides the installed module 'numpy'; rename the file", file="numpy")
    assert np.__name__ == "numpy"


WRONG_FILES = [
    ("class Toy(:\n", r"^experiment\.py, line 1: invalid syntax: class Toy\(:\nMend it and run again\.$"),
    ("def f():\nreturn 1\n", r"^experiment\.py, line 2: expected an indented block .*: return 1\nMend it"),
    ("x = '\n", r"^experiment\.py, line 1: unterminated string literal"),
    (b"x = '\xff'\n", r"^experiment\.py.*: \(unicode error\) 'utf-8' codec can't decode byte 0xff"),
    (b"x = 1\0\n", r"^experiment\.py: source code string cannot contain null bytes\nMend it"),
    (
        "import surely_not_there\n",
        r"^experiment\.py imports 'surely_not_there', which is not installed: pip install it",
    ),
    ("import torch.surely_not\n", r"^experiment\.py imports 'torch.surely_not', which is not installed"),
    (
        "from math import tau2\n",
        r"^experiment\.py, line 1, in <module>: ImportError: cannot import name 'tau2' from 'ma",
    ),
    ("raise ModuleNotFoundError('no')\n", r"^experiment\.py, line 1, in <module>: ModuleNotFoundError: no$"),
    ("\n\n1 / 0\n", r"^experiment\.py, line 3, in <module>: ZeroDivisionError: division by zero$"),
    ("def f():\n    return {}['a']\nf()\n", r"^experiment\.py, line 2, in f: KeyError: 'a'$"),
    ("", r"^experiment\.py defines no experiment: write class Mine\(bt\.Experiment\) in it$"),
    ("from batteries import Experiment\n", r"^experiment\.py defines no experiment"),
]


@pytest.mark.parametrize(("content", "message"), WRONG_FILES)
def test_a_file_that_cannot_be_imported_is_refused_with_its_line(
    toy_folder: Path, content: str | bytes, message: str
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    (toy_folder / "experiment.py").write_bytes(data)
    refused(toy_folder, message)


def test_an_error_in_a_helper_names_the_helper(toy_folder: Path, change: Change) -> None:
    change("import batteries as bt\n", "import batteries as bt\nimport helper\n")
    (toy_folder / "helper.py").write_text("x = 1\ny = (\n")
    refused(toy_folder, r"^helper\.py, line 2: '\(' was never closed: y = \(")
    (toy_folder / "helper.py").write_text("x = 1\nx.y\n")
    refused(toy_folder, r"^helper\.py, line 2, in <module>: AttributeError: 'int' object has no attribute 'y'")
    (toy_folder / "helper.py").write_text("x = 1\n")
    load_experiment(toy_folder)


def test_errors_of_ours_in_the_file_come_as_they_are(toy_folder: Path, change: Change) -> None:
    change("bt.Stratified", "bt.KFold(n=1) or bt.Stratified")
    with pytest.raises(ConfigError, match="folds: n must be a whole number >= 2, got 1"):
        load_experiment(toy_folder)


# What is refused: the class

WRONG_CLASSES = [
    ("metric = bt.Metric.accuracy()", "", r"Toy has no metric; add: metric = bt\.Metric\.accuracy\(\)"),
    ("metric = bt.Metric.accuracy()", "metric = 'auc'", r"Toy\.metric must be a Metric such as .*, got 'auc'"),
    ("metric = bt.Metric.accuracy()", "metric = bt.Metric.accuracy", r"Toy\.metric must be a Metric such as"),
    (
        "metric = bt.Metric.accuracy()",
        "metric = bt.Metric('auc', higher_is_better=True)",
        r"Toy\.metric must be a Metric with a function to call",
    ),
    ("also = (bt.Metric.log_loss(),)", "also = bt.Metric.log_loss()", r"Toy\.also must be a tuple of Metrics"),
    ("also = (bt.Metric.log_loss(),)", "also = ('auc',)", r"Toy\.also must be a tuple of Metrics"),
    ("also = (bt.Metric.log_loss(),)", "also = (metric,)", r"Toy\.also must be Metrics with names of their own"),
    ('folds = bt.Stratified("label", n=2)', "folds = 5", r"Toy\.folds must be None or a strategy such as .*, got 5"),
    ('folds = bt.Stratified("label", n=2)', "folds = bt.KFold", r"Toy\.folds must be None or a strategy"),
    ('target = "label"', "target = 3", r"Toy\.target must be the name of a column, got 3"),
    ('target = "label"', "id = None", r"Toy\.id must be the name of a column, got None"),
    ('target = "label"', "classes = 'abc'", r"Toy\.classes must be None or a tuple of texts, got 'abc'"),
    ('target = "label"', "classes = (0, 1)", r"Toy\.classes must be None or a tuple of texts, got \(0, 1\)"),
    ('target = "label"', "keep = 0", r"Toy\.keep must be a whole number >= 1, got 0"),
    (
        "@dataclass(kw_only=True)\nclass Toy",
        "class Toy",
        r"Toy\.batch_size is not a field; put @dataclass\(kw_only=True\) above it",
    ),
    ("(bt.Experiment)", "", r"defines no experiment"),
    ("def table(", "def my_table(", r"Toy has no method table; add: def table\(self\) -> pl\.DataFrame: \.\.\."),
    ("def dataset(", "def data(", r"Toy has no method dataset; add: def dataset\(self, rows, \*, training\): \.\.\."),
    ("def model(", "def net(", r"Toy has no method model; add: def model\(self\) -> nn\.Module: \.\.\."),
    ("def loss(", "def los(", r"Toy has no method loss; add: def loss\(self, outputs, targets\) -> Tensor: \.\.\."),
    ("lr: float = 0.05", "lr: float", r"missing 1 required keyword-only argument: 'lr'"),
]


@pytest.mark.parametrize(("old", "new", "message"), WRONG_CLASSES)
def test_a_class_that_is_not_complete_is_refused(
    toy_folder: Path, change: Change, old: str, new: str, message: str
) -> None:
    change(old, new)
    refused(toy_folder, message)


def test_two_experiments_in_one_file_are_refused(toy_folder: Path) -> None:
    with open(toy_folder / "experiment.py", "a") as file:
        file.write("\n\n@dataclass(kw_only=True)\nclass Second(Toy):\n    pass\n")
    refused(toy_folder, r"experiment\.py defines 2 experiments \(Toy, Second\); put each in a file of its own")


def test_an_error_while_the_experiment_is_made_names_its_line(toy_folder: Path, change: Change) -> None:
    change(
        "    def table(self)",
        "    def __post_init__(self):\n        raise ValueError('odd width')\n\n    def table(self)",
    )
    refused(toy_folder, r"^experiment\.py, line \d+, in __post_init__: ValueError: odd width$")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rate=1", r"Toy has no field 'rate'; its fields are accumulate, average, batch_size, lr, num_workers, seed"),
        ("metric=auc", r"Toy has no field 'metric'"),
        ("lr=fast", r"Toy\.lr = 'fast': Input should be a valid number"),
        ("width=1.5", r"Toy\.width = '1\.5': Input should be a valid integer"),
        ("batch_size=0", r"Toy\.batch_size must be a whole number >= 1, got 0"),
        ("num_workers=-1", r"Toy\.num_workers must be a whole number >= 0, got -1"),
        ("lr", r"--set 'lr': write name=value"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(toy_folder: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(toy_folder, overrides=[override])


# Stages


@dataclass(kw_only=True)
class Small(bt.Experiment):
    """Enough of an experiment to ask it about targets and stages."""

    metric = bt.Metric.accuracy()


def test_without_stages_of_its_own_an_experiment_has_one() -> None:
    assert [stage.name for stage in Small().checked_stages()] == ["train"]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], r"stages must return a list of at least one Stage, got \[\]"),
        (None, "stages must return a list of at least one Stage, got None"),
        (bt.Stage("a", epochs=1), "stages must return a list of at least one Stage, got a Stage; put it in a list"),
        (["a"], r"stages must return a list of at least one Stage, got \['a'\]"),
        ([bt.Stage("a", epochs=1), bt.Stage("a", epochs=2)], "stages has two stages named 'a'; rename one"),
    ],
)
def test_stages_that_cannot_be_run_are_refused(stages: Any, message: str) -> None:
    class Other(Small):
        def stages(self) -> Any:
            return stages

    with pytest.raises(ConfigError, match=message):
        Other().checked_stages()


# Targets


def targets(values: Any, classes: tuple[str, ...] | None = None, dtype: Any = None) -> Any:
    experiment = Small()
    experiment.classes = classes  # type: ignore[misc]
    return experiment.targets(pl.DataFrame({"target": pl.Series(values, dtype=dtype, strict=False)}))


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([1, 0, 2], pl.Int32, np.array([1, 0, 2], dtype="int32")),
        ([0.5, -1.0], pl.Float32, np.array([0.5, -1.0], dtype="float32")),
        ([True, False], pl.Boolean, np.array([1, 0])),
        (["1.5", "2.5"], pl.Decimal(10, 2), np.array([1.5, 2.5])),
        ([[1, 0], [0, 1]], pl.List(pl.Int64), np.array([[1, 0], [0, 1]])),
        ([[1.0, 0.0], [0.0, 1.0]], pl.Array(pl.Float32, 2), np.array([[1, 0], [0, 1]], dtype="float32")),
    ],
)
def test_targets_that_are_numbers_come_as_they_are(values: Any, dtype: Any, expected: Any) -> None:
    found = targets(values, dtype=dtype)
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", [pl.String, pl.Categorical, pl.Enum(["dog", "cat"])])
def test_texts_become_their_positions_among_the_classes(dtype: Any) -> None:
    assert targets(["dog", "cat", "dog"], ("cat", "dog"), dtype).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "classes", "message"),
    [
        (["b", "a"], None, r"target column 'target' holds texts; add to Small: classes = \('a', 'b'\)"),
        (["b", "c"], ("a", "b"), r"target column 'target' holds \['c'\], not among classes \('a', 'b'\)"),
        ([1, None, None], None, r"target column 'target' has 2 empty values; fill or drop them"),
        ([1.0, float("nan")], None, r"target column 'target' has 1 NaN values; fill or drop them"),
        ([[1], [1, 2]], None, r"target column 'target' holds lists of 1 to 2 values, not one length"),
    ],
)
def test_targets_that_cannot_be_learned_are_refused(values: Any, classes: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        targets(values, classes)


# Names and digests


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Digits", "digits"),
        ("DigitsMlp", "digits-mlp"),
        ("DigitsMLP", "digits-mlp"),
        ("MLPNet", "mlpnet"),
        ("Net2Small", "net2-small"),
        ("_My_Net", "my_net"),
    ],
)
def test_runs_are_called_after_the_class(name: str, expected: str) -> None:
    assert experiment_name(type(name, (Small,), {})()) == expected


def digest(folder: Path) -> str:
    return code_digest(load_experiment(folder))


def test_comments_and_layout_do_not_change_the_code_digest_and_code_does(toy_folder: Path, change: Change) -> None:
    before = digest(toy_folder)
    change("width: int = 8\n", "width: int = (8)  # wide enough\n\n")
    assert digest(toy_folder) == before
    change("width: int = (8)", "width: int = 9")
    assert digest(toy_folder) != before


@pytest.mark.parametrize(
    ("file", "statement"),
    [
        ("helper.py", "import helper"),
        ("helper.py", "from helper import A"),
        ("parts/__init__.py", "import parts"),
        ("parts/net.py", "import parts.net"),
        ("parts/net.py", "from parts.net import A"),
        ("parts/net.py", "from parts import net"),
        ("parts/deep/net.py", "from parts.deep.net import A"),
    ],
)
def test_the_code_digest_covers_what_the_file_imports_from_its_folder(
    toy_folder: Path, change: Change, file: str, statement: str
) -> None:
    path = toy_folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("A = 1\n")
    change("import batteries as bt\n", f"import batteries as bt\n{statement}\n")
    before = digest(toy_folder)
    path.write_text("A = 2\n")
    assert digest(toy_folder) != before


def test_the_code_digest_follows_imports_from_file_to_file(toy_folder: Path, change: Change) -> None:
    parts = toy_folder / "parts"
    parts.mkdir()
    (parts / "net.py").write_text("from .layers import A\nfrom . import more\nimport helper\n")
    (parts / "layers.py").write_text("A = 1\n")
    (parts / "more.py").write_text("")
    (toy_folder / "helper.py").write_text("import experiment\n")  # round in a circle
    change("import batteries as bt\n", "import batteries as bt\nimport parts.net\n")
    digests = [digest(toy_folder)]
    for file in ("layers.py", "more.py", "../helper.py"):
        (parts / file).write_text("import experiment\nA = 2\n")
        digests.append(digest(toy_folder))
    assert len(set(digests)) == 4


def test_the_code_digest_of_an_experiment_is_of_its_own_folder_after_another_was_loaded(
    toy_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    toy = load_experiment(toy_folder)
    before = code_digest(toy)
    other = tmp_path_factory.mktemp("other")
    (other / "experiment.py").write_text((toy_folder / "experiment.py").read_text() + "\nA = 1\n")
    assert digest(other) != before
    assert code_digest(toy) == before


def test_the_code_digest_is_the_same_in_another_folder_and_another_process(toy_folder: Path) -> None:
    elsewhere = toy_folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "experiment.py").write_text((toy_folder / "experiment.py").read_text())
    code = "from batteries.experiment.load import *; print(code_digest(load_experiment('elsewhere')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=toy_folder)
    assert done.stdout.strip() == digest(toy_folder)


def test_an_error_outside_the_users_files_is_described_by_its_kind_alone() -> None:
    assert describe(ValueError("odd"), Path()) == "ValueError: odd"
