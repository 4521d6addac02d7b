"""Augmented training: the same bits after a resume and with workers; the same batch in pieces, groups and processes."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from torch import Tensor, nn

import batteries as bt
import killing
from batteries.prepare.augment import cutmix, mixup, random_erasing, smooth
from batteries.train.checkpoint import Checkpoints
from batteries.train.device import Device
from batteries.train.loaders import Loader
from batteries.train.loop import train
from batteries.train.samplers import Shuffled
from batteries.train.state import TrainState
from processes import Ranks, ranks_of
from test_resume import plain

CPU = Device.pick("cpu")
FOLD = ("--fold", "0")


def mixed_in(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).parent / "mixed.py", folder / "experiment.py")
    return folder


def outcome(folder: Path) -> dict[str, Any]:
    """Metrics to the byte, predictions and all weights, averages and states of the optimizer to the bit."""
    fold = folder / "runs" / "mixed-001" / "fold0"
    last = Checkpoints(fold / "stage-only", metric=bt.Metric.accuracy()).last
    assert last is not None
    predictions = {path.name: pl.read_parquet(path) for path in fold.rglob("oof*.parquet")}
    assert predictions
    return {
        "metrics": (fold / "metrics.jsonl").read_text(),
        "state": plain(torch.load(last.path, weights_only=True)),
        **{name: table.to_dict(as_series=False) for name, table in predictions.items()},
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run ends with that nobody stopped."""
    folder = mixed_in(tmp_path_factory.mktemp("whole"))
    code, printed = killing.train(folder, *FOLD)
    assert code == 0, printed
    return outcome(folder)


@pytest.mark.parametrize(("name", "batch"), [("SIGKILL", 4), ("SIGKILL", 17), ("SIGTERM", 10)])
def test_an_augmented_run_stopped_within_an_epoch_ends_with_the_bits_of_one_never_stopped(
    tmp_path: Path, whole: dict[str, Any], name: str, batch: int
) -> None:
    """Seven batches an epoch."""
    mixed_in(tmp_path)
    code, printed = killing.train(tmp_path, *FOLD, variable=f"{name}:{batch}")
    assert code == (-signal.SIGKILL if name == "SIGKILL" else 143), printed
    last = Checkpoints(tmp_path / "runs/mixed-001/fold0/stage-only", metric=bt.Metric.accuracy()).last
    assert last is not None
    assert last.info["update"] > 0
    code, printed = killing.train(tmp_path, *FOLD)
    assert code == 0, printed
    assert "goes on" in printed
    assert outcome(tmp_path) == whole


@pytest.mark.parametrize("workers", [0, 2])
def test_the_number_of_workers_changes_no_bit_of_an_augmented_run(
    tmp_path: Path, whole: dict[str, Any], workers: int
) -> None:
    mixed_in(tmp_path)
    code, printed = killing.train(tmp_path, *FOLD, "--set", f"num_workers={workers}", "--set", "one_by_one=true")
    assert code == 0, printed
    assert outcome(tmp_path) == whole


# --- pieces, groups, processes


@dataclass(kw_only=True)
class Small(bt.Experiment):
    """A classifier of small images in float64, where only the order of sums makes a difference."""

    given: bool = False
    """Whether partners come from all rows, not from the batch."""
    metric = bt.Metric.accuracy()
    log_every = 0

    def model(self) -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(nn.Flatten(), nn.Linear(32, 16), nn.Tanh(), nn.Linear(16, 3)).double()

    def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
        images, targets = random_erasing(batch.inputs, random), smooth(batch.targets, classes=3)
        pool = data(60)
        among = (pool[0], smooth(pool[1], classes=3)) if self.given else None
        images, targets = cutmix(images, targets, random, p=0.5, among=among)
        images, targets = mixup(images, targets, random, alpha=1.0, among=among)
        return batch._replace(inputs=images, targets=targets.double())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)


def data(rows: int) -> tuple[Tensor, Tensor]:
    images = torch.randn(rows, 2, 4, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return images, images[:, 0, :3, 0].argmax(dim=1)


def trained(
    place: Device, rows: int, batch_size: int, *, given: bool = False, pieces: int = 1, accumulate: int = 1
) -> dict[str, Tensor]:
    experiment = Small(given=given)
    stage = bt.Stage("all", epochs=2, lr=0.02, accumulate=accumulate)
    state = TrainState.begin(experiment, stage, experiment.model(), place)
    state.split = pieces
    loader = Loader(data(rows), batch_size=batch_size, seed=11, sampler=Shuffled())
    list(train(experiment, stage, state, loader, place))
    return dict(state.model.state_dict())


def trained_on(place: Device, rows: int, batch_size: int, given: bool, accumulate: int) -> dict[str, Tensor]:
    return trained(place, rows, batch_size, given=given, accumulate=accumulate)


def assert_near(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)  # the same sums in another order


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    with ranks_of(2) as started:
        yield started


@pytest.mark.parametrize("pieces", [2, 3, 8])
@pytest.mark.parametrize("given", [False, True])
def test_a_batch_is_mixed_whole_and_cut_into_pieces_after_it(pieces: int, given: bool) -> None:
    """As where memory ran out: 9 samples in pieces of 1 to 5 keep the partners they have in the batch."""
    assert_near(trained(CPU, 53, 9, given=given, pieces=pieces), trained(CPU, 53, 9, given=given))


@pytest.mark.parametrize("given", [False, True])
def test_small_batches_of_an_even_size_are_mixed_as_one_large_batch(given: bool) -> None:
    assert_near(trained(CPU, 53, 8, given=given, accumulate=4), trained(CPU, 53, 32, given=given))


def test_small_batches_of_any_size_are_mixed_as_one_large_batch_with_given_partners() -> None:
    assert_near(trained(CPU, 53, 7, given=True, accumulate=3), trained(CPU, 53, 21, given=True))


@pytest.mark.parametrize(("rows", "batch_size", "accumulate"), [(48, 8, 1), (56, 12, 1), (56, 12, 2)])
def test_two_processes_with_an_even_number_of_samples_each_mix_as_one(
    two: Ranks, rows: int, batch_size: int, accumulate: int
) -> None:
    wanted = trained(CPU, rows, batch_size, accumulate=accumulate)
    for found in two(trained_on, rows, batch_size, False, accumulate):
        assert_near(found, wanted)


@pytest.mark.parametrize(("rows", "batch_size"), [(53, 7), (41, 8), (7, 1)])
def test_two_processes_mix_as_one_with_given_partners_whatever_the_sizes(
    two: Ranks, rows: int, batch_size: int
) -> None:
    wanted = trained(CPU, rows, batch_size, given=True)
    for found in two(trained_on, rows, batch_size, True, 1):
        assert_near(found, wanted)


def test_with_odd_shares_neighbours_differ_between_processes_as_the_documentation_says(two: Ranks) -> None:
    """The limit of the promise: 6 samples are 3 and 3, so that the third and the fourth are no pair."""
    found, wanted = two(trained_on, 48, 6, False, 1)[0], trained(CPU, 48, 6)
    assert not torch.allclose(found["1.weight"], wanted["1.weight"], rtol=1e-3)
