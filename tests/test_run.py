"""The run: every fold and stage, recorded; found again when nothing changed, another one when something did."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import batteries as bt
from batteries.errors import (
    BatteriesError,
    BusyError,
    ExperimentError,
    NonFiniteError,
    ResourceError,
    ResumeError,
    UsageError,
)
from batteries.experiment import load_experiment
from batteries.files import locked, read_sealed, write_sealed
from batteries.prepare.seed import seed_everything
from batteries.train.checkpoint import Checkpoints
from batteries.train.log import read_metrics
from batteries.train.run import train_run

Change = Callable[[str, str], None]


def trained(folder: Path, said: list[str] | None = None, **options: Any) -> bt.Run:
    values = options.pop("values", {})
    return train_run(
        load_experiment(folder, values=values),
        folder / "runs",
        device="cpu",
        progress=False,
        say=(said if said is not None else []).append,
        **options,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment folder with one finished run; not to be written to."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copy(Path(__file__).parent / "toy.py", folder / "experiment.py")
    trained(folder)
    return folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, with the experiment that made it."""
    return shutil.copytree(finished, tmp_path, dirs_exist_ok=True)


def contents(folder: Path) -> dict[str, bytes]:
    notes = ("train.log", ".lock")
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name not in notes}


def metrics(run: bt.Run, fold: int = 0) -> list[dict[str, Any]]:
    return read_metrics(run.fold_folder(fold) / "metrics.jsonl")


def test_a_run_predicts_every_row_once_by_the_model_that_never_saw_it(finished: Path) -> None:
    toy = load_experiment(finished)
    run = bt.Run.open(finished / "runs/toy-001")
    oof = bt.Predictions.load(run.folder / "oof.parquet")
    table, folds = toy.table(), bt.Folds.load(finished / "runs/folds.parquet")
    assert oof.ids.to_list() == table["id"].to_list()
    assert np.array_equal(oof.folds, folds.fold)  # type: ignore[arg-type]
    assert np.array_equal(oof.targets, table["label"])  # type: ignore[arg-type]
    assert oof.values.shape == (60, 3)
    assert dict(oof.about) == {"folds": folds.digest, "run": "toy-001"}
    for fold in (0, 1):
        part = bt.Predictions.load(run.fold_folder(fold) / "oof.parquet")
        assert np.array_equal(part.values, oof.values[folds.held_out(fold)])


def test_test_predictions_are_the_mean_of_the_folds(finished: Path) -> None:
    run = bt.Run.open(finished / "runs/toy-001")
    parts = [bt.Predictions.load(run.fold_folder(fold) / "test.parquet").values for fold in (0, 1)]
    whole = bt.Predictions.load(run.folder / "test.parquet")
    assert np.array_equal(whole.values, np.mean(np.float64(parts), axis=0).astype(np.float32))
    assert whole.ids.to_list() == list(range(1000, 1030))
    assert run.finished_folds() == [0, 1]


def test_the_predictions_are_those_of_the_best_checkpoint_of_the_last_stage(finished: Path) -> None:
    toy = load_experiment(finished)
    run = bt.Run.open(finished / "runs/toy-001")
    best = Checkpoints(run.stage_folder(0, "all"), metric=toy.metric).best()[0]
    result = run.fold_result(0)
    assert (result["checkpoint"], result["chosen_on"]) == (best.path.name, "this fold")
    assert result["scores"]["accuracy"] == best.score
    assert set(result["scores"]) == {"accuracy", "log_loss"}


def test_every_epoch_of_every_stage_has_one_line_and_steps_never_repeat(finished: Path) -> None:
    lines = metrics(bt.Run.open(finished / "runs/toy-001"))
    assert [(line["stage"], line["epoch"], line["step"]) for line in lines] == [
        *[("head", epoch, 4 * epoch) for epoch in (1, 2, 3, 4)],
        *[("all", epoch, 16 + 4 * epoch) for epoch in (1, 2)],
    ]
    names = {"step", "stage", "epoch", "train/loss", "lr", "valid/accuracy", "valid/log_loss"}
    assert all(line.keys() == names for line in lines)


