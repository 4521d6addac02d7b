"""Loop: epochs of updates, and predictions. A plain loop: stopping early is `break`.

In:    an experiment, a stage, a state, a loader, a device.
Out:   the state moved forward, one yield an epoch; predictions in the order of the rows.
Next:  `train.run` is this loop with logging, checkpoints and folds around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from batteries.errors import ExperimentError, NonFiniteError
from batteries.experiment import Batch, Experiment, Stage
from batteries.train.device import Device
from batteries.train.groups import training_mode
from batteries.train.loaders import Loader, grouped
from batteries.train.recompute import recomputed
from batteries.train.state import TrainState
from batteries.train.update import Updates, Whole, as_trained

_SMALLEST_SCALE = 2.0**-20


@dataclass(frozen=True)
class Epoch:
    """One finished epoch of training."""

    number: int
    """Counts from 1."""
    loss: float
    """Mean over the samples, as they were seen."""
    lr: float
    """Of the last update, first parameter group."""
    means: dict[str, float]
    """Means of whatever else training_step returned."""


@dataclass
class Pace:
    """Where the time of a training goes; for display only."""

    samples: int = 0
    waiting: float = 0.0
    """Seconds spent waiting for data."""
    since: float = 0.0

    def read(self) -> dict[str, float]:
        """Return samples a second and the share of time spent waiting for data since the last reading."""
        now = perf_counter()
        seconds, samples, waiting = max(1e-9, now - self.since), self.samples, self.waiting
        self.since, self.samples, self.waiting = now, 0, 0.0
        return {"speed/samples_per_second": samples / seconds, "speed/data_wait": min(1.0, waiting / seconds)}

    def timed(self, groups: Iterator[list[Whole]]) -> Iterator[list[Whole]]:
        """Yield the groups, noting how long each took to come."""
        while True:
            before = perf_counter()
            group = next(groups, None)
            self.waiting += perf_counter() - before
            if group is None:
                return
            self.samples += sum(whole for _, whole in group)
            yield group


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
    restore: Callable[[], object] | None = None,
    pace: Pace | None = None,
) -> Iterator[Epoch]:
    """Train from where `state` stands to the end of `stage`, yielding after every epoch.

    Parameters
    ----------
    after_update
        Called once an update is complete; what it raises stops the training there, and `state` can be
        saved and gone on from.
    restore
        Called where the stage says `on_nan="restore"`; it puts `state` back to saved weights.
    pace
        Notes where the time goes.

    Raises
    ------
    NonFiniteError
        A loss or gradient is NaN or infinite and the stage says to stop, or did it too often.
    ResourceError
        Memory ran out, with single samples even.

    Example
    -------
    >>> for epoch in train(experiment, stage, state, loader, device):  # doctest: +SKIP
    ...     print(epoch.number, epoch.loss)

    """
    pace = pace or Pace()
    total = stage.epochs * -(-len(loader) // stage.accumulate)
    with recomputed(state.model, stage.recompute):
        updates = Updates(experiment, stage, state, device, log_every=experiment.log_every, restore=restore)
        change = as_trained(experiment, seed=loader.seed)
        while state.epoch < stage.epochs:
            training_mode(state.model, stage.freeze)
            first = state.update * stage.accumulate
            with closing(loader.epoch(state.epoch, start=first, share=device.share)) as batches:
                ready = (change(batch, state.epoch) for batch in device.placed(batches))
                sized = ((batch, loader.batch_len(number)) for number, batch in enumerate(ready, first))
                for group in pace.timed(grouped(stage.accumulate, sized)):
                    _set_lr(experiment, stage, state, total=total)
                    updates(group)
                    after_update()
            updates.settle()
            yield _end_epoch(stage, state)


def _set_lr(experiment: Experiment, stage: Stage, state: TrainState, *, total: int) -> None:
    multiplier = stage.multiplier(state.step, total, state.scores, experiment.metric)
    for group, lr in zip(state.optimizer.param_groups, state.base_lrs, strict=True):
        group["lr"] = lr * multiplier


def _end_epoch(stage: Stage, state: TrainState) -> Epoch:
    if stage.average == "swa" and state.averaged is not None:
        state.averaged.update()
    state.device.share_buffers(state.model, *([state.averaged.module] if state.averaged is not None else []))
    means = state.means()
    if state.scaler.is_enabled() and state.scaler.get_scale() < _SMALLEST_SCALE:
        raise NonFiniteError(
            f"stage {stage.name!r}: with fp16 no gradient was finite for so long that the loss scale fell to"
            f" {state.scaler.get_scale():g}; use precision='bf16' or 'fp32', or lower lr ({stage.lr:g})"
        )
    state.end_epoch()
    lr = float(state.optimizer.param_groups[0]["lr"])
    return Epoch(state.epoch, means.pop("loss", float("nan")), lr, means)


def training_inputs(experiment: Experiment, loader: Loader, device: Device, *, epoch: int) -> Iterator[Any]:
    """Yield the inputs of an epoch as the model sees them in training: on the device, augmented.

    Several processes take whole batches in turn.
    """
    change = as_trained(experiment, seed=loader.seed)
    with closing(loader.epoch(epoch, share=replace(device.share, whole=True))) as batches:
        for batch in device.placed(batches):
            yield change(batch, epoch).inputs


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
    """Return the predictions of every row, once, in the order of the rows: float32, shape (n,) or (n, columns).

    Several processes take whole batches in turn, so that the numbers are those of one; all return the same.
    """
    model.eval()
    outputs, rows = [], []
    with closing(loader.epoch(0, share=replace(device.share, whole=True))) as batches:
        for batch in device.placed(batches):
            with device.autocast(precision):
                predicted = experiment.predict_step(model, batch.inputs)
            outputs.append(_checked(predicted, batch).float())
            rows.append(batch.rows)
            after_batch()
    mine = (torch.cat(rows).cpu().numpy(), torch.cat(outputs).cpu().numpy()) if rows else None
    parts = [part for part in device.gather(mine) if part is not None]
    where, values = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    ordered = np.empty_like(values)
    ordered[where] = values
    return ordered.squeeze(1) if ordered.ndim == 2 and ordered.shape[1] == 1 else ordered


def _checked(predicted: Any, batch: Batch) -> Tensor:
    if not isinstance(predicted, Tensor) or predicted.ndim not in (1, 2) or len(predicted) != batch.size:
        shape = tuple(predicted.shape) if isinstance(predicted, Tensor) else type(predicted).__name__
        raise ExperimentError(
            f"predict_step must return ({batch.size},) or ({batch.size}, columns) for {batch.size} samples, got {shape}"
        )
    return predicted
