"""Augment sheet: what `Experiment.augment` makes of real rows, before and after.

In:    an Experiment.
Out:   what the template of the page needs: for some samples, inputs and targets as they are and in several epochs.
Next:  `page` renders it.
"""

from __future__ import annotations

from base64 import b64encode
from contextlib import closing
from copy import deepcopy
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from batteries.errors import ExperimentError, UsageError
from batteries.experiment import Batch, Experiment, Stage
from batteries.prepare.seed import derive_seed
from batteries.prepare.table import training_table
from batteries.report.view import counted, figure
from batteries.train.outcome import loader_of
from batteries.train.sources import leaves_of
from batteries.train.update import as_trained

_SAMPLES, _EPOCHS = 8, 4
_MOST_VALUES = 12
_MOST_CLASSES = 3
_SIDE = 128
"""Pixels of a picture on the page, about; its own pixels are kept, or every second, third, ..."""


@dataclass(frozen=True)
class Cell:
    """One sample at one time: a picture or values, or neither where nothing can be drawn."""

    uri: str = ""
    width: int = 0
    """Of the picture on the page, in pixels."""
    values: tuple[tuple[str, bool], ...] = ()
    """Each with whether it is another than before."""


@dataclass(frozen=True)
class Part:
    """One tensor of the inputs, or the targets: a row of cells for each sample."""

    name: str
    about: str
    rows: list[tuple[str, list[Cell]]]
    """The name of a sample; it before, and after in each epoch."""


@dataclass(frozen=True)
class Sheet:
    """The parts of a batch under the fields of some stages."""

    title: str
    parts: list[Part]


def augment_context(experiment: Experiment) -> dict[str, Any]:
    """Return what the page shows: the first samples of a shuffled batch, as `augment` changes them in each epoch.

    Stages that give fields other values have sheets of their own.

    Raises
    ------
    UsageError
        When the experiment has no `augment`.
    ExperimentError
        When it returns no Batch.

    """
    name = type(experiment).__name__
    if type(experiment).augment is Experiment.augment:
        raise UsageError(
            f"{name} has no augment, so there is nothing to draw; write augment(self, batch, random) and return the"
            " batch changed, batch._replace(inputs=...)"
        )
    table = training_table(experiment)
    alike: list[list[Stage]] = []
    for stage in experiment.checked_stages():
        same = next((group for group in alike if group[0].fields == stage.fields), None)
        alike.append([stage]) if same is None else same.append(stage)
    return {
        "title": f"Augmentation: {name}",
        "epochs": [f"epoch {epoch + 1}" for epoch in range(_EPOCHS)],
        "sheets": [_sheet(experiment.at(group[0]), group, table, several=len(alike) > 1) for group in alike],
    }


def _sheet(experiment: Experiment, stages: list[Stage], table: Any, *, several: bool) -> Sheet:
    seed = derive_seed(experiment.seed, "loader", 0, stages[0].name)
    loader = loader_of(experiment, table, stages[0], training=True, seed=seed)
    with closing(loader.epoch(0)) as batches:
        before = next(batches)
    change = as_trained(experiment, seed=seed)
    after = []
    for epoch in range(_EPOCHS):
        after.append(change(deepcopy(before), epoch))  # it may change tensors in place
        if not isinstance(after[-1], Batch):
            raise ExperimentError(
                f"{type(experiment).__name__}.augment must return a Batch, got {type(after[-1]).__name__}; return"
                " batch._replace(inputs=...)"
            )
    ids = table[experiment.id].gather(before.rows[:_SAMPLES].tolist()).to_list()
    labels = [f"{experiment.id} {each}" for each in ids]
    inputs = [dict(leaves_of(batch.inputs, "inputs")) for batch in (before, *after)]
    parts = [_part(key, [each.get(key) for each in inputs], labels) for key in inputs[0]]
    if before.targets is not None:
        parts.append(_targets(experiment, [batch.targets for batch in (before, *after)], labels))
    names = ", ".join(stage.name for stage in stages)
    return Sheet(f"Stage {names}" if several else "Before and after", parts)


