"""Averaged: gradients averaged over three processes and more, with the same bits wherever they lie.

In:    a bucket of gradients of DistributedDataParallel.
Out:   their means over the processes.
Next:  `train.distributed` registers it, so that a resumed run ends with the bits of one never stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.futures import Future, collect_all

_LARGE = 1 << 16
"""Numbers of a gradient that is sent by itself."""


def averaged(bucket: Any) -> Future[Tensor]:
    """Return the means, to come, of the gradients of a `torch.distributed.GradBucket`.

    In which order an all-reduce adds three numbers depends on where in its buffer they lie, and
    DistributedDataParallel fills its buckets anew after the first update that it sees, that of a resumed run too.
    So a large gradient has a buffer of its own, and the others are gathered and added in the order of the ranks.
    """
    world = dist.get_world_size()
    buffer: Tensor = bucket.buffer()
    buffer.div_(world)  # first, as DistributedDataParallel does: no sum overflows
    if buffer.is_sparse:
        return _then([dist.all_reduce(buffer, async_op=True)], lambda: buffer)
    small = [gradient for gradient in bucket.gradients() if gradient.numel() < _LARGE]
    works = [dist.all_reduce(gradient, async_op=True) for gradient in bucket.gradients() if gradient.numel() >= _LARGE]
    own = torch.cat([gradient.flatten() for gradient in small]) if small else buffer.new_empty(0)
    everyone = [torch.empty_like(own) for _ in range(world)]
    if small:
        works.append(dist.all_gather(everyone, own, async_op=True))

    def added() -> Tensor:
        total = everyone[0]
        for part in everyone[1:]:
            total += part
        for gradient, mean in zip(small, torch.split(total, [each.numel() for each in small]), strict=True):
            gradient.copy_(mean.view_as(gradient))
        return buffer

    return _then(works, added)


def _then(works: list[Any], result: Callable[[], Tensor]) -> Future[Tensor]:
    """What there is once all messages have come."""
    return collect_all([work.get_future() for work in works]).then(lambda come: _checked(come, result))


def _checked(come: Future[list[Future[Any]]], result: Callable[[], Tensor]) -> Tensor:
    for each in come.value():
        each.wait()  # it has come; this raises what went wrong
    return result()
