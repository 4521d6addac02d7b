"""What other trainers get wrong, and where it is shown that this one does not.

======================================================================  ===============================================
defect or complaint elsewhere                                           shown by
======================================================================  ===============================================
a ragged accumulation tail is weighed wrong, or divided by N            test_update: small batches equal one large one
groups straddle epochs                                                  here
accumulated gradients are never divided                                 test_parity: every word of a stage
resume forgets the best and the few best                                here
resume forgets random state                                             test_state: all of it goes through a file
resume forgets the loss scale                                           here
resume forgets the average                                              test_resume: killed at a random moment
resume forgets early stopping                                           test_resume: patience runs out at the same epoch
resume is not exact in order, augmentation, dropout                     test_resume: killed at a random moment
resume reads all consumed data again                                    test_loaders: skipped samples ...; here
freezing breaks when a stage is resumed                                 here
a stage's loss, size or rate leaks into the next                        test_stages: a stage has its own ...; here
averaging takes the worst files when the metric is a loss               here
validation counts padding, drops rows, or averages over batches         here; test_distributed for several processes
the scheduler steps once per process, or does not end with the stage    here; test_distributed
EMA weights are swapped in and end up in the checkpoint                 here
checkpoints are renamed before they are on the disk                     here
a flipped bit is not detected                                           test_checkpoint: no flipped bit ... loads
a failed save is swallowed                                              test_checkpoint: a save that fails behind
a save interrupted half-way loses the one before                        test_checkpoint: a disk that refuses
preemption loses the epoch                                              test_resume: asked to stop at a random moment
memory that runs out ends the training or changes the batch             test_update: when memory runs out
one NaN ruins the weights, the statistics or the mean                   test_guard
cross-validation has to be written by hand                              test_run: every row once by the model that ...
======================================================================  ===============================================
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from sklearn.metrics import log_loss
from torch import Tensor

import batteries as bt
from batteries.experiment import load_experiment
from batteries.train.checkpoint import Checkpoints
from batteries.train.device import Device
from batteries.train.loaders import Loader
from batteries.train.log import read_metrics
from batteries.train.loop import train
from batteries.train.run import train_run
from batteries.train.samplers import Shuffled
from batteries.train.state import TrainState
from toy import Toy

CPU = Device.pick("cpu")
Train = Callable[..., bt.Run]

TOLD = '''    def training_step(self, model, batch):
        """Note what a test looks at, and fail at the batch it names."""
        cls = type(self)
        cls.seen = [*getattr(cls, "seen", []), (batch.rows.tolist(), model[0].weight.requires_grad, model[1].training)]
        if len(cls.seen) == getattr(cls, "crash_at", 0):
            raise ZeroDivisionError
        return super().training_step(model, batch)

    def model('''


@pytest.fixture
def toy(tmp_path: Path) -> Iterator[Train]:
    """Train the toy in this process, with other stages: `toy("a", [...], crash_at=9)` -> run."""
    text = (Path(__file__).parent / "toy.py").read_text().replace("    def model(", TOLD, 1)
    text = text.replace(
        "        return [\n", "        if self.given:\n            return self.given\n        return [\n"
    )
    text = text.replace(
        "    metric = bt.Metric.accuracy()\n    also", "    metric = bt.Metric.log_loss()\n    given = None\n    also"
    )
    text = text.replace("also = (bt.Metric.log_loss(),)", "also = (bt.Metric.accuracy(),)")

    def trained(root: str, stages: list[bt.Stage], *, crash_at: int = 0, **fields: Any) -> bt.Run:
        folder = tmp_path / root
        folder.mkdir(exist_ok=True)
        (folder / "experiment.py").write_text(text)
        sys.modules.pop("experiment", None)
        experiment: Any = load_experiment(folder, values=fields)
        cls = type(experiment)
        cls.given, cls.crash_at = stages, crash_at
        try:
            return train_run(experiment, folder / "runs", device="cpu", folds=[0], progress=False)
        finally:
            trained.seen = cls.seen  # type: ignore[attr-defined]

    yield trained
    sys.modules.pop("experiment", None)


def checkpoints(run: bt.Run, stage: str) -> Checkpoints:
    return Checkpoints(run.stage_folder(0, stage), metric=bt.Metric.log_loss())


def scores(run: bt.Run, stage: str) -> list[float]:
    rows = read_metrics(run.fold_folder(0) / "metrics.jsonl")
    return [row["valid/log_loss"] for row in rows if row["stage"] == stage and "valid/log_loss" in row]


# --- accumulation and schedules


def test_no_group_of_batches_straddles_two_epochs() -> None:
    """Seven batches by four: an epoch has updates of four and of three, whatever came before."""
    groups: list[tuple[int, int]] = []
    stage = bt.Stage("a", epochs=3, accumulate=4)
    toy = Toy()
    state = TrainState.begin(toy, stage, toy.model(), CPU)
    data = toy.dataset(toy.table()[:28], training=True)
    loader = Loader(data, batch_size=4, seed=1, sampler=Shuffled())
    for epoch in train(
        toy, stage, state, loader, CPU, after_update=lambda: groups.append((state.epoch, state.samples))
    ):
        assert epoch.number * 2 == state.step
    assert groups == [(epoch, samples) for epoch in range(3) for samples in (16, 28)]


def test_a_schedule_ends_with_the_last_update_of_its_stage_and_begins_anew_with_the_next(toy: Train) -> None:
    """30 rows are four batches of eight: two updates an epoch, four in the first stage, six in the second."""
    how: dict[str, Any] = {"lr": 0.5, "accumulate": 3, "schedule": "linear"}
    run = toy("a", [bt.Stage("first", epochs=2, **how), bt.Stage("second", epochs=3, **how)])
    rows = read_metrics(run.fold_folder(0) / "metrics.jsonl")
    assert [row["lr"] for row in rows] == pytest.approx(
        [0.5 * (1 - n / 4) for n in (1, 3)] + [0.5 * (1 - n / 6) for n in (1, 3, 5)]
    )
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10]


# --- resume


def test_a_resumed_stage_knows_the_best_and_the_few_best_of_before(toy: Train) -> None:
    stages = [bt.Stage("a", epochs=6, lr=0.5, schedule="constant"), bt.Stage("b", epochs=1, start="best")]
    whole = toy("whole", stages)
    with pytest.raises(ZeroDivisionError):
        toy("broken", stages, crash_at=19)  # in the fifth epoch
    broken = toy("broken", stages)
    for stage in ("a", "b"):
        wanted = [(c.score, c.info["epoch"], c.number) for c in checkpoints(whole, stage).best(9)]
        assert [(c.score, c.info["epoch"], c.number) for c in checkpoints(broken, stage).best(9)] == wanted
    ranked = sorted(range(6), key=lambda epoch: scores(whole, "a")[epoch])
    assert [c.info["epoch"] for c in checkpoints(broken, "a").best(3)] == [epoch + 1 for epoch in ranked[:3]]
    assert (broken.stage_folder(0, "a") / "best.pt").samefile(checkpoints(broken, "a").best()[0].path)


@pytest.mark.parametrize("moment", [3, 8, 11])
def test_a_resumed_stage_knows_its_loss_scale_and_how_long_it_has_been_good(moment: int) -> None:
    class Steep(Toy):
        """Its gradients overflow half precision until the scale has come down."""

        def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return super().loss(outputs, targets) * 30.0

    toy, stage = Steep(), bt.Stage("a", epochs=3, lr=0.02, precision="fp16")
    data = toy.dataset(toy.table()[:36], training=True)

    def begun() -> TrainState:
        torch.manual_seed(3)
        state = TrainState.begin(toy, stage, toy.model(), CPU)
        state.scaler.set_growth_interval(4)
        return state

    def go_on(state: TrainState) -> list[tuple[float, int]]:
        scales: list[tuple[float, int]] = []

        def note() -> None:
            scales.append((state.scaler.get_scale(), state.scaler._get_growth_tracker()))
            if state.step == moment:
                saved.append(deepcopy(state.state_dict()))

        list(train(toy, stage, state, Loader(data, batch_size=8, seed=1, sampler=Shuffled()), CPU, after_update=note))
        return scales

    saved: list[dict[str, Any]] = []
    whole = begun()
    wanted = go_on(whole)
    assert len({scale for scale, _ in wanted}) > 2
    resumed = begun()
    resumed.load_state_dict(saved[0])
    assert go_on(resumed) == wanted[moment:]
    assert all(torch.equal(t, resumed.model.state_dict()[name]) for name, t in whole.model.state_dict().items())


@pytest.mark.parametrize("crash_at", [2, 6, 11])
def test_what_is_frozen_stays_frozen_after_a_resume_and_thaws_with_the_next_stage(toy: Train, crash_at: int) -> None:
    stages = [bt.Stage("head", epochs=2, lr=0.1, freeze=("0.*", "1.*")), bt.Stage("all", epochs=2, lr=0.1)]
    whole = toy("whole", stages)
    learns = [flags for _, *flags in toy.seen]  # type: ignore[attr-defined]
    assert learns == [[False, False]] * 8 + [[True, True]] * 8
    with pytest.raises(ZeroDivisionError):
        toy("broken", stages, crash_at=crash_at)
    broken = toy("broken", stages)
    resumed = [flags for _, *flags in toy.seen]  # type: ignore[attr-defined]
    assert resumed == learns[-len(resumed) :]
    first, second = (checkpoint.load()["model"] for checkpoint in checkpoints(broken, "head").all())
    last = checkpoints(broken, "all").last
    assert last is not None
    thawed = last.load()["model"]
    for name in [name for name in first if name.startswith(("0.", "1."))]:
        assert torch.equal(first[name], second[name]), name
        assert not torch.equal(second[name], thawed[name]), name
    for stage in ("head", "all"):
        one, two = (checkpoints(run, stage).last for run in (whole, broken))
        assert one is not None
        assert two is not None
        assert all(torch.equal(t, two.load()["model"][name]) for name, t in one.load()["model"].items())


def test_a_run_stopped_within_an_epoch_reads_the_rest_of_it_only(toy: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bt.Experiment, "save_every", 0.0)
    stages = [bt.Stage("a", epochs=2, lr=0.1)]
    toy("whole", stages)
    every = [rows for rows, *_ in toy.seen]  # type: ignore[attr-defined]
    with pytest.raises(ZeroDivisionError):
        toy("a", stages, crash_at=7)
    toy("a", stages)
    rest = [rows for rows, *_ in toy.seen]  # type: ignore[attr-defined]
    assert rest == every[-len(rest) :]
    assert len(rest) == 2


# --- scores and averages


def test_of_a_loss_the_lowest_are_best_and_go_into_the_average(toy: Train) -> None:
    run = toy("a", [bt.Stage("a", epochs=6, lr=0.3, schedule="constant"), bt.Stage("b", epochs=1, start="average")])
    values = scores(run, "a")
    lowest = sorted(range(6), key=lambda epoch: values[epoch])[:3]
    best = checkpoints(run, "a").best(3)
    assert [checkpoint.info["epoch"] - 1 for checkpoint in best] == lowest
    assert values[lowest[0]] == min(values)
    mean = bt.average_checkpoints(best)
    parts = [checkpoint.load()["model"]["4.weight"].double() for checkpoint in best]
    assert torch.equal(mean["4.weight"], (sum(parts[1:], parts[0]) / 3).float())


def test_a_score_is_of_every_held_out_row_once_and_not_a_mean_over_batches(toy: Train) -> None:
    """30 rows in batches of seven: the last one has two."""
    run = toy("a", [bt.Stage("a", epochs=3, lr=0.1)], batch_size=7)
    oof = pl.read_parquet(run.fold_folder(0) / "oof.parquet")
    assert oof["id"].n_unique() == len(oof) == 30
    columns = [column for column in oof.columns if oof[column].dtype == pl.Float32]
    chances = oof.select(columns).to_numpy().astype("float64")
    whole = log_loss(oof["id"].to_numpy() % 3, chances / chances.sum(axis=1, keepdims=True))
    assert min(scores(run, "a")) == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("average", ["ema", "swa"])
def test_an_average_beside_the_weights_changes_no_bit_of_them_and_is_saved_apart(toy: Train, average: Any) -> None:
    how: dict[str, Any] = {"epochs": 3, "lr": 0.1}
    plain, averaged = toy("a", [bt.Stage("a", **how)]), toy("b", [bt.Stage("a", average=average, **how)])
    raw, state = (checkpoints(run, "a").last for run in (plain, averaged))
    assert raw is not None
    assert state is not None
    one, two = raw.load(), state.load()
    assert [name for name in one["model"] if not torch.equal(one["model"][name], two["model"][name])] == []
    assert not torch.equal(two["average"]["4.weight"], two["model"]["4.weight"])
    assert "average" not in one


# --- files


def test_no_file_gets_its_name_before_its_content_is_on_the_disk(toy: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: set[int] = set()
    named: list[tuple[str, bool]] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        flushed.add(os.fstat(descriptor).st_ino)

    def noted_replace(source: Any, target: Any) -> None:
        named.append((Path(target).name, Path(source).stat().st_ino in flushed))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    toy("a", [bt.Stage("a", epochs=2, lr=0.1)])
    kept = [(name, safe) for name, safe in named if name.startswith(("checkpoint", "last", "best", "fold", "oof"))]
    assert len(kept) >= 8
    assert [name for name, safe in kept if not safe] == []