def test_the_same_experiment_gives_the_same_run_in_another_folder(finished: Path, toy_folder: Path) -> None:
    run = trained(toy_folder)
    for name in ("oof.parquet", "test.parquet", "fold0/metrics.jsonl", "fold1/metrics.jsonl"):
        assert (run.folder / name).read_bytes() == (finished / "runs/toy-001" / name).read_bytes(), name


def test_a_complete_run_says_so_and_changes_nothing(copy: Path) -> None:
    said: list[str] = []
    before = contents(copy)
    run = trained(copy, said)
    assert said == ["toy-001 is already complete"]
    assert contents(copy) == before
    assert run.name == "toy-001"


def test_folds_can_be_trained_one_by_one(toy_folder: Path, finished: Path) -> None:
    said: list[str] = []
    run = trained(toy_folder, said, folds=[1])
    assert run.finished_folds() == [1]
    assert set(bt.Predictions.load(run.folder / "oof.parquet").folds.tolist()) == {1}  # type: ignore[union-attr]
    trained(toy_folder, said, folds=[0])
    assert (run.folder / "oof.parquet").read_bytes() == (finished / "runs/toy-001/oof.parquet").read_bytes()
    assert [line for line in said if not line.startswith("fold ")] == [
        "toy-001 begins: folds 1",
        "toy-001 goes on: folds 0 are to do",
    ]
    with pytest.raises(UsageError, match="there is no fold 2; folds are numbered 0 to 1"):
        trained(toy_folder, folds=[2])


def test_lost_predictions_of_a_complete_run_are_joined_again_from_its_folds(copy: Path, finished: Path) -> None:
    (copy / "runs/toy-001/oof.parquet").unlink()
    trained(copy)
    assert (copy / "runs/toy-001/oof.parquet").read_bytes() == (finished / "runs/toy-001/oof.parquet").read_bytes()


# --- failed at its start


def runs_in(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "runs").iterdir() if "toy" in path.name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"head", epochs=4', '"head", freeze="nothing-*", epochs=4', r"freeze 'nothing-\*' matches no parameter"),
        ("nn.Linear(2, self.width)", "nn.Linear(3, self.width)", "shapes cannot be multiplied"),
        ("return nn.functional.cross_entropy(outputs, targets)", "return outputs.sum() / 0", "became NaN or infinite"),
    ],
)
def test_a_run_that_fails_at_its_start_leaves_no_folder_and_gives_its_number_back(
    toy_folder: Path, change: Change, old: str, new: str, message: str
) -> None:
    change(old, new)
    with pytest.raises((RuntimeError, BatteriesError), match=message):
        trained(toy_folder, folds=[0])
    assert runs_in(toy_folder) == []
    change(new, old)
    said: list[str] = []
    assert trained(toy_folder, said, folds=[0]).name == "toy-001"
    assert not [line for line in said if "unfinished" in line]


def test_a_run_that_fails_at_its_start_takes_no_number_of_another(toy_folder: Path, change: Change) -> None:
    trained(toy_folder, folds=[0])
    change("nn.Linear(2, self.width)", "nn.Linear(3, self.width)")
    with pytest.raises(RuntimeError):
        trained(toy_folder, folds=[0])
    assert runs_in(toy_folder) == ["toy-001"]


FAILING = """    def training_step(self, model, batch):
        Toy.batches = getattr(Toy, "batches", 0) + 1
        if Toy.batches == WHEN:
            raise ValueError("a bad row")
        return super().training_step(model, batch)

    def model(self)"""


@pytest.mark.parametrize(("log_every", "batch"), [(2, 4), (50, 10)])
def test_a_run_that_fails_later_stays_with_its_metrics_or_its_checkpoints(
    toy_folder: Path, change: Change, log_every: int, batch: int
) -> None:
    change("    metric = bt.Metric", f"    log_every = {log_every}\n    metric = bt.Metric")
    change("    def model(self)", FAILING.replace("WHEN", str(batch)))
    with pytest.raises(ValueError, match="a bad row"):
        trained(toy_folder, folds=[0])
    assert runs_in(toy_folder) == ["toy-001"]


