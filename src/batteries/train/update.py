"""Update: one optimizer update from a group of batches.

In:    an experiment, a stage, a state, a device.
Out:   the state one update further; its gradient was the mean over all samples of the group.
Next:  `train.loop` calls it for every group of an epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Real
from traceback import clear_frames
from typing import Any

import torch
from torch import Tensor, nn

from batteries.errors import ExperimentError, NonFiniteError, ResourceError
from batteries.experiment import Batch, Experiment, Stage
from batteries.prepare.augment import SampleRandom
from batteries.train.device import Device, each_tensor
from batteries.train.distributed import unused
from batteries.train.guard import Guard
from batteries.train.state import LEFT_OUT, TrainState

Whole = tuple[Batch, int]
"""This process's part of a batch, and the samples of the batch over all processes."""


class Updates:
    """Updates of one stage. `updates(group)` makes one."""

    def __init__(
        self,
        experiment: Experiment,
        stage: Stage,
        state: TrainState,
        device: Device,
        *,
        log_every: int = 0,
        restore: Callable[[], object] | None = None,
    ) -> None:
        self.experiment, self.stage, self.state, self.device = experiment, stage, state, device
        self.log_every, self.restore = log_every, restore
        model: nn.Module = torch.compile(state.model) if stage.compile else state.model  # type: ignore[assignment]
        self.step = device.step(experiment, model)
        self.parameters = _in_order(state)
        self.guard = Guard(state, device, keep_buffers=stage.on_nan != "stop")
        self.begun = bool(state.optimizer.state)

    def __call__(self, group: Sequence[Whole]) -> None:
        """Make one update; when memory runs out, again with batches in twice as many pieces."""
        while True:
            try:
                self._gradient(group)
                break
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    self._explain(error)
                    raise
                self._halve(group, error)
        self._apply()
        bad = self.guard.bad()
        if bad is not None and self.stage.on_nan == "stop":
            self._not_finite(bad)
        state = self.state
        if bad is None or self.guard.later:
            state.samples += sum(whole for _, whole in group)
            for name, mean, samples in self.seen:
                state.add(name, self.guard.unless_found(mean), samples)
                if self.guard.later and name == "loss":
                    state.add(LEFT_OUT, self.guard.found, samples)
        state.step += 1
        state.update += 1
        if bad is not None:
            self._not_finite(bad)

    def settle(self) -> None:
        """See to an update that was left out and that nobody knows of yet. An epoch ends with it."""
        bad = self.guard.settle()
        if bad is not None:
            self._not_finite(bad)

    def _gradient(self, group: Sequence[Whole]) -> None:
        """Add up the gradient of the mean loss over all samples of the group, over all processes."""
        count = sum(whole for _, whole in group)
        self.seen: list[tuple[str, Tensor | float, int]] = []
        self.guard.begin()
        if len(group) == 1 and self.state.split == 1:
            self._backward(*group[0], self.device.weight(group[0][0].size, count))
            group = ()
        for number, (batch, whole) in enumerate(group, 1):
            weight = self.device.weight(batch.size, whole) * whole / count
            fewest = whole // self.device.world or whole  # all processes make as many pieces: their norms wait for all
            pieces = list(_pieces(batch, min(self.state.split, fewest)))
            for place, piece in enumerate(pieces, 1):
                if number == len(group) and place == len(pieces):
                    self._backward(piece, whole, weight * piece.size / batch.size)
                else:
                    with self.device.no_sync(self.step):
                        self._backward(piece, whole, weight * piece.size / batch.size)
        if self.device.world > 1 and any(parameter.grad is None for parameter in self.parameters):
            named = self.state.model.named_parameters()
            raise unused([name for name, parameter in named if parameter.requires_grad and parameter.grad is None])

    def _backward(self, batch: Batch, whole: int, weight: float) -> None:
        with self.device.autocast(self.stage.precision):
            loss, others = _losses(self.step(batch, whole))
        torch.autograd.backward(self.state.scaler.scale(loss if weight == 1.0 else loss * weight))
        counts = whole >= self.device.world or self.device.is_main  # else every process has the same samples
        means = {"loss": loss.detach(), **others}
        self.seen += [(name, mean, batch.size if counts else 0) for name, mean in means.items()]
        self.guard.see(loss.detach())

    def _apply(self) -> None:
        """Clip, step, unless the gradient is not finite, and average."""
        state, stage = self.state, self.stage
        measured = self.log_every and (state.step + 1) % self.log_every == 0
        usable = self.guard.check(self.parameters)
        if stage.clip is not None or stage.clip_value is not None or measured or not usable:
            state.scaler.unscale_(state.optimizer)
        if stage.clip_value is not None:
            nn.utils.clip_grad_value_(self.parameters, stage.clip_value)
        if stage.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.parameters, stage.clip)
        elif measured:
            norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if measured:
            state.grad_norm = norm.detach()
        if usable:
            self._step()
        else:
            state.scaler.update()
        for parameter in self.parameters:  # as zero_grad does, at a twentieth of its cost for a small model
            parameter.grad = None
        if usable and stage.average == "ema" and state.averaged is not None:
            state.averaged.update()

    def _step(self) -> None:
        """Let the optimizer make the update, unless it finds itself that the gradient is not finite.

        One that leaves out its first update may keep a state that it never filled: the momentum of PyTorch's fused
        SGD is then whatever lies in memory. So that state is forgotten, and the next update is the first.
        """
        state = self.state
        scale = 0.0 if self.begun else state.scaler.get_scale()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if not self.begun:  # waits for the device, until one update is made
            self.begun = not self.guard.found.item() and state.scaler.get_scale() >= scale
            if not self.begun:
                state.optimizer.state.clear()

    def _stopped(self, update: int) -> str:
        return (
            f"{self._where(update)}; the weights are those before it. Finished epochs are saved. Lower lr"
            f" ({self.stage.lr:g}), set clip=1.0, look at the data of that batch, or go on without such updates:"
            " on_nan='skip'"
        )

    def _where(self, update: int) -> str:
        what = f"stage {self.stage.name!r}: the loss or its gradient became NaN or infinite"
        return f"{what} in epoch {self.state.epoch + 1}, update {update}"

    def _not_finite(self, update: int) -> None:
        """Stop, or count an update that was left out, and restore if the stage says so."""
        if self.stage.on_nan == "stop":
            raise NonFiniteError(self._stopped(update))
        self.state.not_finite += 1
        if self.state.not_finite > self.stage.nan_limit:
            times = f"{self.state.not_finite} updates of this stage were not finite, nan_limit={self.stage.nan_limit}"
            raise NonFiniteError(f"{self._where(update)}; {times}. Lower lr ({self.stage.lr:g}) or set clip=1.0")
        if self.stage.on_nan == "restore":
            if self.restore is None:
                raise NonFiniteError(f"{self._where(update)}; there is no checkpoint to restore: give `restore`")
            self.restore()

    def _explain(self, error: Exception) -> None:
        """Say what to do where the memory order that a stage chose may be the reason of an error."""
        if "view size is not compatible" in str(error) and self.stage.channels_last is not False:
            raise ExperimentError(
                f"stage {self.stage.name!r}: a .view() does not fit images in channels_last order; write .flatten(1) or"
                f" .reshape(...) instead, or channels_last=False in the stage ({error})"
            ) from error

    def _halve(self, group: Sequence[Whole], error: Exception) -> None:
        """Let batches be computed in twice as many pieces; raise ResourceError where that cannot be."""
        clear_frames(error.__traceback__)  # they hold activations
        largest = max(batch.size for batch, _ in group)
        text = (str(error) or type(error).__name__).splitlines()[0][:200]
        where = f"stage {self.stage.name!r}: memory ran out on {largest} samples in {self.state.split} pieces ({text})"
        if self.device.world > 1:
            raise ResourceError(
                f"{where}. Several processes cannot change it on the way: halve batch_size, double accumulate"
            ) from error
        if largest <= self.state.split:
            raise ResourceError(
                f"{where}. A smaller model, smaller inputs, or recompute (activation checkpointing) would help"
            ) from error
        for parameter in self.parameters:
            parameter.grad = None
        if self.device.name.type != "cpu":
            torch.accelerator.empty_cache()
        self.state.split *= 2


