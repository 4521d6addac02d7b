"""Synchronised batch norm: over the processes, what nn.BatchNorm is over the joined batch."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from batteries.train.device import Device
from batteries.train.sync_norm import SyncBatchNorm, synchronised
from processes import Ranks, ranks_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with ranks_of(2) as started:
        yield started


def norm_of(shape: tuple[int, ...], dtype: torch.dtype, **settings: Any) -> nn.Module:
    """A batch norm for inputs of a shape, its parameters and statistics not those of a new one."""
    torch.manual_seed(1)
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    norm = kind(shape[1], **settings).to(dtype)
    with torch.no_grad():
        for tensor in norm.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return norm


def batches(shape: tuple[int, ...], dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Three batches far from zero, and the gradients that come back to them."""
    torch.manual_seed(2)
    return [((torch.randn(shape) * 3 + 7).to(dtype), torch.randn(shape).to(dtype)) for _ in range(3)]


def passed(norm: nn.Module, pairs: list[tuple[Tensor, Tensor]], *, train: bool = True) -> dict[str, Any]:
    """All that comes out of a norm, forwards and backwards."""
    norm.train(train)
    outputs, gradients = [], []
    for inputs, upstream in pairs:
        leaf = inputs.clone().requires_grad_()
        output = norm(leaf)
        output.backward(upstream)
        outputs.append(output.detach())
        gradients.append(leaf.grad)
    parameters = {name: parameter.grad for name, parameter in norm.named_parameters()}
    return {"outputs": outputs, "gradients": gradients, "parameters": parameters, "state": norm.state_dict()}