# --- changed since


def test_comments_do_not_make_another_run_and_code_does_with_a_hint(toy_folder: Path, change: Change) -> None:
    said: list[str] = []
    trained(toy_folder, folds=[0])
    change("def rows(", "# a comment\ndef rows(")
    assert trained(toy_folder, said, folds=[0]).name == "toy-001"
    change("0.1 * random.uniform(2)", "0.2 * random.uniform(2)")
    assert trained(toy_folder, said, folds=[0]).name == "toy-002"
    assert said[-2] == "toy-001 is unfinished and differs in code, fields or data; to go on with it: --resume toy-001"


def test_of_many_unfinished_runs_the_last_is_named(toy_folder: Path) -> None:
    said: list[str] = []
    for width in (5, 6, 7):
        trained(toy_folder, said, folds=[0], values={"width": width})
    assert [line for line in said if "unfinished" in line][1:] == [
        "toy-002 is unfinished and differs in code, fields or data; 1 before it, too;"
        " to go on with it: --resume toy-002"
    ]


def test_resume_goes_on_with_changed_code_and_a_warning(toy_folder: Path, change: Change) -> None:
    said: list[str] = []
    trained(toy_folder, folds=[0])
    change("0.1 * random.uniform(2)", "0.2 * random.uniform(2)")
    with pytest.warns(UserWarning, match="toy-001 was begun with other code than the experiment has now"):
        run = trained(toy_folder, said, resume="toy-001")
    assert (run.name, run.finished_folds(), said[0]) == ("toy-001", [0, 1], "toy-001 goes on: folds 1 are to do")


@pytest.mark.parametrize(
    ("old", "new", "differences"),
    [
        ("width: int = 8", "width: int = 9", ["fields: width 8 then, 9 now"]),
        ("width: int = 8", "width: int = 8\n    depth: int = 1", ["fields: depth nothing then, 1 now"]),
        (
            "lr: float = 0.05",
            "lr: float = 0.04",
            [
                "fields: lr 0.05 then, 0.04 now",
                "stages[0] 'head': lr 0.05 then, 0.04 now",
                "stages[1] 'all': lr 0.025 then, 0.02 now",
            ],
        ),
        (
            "epochs=2, lr=self.lr / 2",
            "epochs=3, lr=self.lr / 2",
            [
                "stages[1] 'all': epochs 2 then, 3 now",
                "stages[1] 'all': the schedule is over all its epochs, so with others it is another run",
            ],
        ),
        ('bt.Stage("all"', 'bt.Stage("tail"', ["stages: head, all then, head, tail now"]),
        (
            'lr=self.lr / 2, start="best"',
            'lr=self.lr / 2, freeze=tuple("abcdefghijklm")',
            [
                "stages[1] 'all': freeze [] then, ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', ... now",
                "stages[1] 'all': start 'best' then, 'last' now",
            ],
        ),
        (
            "bt.Metric.accuracy()",
            "bt.Metric.auc()",
            ["metric: name 'accuracy' then, 'auc' now"],
        ),
        (
            "return rows(30, first=1000)\n",
            "return rows(31, first=1000)\n",
            [
                "data: test_table() gives other rows or values than then",
            ],
        ),
        ("return rows(30, first=1000)\n", "return None\n", ["data: test_table() gives None now"]),
    ],
)
def test_resume_refuses_other_fields_stages_metric_or_data_with_the_difference(
    copy: Path, change: Change, old: str, new: str, differences: list[str]
) -> None:
    shutil.copy(Path(__file__).parent / "toy.py", copy / "experiment.py")
    change(old, new)
    with pytest.raises(ResumeError) as caught:
        trained(copy, resume="toy-001")
    first, *found, last = str(caught.value).splitlines()
    assert first == "toy-001 was made with something else than is here now."
    assert [line.strip() for line in found] == differences
    assert last == "Put it back, or train a new run: batteries train"
    assert max(map(len, found)) <= 120
    assert caught.value.exit_code == 5


