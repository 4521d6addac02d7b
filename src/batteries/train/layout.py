"""Layout: the order in which the numbers of images lie in memory.

In:    a model, the precision it runs in, where.
Out:   whether channels should lie together (`channels_last`), which changes rounding, and where dropout falls.
Next:  `Device.place_model` lays the weights out; every convolution then keeps that order.
"""

from __future__ import annotations

import inspect

import torch
from torch import nn

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_FASTER = (nn.BatchNorm2d, nn.MaxPool2d)
_SLOWER = (nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)  # they read one sample or channel at a time


def likes_channels_last(model: nn.Module, device: torch.device, precision: str) -> bool:
    """Whether `channels_last` is known to be faster for a model.

    So it is for 2-d convolutions in bf16 and fp16 anywhere. In fp32 it is on CPUs, with batch norms or max
    pooling and no other norms: a step then took 0.70 to 0.90 of the time, with group norms 1.35, where a
    convolution only cuts patches 1.25. A module of the user's that calls `.view` is left alone, since such a
    view of images would fail.

    >>> likes_channels_last(nn.Sequential(nn.Conv2d(1, 8, 3), nn.MaxPool2d(2)), torch.device("cpu"), "fp32")
    True
    """
    modules = list(model.modules())
    images = any(isinstance(module, _CONVOLUTIONS) for module in modules)
    if not images or any(parameter.ndim > 4 for parameter in model.parameters()):  # PyTorch refuses volumes
        return False
    if any(_views(kind) for kind in {type(module) for module in modules}):
        return False
    if precision != "fp32":
        return True
    faster, slower = (any(isinstance(module, kinds) for module in modules) for kinds in (_FASTER, _SLOWER))
    return device.type == "cpu" and faster and not slower


def _views(kind: type[nn.Module]) -> bool:
    """Whether the source of a module of the user's calls `.view`."""
    if kind.__module__.startswith("torch."):
        return False
    try:
        return ".view(" in inspect.getsource(kind)
    except (OSError, TypeError):  # there is no source: typed into a terminal, or compiled
        return False
