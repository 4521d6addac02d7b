"""Buffers: where a model keeps them, since a module may put another tensor in a place whenever it runs.

In:    a model.
Out:   the places of its buffers, to read and to fill.
Next:  averages follow what is there; the guard puts back what was there before.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn


class BufferPlace(NamedTuple):
    """Where a module has a buffer; it may put another tensor there at any time."""

    module: nn.Module
    name: str

    @property
    def tensor(self) -> Tensor | None:
        """What is there now."""
        return self.module._buffers.get(self.name)

    def put(self, tensor: Tensor) -> None:
        """Put a tensor there."""
        self.module._buffers[self.name] = tensor


def buffer_places(model: nn.Module) -> list[BufferPlace]:
    """Return the places of all buffers, in the order of `model.buffers()`; of a shared one the first."""
    places: dict[int, BufferPlace] = {}
    for module in model.modules():
        for name, buffer in module._buffers.items():
            if buffer is not None:
                places.setdefault(id(buffer), BufferPlace(module, name))
    return list(places.values())
