"""A folder of somebody's data: what is guessed of it, and the experiment that is written."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import datafolders
from batteries.cli.app import main
from batteries.combine.fill import Target, fill_sample
from batteries.combine.sample import Sample
from batteries.errors import DataError, UsageError
from batteries.experiment.load import load_experiment
from batteries.experiment.predictions import Predictions
from batteries.prepare.folder.guess import Guesses, guess
from batteries.prepare.folder.layout import find_layout
from batteries.prepare.new import new_from
from batteries.prepare.table import test_table as held_back
from batteries.prepare.table import training_table

MAKERS = {
    "wine": datafolders.wine,
    "diabetes": datafolders.diabetes,
    "by_class": datafolders.digits_by_class,
    "by_id": datafolders.digits_by_id,
    "labels": datafolders.digits_labels,
    "texts": datafolders.docstrings,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of data of each kind."""
    root = tmp_path_factory.mktemp("data")
    for name, make in MAKERS.items():
        make(root / name)
    return root


@pytest.fixture(autouse=True)
def modules_forgotten() -> Iterator[None]:
    """Every test loads an experiment.py of its own."""
    path = list(sys.path)
    yield
    sys.path[:] = path
    sys.modules.pop("experiment", None)


def guessed(folder: Path, **said: object) -> Guesses:
    return guess(find_layout(folder), **said)  # type: ignore[arg-type]


def competition(folder: str, train: str, test: str | None = None, sample: str | None = None) -> Path:
    """A folder of small CSV files."""
    path = Path(folder)
    path.mkdir(parents=True)
    for name, text in (("train", train), ("test", test), ("sample_submission", sample)):
        if text is not None:
            (path / f"{name}.csv").write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "id", "targets", "task", "metric"),
    [
        ("wine", "bottle", ("cultivar",), "classes", "accuracy"),
        ("diabetes", "id", ("progress",), "number", "rmse"),
        ("by_class", "id", ("label",), "classes", "accuracy"),
        ("by_id", "image_id", ("is_round",), "binary", "auc"),
        ("labels", "Id", ("even", "large", "round"), "labels", "auc"),
        ("texts", "id", ("library",), "binary", "auc"),
    ],
)
def test_id_target_task_and_metric_are_found(
    made: Path, name: str, id: str, targets: tuple[str, ...], task: str, metric: str
) -> None:
    found = guessed(made / name)
    assert (found.id, found.targets, found.task, found.metric) == (id, targets, task, metric)
    assert {"training", "id", "target", "task", "metric", "folds"} <= {reason.what for reason in found.reasons}
    assert all(reason.guess and reason.why for reason in found.reasons)


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_written_is_formatted_and_its_tables_and_datasets_are_read(made: Path, name: str) -> None:
    folder, found = new_from(name, made / name)
    for command in (
        ["format", "--check", "--line-length", "120"],
        ["check", "--select", "E,F,W,B,UP", "--line-length", "120"],
    ):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, folder], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + (folder / "experiment.py").read_text()
    experiment = load_experiment(folder)
    table, test = training_table(experiment), held_back(experiment)
    inputs, targets = experiment.dataset(table[:9], training=True)
    assert len(targets) == 9
    taken = inputs[torch.arange(9).numpy()] if found.images else inputs
    batch = torch.from_numpy(taken) if found.images else taken
    outputs = experiment.model().eval()(batch)
    assert torch.isfinite(experiment.loss(outputs, targets))
    if test is not None:
        assert not isinstance(experiment.dataset(test[:9], training=False), tuple)
    assert all(line in (folder / "experiment.py").read_text() for line in (found.metric, found.folds))


