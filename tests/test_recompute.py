"""Recompute: the same gradients from activations that are computed twice."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import batteries as bt
from batteries.errors import ConfigError
from batteries.train.device import Device
from batteries.train.loaders import Loader
from batteries.train.loop import train
from batteries.train.recompute import recomputed
from batteries.train.samplers import Shuffled
from batteries.train.state import TrainState

CPU = Device.pick("cpu")


class Blocks(nn.Module):
    """Two blocks with dropout and batch norm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, momentum=momentum), nn.ReLU(), nn.Dropout(0.4))
            for momentum in (0.1, None)
        )
        self.head = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        for block in self.blocks:
            inputs = inputs + block(inputs)
        return self.head(inputs)  # type: ignore[no-any-return]


@dataclass(kw_only=True)
class Deep(bt.Experiment):
    """Trains `Blocks`."""

    metric = bt.Metric.accuracy()

    def model(self) -> nn.Module:
        torch.manual_seed(5)
        return Blocks()

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)


def data() -> tuple[Tensor, Tensor]:
    inputs = torch.randn(37, 4, generator=torch.Generator().manual_seed(2))
    return inputs, (inputs[:, :3] * 3).argmax(dim=1)


def trained(**how: Any) -> TrainState:
    stage = bt.Stage("all", **{"epochs": 3, "lr": 0.02, **how})
    state = TrainState.begin(Deep(), stage, Deep().model(), CPU)
    torch.manual_seed(9)
    list(train(Deep(), stage, state, Loader(data(), batch_size=8, seed=1, sampler=Shuffled()), CPU))
    return state


def assert_same(left: nn.Module, right: nn.Module) -> None:
    one, two = left.state_dict(), right.state_dict()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.parametrize("patterns", ["blocks.*", "blocks.0", ("blocks.*.1", "head"), "*"])
@pytest.mark.parametrize(
    "how",
    [{}, {"average": "ema"}, {"accumulate": 2, "clip": 0.1}, {"precision": "bf16"}, {"freeze": "blocks.0.*"}],
)
def test_weights_statistics_and_averages_are_those_without_it_bit_for_bit(patterns: Any, how: dict[str, Any]) -> None:
    """Dropout draws the same numbers when computed again; one norm counts its batches, so twice would show."""
    plain, saving = trained(**how), trained(recompute=patterns, **how)
    assert_same(saving.model, plain.model)
    assert_same(saving.scored, plain.scored)
    assert int(saving.model.get_buffer("blocks.1.1.num_batches_tracked")) == 15


@pytest.mark.parametrize("norm", [nn.BatchNorm1d(3), nn.InstanceNorm1d(3, track_running_stats=True)])
def test_norms_of_any_kind_follow_a_batch_once(norm: nn.Module) -> None:
    def followed(*patterns: str) -> dict[str, Tensor]:
        model = nn.Sequential(deepcopy(norm))
        with recomputed(model, patterns):
            for batch in (inputs, 2 * inputs):
                model(batch).square().sum().backward()
        return model.state_dict()

    inputs = torch.randn(4, 3, 5, requires_grad=True)
    wanted, found = followed(), followed("0")
    assert not torch.equal(wanted["0.running_mean"], norm.state_dict()["running_mean"])
    assert [name for name in wanted if not torch.equal(wanted[name], found[name])] == []


def test_activations_of_what_matches_are_not_kept() -> None:
    model, inputs = Blocks(), data()[0].requires_grad_()

    def kept(*patterns: str) -> int:
        count = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        with recomputed(model, patterns), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model(inputs).sum().backward()
        return count

    assert kept("blocks.*") < kept() / 2


def test_outside_of_training_nothing_is_computed_twice() -> None:
    model, calls = Blocks().eval(), []
    model.blocks[0].register_forward_hook(lambda *arguments: calls.append(1))
    inner = model.blocks[0][0].register_forward_hook(lambda *arguments: calls.append(2))
    with recomputed(model, ["blocks.*"]):
        model(data()[0].requires_grad_()).sum().backward()
    inner.remove()
    assert calls == [2, 1]


def test_every_forward_is_as_before_afterwards_also_one_that_was_replaced_and_after_an_error() -> None:
    model = Blocks()

    def own(inputs: Tensor) -> Tensor:
        return inputs * 2

    model.blocks[0].forward = own  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError), recomputed(model, ["blocks.*", "head"]):  # noqa: PT012 - looked at inside
        assert "forward" in vars(model.blocks[1])
        raise ZeroDivisionError
    assert model.blocks[0].forward is own
    assert "forward" not in vars(model.blocks[1])
    assert "forward" not in vars(model.head)


def test_what_a_module_of_several_arguments_gets_is_passed_on() -> None:
    class Pair(nn.Module):
        def forward(self, left: Tensor, *, right: Tensor) -> tuple[Tensor, Tensor]:
            return left * right, left + right

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = Pair()

        def forward(self, values: Tensor) -> Tensor:
            product, total = self.pair(values, right=values.exp())
            return (product * total).sum()  # type: ignore[no-any-return]

    def gradient(*patterns: str) -> Tensor:
        values = torch.arange(3.0).requires_grad_()
        with recomputed(model, patterns):
            model(values).backward()
        assert values.grad is not None
        return values.grad

    model = Holder()
    assert torch.equal(gradient("pair"), gradient())


def test_a_pattern_that_matches_no_module_is_refused_with_their_names() -> None:
    with pytest.raises(ConfigError) as caught:
        trained(recompute="backbone.*")
    assert str(caught.value) == (
        "recompute 'backbone.*' matches no module; the model has blocks, blocks.0, blocks.0.0, blocks.0.1, blocks.0.2,"
        " blocks.0.3, blocks.1, blocks.1.0, ..."
    )
