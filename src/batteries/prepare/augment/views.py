"""Views: the same samples seen several ways, predicted each, averaged.

In:    what computes outputs from inputs, and the inputs of a batch.
Out:   outputs averaged over the views, in a named space; undone first where they are spatial.
Next:  `Experiment.predict_step` returns them, so that validation, test and out-of-fold predictions all are of views.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from batteries.errors import UsageError

_CLOSEST = 2.0**-24
"""To 0 and to 1 in the space of logits, half of float32's steps below 1."""


@dataclass(frozen=True)
class View:
    """One way to see inputs: `change` them; `undo` it in outputs that are spatial, too.

    >>> View.flip().change(torch.tensor([[1, 2, 3]])).tolist()
    [[3, 2, 1]]
    """

    change: Callable[[Any], Any]
    """Inputs of a batch to inputs of the same samples in the same order."""
    undo: Callable[[Tensor], Tensor] | None = None
    """Outputs of the changed inputs to those of the inputs, where an output belongs to a place in the image."""

    @classmethod
    def same(cls) -> View:
        """The inputs as they are."""
        return cls(_same, _same)

    @classmethod
    def flip(cls, axis: int = -1) -> View:
        """Mirrored: -1 left and right, -2 top and bottom."""
        flip = partial(torch.flip, dims=(axis,))
        return cls(flip, flip)

    @classmethod
    def turn(cls, quarters: int) -> View:
        """Turned to the left by quarters of a circle, in the last two axes."""
        turn = partial(torch.rot90, dims=(-2, -1))
        return cls(partial(turn, k=quarters), partial(turn, k=-quarters))


@dataclass(frozen=True)
class Views:
    """Averages the outputs for several views of a batch. `views(compute, inputs)` does it.

    Raises
    ------
    UsageError
        When it is made: no views, an unknown `how`, or spatial outputs and a view that cannot be undone. When it is
        called: views give outputs of different shapes, or `geometric` finds no classes.

    Example
    -------
    >>> views = Views([View.same(), View.flip()])
    >>> views(lambda images: images[:, 0].mean(dim=(1, 2)), torch.ones(2, 3, 4, 4)).tolist()
    [1.0, 1.0]

    In an experiment:

    >>> def predict_step(self, model, inputs):
    ...     return self.views(lambda images: model(images).softmax(dim=1), inputs)

    """

    views: Sequence[View]
    _: KW_ONLY
    how: Literal["mean", "geometric", "logit"] = "mean"
    """`mean` of the outputs. `geometric`: of probabilities of classes along axis 1, the geometric mean divided by its
    sum, which is the mean of log-probabilities (and of logits before a softmax). `logit`: of probabilities that stand
    each for itself, the mean of log(p / (1 - p))."""
    spatial: bool = False
    """Whether outputs have a place in the image, as masks have, so that the view is undone in them."""

    def __post_init__(self) -> None:
        if not self.views:
            raise UsageError("Views needs at least one view, such as View.same()")
        if self.how not in ("mean", "geometric", "logit"):
            raise UsageError(f"Views: how must be 'mean', 'geometric' or 'logit', got {self.how!r}")
        if self.spatial and any(view.undo is None for view in self.views):
            number = next(number for number, view in enumerate(self.views, 1) if view.undo is None)
            raise UsageError(f"Views: outputs are spatial, and view {number} has no undo; give View(change, undo)")

    def __call__(self, compute: Callable[[Any], Tensor], inputs: Any) -> Tensor:
        """Return the outputs that `compute` gives for `inputs`, averaged over the views: float32 or float64.

        Outputs have shape (n, ...), one view after another: as much memory as one view, as much time as all.
        """
        total: Tensor | None = None
        for number, view in enumerate(self.views, 1):
            output = compute(view.change(inputs))
            if self.spatial and view.undo is not None:
                output = view.undo(output)
            part = self._into(output if output.dtype == torch.float64 else output.float())
            if total is not None and part.shape != total.shape:
                shapes = f"{tuple(part.shape)}, the views before it {tuple(total.shape)}"
                raise UsageError(f"Views: view {number} gave outputs {shapes}; spatial=True undoes a view in them")
            total = part if total is None else total + part
        assert total is not None
        return self._out_of(total / len(self.views))

    def _into(self, output: Tensor) -> Tensor:
        """The space in which the mean is taken."""
        if self.how == "mean":
            return output
        if self.how == "logit":
            return torch.logit(output, eps=_CLOSEST)
        if output.ndim < 2 or output.shape[1] < 2:
            raise UsageError(
                f"Views: geometric means need classes along axis 1, got outputs {tuple(output.shape)}; of one"
                " probability a sample take how='logit'"
            )
        return output.clamp(min=torch.finfo(output.dtype).tiny).log()

    def _out_of(self, mean: Tensor) -> Tensor:
        if self.how == "mean":
            return mean
        return mean.softmax(dim=1) if self.how == "geometric" else mean.sigmoid()


def _same(data: Any) -> Any:
    return data
