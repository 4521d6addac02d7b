"""What every device promises the loop, be it one, DataParallel or several processes. Each takes it and asserts."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import batteries as bt
from batteries.errors import BatteriesError, DataError, Interrupted
from batteries.train.device import Device
from batteries.train.loaders import Loader


class Pair(NamedTuple):
    left: Tensor
    right: Any


class Linear(bt.Experiment):
    """Enough of an experiment for one step."""

    metric = bt.Metric.accuracy()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.squeeze(1) - targets).square().mean()


class Odd(Exception):
    """An error that cannot travel between processes."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.held = lambda: None


def ranks_are_numbered_and_one_of_them_writes(device: Device) -> None:
    assert 0 <= device.rank < device.world
    assert device.is_main == (device.rank == 0)
    assert (device.share.rank, device.share.world) == (device.rank, device.world)
    assert device.gather(device.rank) == list(range(device.world))


def placing_keeps_the_shape_of_nested_data(device: Device) -> None:
    one = torch.ones(2)
    placed = device.place({"a": [one, (one, "text")], "b": Pair(one, None)})
    assert placed["a"][0].device == device.name
    assert (placed["a"][1][1], type(placed["b"]), placed["b"].right) == ("text", Pair, None)
    batch = bt.Batch(one, {"x": one}, torch.arange(2))
    (again,) = device.placed([batch])
    assert type(again) is bt.Batch
    assert torch.equal(again.rows.cpu(), batch.rows)


def the_weights_of_the_parts_of_a_batch_add_up_to_the_processes(device: Device) -> None:
    for whole in (1, 2, 3, 7, 64):
        own = len(
            Loader(torch.arange(whole), batch_size=whole, labelled=False)
            .order(0)
            .tensor_split(device.world)[device.rank]
        )
        own = whole if whole < device.world else own
        weights = device.gather(device.weight(own, whole))
        assert sum(weights) == pytest.approx(device.world, abs=1e-12)


def a_total_is_over_all_processes_and_leaves_its_argument_alone(device: Device) -> None:
    for dtype in (torch.float64, torch.float32, torch.int64):
        own = torch.tensor([1, device.rank], dtype=dtype)
        world = device.world
        assert device.total(own).tolist() == [world, world * (world - 1) // 2]
        assert own.tolist() == [1, device.rank]
        assert device.total(own).dtype == dtype


def anything_is_gathered_by_rank(device: Device) -> None:
    found = device.gather({"rank": device.rank, "tensor": torch.full((device.rank + 1,), 2.0)})
    assert [part["rank"] for part in found] == list(range(device.world))
    assert [part["tensor"].tolist() for part in found] == [[2.0] * (rank + 1) for rank in range(device.world)]
    assert device.gather(None) == [None] * device.world


def what_the_first_does_is_done_once_and_known_to_all(device: Device) -> None:
    done: list[int] = []

    def work() -> str:
        done.append(device.rank)
        return "made"

    assert device.first(work) == "made"
    assert done == ([0] if device.is_main else [])


def an_error_of_the_first_is_raised_by_all_and_said_by_one(device: Device) -> None:
    def work() -> None:
        raise DataError("no such table")

    with pytest.raises(DataError, match=r"^no such table$") as caught:
        device.first(work)
    assert getattr(caught.value, "told", False) == (not device.is_main)
    assert caught.value.exit_code == 3


def an_error_that_cannot_travel_is_known_by_its_words(device: Device) -> None:
    def work() -> None:
        raise Odd("very odd")

    with pytest.raises(Odd if device.is_main else BatteriesError, match="very odd"):
        device.first(work)


def a_value_that_cannot_travel_is_an_error_in_all(device: Device) -> None:
    if device.world == 1:
        assert device.first(lambda: lambda: 1)() == 1
        return
    with pytest.raises(Exception, match="pickle"):
        device.first(lambda: lambda: 1)
    assert device.gather(1) == [1] * device.world


def an_interruption_travels_with_its_signal(device: Device) -> None:
    def work() -> None:
        raise Interrupted.by(15)

    with pytest.raises(Interrupted) as caught:
        device.first(work)
    assert (caught.value.signum, caught.value.exit_code) == (15, 143)


def the_highest_level_is_agreed_on_at_the_same_call(device: Device) -> None:
    levels = [0, 3 * (device.rank == device.world - 1), 0, 1, 0, 0]
    agreed = [device.agree(level) for level in levels]
    assert agreed == ([0, 3, 0, 1, 0, 0] if device.world == 1 else [0, 0, 3, 0, 1, 0])
    assert device.gather(agreed) == [agreed] * device.world


def gradients_are_those_of_the_whole_batch_and_equal_everywhere(device: Device) -> None:
    torch.manual_seed(0)
    bare = nn.Linear(3, 1).double().to(device.name)
    inputs, targets = torch.randn(7, 3, dtype=torch.float64), torch.randn(7, dtype=torch.float64)
    experiment = Linear()
    experiment.loss(bare(inputs.to(device.name)), targets.to(device.name)).backward()
    wanted = [parameter.grad.clone() for parameter in bare.parameters() if parameter.grad is not None]
    bare.zero_grad()
    step = device.step(experiment, bare)
    for _ in range(2):
        for place, (start, stop) in enumerate(((0, 4), (4, 7))):
            rows = torch.arange(start, stop).tensor_split(device.world)[device.rank]
            batch = device.place(bt.Batch(inputs[rows], targets[rows], rows))
            weight = device.weight(batch.size, stop - start) * (stop - start) / 7
            if place == 0:
                with device.no_sync(step):
                    (step(batch, stop - start) * weight).backward()
            else:
                (step(batch, stop - start) * weight).backward()
        found = [parameter.grad.cpu() for parameter in bare.parameters() if parameter.grad is not None]
        torch.testing.assert_close(found, [g.cpu() for g in wanted], rtol=0, atol=1e-12)  # another order of one sum
        assert all(torch.equal(*pair) for other in device.gather(found) for pair in zip(found, other, strict=True))
        bare.zero_grad()


def the_model_that_is_saved_is_the_bare_one(device: Device) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    names = list(model.state_dict())
    prepared = device.prepare(model, bt.Stage("all", epochs=1))
    device.step(Linear(), prepared)
    assert list(prepared.state_dict()) == names


def a_beat_costs_nothing_and_changes_nothing(device: Device) -> None:
    for _ in range(3):
        device.beat()


PROMISES = [
    ranks_are_numbered_and_one_of_them_writes,
    placing_keeps_the_shape_of_nested_data,
    the_weights_of_the_parts_of_a_batch_add_up_to_the_processes,
    a_total_is_over_all_processes_and_leaves_its_argument_alone,
    anything_is_gathered_by_rank,
    what_the_first_does_is_done_once_and_known_to_all,
    an_error_of_the_first_is_raised_by_all_and_said_by_one,
    an_error_that_cannot_travel_is_known_by_its_words,
    a_value_that_cannot_travel_is_an_error_in_all,
    an_interruption_travels_with_its_signal,
    the_highest_level_is_agreed_on_at_the_same_call,
    gradients_are_those_of_the_whole_batch_and_equal_everywhere,
    the_model_that_is_saved_is_the_bare_one,
    a_beat_costs_nothing_and_changes_nothing,
]
