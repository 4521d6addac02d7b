"""Layout: channels lie together where that is known to be faster, and nowhere else by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import batteries as bt
from batteries.errors import ExperimentError
from batteries.train.device import Device
from batteries.train.layout import likes_channels_last
from batteries.train.loaders import Loader
from batteries.train.loop import train
from batteries.train.state import TrainState

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CONVOLUTION = nn.Conv2d(1, 8, 3)


class Viewing(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.view(len(images), -1)


class Flattening(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


@pytest.mark.parametrize(
    ("parts", "device", "precision", "wanted"),
    [
        ([CONVOLUTION, nn.MaxPool2d(2)], CPU, "fp32", True),
        ([CONVOLUTION, nn.BatchNorm2d(8)], CPU, "fp32", True),
        ([CONVOLUTION, nn.BatchNorm2d(8), Flattening()], CPU, "fp32", True),
        ([CONVOLUTION, nn.BatchNorm2d(8)], GPU, "fp32", False),
        ([CONVOLUTION, nn.BatchNorm2d(8)], GPU, "bf16", True),
        ([CONVOLUTION], CPU, "fp32", False),
        ([CONVOLUTION], CPU, "bf16", True),
        ([CONVOLUTION, nn.MaxPool2d(2), nn.GroupNorm(2, 8)], CPU, "fp32", False),
        ([CONVOLUTION, nn.MaxPool2d(2), Viewing()], CPU, "fp32", False),
        ([CONVOLUTION, Viewing()], CPU, "bf16", False),
        ([nn.Linear(2, 2)], CPU, "bf16", False),
        ([CONVOLUTION, nn.Conv3d(1, 1, 1)], GPU, "bf16", False),
    ],
)
def test_channels_lie_together_where_that_is_faster(
    parts: list[nn.Module], device: torch.device, precision: str, *, wanted: bool
) -> None:
    assert likes_channels_last(nn.Sequential(*parts), device, precision) is wanted


@pytest.mark.parametrize("asked", [None, True, False])
def test_a_stage_may_say_otherwise(asked: bool | None) -> None:
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8))
    Device.pick("cpu").place_model(model, bt.Stage("all", epochs=1, channels_last=asked))
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last) is (asked is not False)


class Hidden(bt.Experiment):
    """A view that no module's source shows."""

    metric = bt.Metric.accuracy()

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))

    def training_step(self, model: nn.Module, batch: bt.Batch) -> Tensor:
        images = model(batch.inputs)
        return images.view(len(images), -1).square().mean()


def trained(**words: Any) -> None:
    experiment, stage = Hidden(), bt.Stage("all", epochs=1, **words)
    loader = Loader((torch.ones(4, 1, 5, 5), torch.zeros(4)), batch_size=2, seed=1)
    state = TrainState.begin(experiment, stage, experiment.model(), Device.pick("cpu"))
    for _ in train(experiment, stage, state, loader, Device.pick("cpu")):
        pass


def test_a_view_that_fits_no_such_images_is_named_with_what_to_write() -> None:
    with pytest.raises(ExperimentError, match=r"stage 'all': a \.view\(\).*\.flatten\(1\).*channels_last=False"):
        trained()
    trained(channels_last=False)
