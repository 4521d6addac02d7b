"""Recompute: activations that are computed again in the backward pass instead of kept (activation checkpointing).

In:    a model, patterns of the names of its modules.
Out:   the same gradients with less memory and more time (Chen et al. 2016, arXiv 1604.06174).
Next:  the loop opens it around a stage.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from batteries.errors import ConfigError, some


@contextmanager
def recomputed(model: nn.Module, patterns: Sequence[str]) -> Iterator[None]:
    """While open, modules whose names match keep no activations in training.

    Dropout draws the same numbers both times, and batch and instance norms follow a batch once.

    Raises
    ------
    ConfigError
        When a pattern matches no module.

    Example
    -------
    >>> with recomputed(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), ["0"]):
    ...     pass

    """
    modules = _matching(model, patterns)
    own = [vars(module).get("forward") for module in modules]
    for module in modules:
        module.forward = partial(_forward, module, module.forward)
    try:
        yield
    finally:
        for module, forward in zip(modules, own, strict=True):
            if forward is not None:
                module.forward = forward
            else:
                del module.forward  # the class has it


def _matching(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    names = [name for name, _ in model.named_modules() if name]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"recompute {pattern!r} matches no module; the model has {some(names, 8)}")
    wanted = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    outer = [name for name in wanted if not any(name.startswith(f"{other}.") for other in wanted)]
    return [model.get_submodule(name) for name in outer]


def _forward(module: nn.Module, forward: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    if not module.training:
        return forward(*arguments, **named)
    if torch.compiler.is_compiling():  # the compiler changes buffers once in any case, and takes no contexts
        return checkpoint(forward, *arguments, use_reentrant=False, **named)
    contexts = partial(_contexts, module)
    return checkpoint(forward, *arguments, use_reentrant=False, context_fn=contexts, **named)


def _contexts(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _norms_stand_still(module)


@contextmanager
def _norms_stand_still(module: nn.Module) -> Iterator[None]:
    """Norms follow copies of their statistics meanwhile: they must compute just as they did before."""
    norms = [m for m in module.modules() if isinstance(m, _NormBase) and m.training]
    held = [norm._buffers for norm in norms]
    for norm, buffers in zip(norms, held, strict=True):
        norm._buffers = {name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()}
    try:
        yield
    finally:
        for norm, buffers in zip(norms, held, strict=True):
            norm._buffers = buffers