def _part(name: str, seen: list[Any], labels: list[str]) -> Part:
    """One tensor before and after, as pictures from three axes on, else as values."""
    first = seen[0]
    if not isinstance(first, Tensor):
        return Part(name, f"{type(first).__name__}, not drawn", [])
    about = f"shape {tuple(first.shape)}, {str(first.dtype).removeprefix('torch.')}"
    if first.ndim > 4:
        return Part(name, f"{about}, not drawn", [])
    if first.ndim == 4 and first.shape[1] not in (1, 3):
        about += ", the first channel"
    if first.ndim < 3 and first[0].numel() > _MOST_VALUES:
        about += f", the first {_MOST_VALUES}"
    changed = sum(each is None or not _same(each, first) for each in seen[1:])
    about += f"; changed in {changed} of {counted(len(seen) - 1, 'epoch')}"
    drawn = _pictures if first.ndim >= 3 else _values
    columns = [drawn(each, first) if isinstance(each, Tensor) else [Cell()] * len(labels) for each in seen]
    rows = [(label, [column[place] for column in columns]) for place, label in enumerate(labels)]
    return Part(name, about, rows)


def _same(one: Any, other: Tensor) -> bool:
    return isinstance(one, Tensor) and one.shape == other.shape and torch.equal(one.nan_to_num(), other.nan_to_num())


def _pictures(images: Tensor, before: Tensor) -> list[Cell]:
    """Shape (n, height, width) or (n, channels, height, width); the range of the batch before is black to white."""
    finite = before.double()[before.isfinite()]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    cells = []
    for image in images[:_SAMPLES].double().nan_to_num(low):
        pixels = image[None] if image.ndim == 2 else image if len(image) == 3 else image[:1]
        step = max(1, max(pixels.shape[1:]) // _SIDE)
        scaled = ((pixels[:, ::step, ::step] - low) / (high - low or 1.0) * 255).clamp(0, 255)
        rgb = scaled.expand(3, *scaled.shape[1:]).permute(1, 2, 0).to(torch.uint8).numpy()
        width = rgb.shape[1] * max(1, _SIDE // max(rgb.shape[:2]))
        cells.append(Cell(uri=_data_uri(rgb), width=width))
    return cells


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    from matplotlib.image import imsave

    buffer = BytesIO()
    imsave(buffer, np.ascontiguousarray(pixels), format="png", metadata={"Software": ""})
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"


def _values(values: Tensor, before: Tensor) -> list[Cell]:
    """Shape (n,) or (n, columns): the first values of each sample."""
    cells = []
    for place in range(min(_SAMPLES, len(values))):
        now, then = (each[place].reshape(-1)[:_MOST_VALUES].tolist() for each in (values, before))
        then += [None] * (len(now) - len(then))
        pairs = zip(now, then, strict=False)
        cells.append(Cell(values=tuple((figure(one), one != other and one == one) for one, other in pairs)))
    return cells


def _targets(experiment: Experiment, seen: list[Any], labels: list[str]) -> Part:
    if others := [type(each).__name__ for each in seen if not isinstance(each, Tensor)]:
        return Part("targets", f"{others[0]}, not drawn", [])
    columns = [[_target(experiment, each[place]) for place in range(len(labels))] for each in seen]
    rows = []
    for place, label in enumerate(labels):
        texts = [column[place] for column in columns]
        rows.append((label, [Cell(values=((text, text != texts[0]),)) for text in texts]))
    about = (
        "of classes, the largest shares" if seen[-1].ndim == 2 and _are_shares(seen[-1]) else "as the loss gets them"
    )
    return Part("targets", about, rows)


def _are_shares(targets: Tensor) -> bool:
    return bool(((targets >= 0) & (targets <= 1)).all())


def _target(experiment: Experiment, target: Tensor) -> str:
    names = experiment.classes
    if target.ndim == 0:
        value = target.item()
        return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else figure(value)
    if target.ndim > 1:
        return f"shape {tuple(target.shape)}"
    if not _are_shares(target):  # several numbers to predict
        return ", ".join(figure(value) for value in target[:_MOST_VALUES].tolist())
    largest = target.double().topk(min(_MOST_CLASSES, len(target)))
    shares = zip(largest.indices.tolist(), largest.values.tolist(), strict=True)
    return ", ".join(f"{names[place] if names else place} {share:.2f}" for place, share in shares if share > 0)
