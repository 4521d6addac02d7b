"""Device: where a model runs.

In:    `cpu`, `cuda:1`, `auto`.
Out:   one small object that places batches and opens autocast.
Next:  the loop asks it; nothing else knows what kind of machine this is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from batteries.errors import UsageError

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Device:
    """One device. `Device.pick("auto")` takes the accelerator if there is one."""

    name: torch.device

    @classmethod
    def pick(cls, name: str = "auto") -> Device:
        """Return the device called `name`. Raises UsageError when this machine does not have it."""
        if name == "auto":
            found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
            return cls(found or torch.device("cpu"))
        try:
            device = torch.device(name)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            has = f"{torch.accelerator.device_count()} accelerators" if torch.accelerator.is_available() else "only cpu"
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"device {name!r} cannot be used ({reason}); this machine has {has}: --device auto"
            ) from None
        return cls(device)

    def place(self, data: Any) -> Any:
        """Move tensors, however nested in tuples, lists and dicts, to the device."""
        if isinstance(data, Tensor):
            return data.to(self.name, non_blocking=True)
        if isinstance(data, Mapping):
            return {key: self.place(value) for key, value in data.items()}
        if isinstance(data, tuple) and hasattr(data, "_fields"):
            return type(data)(*(self.place(value) for value in data))
        if isinstance(data, tuple | list):
            return type(data)(self.place(value) for value in data)
        return data

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return what the forward pass calls; the bare model stays the one that is saved."""
        return model

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """Open the forward pass in `fp32`, `bf16` or `fp16`."""
        if precision == "fp32":
            return nullcontext()
        return torch.autocast(self.name.type, dtype=_AUTOCAST[precision])

    def scaler(self, precision: str) -> torch.amp.GradScaler:
        """Return the loss scaler; it does nothing unless the precision is `fp16`."""
        return torch.amp.GradScaler(self.name.type, enabled=precision == "fp16")