def in_rank(
    place: Device, norm: nn.Module, pairs: list[tuple[Tensor, Tensor]], cut: int, train: bool
) -> dict[str, Any]:
    """What comes out in one of two ranks: the first has the samples before `cut`."""
    mine = slice(None, cut) if place.is_main else slice(cut, None)
    return passed(synchronised(norm, CPU), [(inputs[mine], upstream[mine]) for inputs, upstream in pairs], train=train)


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What the ranks give together; the state is that of the first and equal in all."""
    one, two = parts
    assert all(torch.equal(one["state"][name], two["state"][name]) for name in two["state"])
    return {
        **{
            name: [torch.cat(pair) for pair in zip(one[name], two[name], strict=True)]
            for name in ("outputs", "gradients")
        },
        "parameters": {name: one["parameters"][name] + two["parameters"][name] for name in one["parameters"]},
        "state": one["state"],
    }


CASES = {
    "vectors": ((7, 5), {}),
    "sequences": ((6, 3, 4), {}),
    "images": ((5, 4, 3, 2), {}),
    "volumes": ((4, 2, 2, 3, 2), {}),
    "the mean of all batches": ((7, 5), {"momentum": None}),
    "no momentum at all": ((7, 5), {"momentum": 0.0}),
    "without parameters": ((7, 5), {"affine": False}),
    "without statistics": ((7, 5), {"track_running_stats": False}),
    "a large epsilon": ((7, 5), {"eps": 0.5}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cut", [1, 3])
def test_outputs_gradients_and_statistics_are_those_of_the_joined_batch(ranks: Ranks, case: str, cut: int) -> None:
    shape, settings = CASES[case]
    norm, pairs = norm_of(shape, torch.float64, **settings), batches(shape, torch.float64)
    found = joined(ranks(in_rank, norm, pairs, cut, True))
    # the same sums in another order: float64's last digits differ
    torch.testing.assert_close(found, passed(norm, pairs), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("settings", [{}, {"track_running_stats": False}])
def test_in_evaluation_every_process_is_on_its_own_and_gives_the_bits_of_batch_norm(
    ranks: Ranks, settings: dict[str, Any]
) -> None:
    """Whole batches go to each, not equally many, so none may wait for another."""
    norm, pairs = norm_of((6, 5), torch.float64, **settings), batches((6, 5), torch.float64)
    lonely = ranks(evaluated_in_the_first_alone, norm, pairs)[0]
    wanted = passed(norm, pairs, train=False)
    assert all(torch.equal(*pair) for pair in zip(lonely["outputs"], wanted["outputs"], strict=True))
    assert all(torch.equal(*pair) for pair in zip(lonely["gradients"], wanted["gradients"], strict=True))


def evaluated_in_the_first_alone(place: Device, norm: nn.Module, pairs: list[tuple[Tensor, Tensor]]) -> Any:
    return passed(synchronised(norm, CPU), pairs, train=False) if place.is_main else None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_as_in_batch_norm(ranks: Ranks, dtype: torch.dtype) -> None:
    """Weights of float32, inputs of autocast: computed in float32, rounded once at the end."""
    shape = (9, 4, 3, 3)
    norm, pairs = norm_of(shape, torch.float32), batches(shape, dtype)
    found, wanted = joined(ranks(in_rank, norm, pairs, 4, True)), passed(deepcopy(norm), pairs)
    assert {output.dtype for output in found["outputs"]} == {dtype}
    assert {gradient.dtype for gradient in found["gradients"]} == {dtype}
    step = torch.finfo(dtype).eps  # one rounding may fall the other way
    torch.testing.assert_close(found["outputs"], wanted["outputs"], rtol=step, atol=step)
    torch.testing.assert_close(found["gradients"], wanted["gradients"], rtol=4 * step, atol=step)
    torch.testing.assert_close(found["state"], wanted["state"], rtol=1e-5, atol=1e-5)  # float32 sums
    torch.testing.assert_close(found["parameters"], wanted["parameters"], rtol=1e-3, atol=1e-2)


def under_autocast(place: Device, inputs: Tensor) -> Tensor:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    model = synchronised(model, CPU) if place.world > 1 else model
    mine = inputs.tensor_split(place.world)[place.rank]
    with place.autocast("bf16"):
        return model(mine).detach()


def test_under_autocast_the_type_is_that_of_batch_norm(ranks: Ranks) -> None:
    inputs = torch.randn(7, 4, 5, 5)
    found, wanted = torch.cat(ranks(under_autocast, inputs)), under_autocast(Device.pick("cpu"), inputs)
    assert found.dtype == wanted.dtype == torch.bfloat16
    torch.testing.assert_close(found, wanted, rtol=2**-7, atol=2**-7)


def with_copies(place: Device, norm: nn.Module, pairs: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    new = synchronised(norm, CPU)
    assert isinstance(new, SyncBatchNorm)
    new.copies = place.world
    return passed(new, pairs)


def test_samples_that_every_process_has_count_once(ranks: Ranks) -> None:
    norm, pairs = norm_of((2, 5), torch.float64), batches((2, 5), torch.float64)
    wanted = passed(deepcopy(norm), pairs)
    for found in ranks(with_copies, norm, pairs):
        torch.testing.assert_close(found["outputs"], wanted["outputs"], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(found["state"], wanted["state"], rtol=1e-11, atol=1e-11)
    one, two = ranks(with_copies, norm, pairs)
    for left, right, whole in zip(one["gradients"], two["gradients"], wanted["gradients"], strict=True):
        torch.testing.assert_close((left + right) / 2, whole, rtol=1e-11, atol=1e-11)


def refused(place: Device, norm: nn.Module) -> str:
    new = synchronised(norm, CPU)
    assert isinstance(new, SyncBatchNorm)
    new.copies = place.world
    with pytest.raises(ValueError, match="more than 1 value per channel") as caught:
        new(torch.ones(1, 5))
    return str(caught.value)


def test_a_batch_of_one_value_is_refused_as_by_batch_norm(ranks: Ranks) -> None:
    with pytest.raises(ValueError) as caught:
        nn.BatchNorm1d(5)(torch.ones(1, 5))
    assert ranks(refused, nn.BatchNorm1d(5)) == [str(caught.value)] * 2


def model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ModuleDict({"deep": nn.Sequential(nn.BatchNorm1d(4), nn.LayerNorm(4))})
    )


def test_the_conversion_keeps_parameters_buffers_names_and_modes() -> None:
    before = model()
    before[1].eval()
    held = {**dict(before.named_parameters()), **dict(before.named_buffers())}
    after = synchronised(before, CPU)
    assert all(tensor is held[name] for name, tensor in after.named_parameters())
    assert all(tensor is held[name] for name, tensor in after.named_buffers())
    assert list(after.state_dict()) == list(model().state_dict())
    assert [type(module).__name__ for module in after.modules() if isinstance(module, SyncBatchNorm)] == [
        "SyncBatchNorm"
    ] * 2
    assert (after[1].training, after[2]["deep"][0].training) == (False, True)
    assert isinstance(synchronised(nn.BatchNorm2d(3), CPU), SyncBatchNorm)


def test_a_norm_that_two_places_share_stays_one_norm() -> None:
    shared = nn.BatchNorm1d(4)
    after = synchronised(nn.ModuleDict({"left": shared, "right": shared}), CPU)
    assert after["left"] is after["right"]


def test_a_converted_model_is_copied_saved_and_converted_again_as_any_other() -> None:
    after = synchronised(model(), CPU)
    twin = deepcopy(after)
    assert twin[1].weight is not after[1].weight
    assert twin[1].running_mean is not after[1].running_mean
    twin.load_state_dict(model().state_dict())
    model().load_state_dict(twin.state_dict())
    norm = after[1]
    assert synchronised(after, CPU)[1] is norm


def test_without_other_processes_it_is_batch_norm() -> None:
    pairs = batches((6, 5), torch.float64)
    norm = norm_of((6, 5), torch.float64)
    wanted, found = passed(deepcopy(norm), pairs), passed(synchronised(norm, CPU), pairs)
    assert all(torch.equal(*pair) for pair in zip(found["outputs"], wanted["outputs"], strict=True))
    assert all(torch.equal(found["state"][name], wanted["state"][name]) for name in wanted["state"])
