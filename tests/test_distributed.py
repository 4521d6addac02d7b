"""Several processes train one model: what one process would, to float64's last digits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import batteries as bt
import device_suite
from batteries.train.average import recompute_batch_norm
from batteries.train.device import Device
from batteries.train.loaders import Loader
from batteries.train.loop import predict, train, training_inputs
from batteries.train.samplers import Shuffled
from batteries.train.state import TrainState
from processes import Ranks, ranks_of

CPU = Device.pick("cpu")


@pytest.fixture(scope="module")
def two() -> Iterator[Ranks]:
    with ranks_of(2) as started:
        yield started


@pytest.fixture(scope="module")
def three() -> Iterator[Ranks]:
    with ranks_of(3) as started:
        yield started


# --- every device keeps its promises


@pytest.mark.parametrize("promise", device_suite.PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("dp", [False, True])
def test_one_process_keeps(promise: Callable[[Device], None], dp: bool) -> None:
    promise(Device.pick("cpu", dp=dp))


@pytest.mark.parametrize("promise", device_suite.PROMISES, ids=lambda promise: promise.__name__)
def test_two_processes_keep(two: Ranks, promise: Callable[[Device], None]) -> None:
    two(promise)


# --- the loop


@dataclass(kw_only=True)
class Points(bt.Experiment):
    """A classifier of points, or of small images, in float64."""

    kind: str = "norm"
    moved: bool = False
    metric = bt.Metric.accuracy()
    log_every = 2

    def model(self) -> nn.Module:
        torch.manual_seed(5)
        layers = {  # no bias before a norm: its gradient is zero but for rounding, which AdamW makes steps of
            "plain": [nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3)],
            "norm": [nn.Linear(4, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)],
            "images": [
                nn.Unflatten(1, (1, 2, 2)),
                nn.Conv2d(1, 6, 2, padding=1, bias=False),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.Flatten(),
                nn.Linear(54, 3),
            ],
        }
        return nn.Sequential(*layers[self.kind]).double()

    def training_step(self, model: nn.Module, batch: bt.Batch) -> dict[str, Any]:
        outputs = model(batch.inputs)
        return {"loss": self.loss(outputs, batch.targets), "size": outputs.square().mean()}

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def augment(self, batch: bt.Batch, random: bt.SampleRandom) -> bt.Batch:
        return batch._replace(inputs=batch.inputs + 0.3 * random.uniform(4)) if self.moved else batch


def loader(rows: int, batch_size: int) -> Loader:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(rows, 4, generator=generator, dtype=torch.float64)
    return Loader((inputs, (inputs[:, :3] * 3).argmax(dim=1)), batch_size=batch_size, seed=11, sampler=Shuffled())


def trained(place: Device, experiment: Points, stage: bt.Stage, rows: int, batch_size: int) -> dict[str, Any]:
    """All that a training leaves behind."""
    state = TrainState.begin(experiment, stage, experiment.model(), place)
    batches = loader(rows, batch_size)
    windows: list[dict[str, float]] = []

    def note() -> None:
        if state.step % experiment.log_every == 0:
            windows.append({**state.means(window=True), "norm": float(state.grad_norm)})  # type: ignore[arg-type]

    epochs = [dataclasses.asdict(epoch) for epoch in train(experiment, stage, state, batches, place, after_update=note)]
    if stage.average == "swa":
        inputs = training_inputs(experiment, batches, place, epoch=stage.epochs - 1)
        recompute_batch_norm(state.scored, inputs, experiment.predict_step, gather=place.gather)
    return {
        "model": dict(state.model.state_dict()),
        "scored": dict(state.scored.state_dict()),
        "optimizer": state.optimizer.state_dict(),
        "position": (state.epoch, state.update, state.step, state.samples),
        "epochs": epochs,
        "windows": windows,
        "predictions": torch.from_numpy(predict(experiment, state.scored, loader(rows, batch_size), place)),
    }


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int, int]] = {
    "plain layers": ({"kind": "plain"}, {}, 53, 8),
    "odd batches": ({"kind": "plain"}, {}, 53, 7),
    "one sample left over": ({"kind": "plain"}, {}, 41, 8),
    "one sample a batch": ({"kind": "plain"}, {}, 7, 1),
    "batch norm": ({}, {}, 53, 8),
    "batch norm, two left over": ({}, {}, 50, 8),
    "images": ({"kind": "images"}, {}, 47, 9),
    "groups with a short last one": ({}, {"accumulate": 3}, 53, 7),
    "groups and one sample left over": ({"kind": "plain"}, {"accumulate": 4}, 41, 8),
    "clipped": ({}, {"clip": 0.1, "clip_value": 0.05, "accumulate": 2}, 53, 8),
    "ema": ({}, {"average": "ema", "decay": 0.9}, 53, 8),
    "swa": ({"kind": "images", "moved": True}, {"average": "swa"}, 53, 8),
    "augmented, one-cycle": ({"moved": True}, {"schedule": "one-cycle", "warmup": 0.1}, 53, 8),
    "frozen norms": ({}, {"freeze": ("0.*", "1.*")}, 53, 8),
    "recomputed": ({"kind": "images"}, {"recompute": ("1", "2")}, 53, 8),
    "rates by layer": ({}, {"layer_decay": 0.7, "schedule": "step"}, 53, 8),
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_does(two: Ranks, case: str) -> None:
    fields, settings, rows, batch_size = CASES[case]
    assert_equal_to_one(two, Points(**fields), bt.Stage("all", epochs=3, lr=0.02, **settings), rows, batch_size)


@pytest.mark.parametrize("settings", [{}, {"accumulate": 3}, {"average": "ema"}])
def test_a_last_batch_smaller_than_the_processes_is_computed_by_all_and_counts_once(
    three: Ranks, settings: dict[str, Any]
) -> None:
    """50 rows in batches of 8 leave two, for three processes with batch norms."""
    assert_equal_to_one(three, Points(), bt.Stage("all", epochs=3, lr=0.02, **settings), 50, 8)


def assert_equal_to_one(ranks: Ranks, experiment: Points, stage: bt.Stage, rows: int, batch_size: int) -> None:
    found = ranks(trained, experiment, stage, rows, batch_size)
    wanted = trained(CPU, experiment, stage, rows, batch_size)
    # the same sums in another order: only float64's last digits may differ
    torch.testing.assert_close(found[0], wanted, rtol=1e-10, atol=1e-10)
    for other in found[1:]:  # no process ever drifts from another
        torch.testing.assert_close(other, found[0], rtol=0, atol=0)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_batches_of_a_group_equal_one_large_batch_on_one_process_and_on_two(two: Ranks, clip: float | None) -> None:
    """53 rows are 7 batches of 8, so groups of 4 and of 3, whose last batch has 5; or batches of 32 and 21."""
    experiment = Points(kind="plain", moved=True)
    large = trained(CPU, experiment, bt.Stage("all", epochs=3, lr=0.02, clip=clip), 53, 32)["model"]
    small = bt.Stage("all", epochs=3, lr=0.02, clip=clip, accumulate=4)
    for found in (trained(CPU, experiment, small, 53, 8), *two(trained, experiment, small, 53, 8)):
        torch.testing.assert_close(found["model"], large, rtol=1e-6, atol=1e-10)