def test_resume_names_the_split_and_the_file_to_start_from_where_those_changed(copy: Path, change: Change) -> None:
    shutil.copy(Path(__file__).parent / "toy.py", copy / "experiment.py")
    torch.save(load_experiment(copy).model().state_dict(), copy / "begin.pt")
    change("lr=self.lr, accumulate", f'lr=self.lr, start="{copy}/begin.pt", accumulate')
    run = trained(copy, folds=[0])
    (copy / "runs/folds.parquet").unlink()
    change('Stratified("label", n=2)', 'Stratified("label", n=2, seed=1)')
    seed_everything(1)
    torch.save(load_experiment(copy).model().state_dict(), copy / "begin.pt")
    with pytest.raises(ResumeError) as caught:
        trained(copy, resume=run.name)
    stage, split = str(caught.value).splitlines()[1:-1]
    assert stage.startswith("  stages[0] 'head': the file it starts from is another one than then: /")
    assert len(stage) <= 120
    assert split.startswith('  folds: strategy "Stratified(column=\'label\', n=2, seed=0)" then, "Strat')
    assert split.endswith('seed=1)" now')


def test_another_number_of_workers_is_no_difference(copy: Path) -> None:
    assert trained(copy, values={"num_workers": 1}, resume="toy-001").name == "toy-001"


def test_going_on_under_other_versions_is_said_once_and_noted(toy_folder: Path) -> None:
    run = trained(toy_folder, folds=[0])
    path = run.folder / "provenance.json"
    made = read_sealed(path)
    made["packages"]["torch"] = "1.0"
    write_sealed(path, made)
    with pytest.warns(
        UserWarning, match=r"toy-001 goes on under torch 1.0 then, .* now: results may differ in the last"
    ):
        trained(toy_folder)
    log = (run.folder / "train.log").read_text()
    assert log.count("toy-001 goes on under torch 1.0 then, ") == 1
    trained(toy_folder)  # complete: nothing goes on
    path.unlink()
    shutil.rmtree(run.fold_folder(0))
    trained(toy_folder)  # what is not known is not said


def test_what_the_process_was_prepared_with_is_kept_beside_the_result(toy_folder: Path) -> None:
    run = trained(toy_folder, folds=[0], prepared={"keep_memory": True})
    assert read_sealed(run.folder / "provenance.json")["settings"]["keep_memory"] is True


def test_resuming_what_is_no_run_names_the_runs_there_are(copy: Path) -> None:
    with pytest.raises(UsageError, match="toy-007 is not a run; runs there: toy-001"):
        trained(copy, resume="toy-007")


def test_other_values_make_another_run_beside_the_first(copy: Path) -> None:
    assert trained(copy, values={"width": 4}, folds=[0]).name == "toy-002"
    assert trained(copy, values={"width": 8}).name == "toy-001"


def test_a_run_in_use_is_refused_with_its_owner(copy: Path) -> None:
    before = contents(copy)
    with (
        locked(copy / "runs/toy-001"),
        pytest.raises(BusyError, match=r"toy-001 is in use by process \d+ on ") as caught,
    ):
        trained(copy)
    assert caught.value.exit_code == 8
    assert contents(copy) == before


# --- a disk that is full


@pytest.mark.parametrize("call", [9, 12, 45, 90])
def test_a_full_disk_ends_the_run_with_6_and_once_there_is_space_it_goes_on(
    toy_folder: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    real, calls = os.fsync, iter(range(1, 10_000))

    def full(descriptor: int) -> None:
        if next(calls) >= call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ResourceError, match=r"(?i)no space left") as caught:
            trained(toy_folder)
    assert caught.value.exit_code == 6
    run = trained(toy_folder)
    for name in ("oof.parquet", "test.parquet", "fold0/metrics.jsonl", "fold1/metrics.jsonl"):
        assert (run.folder / name).read_bytes() == (finished / "runs/toy-001" / name).read_bytes(), name


# --- what is not finite

NAN_AT = """bt.Metric("accuracy", strange, higher_is_better=True)
    calls = []"""
