"""The rehearsal: a few batches of everything, in a folder that is thrown away."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import batteries as bt
from batteries.errors import ConfigError, DataError, ExperimentError, Interrupted, NonFiniteError
from batteries.experiment import load_experiment
from batteries.train.rehearse import Rehearsal, rehearse

Change = Callable[[str, str], None]
BATCHES = """    def training_step(self, model, batch):
        Toy.trained = [*getattr(Toy, "trained", []), batch.size]
        return super().training_step(model, batch)

    def predict_step(self, model, inputs):
        Toy.predicted = [*getattr(Toy, "predicted", []), len(inputs)]"""


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """Whatever happens in a test, no folder of a rehearsal stays, and none of a run is made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.glob("batteries-*")) == []
    assert not (tmp_path / "runs").exists()


def rehearsed(folder: Path, said: list[str] | None = None, **values: object) -> Rehearsal:
    experiment = load_experiment(folder, values=values)
    return rehearse(experiment, device="cpu", say=(said if said is not None else []).append)


def test_it_says_what_the_run_is_going_to_be_like(toy_folder: Path) -> None:
    said: list[str] = []
    done = rehearsed(toy_folder, said)
    assert said == ["rehearsing 2 stages on cpu, 30 training and 16 held-out rows"]
    assert (done.experiment, done.device, done.folds, done.resumed) == ("Toy", "cpu", 2, True)
    assert done.parameters == 2 * 8 + 8 + 2 * 8 + 8 * 3 + 3
    assert done.batch == "(8, 2) float32, (8) int64"
    assert done.prediction == (16, 3)
    assert [(stage.name, stage.learning, stage.updates) for stage in done.stages] == [("head", 67, 16), ("all", 67, 8)]
    assert set(done.scores) == {"accuracy", "log_loss"}
    assert all(stage.seconds > 0 for stage in done.stages)
    assert min(done.estimate, done.took, done.memory) > 0
    assert done.notes == ()


def test_a_quick_stage_makes_more_updates_than_two_and_two_batches_are_predicted(
    toy_folder: Path, change: Change
) -> None:
    change("    def predict_step(self, model: nn.Module, inputs: Tensor) -> Tensor:", BATCHES)
    change("epochs=2, lr=self.lr / 2, start", "epochs=2, batch_size=4, lr=self.lr / 2, start")
    experiment = load_experiment(toy_folder, values={"accumulate": 2})
    done = rehearse(experiment, device="cpu")
    assert type(experiment).trained == [8, 8, 8, 6] + [4] * 7 + [2]  # type: ignore[attr-defined]
    # validation of head, of all; held-out rows, test rows: two batches of the larger size, however they are cut
    assert type(experiment).predicted == [8] * 2 + [4] * 4 + [4] * 4 + [4] * 4  # type: ignore[attr-defined]
    assert done.prediction == (16, 3)


SLOW = """    def training_step(self, model, batch):
        import time

        Toy.batches = getattr(Toy, "batches", 0) + 1
        time.sleep(WAIT)
        return super().training_step(model, batch)

    def model("""


def test_updates_that_are_slow_because_they_are_the_first_do_not_count_in_the_estimate(
    toy_folder: Path, change: Change
) -> None:
    """As where libraries start, kernels are chosen and files are read for the first time."""
    change("    def model(", SLOW.replace("WAIT", "0.3 if Toy.batches <= 2 else 0.002"))
    done = rehearsed(toy_folder, batch_size=3)
    updates = 2 * sum(stage.updates for stage in done.stages)
    assert updates == 2 * (4 + 2) * 10
    assert 0.002 * updates < done.estimate < 0.1 * updates  # 0.3 would be that of the first two alone


def test_a_slow_stage_makes_two_updates(toy_folder: Path, change: Change) -> None:
    change("    def model(", SLOW.replace("WAIT", "2.1 if Toy.batches == 1 else 0.0"))
    change('bt.Stage("all"', 'bt.Stage("same", epochs=1, lr=0.1), bt.Stage("all"')
    experiment = load_experiment(toy_folder, values={"batch_size": 3})
    rehearse(experiment, device="cpu")
    assert type(experiment).batches == 3 * 2  # type: ignore[attr-defined]


def test_one_stage_is_said_as_one(toy_folder: Path, change: Change) -> None:
    change("        return [\n", "        return [bt.Stage('only', epochs=1)]\n        return [\n")
    said: list[str] = []
    rehearsed(toy_folder, said)
    assert said[0].startswith("rehearsing 1 stage on cpu, ")


