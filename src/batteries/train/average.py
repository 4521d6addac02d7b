"""Average: the mean of weights, over checkpoints (SWA, soups) or along the training (EMA, SWA).

In:    checkpoints of one architecture; or a model that is being trained.
Out:   weights of the same names, shapes and types.
Next:  a stage scores and saves them beside the raw ones; `combine.average` makes entries of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from operator import is_
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from batteries.errors import DataError, WeightsError
from batteries.experiment.stage import Stage
from batteries.train.buffers import buffer_places
from batteries.train.checkpoint import Checkpoint
from batteries.train.weights import read_weights

Source = Checkpoint | Path | str | Mapping[str, Any]
Moments = tuple[int, Tensor, Tensor]
"""Values in a channel; per channel their mean and the sum of squares around it, float64."""
_Kind = tuple[tuple[int, ...], torch.dtype]
_Pairs = list[tuple[list[Tensor], list[Tensor]]]


def average_checkpoints(sources: Sequence[Source], *, part: str = "model") -> dict[str, Tensor]:
    """Return the mean of the weights of several checkpoints.

    Sums run in float64, one checkpoint in memory at a time; every tensor comes back in its own type.
    Integer and boolean buffers are taken from the last source. A model with batch norms needs
    `recompute_batch_norm` afterwards. Stochastic weight averaging: Izmailov et al. 2018, arXiv 1803.05407.

    Parameters
    ----------
    sources
        Checkpoints, files or dicts of tensors, with the same names, shapes and types.
    part
        Which weights of each: `model`, or `average`.

    Raises
    ------
    WeightsError
        None given, or names, shapes or types differ; the first difference is named.
    DataError
        A weight is NaN or infinite.

    Example
    -------
    >>> average_checkpoints([{"w": torch.tensor([1.0])}, {"w": torch.tensor([2.0])}])
    {'w': tensor([1.5000])}

    """
    mean = MeanOfWeights()
    for source in sources:
        mean.add(read_weights(source, part=part))
    return mean.take()


class MeanOfWeights:
    """The mean of weights that come one after the other, so that only the sum and one of them are in memory."""

    def __init__(self) -> None:
        self.count = 0
        self._total: dict[str, Tensor] = {}
        self._kinds: dict[str, _Kind] = {}

    def add(self, weights: Mapping[str, Tensor]) -> None:
        """Add one more; refused, with the sum as it was, unless it is finite and like the first."""
        number = self.count + 1
        found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in weights.items()}
        _check(weights, number)
        _check_same(self._kinds if self.count else found, found, number)
        for name, tensor in weights.items():
            if not tensor.is_floating_point():
                self._total[name] = tensor.clone()
            elif number == 1:
                self._total[name] = tensor.to(torch.float64, copy=True)
            elif tensor.dtype == torch.float64:  # without spare digits, a sum of copies is not n times one of them
                self._total[name].lerp_(tensor, 1 / number)
            else:
                self._total[name] += tensor
        self.count, self._kinds = number, found

    def take(self) -> dict[str, Tensor]:
        """Return the mean, each tensor in its own type, and forget the sum."""
        if not self.count:
            raise WeightsError("there is nothing to average: give at least one checkpoint")
        total, count, self.count = self._total, self.count, 0
        return {name: _mean(total.pop(name), count, dtype) for name, (_, dtype) in self._kinds.items()}


def _mean(total: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    if not dtype.is_floating_point or dtype == torch.float64:
        return total
    return total.div_(count).to(dtype)


def _check(weights: Mapping[str, Tensor], number: int) -> None:
    for name, tensor in weights.items():
        if tensor.is_complex():
            raise WeightsError(f"checkpoint {number}: {name!r} is complex; only real weights are averaged")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise DataError(f"checkpoint {number}: {name!r} is NaN or infinite; leave it out")


def _check_same(first: Mapping[str, _Kind], found: Mapping[str, _Kind], number: int) -> None:
    if odd := sorted(set(first) ^ set(found)):
        raise WeightsError(f"checkpoints 1 and {number} differ: {odd[0]!r} is in one of them only")
    for name, (shape, dtype) in found.items():
        if first[name] != (shape, dtype):
            then = " ".join(map(str, first[name]))
            raise WeightsError(f"checkpoints 1 and {number} differ: {name!r} is {then} and {shape} {dtype}")


class Averaged:
    """A twin of a model whose weights are averages along the training; never swapped with the model's own.

    `ema` averages parameters and buffers after every update, with a decay that rises as (1 + n) / (10 + n) up to
    the stage's; `swa` averages parameters equally after every epoch, and copies the buffers. As
    `torch.optim.swa_utils.AveragedModel` does, but counted on the host, so that no update waits for the device:
    where a fused optimizer on an accelerator leaves out an update by itself, the unchanged weights are averaged
    once more.
    """

    def __init__(self, model: nn.Module, stage: Stage) -> None:
        self.module = deepcopy(model).requires_grad_(False)
        self.count = 0
        self._decay = stage.decay if stage.average == "ema" else None
        self._weights = _by_type([*model.parameters()], [*self.module.parameters()])
        self._places = list(zip(buffer_places(model), buffer_places(self.module), strict=True))
        self._present: list[Tensor | None] = []
        self._buffers: _Pairs = []

    @torch.no_grad()
    def update(self) -> None:
        """Take the model's present weights into the average."""
        for pairs, averages in ((self._weights, True), (self._paired_buffers(), self._decay is not None)):
            for own, twin in pairs:
                if averages and self.count > 0 and (own[0].is_floating_point() or own[0].is_complex()):
                    self._move(twin, own)
                else:
                    torch._foreach_copy_(twin, own)
        self.count += 1

    def _paired_buffers(self) -> _Pairs:
        """The buffers that are there now: a module may put another tensor in a place, of another shape too."""
        present = [place.tensor for pair in self._places for place in pair]
        if len(present) == len(self._present) and all(map(is_, present, self._present)):
            return self._buffers
        pairs = []
        for place, other in self._places:
            own, twin = place.tensor, other.tensor
            if own is not None:
                if twin is None or (own.shape, own.dtype) != (twin.shape, twin.dtype):
                    other.put(twin := own.clone())
                pairs.append((own, twin))
        self._present = [place.tensor for pair in self._places for place in pair]
        self._buffers = _by_type([own for own, _ in pairs], [twin for _, twin in pairs])
        return self._buffers

    def _move(self, twin: list[Tensor], own: list[Tensor]) -> None:
        if self._decay is not None:
            torch._foreach_lerp_(twin, own, 1.0 - min(self._decay, (1 + self.count) / (10 + self.count)))
            return
        steps = torch._foreach_sub(own, twin)
        torch._foreach_div_(steps, self.count + 1)
        torch._foreach_add_(twin, steps)


