"""Groups: which parameters learn, how fast, and with how much decay.

In:    a model and what a stage says: patterns to freeze, weight decay, rates by layer and by name.
Out:   parameter groups for an optimizer; a model with the rest frozen.
Next:  the state makes the optimizer of them; the loop puts the model in training mode.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from batteries.errors import ConfigError, some

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_EVERY_ONE_AT_LR: Mapping[str, float] = MappingProxyType({})


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Stop the parameters whose names match a pattern from learning; the others stay as the model made them.

    A tied parameter is frozen under any of its names.

    Raises
    ------
    ConfigError
        When a pattern matches nothing, or nothing is left to train.

    Example
    -------
    >>> freeze(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), ["0.*"])

    """
    named = list(model.named_parameters(remove_duplicate=False))
    _check_patterns("freeze", patterns, [name for name, _ in named])
    for name, parameter in named:
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        what = f"freeze {', '.join(map(repr, patterns))}" if patterns else type(model).__name__
        raise ConfigError(f"{what} leaves nothing to train: no parameter has requires_grad")


def training_mode(model: nn.Module, frozen: Sequence[str] = ()) -> None:
    """Put the model into training mode, but for batch norms that are frozen.

    Those whose own parameters are all frozen; of those without parameters, the ones that a pattern names.
    """
    model.train()
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            own = list(module.parameters(recurse=False))
            named = any(fnmatch.fnmatchcase(f"{name}.running_mean", pattern) for pattern in frozen)
            if not any(parameter.requires_grad for parameter in own) and (own or named):
                module.eval()


def parameter_groups(
    model: nn.Module,
    weight_decay: float,
    *,
    lr: float | None = None,
    layer_decay: float | None = None,
    lr_of: Mapping[str, float] = _EVERY_ONE_AT_LR,
) -> list[dict[str, Any]]:
    """Group the learning parameters for an optimizer: by learning rate, and by whether they are decayed.

    Weights of two and more dimensions are decayed; norms and biases are not. Every learning parameter is in exactly
    one group, a tied one too; frozen ones are in none. The highest rate comes first, decayed before not decayed.

    Parameters
    ----------
    lr
        The stage's rate. Groups have an `lr` of their own only where `layer_decay` or `lr_of` is given.
    layer_decay
        Rate of a layer as a share of the rate of the layer after it; the last layer learns at `lr` (ELECTRA, Clark
        et al. 2020, arXiv 2003.10555). What a layer is says `layers`; frozen ones count.
    lr_of
        Patterns of parameter names and what multiplies the rate of each. Where several match, all of them do. With
        0 the parameters stay as they are.

    Raises
    ------
    ConfigError
        When a pattern matches nothing, `layer_decay` finds a single layer, or `lr` is missing.

    Example
    -------
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> groups = parameter_groups(model, 0.01, lr=0.1, layer_decay=0.5)
    >>> [(group["lr"], group["weight_decay"], len(group["params"])) for group in groups]
    [(0.1, 0.01, 1), (0.1, 0.0, 1), (0.05, 0.01, 1), (0.05, 0.0, 1)]

    """
    rates = _rates(model, lr, layer_decay, lr_of)
    plain = _not_decayed(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decay = 0.0 if id(parameter) in plain else weight_decay
            groups.setdefault((rates.get(id(parameter), 0.0), decay), []).append(parameter)
    return [
        {"params": groups[rate, decay], "weight_decay": decay, **({"lr": rate} if rates else {})}
        for rate, decay in sorted(groups, reverse=True)
    ]


def layers(model: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each layer, in order of registration, each parameter once.

    A layer is a child of the model with parameters; the model's own come first, as a layer. Containers (`Sequential`,
    `ModuleList`, `ModuleDict`) are expanded to their children, and so is a part that holds more than half of all
    parameters and has containers inside: the backbone in a wrapper.

    >>> [len(layer) for layer in layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)))]
    [2, 2]
    """
    size = sum(parameter.numel() for parameter in model.parameters())
    found, seen = [], set[int]()
    for part in _parts(model, size):
        new = [parameter for parameter in part if id(parameter) not in seen]
        seen |= {id(parameter) for parameter in new}
        if new:
            found.append(new)
    return found


def _parts(module: nn.Module, size: int) -> Iterator[list[nn.Parameter]]:
    yield list(module.parameters(recurse=False))
    for child in module.children():
        large = 2 * sum(parameter.numel() for parameter in child.parameters()) > size
        inside = any(isinstance(part, _CONTAINERS) for part in child.modules())
        if isinstance(child, _CONTAINERS) or (large and inside):
            yield from _parts(child, size)
        else:
            yield list(child.parameters())


def _rates(
    model: nn.Module, lr: float | None, layer_decay: float | None, lr_of: Mapping[str, float]
) -> dict[int, float]:
    """The learning rate of every parameter, by its id; empty where all have that of the optimizer."""
    if layer_decay is None and not lr_of:
        return {}
    if lr is None:
        raise ConfigError("parameter_groups: layer_decay and lr_of multiply the learning rate; give lr")
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    _check_patterns("lr_of", list(lr_of), [name for each in names.values() for name in each])
    decayed = _by_layer(model, layer_decay)
    return {
        key: lr * decayed.get(key, 1.0) * prod(number for pattern, number in lr_of.items() if _any(own, pattern))
        for key, own in names.items()
    }


def _by_layer(model: nn.Module, decay: float | None) -> dict[int, float]:
    if decay is None:
        return {}
    found = layers(model)
    if len(found) < 2:
        raise ConfigError(
            f"layer_decay {decay!r}: {type(model).__name__} has a single layer; use lr_of, or give it its layers as"
            " children, in a Sequential or in a ModuleList"
        )
    return {id(p): decay**after for after, layer in enumerate(reversed(found)) for p in layer}


def _not_decayed(model: nn.Module) -> set[int]:
    """Ids of norms, biases and everything below two dimensions."""
    return {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim < 2 or name.endswith("bias") or isinstance(module, _NORMS)
    }


def _check_patterns(what: str, patterns: Sequence[str], names: Sequence[str]) -> None:
    for pattern in patterns:
        if not _any(names, pattern):
            raise ConfigError(f"{what} {pattern!r} matches no parameter; the model has {some(names, 8)}")


def _any(names: Sequence[str], pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)