@pytest.mark.parametrize(("name", "least"), [("wine", 0.93), ("by_class", 0.8), ("labels", 0.97)])
def test_what_is_written_runs_to_a_submission(
    made: Path, name: str, least: float, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "mine", "--from", str(made / name)]) == 0
    assert main(["-C", "mine", "train"]) == 0
    assert main(["-C", "mine", "submit", "mine-001"]) == 0
    capfd.readouterr()
    assert main(["-C", "mine", "scores", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)[0]["valid"] > least
    sample = next((made / name).glob("sample*"), None)
    submission = pl.read_csv("mine/runs/submission-001/submission.csv", infer_schema=False)
    if sample is not None:
        asked = pl.read_csv(sample, infer_schema=False)
        assert submission.columns == asked.columns
        assert submission.to_series(0).to_list() == asked.to_series(0).to_list()


def test_ids_keep_their_zeros_and_numbers_stay_numbers(made: Path) -> None:
    assert training_table(load_experiment(new_from("a", made / "wine")[0]))["bottle"][:2].to_list() == ["0001", "0002"]
    assert training_table(load_experiment(new_from("b", made / "labels")[0]))["Id"].dtype == pl.Int64


def test_what_the_user_says_is_taken(made: Path) -> None:
    found = guessed(made / "wine", target=["alcohol"], id="bottle", metric="mae")
    assert (found.targets, found.task, found.metric) == (("alcohol",), "number", "mae")
    assert {reason.why for reason in found.reasons if reason.what in ("id", "target", "metric")} == {"you said so"}


def test_yes_and_no_come_back_as_the_sample_writes_them() -> None:
    rows = "".join(f"{n},{n % 7},{n % 2 == 0}\n" for n in range(40))
    sample = "id,left\n50,False\n51,False\n"
    folder = competition("data", f"id,x,left\n{rows}", "id,x\n50,1\n51,2\n", sample)
    found = guessed(folder)
    assert (found.task, found.classes, found.metric) == ("binary", ("False", "True"), "accuracy")
    experiment = load_experiment(new_from("mine", folder)[0])
    assert experiment.targets(training_table(experiment))[:2].tolist() == [1, 0]


def test_classes_that_do_not_begin_at_zero_keep_their_numbers() -> None:
    rows = "".join(f"{n},{n % 7},{n % 3 * 5 + 5}\n" for n in range(60))
    folder = competition("data", f"id,x,grade\n{rows}", "id,x\n90,1\n", "id,grade\n90,5\n")
    experiment = load_experiment(new_from("mine", folder)[0])
    assert experiment.classes == ("5", "10", "15")
    assert experiment.targets(training_table(experiment))[:4].tolist() == [0, 1, 2, 0]
    probabilities = Predictions(pl.Series("id", [90]), np.array([[0.2, 0.1, 0.7]]))
    filled = fill_sample(probabilities, Sample.of(experiment.sample_submission()), Target.of(experiment))
    assert filled.table.write_csv() == "id,grade\n90,15\n"


def test_a_column_for_each_class_in_the_sample_asks_for_probabilities() -> None:
    rows = "".join(f"{n},{n % 7},{'abc'[n % 3]}\n" for n in range(60))
    folder = competition("data", f"id,x,kind\n{rows}", "id,x\n90,1\n", "id,c,a,b\n90,0.3,0.3,0.3\n")
    found = guessed(folder)
    assert (found.targets, found.classes, found.metric) == (("kind",), ("c", "a", "b"), "log_loss")


def test_groups_that_test_does_not_share_are_held_out_whole() -> None:
    rows = "".join(f"{n},p{n // 8},{n % 7},{n // 8 % 2}\n" for n in range(160))
    test = "".join(f"{n},q{n // 8},{n % 7}\n" for n in range(400, 440))
    found = guessed(competition("data", f"id,patient,x,ill\n{rows}", f"id,patient,x\n{test}"))
    assert found.folds == 'bt.Grouped("patient", n=5)'


def test_columns_are_told_apart_by_what_they_hold() -> None:
    text = "this is a longer sentence about number"
    rows = "".join(
        f"{n},{n / 3},{'uv'[n % 2]},2024-0{1 + n % 9}-11,{text} {n},code{n},same,{n % 2}\n" for n in range(60)
    )
    found = guessed(competition("data", f"id,number,category,day,note,code,flat,target\n{rows}"))
    roles = found.roles
    assert (roles.numbers, roles.categories, roles.dates, roles.words) == (
        ("number",), ("category",), ("day",), ("note",),
    )  # fmt: skip
    assert roles.left_out == {"code": "60 different texts in 60 rows", "flat": "says the same in every row"}
    folder, _ = new_from("mine", "data")
    experiment = load_experiment(folder)
    inputs, _ = experiment.dataset(training_table(experiment), training=True)
    assert {name: tuple(each.shape) for name, each in inputs.items()} == {
        "numbers": (60, 4), "categories": (60, 1), "words": (60, 127),
    }  # fmt: skip


def test_images_may_be_named_by_a_column_that_is_no_id(made: Path) -> None:
    shutil.copytree(made / "by_class" / "train" / "3", "data/pictures")
    names = sorted(path.name for path in Path("data/pictures").iterdir())
    rows = "".join(f"{name},{'left' if n % 2 else 'right'}\n" for n, name in enumerate(names))
    Path("data/labels.csv").write_text(f"file,side\n{rows}")
    folder, found = new_from("mine", "data")
    assert (found.id, found.targets) == ("id", ("side",))
    table = training_table(load_experiment(folder))
    assert table["path"][0] == str(Path("data").resolve() / "pictures" / names[0])


def test_a_sample_may_name_rows_that_training_only_counts() -> None:
    rows = "".join(f"{n % 7},{n % 2}\n" for n in range(40))
    folder = competition("data", f"x,y\n{rows}", "row_id,x\na07,1\n", "row_id,y\na07,0\n")
    experiment = load_experiment(new_from("mine", folder)[0])
    test = held_back(experiment)
    assert test is not None
    assert test["row_id"].to_list() == ["a07"]
    assert training_table(experiment)["row_id"][:2].to_list() == [0, 1]


def test_a_sample_of_fractions_speaks_against_classes() -> None:
    rows = "".join(f"{n},{n / 7},{n % 5}\n" for n in range(40))
    folder = competition("data", f"id,x,stars\n{rows}", "id,x\n90,1\n", "id,stars\n90,2.5\n")
    assert (guessed(folder).task, guessed(folder).metric) == ("number", "rmse")


def test_rows_without_a_target_are_dropped() -> None:
    rows = "".join(f"{n},{n % 5},{'' if n % 10 == 0 else n * 1.5}\n" for n in range(50))
    experiment = load_experiment(new_from("mine", competition("data", f"id,x,price\n{rows}"))[0])
    assert len(training_table(experiment)) == 45


def test_a_test_folder_with_classes_is_a_test_set(made: Path) -> None:
    for row, path in enumerate(sorted((made / "by_class" / "train").glob("*/*.png"))):
        part = Path("data", "test" if row % 4 == 0 else "train", path.parent.name)
        part.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, part)
    test = held_back(load_experiment(new_from("mine", "data")[0]))
    assert test is not None
    assert test["label"].n_unique() == 10