def _by_type(own: Sequence[Tensor], twin: Sequence[Tensor]) -> _Pairs:
    """Pairs of lists, each of one type and device."""
    pairs: dict[tuple[torch.dtype, torch.device], tuple[list[Tensor], list[Tensor]]] = {}
    for one, other in zip(own, twin, strict=True):
        same = pairs.setdefault((one.dtype, one.device), ([], []))
        same[0].append(one.detach())
        same[1].append(other)
    return list(pairs.values())


@torch.no_grad()
def recompute_batch_norm(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[nn.Module, Any], Any] | None = None,
    *,
    gather: Callable[[list[Moments]], list[list[Moments]]] | None = None,
) -> int:
    """Set the running statistics of all batch norms to those of `batches`; return how many norms there are.

    The exact mean and variance over all samples, whatever the sizes of the batches, unlike the mean over
    batches that `torch.optim.swa_utils.update_bn` takes. Only batch norms run in training mode meanwhile;
    weights and counters are untouched. A model without batch norms is left alone and reads no batch; a norm that
    `forward` does not use, as in a head for training only, keeps its statistics.

    Parameters
    ----------
    batches
        Inputs, on the model's device.
    forward
        How to call the model, `forward(model, inputs)`; by default `model(inputs)`.
    gather
        Where several processes have batches of their own: `Device.gather`. Pooled by the formula of Chan,
        Golub & LeVeque 1979.

    Raises
    ------
    DataError
        When there are no batches.

    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return 0
    pools, read = {norm: _Pool() for norm in norms}, 0
    with _only_norms_training(model, norms):
        hooks = [norm.register_forward_pre_hook(pools[norm].add) for norm in norms]
        try:
            for inputs in batches:
                read += 1
                forward(model, inputs) if forward else model(inputs)
        finally:
            for hook in hooks:
                hook.remove()
    own = [_no_values(read), *(pool.moments() for pool in pools.values())]
    numbers, *moments = zip(*(gather(own) if gather else [own]), strict=True)
    if not any(number for number, *_ in numbers):
        raise DataError("batch norm statistics need at least one batch of training data; none was given")
    for norm, parts in zip(norms, moments, strict=True):
        if full := [part for part in parts if part[0]]:
            count, mean, squares = _pooled(full)
            assert norm.running_mean is not None and norm.running_var is not None
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(squares / max(1, count - 1))
    return len(norms)


@contextmanager
def _only_norms_training(model: nn.Module, norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """The model in evaluation, but norms take the statistics of each batch, of this process alone; buffers stay."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    for norm in norms:
        norm.forward = partial(_by_own_batch, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward  # the class has it
        for module, training in modes.items():
            module.training = training


def _by_own_batch(norm: _BatchNorm, values: Tensor) -> Tensor:
    return nn.functional.batch_norm(values, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)


class _Pool:
    """Count, sum and sum of squares per channel, in float64, around the first batch's mean."""

    def __init__(self) -> None:
        self.count = 0
        self.shift: Tensor | None = None
        self.first: Tensor | float = 0.0
        self.second: Tensor | float = 0.0

    def add(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        values = args[0].detach().transpose(0, 1).flatten(1)
        values = (values.cpu() if values.device.type == "mps" else values).double()  # MPS has no float64
        if self.shift is None:  # squares of distances from a mean nearby lose no digits
            self.shift = values.mean(dim=1, keepdim=True)
        values = values - self.shift
        self.count += values.shape[1]
        self.first = self.first + values.sum(dim=1)
        self.second = self.second + values.square().sum(dim=1)

    def moments(self) -> Moments:
        if self.shift is None:
            return _no_values(0)
        mean = self.first / self.count
        assert isinstance(mean, Tensor)
        squares = self.second - mean.square() * self.count
        return self.count, (mean + self.shift.squeeze(1)).cpu(), squares.cpu()


def _no_values(count: int) -> Moments:
    return count, torch.zeros(()), torch.zeros(())


def _pooled(parts: Sequence[Moments]) -> Moments:
    """Moments of all samples from those of disjoint parts."""
    count, mean, squares = parts[0]
    for more, other, spread in parts[1:]:
        both, apart = count + more, other - mean
        squares = squares + spread + apart.square() * (count * more / both)
        mean, count = mean + apart * (more / both), both
    return count, mean, squares