def test_frozen_parameters_do_not_count_as_learning(toy_folder: Path, change: Change) -> None:
    change('bt.Stage("head", epochs=4', 'bt.Stage("head", freeze="0.*", epochs=4')
    assert [stage.learning for stage in rehearsed(toy_folder).stages] == [67 - 24, 67]


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_averages_samplers_and_fields_of_a_stage_are_rehearsed_too(
    toy_folder: Path, change: Change, average: str
) -> None:
    change(
        "    def model(",
        "    def sampler(self, rows):\n        return Balanced(self.targets(rows))\n\n    def model(",
    )
    change('bt.Stage("head", epochs=4', 'bt.Stage("head", fields={"batch_size": 5}, patience=1, epochs=4')
    change('"all", epochs=2, lr=self.lr / 2, start="best"', '"all", epochs=2, lr=self.lr / 2, start="average"')
    change("import batteries as bt", "import batteries as bt\nfrom batteries.train.samplers import Balanced")
    done = rehearsed(toy_folder, average=average)
    assert done.batch == "(5, 2) float32, (5) int64"
    assert [stage.updates for stage in done.stages] == [4 * 6, 2 * 4]


def test_rows_are_of_every_class_where_so_few_can_be(toy_folder: Path, change: Change) -> None:
    change('"label": label}', '"label": np.sort(label)}')
    change("bt.Metric.accuracy()", 'bt.Metric("classes", lambda y, p: float(len(set(y))), higher_is_better=True)')
    assert rehearsed(toy_folder, batch_size=2).scores["classes"] == 3


ONLY_MANY = """bt.Metric("picky", lambda y, p: 1 / (len(y) > 16), higher_is_better=True)"""


def test_a_metric_that_fails_on_few_rows_is_a_note_and_no_score(toy_folder: Path, change: Change) -> None:
    change("bt.Metric.accuracy()", ONLY_MANY)
    done = rehearsed(toy_folder)
    assert done.notes == (
        "picky failed (ZeroDivisionError: division by zero) on 16 rows; is that because they are so few?",
    )
    assert set(done.scores) == {"log_loss"}


def test_a_score_that_is_not_finite_on_few_rows_is_a_note(toy_folder: Path, change: Change) -> None:
    change("bt.Metric.accuracy()", 'bt.Metric("bad", lambda y, p: float("nan"), higher_is_better=True)')
    assert rehearsed(toy_folder).notes == ("bad was nan on 16 rows; is that because they are so few?",)


def test_a_metric_that_fails_on_all_held_out_rows_is_the_error_of_a_real_run(toy_folder: Path, change: Change) -> None:
    change("bt.Metric.accuracy()", 'bt.Metric("bad", lambda y, p: 1 / 0, higher_is_better=True)')
    with pytest.raises(ExperimentError, match=r"metric 'bad' failed on targets \(30,\) int64"):
        rehearsed(toy_folder, batch_size=15)


@pytest.mark.parametrize(
    ("old", "new", "kind", "message"),
    [
        ("nn.Linear(2, self.width)", "nn.Linear(3, self.width)", RuntimeError, "shapes cannot be multiplied"),
        ("return nn.functional.cross", "return outputs + nn.functional.cross", ExperimentError, "loss must return one"),
        ("return nn.functional.cross_entropy(outputs, targets)", "return outputs.sum() / 0", NonFiniteError, "NaN"),
        ('target = "label"', 'target = "price"', DataError, "no target column 'price'"),
        ("epochs=4, lr=self.lr", "epochs=4, lr=-1", ConfigError, "lr must be above 0"),
        (
            "model(inputs).softmax(dim=1)",
            "model(inputs)[0].softmax(dim=0)",
            ExperimentError,
            "predict_step must",
        ),
    ],
)
def test_errors_of_the_experiment_are_those_of_a_real_run(
    toy_folder: Path, change: Change, old: str, new: str, kind: type[Exception], message: str
) -> None:
    change(old, new)
    with pytest.raises(kind, match=message):
        rehearsed(toy_folder)


def test_from_another_thread_it_is_not_stopped(toy_folder: Path) -> None:
    found: list[Rehearsal] = []
    thread = threading.Thread(target=lambda: found.append(rehearsed(toy_folder)))
    thread.start()
    thread.join()
    assert found[0].resumed is False


def test_ctrl_c_ends_it(toy_folder: Path, change: Change) -> None:
    change(
        "        return nn.functional.cross_entropy",
        "        import signal\n\n        signal.raise_signal(signal.SIGINT)\n"
        "        return nn.functional.cross_entropy",
    )
    with pytest.raises(Interrupted, match="the rehearsal was stopped; nothing of it is kept") as caught:
        rehearsed(toy_folder)
    assert caught.value.exit_code == 130


def test_a_run_after_a_rehearsal_is_as_one_without(toy_folder: Path, tmp_path: Path) -> None:
    first = bt.train_run(load_experiment(toy_folder), tmp_path / "one", device="cpu", folds=[0], progress=False)
    rehearsed(toy_folder)
    second = bt.train_run(load_experiment(toy_folder), tmp_path / "two", device="cpu", folds=[0], progress=False)
    assert (first.folder / "oof.parquet").read_bytes() == (second.folder / "oof.parquet").read_bytes()