def test_images_by_class_may_lie_in_the_folder_itself(made: Path) -> None:
    shutil.copytree(made / "by_class" / "train", "data")
    experiment = load_experiment(new_from("mine", "data")[0])
    assert training_table(experiment)["id"][0].startswith("0/")
    assert held_back(experiment) is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"has no table and no images to learn from \(it holds nothing\); wanted: .csv"),
        ({"notes.txt": "hello"}, r"it holds notes.txt"),
        ({"a.csv": "x\n1\n", "b.csv": "x\n1\n"}, r"has 2 tables \(a.csv, b.csv\) and none is named train"),
        ({"train.csv": ""}, r"train.csv: cannot be read as a table"),
        ({"train.parquet": "no"}, r"train.parquet: cannot be read as a table"),
        ({"train.csv": "id,a,b\n1,2,3\n", "test.csv": "id\n2\n"}, r"no target found: .* say which: --target COLUMN"),
        ({"train.csv": "id,y\n1,2\n1,3\n", "sample.csv": "id,y\n2,0\n"}, r"1 values of 'id' occur more than once"),
        (
            {"train.csv": "id,y\n1,2\n3,3\n", "test.csv": "id\n7\n", "sample.csv": "id,y\n8,0\n"},
            r"asks for 1 ids, .*test.csv has 1, 0 in both",
        ),
        ({"train.csv": "id,y\n1,2\n3,3\n"}, r"no column to predict 'y' from \(none is left\), and no images"),
        ({"train.csv": "id,y\n"}, r"'y' has no values"),
        ({"train.csv": "id,y\n1,2\n3,2\n"}, r"'y' has 1 different values; there is nothing to learn"),
    ],
)
def test_a_folder_that_says_too_little_is_refused_and_nothing_is_made(files: dict[str, str], message: str) -> None:
    Path("data").mkdir()
    for name, text in files.items():
        (Path("data") / name).write_text(text)
    with pytest.raises(DataError, match=message):
        new_from("mine", "data")
    assert sorted(path.name for path in Path().iterdir()) == ["data"]


def test_images_of_one_class_are_refused() -> None:
    Path("data/cats").mkdir(parents=True)
    Image.new("L", (8, 8)).save("data/cats/a.png")
    with pytest.raises(DataError, match="has 1 images in 1 folders of classes; put those of each class"):
        new_from("mine", "data")


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"target": ["prize"]}, "--target prize: the training table has no such column; it has alcohol"),
        ({"id": "bottles"}, "--id bottles: the training table has no such column"),
        ({"metric": "rmse"}, "--metric rmse: none for the task classes; choose one of accuracy, log_loss"),
    ],
)
def test_what_the_user_says_must_be_there(made: Path, said: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        guessed(made / "wine", **said)


def test_the_command_says_what_it_guessed_in_80_columns_or_as_json(
    made: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["new", "mine", "--from", str(made / "wine")]) == 0
    out = capfd.readouterr().out
    assert "target      cultivar (in the sample and in training, not in test)" in out
    assert out.splitlines()[-1] == "mine: experiment.py. Next: cd mine && batteries study"
    assert max(map(len, out.splitlines())) <= 80
    assert main(["new", "other", "--from", str(made / "wine"), "--json"]) == 0
    plain = json.loads(capfd.readouterr().out)
    assert plain["files"] == ["experiment.py"]
    assert {"what": "id", "guess": "bottle"}.items() <= plain["guessed"][3].items()


def test_options_of_data_need_data_and_exclude_a_template(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "mine", "--target", "y"]) == 2
    assert "say where they are: --from FOLDER" in capfd.readouterr().err
    assert main(["new", "mine", "--from", ".", "--template", "text"]) == 2
    assert "give --template or --from, not both" in capfd.readouterr().err
    assert main(["new", "mine", "--from", "nowhere"]) == 3
    assert "there is no folder nowhere" in capfd.readouterr().err