def as_trained(experiment: Experiment, *, seed: int) -> Callable[[Batch, int], Batch]:
    """Return what turns a batch on the device into what the model sees in training, in an epoch."""
    if type(experiment).augment is Experiment.augment:
        return lambda batch, epoch: batch

    def augmented(batch: Batch, epoch: int) -> Batch:
        random = SampleRandom(seed, epoch=epoch, rows=batch.rows, draws=batch.draws)
        return experiment.augment(batch, random)

    return augmented


def _in_order(state: TrainState) -> list[Tensor]:
    """The optimizer's parameters in the order of the model, in which its gradients' norm is the one of any loop."""
    places = {id(parameter): place for place, parameter in enumerate(state.model.parameters())}
    learning = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    return sorted(learning, key=lambda parameter: places.get(id(parameter), len(places)))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on an accelerator or on the CPU."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "not enough memory" in str(error)


def _pieces(batch: Batch, split: int) -> Iterator[Batch]:
    """The batch in `split` pieces of nearly one size."""
    if split == 1:
        yield batch
        return
    for place in range(split):
        start, stop = (batch.size * edge // split for edge in (place, place + 1))
        rows = batch.rows[start:stop]
        draws = None if batch.draws is None else batch.draws[start:stop]
        inputs, targets = (_cut(data, batch.size, start, stop) for data in (batch.inputs, batch.targets))
        yield Batch(inputs, targets, rows, draws)


def _cut(data: Any, size: int, start: int, stop: int) -> Any:
    """Tensors of one row a sample, and lists of one item a sample, from `start` to `stop`; all else stays whole."""
    if isinstance(data, Mapping):
        return {key: _cut(part, size, start, stop) for key, part in data.items()}
    if type(data) in (list, tuple):
        if len(data) == size and not _has_rows(data, size):  # texts, images of many sizes, the boxes in each
            return data[start:stop]
        return type(data)(_cut(part, size, start, stop) for part in data)
    return each_tensor(data, lambda tensor: tensor[start:stop] if _has_rows(tensor, size) else tensor)


def _has_rows(data: Any, size: int) -> bool:
    """Whether a tensor in nested data has one row a sample."""
    found = False

    def look(tensor: Tensor) -> Tensor:
        nonlocal found
        found = found or (tensor.ndim > 0 and len(tensor) == size)
        return tensor

    each_tensor(data, look)
    return found


def _losses(result: Any) -> tuple[Tensor, dict[str, Any]]:
    """The loss, and what else training_step returned to be logged."""
    loss, others = result, {}
    if isinstance(result, Mapping):
        if "loss" not in result:
            raise ExperimentError(f"training_step returned a dict without 'loss'; it has {', '.join(map(str, result))}")
        loss = result["loss"]
        others = {
            name: value.detach() if isinstance(value, Tensor) else value
            for name, value in result.items()
            if name != "loss"
        }
        for name, value in others.items():
            if not isinstance(value, Real) and not (isinstance(value, Tensor) and value.ndim == 0):
                got = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
                raise ExperimentError(
                    f"training_step returned {name!r}, {got}; give one number, the mean over the batch"
                )
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ExperimentError(f"loss must return one number, the mean over the batch, got {got}; end it with .mean()")
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise ExperimentError(
            "the loss depends on no parameter that learns; was it computed from detached, NumPy or no_grad values?"
        )
    return loss, others