STRANGE = """def strange(targets, predictions):
    Toy.calls.append(1)
    if len(Toy.calls) in {NAN}:
        return float("nan")
    return bt.Metric.accuracy()(targets, predictions)


@dataclass(kw_only=True)
class Toy("""


def strange_metric(change: Change, nan: str) -> None:
    change("metric = bt.Metric.accuracy()", f"metric = {NAN_AT}")
    change("@dataclass(kw_only=True)\nclass Toy(", STRANGE.replace("{NAN}", nan))


def test_a_score_that_is_nan_in_some_epochs_counts_as_worst(toy_folder: Path, change: Change) -> None:
    strange_metric(change, "(1, 3, 6)")
    said: list[str] = []
    run = trained(toy_folder, said, folds=[0])
    assert [line["valid/accuracy"] is None for line in metrics(run)] == [True, False, True, False, False, True]
    assert "fold 0 head, epoch 1: accuracy is nan; it counts as worst" in said
    head = Checkpoints(run.stage_folder(0, "head"), metric=bt.Metric.accuracy())
    assert {checkpoint.info["epoch"] for checkpoint in head.best(9)} == {2, 4}
    assert run.fold_result(0)["epoch"] == 1
    text = (run.fold_folder(0) / "metrics.jsonl").read_text()
    assert all(json.loads(line, parse_constant=pytest.fail) for line in text.splitlines())


def test_a_score_that_is_never_finite_ends_the_run_with_7_today_and_tomorrow(toy_folder: Path, change: Change) -> None:
    strange_metric(change, "range(99)")
    for _ in range(2):
        with pytest.raises(NonFiniteError, match="fold 0 head: accuracy was not finite in any of 4 epochs") as caught:
            trained(toy_folder)
        assert caught.value.exit_code == 7


def test_a_loss_that_becomes_nan_ends_the_run_with_7_and_keeps_the_epochs_before(
    toy_folder: Path, change: Change
) -> None:
    change(
        "        return nn.functional.cross_entropy(outputs, targets)",
        "        Toy.seen = getattr(Toy, 'seen', 0) + 1\n"
        "        loss = nn.functional.cross_entropy(outputs, targets)\n"
        "        return loss * float('nan') if Toy.seen == 7 else loss",
    )
    with pytest.raises(NonFiniteError, match=r"stage 'head': the loss or its .* in epoch 2, update 3;") as caught:
        trained(toy_folder)
    assert caught.value.exit_code == 7
    last = Checkpoints(toy_folder / "runs/toy-001/fold0/stage-head", metric=bt.Metric.accuracy()).last
    assert last is not None
    assert (last.info["epoch"], last.info["evaluated"]) == (1, True)
    log = (toy_folder / "runs/toy-001/train.log").read_text()
    assert "stopped: NonFiniteError: stage 'head': the loss or its gradient became NaN" in log


def test_a_metric_that_fails_loses_no_epoch_and_can_be_mended(toy_folder: Path, change: Change) -> None:
    change("metric = bt.Metric.accuracy()", 'metric = bt.Metric("accuracy", lambda y, p: 1 / 0, higher_is_better=True)')
    with pytest.raises(ExperimentError, match=r"metric 'accuracy' failed on targets \(30,\) int64 and predictions"):
        trained(toy_folder)
    stage = toy_folder / "runs/toy-001/fold0/stage-head"
    assert [path.name for path in stage.glob("checkpoint-*.pt")] == ["checkpoint-000001.pt"]
    change('bt.Metric("accuracy", lambda y, p: 1 / 0, higher_is_better=True)', "bt.Metric.accuracy()")
    with pytest.warns(UserWarning, match="begun with other code"):
        run = trained(toy_folder, resume="toy-001")
    assert run.finished_folds() == [0, 1]


# --- stages


