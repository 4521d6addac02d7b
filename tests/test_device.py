"""Devices: picked by name, placing anything, opening the precision that was asked for."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from batteries.errors import UsageError
from batteries.experiment import Stage
from batteries.train.device import Device
from batteries.train.distributed import pick_device


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


def test_auto_is_the_accelerator_where_there_is_one_and_the_cpu_elsewhere() -> None:
    wanted = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    assert Device.pick("auto").name == wanted
    assert Device.pick("cpu").name == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "", "cpu:x"])
def test_a_device_that_is_not_there_is_refused_by_name_with_a_way_out(name: str) -> None:
    with pytest.raises(UsageError, match=r"device .* cannot be used .*--device auto") as caught:
        Device.pick(name)
    assert repr(name) in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("name", "dp"), [("meta", False), ("meta", True), ("gpu", True)])
def test_a_device_that_no_machine_has_is_refused_for_one_process_and_for_dataparallel(name: str, dp: bool) -> None:
    with pytest.raises(UsageError, match=rf"device '{name}' cannot be used \(.*\); this machine has .*: --device auto"):
        Device.pick(name, dp=dp)


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_that_leaves_no_time_or_no_end_is_refused(timeout: float) -> None:
    with pytest.raises(UsageError, match=r"--timeout .*: give the seconds that a process waits"):
        pick_device("cpu", timeout=timeout)


def test_placing_keeps_the_shape_of_nested_data_and_what_is_no_tensor() -> None:
    one = torch.ones(2)
    placed = Device(torch.device("meta")).place({"a": [one, (one, "text")], "b": Pair(one, one), "c": None})
    assert placed["a"][0].device.type == placed["a"][1][0].device.type == placed["b"].right.device.type == "meta"
    assert (placed["a"][1][1], placed["c"], type(placed["b"])) == ("text", None, Pair)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_forward_pass_runs_in_the_precision_of_the_stage(precision: str, dtype: torch.dtype) -> None:
    with Device.pick("cpu").autocast(precision):
        assert nn.Linear(2, 1)(torch.ones(1, 2)).dtype == dtype


def test_only_fp16_scales_the_loss() -> None:
    device = Device.pick("cpu")
    assert [device.scaler(precision).is_enabled() for precision in ("fp32", "bf16", "fp16")] == [False, False, True]


def test_the_model_that_is_trained_is_the_bare_one() -> None:
    model = nn.Linear(2, 1)
    assert Device.pick("cpu").prepare(model, Stage("all", epochs=1)) is model
