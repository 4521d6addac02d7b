"""Synchronised batch norm on any device: statistics of the whole batch, however it is divided.

In:    a model with batch norms, in a process group.
Out:   the same model, its batch norms replaced; names, weights and buffers as they were.
Next:  `Distributed.prepare` calls it. On GPUs it uses PyTorch's own, which refuses the CPU.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _LazyNormBase


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """Return `model` with its batch norms replaced by synchronised ones: PyTorch's on GPUs, `SyncBatchNorm` elsewhere.

    The replaced modules share the parameters and buffers of the old ones.
    """
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    return _converted(model, {})


def _converted(module: nn.Module, known: dict[nn.Module, nn.Module]) -> nn.Module:
    """The module or what replaces it; one that is in several places is replaced by one."""
    if module not in known:
        known[module] = module
        if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm | _LazyNormBase):
            known[module] = SyncBatchNorm.of(module)
        for name, child in module._modules.items():
            if child is not None:
                setattr(module, name, _converted(child, known))
    return known[module]


class SyncBatchNorm(_BatchNorm):
    """Batch norm over the samples of all processes.

    In training, mean and variance are those of the whole batch (Ioffe & Szegedy 2015, arXiv 1502.03167),
    and gradients flow through them to every process. In evaluation it is `nn.BatchNorm`.
    Every process must have samples; `copies` tells how often each sample is among them.
    """

    copies: int = 1

    @classmethod
    def of(cls, norm: _BatchNorm) -> SyncBatchNorm:
        """Return a norm with the parameters, buffers and settings of `norm`."""
        new = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        new._parameters, new._buffers = norm._parameters, norm._buffers
        new.training = norm.training
        return new

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm needs at least two dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `input` of shape (n, channels, ...)."""
        self._check_input_dim(input)
        if not self.training or not _in_company():  # evaluation deals whole batches out, not equally many to each
            return super().forward(input)
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        mean, variance, total = _moments(values)
        count = total / self.copies
        if count <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.size()}")
        if self.track_running_stats:
            self._follow(mean, variance, count)
        shape = (1, -1, *([1] * (input.dim() - 2)))
        scale = torch.rsqrt(variance + self.eps)
        scale = scale * self.weight if self.affine else scale
        normalised = (values - mean.reshape(shape)) * scale.reshape(shape)
        if self.affine:
            normalised = normalised + self.bias.reshape(shape)
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Move the running statistics, as `nn.BatchNorm` does: with the unbiased variance."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = variance * (count / max(1.0, count - 1.0))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


def _in_company() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _moments(input: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean and biased variance per channel over all processes, and how many values they are of."""
    values = input.transpose(0, 1).flatten(1)
    count = torch.tensor([float(values.shape[1])], dtype=values.dtype, device=values.device)
    sums = _summed(torch.cat([values.sum(dim=1), count]))
    total = float(sums[-1].detach())
    mean = sums[:-1] / total
    squares = _summed((values - mean[:, None]).square().sum(dim=1))
    return mean, squares / total, total


def _summed(value: Tensor) -> Tensor:
    summed: Tensor = _AllReduce.apply(value)  # type: ignore[no-untyped-call]
    return summed


class _AllReduce(torch.autograd.Function):
    """The sum over all processes, and the sum of its gradients over all processes."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        summed = value.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].clone()
        dist.all_reduce(summed)
        return summed
