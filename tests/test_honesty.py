"""Nothing silently wrong: the ways in which a right-looking number could be another one."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import batteries as bt
from batteries.cli.app import main
from batteries.errors import DataError, Interrupted, NotSafeError, ResumeError, UsageError
from batteries.train import stage as stage_module
from batteries.train.device import Device
from batteries.train.outcome import loader_of
from toy import Toy

ROOT = Path("runs")
Change = Callable[[str, str], None]


def trained(folder: Path, *, folds: list[int] | None = None, values: dict[str, object] | None = None) -> bt.Entry:
    experiment = bt.load_experiment(folder, values=values)
    run = bt.train_run(experiment, ROOT, folds=folds, progress=False)
    bt.record(bt.open_entry(ROOT, run.name), experiment, ROOT)
    return bt.open_entry(ROOT, run.name)


def test_joined_predictions_cover_the_finished_folds_after_a_stop_in_a_later_one(
    toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(toy_folder, folds=[0])

    def stop(*arguments: object, **options: object) -> None:
        raise Interrupted("stopped by SIGINT", signum=2)

    Path("runs/toy-001/oof.parquet").unlink()
    monkeypatch.setattr(stage_module, "train", stop)  # as if a signal came before the first update of fold 1
    with pytest.raises(Interrupted):
        bt.train_run(bt.load_experiment(toy_folder), ROOT, progress=False)
    assert len(bt.open_entry(ROOT, "toy-001").oof()) == 30


def test_joined_predictions_that_miss_a_finished_fold_or_are_damaged_are_joined_again(toy_folder: Path) -> None:
    entry = trained(toy_folder, folds=[0])
    partial = (entry.folder / "oof.parquet").read_bytes()
    trained(toy_folder)
    whole = (entry.folder / "oof.parquet").read_bytes()
    for wrong in (partial, whole[:100]):
        (entry.folder / "oof.parquet").write_bytes(wrong)
        trained(toy_folder)
        assert (entry.folder / "oof.parquet").read_bytes() == whole


def test_checkpoints_are_not_averaged_on_other_folds_than_they_were_trained_on(
    toy_folder: Path, change: Change
) -> None:
    trained(toy_folder)
    (ROOT / "folds.parquet").unlink()
    change('Stratified("label", n=2)', 'Stratified("label", n=2, seed=1)')
    experiment = bt.load_experiment(toy_folder)
    bt.split(experiment, ROOT)
    with pytest.raises(ResumeError, match=r"toy-001 was made with something else than is here now.\n  folds"):
        bt.average(bt.Run.open(ROOT / "toy-001"), experiment, ROOT, best=2, progress=False)


def test_checkpoints_are_not_averaged_on_other_data(toy_folder: Path, change: Change) -> None:
    trained(toy_folder)
    change('"x": points[:, 0]', '"x": -points[:, 0]')
    experiment = bt.load_experiment(toy_folder)
    with pytest.raises(ResumeError, match="data"):
        bt.average(bt.Run.open(ROOT / "toy-001"), experiment, ROOT, best=2, progress=False)


def test_the_number_of_a_deleted_run_or_submission_is_not_given_again(toy_folder: Path) -> None:
    bt.submit(trained(toy_folder), bt.load_experiment(toy_folder), ROOT)
    shutil.rmtree(ROOT / "toy-001")
    shutil.rmtree(ROOT / "submission-001")
    second = trained(toy_folder, values={"width": 9})
    submission = bt.submit(second, bt.load_experiment(toy_folder), ROOT)
    assert (second.name, submission.name) == ("toy-002", "submission-002")


def test_another_entry_with_the_same_answers_is_told_before_it_costs_a_try(toy_folder: Path) -> None:
    experiment = bt.load_experiment(toy_folder)
    bt.submit(trained(toy_folder), experiment, ROOT)
    second = trained(toy_folder, values={"width": 9})
    made = bt.submit(second, experiment, ROOT)
    assert made.name == "submission-002"
    assert made.notes[-1].startswith("these are the bytes of submission-001 of toy-001, too: sending both costs a try")


def test_a_lost_ledger_knows_a_submission_again_when_it_is_asked_for_again(toy_folder: Path) -> None:
    entry, experiment = trained(toy_folder), bt.load_experiment(toy_folder)
    bt.submit(entry, experiment, ROOT)
    (ROOT / "ledger.db").unlink()
    assert bt.leaderboard(bt.submit(entry, experiment, ROOT).name, 0.9, ROOT) == "toy-001"


def test_a_score_of_an_unknown_entry_is_refused_as_such_and_not_as_damage() -> None:
    with bt.Ledger(ROOT) as ledger, pytest.raises(UsageError, match="refused a row that fits no entry"):
        ledger.add_score("nobody", "oof", 0.5, metric="auc", higher_is_better=True)


def test_a_run_named_outside_its_root_is_not_resumed(toy_folder: Path) -> None:
    with pytest.raises(NotSafeError):
        bt.train_run(bt.load_experiment(toy_folder), ROOT, resume="../elsewhere/runs/toy-001", progress=False)


def test_a_test_target_that_cannot_be_scored_is_refused_before_training(toy_folder: Path, change: Change) -> None:
    change(
        "return rows(30, first=1000)\n\n    def sample",
        "return rows(30, first=1000).with_columns(label=pl.lit(None))\n\n    def sample",
    )
    with pytest.raises(DataError, match=r"Toy.test_table\(\): target column 'label' has 30"):
        bt.train_run(bt.load_experiment(toy_folder), ROOT, progress=False)
    assert not (ROOT / "toy-001").exists()


def test_what_a_checkpoint_takes_it_gives_back() -> None:
    checkpoints = bt.Checkpoints("logs", metric=bt.Metric("auc", higher_is_better=True))
    state = {"score": np.float64(0.5), "array": np.arange(3), "nested": {"n": np.int64(2), "list": [np.float32(1)]}}
    back = checkpoints.save(state, score=0.5).load()
    assert (back["score"], back["nested"]) == (0.5, {"n": 2, "list": [1.0]})
    assert torch.equal(back["array"], torch.arange(3))
    with pytest.raises(UsageError, match=r"'path' holds PosixPath, which cannot be loaded safely"):
        checkpoints.save({"path": Path("x")})
    assert len(checkpoints) == 1


def test_a_path_with_a_question_mark_keeps_its_ledger(tmp_path: Path) -> None:
    folder = tmp_path / "sp ace ünï?#%20x"
    bt.Ledger(folder).close()
    assert (folder / "ledger.db").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("sp")] == [folder.name]


def test_a_lost_ledger_is_written_again_from_the_folders(toy_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    entry = trained(toy_folder)
    before = bt.scores(ROOT)
    bt.submit(entry, bt.load_experiment(toy_folder), ROOT)
    for name in ("ledger.db", "ledger.jsonl"):
        (ROOT / name).unlink()
    assert main(["scores"]) == 0
    assert "runs/ledger.db was lost, or is new; 1 entry is entered again from the folders" in capfd.readouterr().err
    assert bt.scores(ROOT) == before
    assert bt.leaderboard("submission-001", 0.9, ROOT) == "toy-001"


def test_a_sampler_that_draws_while_it_is_made_draws_the_same_after_a_resume_and_moves_nothing_else() -> None:
    class Drawn(Toy):
        def sampler(self, rows: pl.DataFrame) -> bt.Weighted:
            return bt.Weighted(torch.rand(len(rows)))

    experiment = Drawn()
    table, stage = experiment.table(), bt.Stage("a", epochs=1)
    before = torch.get_rng_state()
    first = loader_of(experiment, table, stage, training=True, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)  # as if training had gone on
    again = loader_of(experiment, table, stage, training=True, seed=3)
    assert torch.equal(first.order(0), again.order(0))


def test_what_a_tracker_draws_at_random_is_not_missing_from_the_training(tmp_path: Path) -> None:
    class Named:
        def write(self, step: int, values: Mapping[str, float]) -> None:
            random.random(), np.random.rand(), torch.rand(1)

        def close(self) -> None:
            self.write(0, {})

    before = random.getstate(), torch.get_rng_state()
    with bt.MetricLog(tmp_path, tensorboard=False, trackers=[Named()]) as log:
        log.write(step=1, loss=0.5)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


def test_a_model_with_volumes_keeps_its_memory_order_in_low_precision() -> None:
    model = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 1), torch.nn.Conv2d(2, 2, 1))
    Device.pick("cpu").place_model(model, bt.Stage("a", epochs=1, precision="bf16"))
    assert model[1].weight.is_contiguous()
