"""Weights: into a model from anything that holds them, and which of them learn.

In:    a checkpoint, a file, or a dict of tensors.
Out:   a model with those weights, or an error that names what does not fit and an untouched model.
Next:  stages start from them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from batteries.errors import ConfigError, CorruptError, WeightsError
from batteries.train.checkpoint import Checkpoint, read_checkpoint

_PREFIXES = ("module.", "_orig_mod.")  # DataParallel and DDP, torch.compile


def load_weights(model: nn.Module, source: Checkpoint | Path | str | Mapping[str, Any], *, part: str = "model") -> None:
    """Load weights into `model`, all of them or none.

    Parameters
    ----------
    source
        A `Checkpoint`, a file of ours, a plain `state_dict` file, a `.safetensors` file, or a dict of tensors.
        Nothing in a file is executed. Prefixes that wrappers add (`module.`, `_orig_mod.`) are dropped.
    part
        Which weights of a checkpoint: `model`, or `average` where a stage keeps one.

    Raises
    ------
    WeightsError
        When a name is missing or unexpected or a shape differs; up to five are listed and the model
        is as it was.
    CorruptError
        When the file is not what was written.

    Example
    -------
    >>> model = nn.Linear(2, 1)
    >>> load_weights(model, {f"module.{name}": tensor for name, tensor in model.state_dict().items()})

    """
    own = model.state_dict()
    weights = {_bare(name, own): tensor for name, tensor in read_weights(source, part=part).items()}
    wrong = [f"{name} is missing" for name in own if name not in weights]
    wrong += [f"{name} is not in the model" for name in weights if name not in own]
    wrong += [
        f"{name} is {tuple(weights[name].shape)} in the file, {tuple(own[name].shape)} in the model"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if wrong:
        more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise WeightsError(
            f"the weights of {_named(source)} do not fit {type(model).__name__}: {'; '.join(wrong[:5])}{more}"
        )
    model.load_state_dict(weights)


def read_weights(source: Checkpoint | Path | str | Mapping[str, Any], *, part: str = "model") -> dict[str, Tensor]:
    """Return the tensors that `source` holds, on the CPU."""
    if isinstance(source, Mapping):
        data: Mapping[str, Any] = source
    elif isinstance(source, Checkpoint):
        data = source.load()
    elif Path(source).suffix == ".safetensors":
        data = _read_safetensors(Path(source))
    else:
        data = read_checkpoint(Path(source))
    if isinstance(data.get(part), Mapping):
        data = data[part]
    elif not all(isinstance(value, Tensor) for value in data.values()):
        raise WeightsError(f"{_named(source)} holds no {part!r} weights; it has {', '.join(map(str, list(data)[:8]))}")
    return dict(data)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CorruptError(f"{path}: is not a file of weights ({error})") from error
    return tensors


def _bare(name: str, own: Container[str]) -> str:
    """The name without the prefixes of wrappers; a model of ours may itself have a part called `module`."""
    while name not in own and name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name


def _named(source: object) -> str:
    return "the given dict" if isinstance(source, Mapping) else str(getattr(source, "path", source))


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Stop the parameters whose names match a pattern from learning; the others stay as the model made them.

    >>> freeze(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), ["0.*"])
    """
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"freeze {pattern!r} matches no parameter; the model has {', '.join(names[:8])}, ...")
    for name, parameter in model.named_parameters():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        what = f"freeze {', '.join(patterns)}" if patterns else type(model).__name__
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


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Group the learning parameters for an optimizer: decayed, and (norms, biases: below two dimensions) not."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learning if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in learning if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
