"""Guard: no update is made from a loss or a gradient that is NaN or infinite.

In:    the losses and gradients of an update.
Out:   whether it may be made; on accelerators the optimizer itself leaves it out, and nobody waits.
Next:  `train.update` asks, and does as the stage says.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from batteries.train.buffers import BufferPlace, buffer_places
from batteries.train.device import Device
from batteries.train.state import TrainState


class Guard:
    """Watches the updates of a stage.

    On the CPU a flag is read at once. On an accelerator a fused optimizer takes the flag as it lies
    there (`found_inf`, as `torch.amp.GradScaler` hands it over), and it is read one update later, when it has
    long come; other optimizers make the guard wait for it.
    """

    def __init__(self, state: TrainState, device: Device, *, keep_buffers: bool = False) -> None:
        self.state = state
        self.found = torch.zeros((), device=device.name)
        self.one = torch.ones((), device=device.name)
        self.left_out = False
        """Whether the last update was, where that is known at once."""
        self.lone = device.world == 1
        self.losses: list[Tensor] = []
        reads = getattr(state.optimizer, "_step_supports_amp_scaling", False)  # what GradScaler goes by
        fused = reads and all(group.get("fused") for group in state.optimizer.param_groups)
        self.later = device.name.type != "cpu" and fused and not state.scaler.is_enabled()
        self.places = buffer_places(state.model) if keep_buffers else []
        self.kept: list[tuple[BufferPlace, Tensor, Tensor]] = []
        """Of each buffer before the update: where it was, itself, and a copy of its values."""

    def begin(self) -> None:
        """Begin an update: forget the former one, and remember the buffers that its forward pass may spoil."""
        self.losses.clear()
        if self.places:  # a module may put another tensor there at any time
            present = [(place, buffer) for place in self.places if (buffer := place.tensor) is not None]
            if [id(buffer) for _, buffer in present] != [id(buffer) for _, buffer, _ in self.kept]:
                self.kept = [(place, buffer, buffer.clone()) for place, buffer in present]
            elif present:
                torch._foreach_copy_([copy for *_, copy in self.kept], [buffer for _, buffer in present])

    def see(self, loss: Tensor) -> None:
        """Take note of a loss. Over several processes the gradients, which all have in common, tell instead.

        Under fp16 the scaler looks at gradients, so there all processes share what their losses say.
        """
        if self.lone or self.state.scaler.is_enabled():
            self.losses.append(loss)

    def check(self, parameters: Sequence[Tensor]) -> bool:
        """Look at the update; return whether to call the optimizer."""
        if self.later or self.left_out:
            self.found.zero_()
        scaled = self.state.scaler.is_enabled()
        gradients = [] if scaled else [grad for p in parameters if (grad := p.grad) is not None]
        for same in _by_kind([*gradients, *self.losses]):
            # the check of torch.amp.GradScaler, with a scale of one: a single pass over all tensors
            torch._amp_foreach_non_finite_check_and_unscale_(same, self.found, self.one)
        if not self.lone and self.state.scaler.is_enabled():
            self.state.device.worst(self.found)
        if self.later:
            self.state.optimizer.found_inf = self.found  # type: ignore[attr-defined]
            for place, _, copy in self.kept:
                if (present := place.tensor) is not None and present.shape == copy.shape:
                    present.copy_(torch.where(self.found > 0, copy, present))
            return True
        self.left_out = bool(self.found.item())
        if not self.left_out:
            return True
        for place, buffer, copy in self.kept:
            place.put(buffer.copy_(copy))
        return False

    def bad(self) -> int | None:
        """Number, from 1, of an update of the epoch that was left out: this one, or on accelerators the one before."""
        if not self.later:
            return self.state.update + 1 if self.left_out else None
        before = self.settle()
        self.state.unread = self._read_later()
        return before

    def settle(self) -> int | None:
        """Number of the update that nobody has asked about yet, if it was left out."""
        unread, self.state.unread = self.state.unread, None
        if unread is None:
            return None
        update, flag, event = unread
        if event is not None:
            event.synchronize()
        return update if flag.item() else None

    def _read_later(self) -> tuple[int, Tensor, torch.Event]:
        flag = torch.empty((), pin_memory=True)
        flag.copy_(self.found, non_blocking=True)
        event = torch.Event(self.found.device)
        event.record(torch.accelerator.current_stream(self.found.device))  # by itself it takes the current device's
        return self.state.update + 1, flag, event

    def unless_found(self, mean: Tensor | float) -> Tensor | float:
        """Return a mean of the update, or 0 where the update is being left out and nobody knows yet."""
        return torch.where(self.found > 0, 0.0, mean) if self.later else mean


def _plain(gradient: Tensor) -> Tensor:
    """The numbers of a gradient, also of a sparse or complex one."""
    values = gradient._values() if gradient.is_sparse else gradient
    return torch.view_as_real(values) if values.is_complex() else values


def _by_kind(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Lists of one device and one type each, as plain numbers."""
    kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for tensor in tensors:
        if tensor.is_sparse or tensor.is_complex():
            tensor = _plain(tensor)
        kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
    return list(kinds.values())