def test_a_stage_can_start_from_the_best_or_last_of_the_one_before_or_from_a_file(copy: Path, change: Change) -> None:
    first = copy / "runs/toy-001/fold0/stage-head"
    for start in ("last", "best", str(first / "best.pt")):
        stage = f'return [bt.Stage("head", epochs=4, lr=self.lr), bt.Stage("all", epochs=1, lr=1e-12, start={start!r})]'
        text = (copy / "experiment.py").read_text()
        (copy / "experiment.py").write_text(
            text.partition("    def stages")[0] + f"    def stages(self):\n        {stage}\n"
        )
        run = trained(copy, folds=[0])
        head = Checkpoints(run.stage_folder(0, "head"), metric=bt.Metric.accuracy())
        begun = Checkpoints(run.stage_folder(0, "all"), metric=bt.Metric.accuracy()).last
        source = head.last if start == "last" else head.best()[0]
        assert begun is not None
        assert source is not None
        now, then = begun.load()["model"], source.load()["model"]
        # the learning rate of 1e-12 moves a weight by that much an update
        assert all(abs(now[name] - then[name]).max() <= 1e-9 for name in now if "weight" in name or "bias" in name)


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_a_stage_with_an_average_is_scored_and_predicts_with_it(copy: Path, average: str) -> None:
    run = trained(copy, values={"average": average}, folds=[0])
    best = Checkpoints(run.stage_folder(0, "all"), metric=bt.Metric.accuracy()).best()[0]
    assert run.fold_result(0)["weights"] == best.info["weights"] == "average"
    toy = load_experiment(copy)
    model = toy.model()
    bt.load_weights(model, best, part="average")
    loader = bt.Loader(toy.dataset(toy.table(), training=False), batch_size=8)
    from batteries.train.loop import predict

    everything = predict(toy, model, loader, bt.Device.pick("cpu"))
    oof = bt.Predictions.load(run.folder / "oof.parquet")
    folds = bt.Folds.load(copy / "runs/folds.parquet")
    # batches of other rows may add in another order
    np.testing.assert_allclose(oof.values, everything[folds.held_out(0)], rtol=1e-5, atol=1e-6)


def test_a_dataset_that_loses_rows_is_refused(toy_folder: Path, change: Change) -> None:
    change(
        "        return points, ",
        "        if not training:\n            points, rows = points[1:], rows[1:]\n        return points, ",
    )
    with pytest.raises(ExperimentError, match="dataset returned 29 samples for 30 rows; return one each, in order"):
        trained(toy_folder)


def test_a_model_without_numbers_is_refused_by_the_name_of_a_parameter(toy_folder: Path, change: Change) -> None:
    change("nn.Linear(2, self.width)", "nn.Linear(2, self.width, device='meta')")
    with pytest.raises(ExperimentError, match=r"Toy\.model returned 0\.weight on the meta device, which"):
        trained(toy_folder)


def test_a_model_that_is_none_is_refused(toy_folder: Path, change: Change) -> None:
    change("        return nn.Sequential(", "        return None and nn.Sequential(")
    with pytest.raises(ExperimentError, match=r"Toy\.model must return an nn.Module, got NoneType"):
        trained(toy_folder)


NOISY = """class Noisy(torch.utils.data.Dataset):
    def __init__(self, points, labels):
        self.points, self.labels = points, labels

    def __len__(self):
        return len(self.points)

    def __getitem__(self, row):
        return self.points[row] + 0.01 * torch.randn(2), self.labels[row]


@dataclass(kw_only=True)
class Toy("""


def test_a_torch_dataset_with_workers_trains_as_without(toy_folder: Path, change: Change) -> None:
    change("@dataclass(kw_only=True)\nclass Toy(", NOISY)
    change(
        "        return points, ",
        "        return Noisy(points, torch.from_numpy(self.targets(rows).copy()))\n        return points, ",
    )
    without = trained(toy_folder, values={"num_workers": 0}, folds=[0])
    alone = metrics(without)
    assert (
        trained(toy_folder, values={"num_workers": 2}, folds=[0]).name == without.name
    )  # the same result: the same run
    (toy_folder / "runs" / without.name).rename(toy_folder / "moved")
    assert metrics(trained(toy_folder, values={"num_workers": 2}, folds=[0])) == alone
