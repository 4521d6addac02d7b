"""Loop: epochs of updates, and predictions. A plain loop: stopping early is `break`.

In:    an experiment, a stage, a state, a loader, a device.
Out:   the state moved forward, one yield an epoch; predictions in the order of the rows.
Next:  `train.run` is this loop with logging, checkpoints and folds around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from batteries.errors import ExperimentError, NonFiniteError
from batteries.experiment import Batch, Experiment, Stage
from batteries.prepare.augment import SampleRandom
from batteries.train.device import Device
from batteries.train.loaders import Loader, grouped
from batteries.train.state import TrainState
from batteries.train.weights import training_mode


@dataclass(frozen=True)
class Epoch:
    """One finished epoch of training."""

    number: int
    """Counts from 1."""
    loss: float
    """Mean over the samples, as they were seen."""
    lr: float
    """Of the last update, first parameter group."""


def _nothing() -> None:
    return None


def train(
    experiment: Experiment,
    stage: Stage,
    state: TrainState,
    loader: Loader,
    device: Device,
    *,
    after_update: Callable[[], object] = _nothing,
) -> Iterator[Epoch]:
    """Train from where `state` stands to the end of `stage`, yielding after every epoch.

    `after_update` is called once an update is complete; what it raises stops the training there, and
    `state` can be saved and gone on from.

    Example
    -------
    >>> for epoch in train(experiment, stage, state, loader, device):  # doctest: +SKIP
    ...     print(epoch.number, epoch.loss)

    """
    forward = device.wrap(state.model)
    updates = -(-len(loader) // stage.accumulate)
    while state.epoch < stage.epochs:
        training_mode(state.model, stage.freeze)
        batches = loader.epoch(state.epoch, start=state.update * stage.accumulate)
        for group in grouped(stage.accumulate, batches):
            _set_lr(stage, state, total=stage.epochs * updates)
            _update(experiment, stage, state, forward, group, device, loader.seed)
            after_update()
        if stage.average == "swa" and state.averaged is not None:
            state.averaged.update_parameters(state.model)
        loss = float(state.loss) / max(1, state.samples)
        state.epoch, state.update, state.samples = state.epoch + 1, 0, 0
        state.loss.zero_()
        yield Epoch(state.epoch, loss, float(state.optimizer.param_groups[0]["lr"]))


def training_inputs(experiment: Experiment, loader: Loader, device: Device, *, epoch: int) -> Iterator[Any]:
    """Yield the inputs of an epoch as the model sees them in training: on the device, augmented."""
    for batch in loader.epoch(epoch):
        yield _as_trained(experiment, batch, device, seed=loader.seed, epoch=epoch).inputs


def _as_trained(experiment: Experiment, batch: Batch, device: Device, *, seed: int, epoch: int) -> Batch:
    """Return a batch as the model sees it in training: on the device, augmented."""
    batch = device.place(batch)
    return experiment.augment(batch, SampleRandom(seed, epoch=epoch, rows=batch.rows))


def _set_lr(stage: Stage, state: TrainState, *, total: int) -> None:
    multiplier = stage.multiplier(state.step, total)
    for group, lr in zip(state.optimizer.param_groups, state.base_lrs, strict=True):
        group["lr"] = lr * multiplier


def _update(
    experiment: Experiment,
    stage: Stage,
    state: TrainState,
    forward: nn.Module,
    group: list[Batch],
    device: Device,
    seed: int,
) -> None:
    """One optimizer update from a group of batches: the gradient is the mean over all their samples."""
    count = sum(batch.size for batch in group)
    mean = torch.zeros((), device=device.name)
    for batch in group:
        batch = _as_trained(experiment, batch, device, seed=seed, epoch=state.epoch)
        with device.autocast(stage.precision):
            loss = _scalar(experiment.training_step(forward, batch))
        if len(group) > 1:
            loss = loss * (batch.size / count)
        torch.autograd.backward(state.scaler.scale(loss))
        mean += loss.detach()
    if not torch.isfinite(mean):
        raise NonFiniteError(
            f"stage {stage.name!r}: the loss became {float(mean)} in epoch {state.epoch + 1},"
            f" update {state.update + 1}."
            f" Finished epochs are saved. Lower lr ({stage.lr:g}), set clip=1.0, or look at the data of that batch"
        )
    if stage.clip is not None:
        state.scaler.unscale_(state.optimizer)
        torch.nn.utils.clip_grad_norm_(state.model.parameters(), stage.clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()
    if stage.average == "ema" and state.averaged is not None:
        state.averaged.update_parameters(state.model)
    state.loss += mean.to(state.loss.dtype) * count
    state.samples += count
    state.step += 1
    state.update += 1


def _scalar(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.ndim != 0:
        got = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ExperimentError(f"loss must return one number, the mean over the batch, got {got}; end it with .mean()")
    return loss


@torch.no_grad()  # not inference_mode: what a model caches meanwhile could not be trained through
def predict(
    experiment: Experiment,
    model: nn.Module,
    loader: Loader,
    device: Device,
    *,
    precision: str = "fp32",
    after_batch: Callable[[], object] = _nothing,
) -> NDArray[Any]:
    """Return the predictions of every row, once, in the order of the rows: float32, shape (n,) or (n, columns)."""
    model.eval()
    outputs, rows = [], []
    for batch in loader.epoch(0):
        batch = device.place(batch)
        with device.autocast(precision):
            predicted = experiment.predict_step(model, batch.inputs)
        if not isinstance(predicted, Tensor) or predicted.ndim not in (1, 2) or len(predicted) != batch.size:
            shape = tuple(predicted.shape) if isinstance(predicted, Tensor) else type(predicted).__name__
            raise ExperimentError(
                f"predict_step must return ({batch.size},) or ({batch.size}, columns) for {batch.size} samples,"
                f" got {shape}"
            )
        outputs.append(predicted.float())
        rows.append(batch.rows)
        after_batch()
    joined = torch.cat(outputs)
    ordered = torch.empty_like(joined)
    ordered[torch.cat(rows)] = joined
    if ordered.ndim == 2 and ordered.shape[1] == 1:
        ordered = ordered.squeeze(1)
    array: NDArray[Any] = ordered.cpu().numpy()
    return array
