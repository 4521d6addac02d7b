"""Weights: into a model from anything that holds them.

In:    a checkpoint, a file, or a dict of tensors; under other names, or only some of them, where that is said.
Out:   a model with those weights and a report, or an error that names what does not fit and an untouched model.
Next:  stages start from them; `groups` says which of them learn.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from batteries.errors import CorruptError, WeightsError, some
from batteries.train.checkpoint import Checkpoint
from batteries.train.checkpoint_file import read_checkpoint

_PREFIXES = ("module.", "_orig_mod.")  # DataParallel and DDP, torch.compile
_AS_THEY_ARE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """What of the weights went into the model, by the names of the model.

    >>> print(LoadReport(loaded=("0.weight",), missing=("1.bias",)))
    loaded 1 of 2 tensors; 1.bias is missing
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """In the model and not in the file; they stay as they were."""
    unexpected: tuple[str, ...] = ()
    """In the file and not in the model."""
    other_shape: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()
    """Name, shape in the file, shape in the model; they stay as they were."""
    other_type: tuple[tuple[str, torch.dtype, torch.dtype], ...] = ()
    """Name, type in the file, type in the model; loaded, as PyTorch converts them."""

    @property
    def differences(self) -> list[str]:
        """What did not fit, in words."""
        wrong = [f"{name} is missing" for name in self.missing]
        wrong += [f"{name} is not in the model" for name in self.unexpected]
        return wrong + [f"{name} is {file} in the file, {own} in the model" for name, file, own in self.other_shape]

    def __str__(self) -> str:
        size = len(self.loaded) + len(self.missing) + len(self.other_shape)
        types = sorted({f"{_type(file)} to {_type(own)}" for _, file, own in self.other_type})
        converted = [f"{len(self.other_type)} converted ({', '.join(types)})"] if types else []
        listed = [_first_five(self.differences)] if self.differences else []
        return "; ".join([f"loaded {len(self.loaded)} of {size} tensors", *converted, *listed])


def load_weights(
    model: nn.Module,
    source: Checkpoint | Path | str | Mapping[str, Any],
    *,
    part: str = "model",
    prefix: str = "",
    rename: Mapping[str, str] = _AS_THEY_ARE,
    partial: bool = False,
) -> LoadReport:
    """Load weights into `model`, all of them or none; on any error the model is as it was, bit for bit.

    Buffers, such as the statistics of batch norms, are weights too. Nothing in a file is executed.

    Parameters
    ----------
    source
        A `Checkpoint`, a file of ours, a plain `state_dict` file, a `.safetensors` file, or a dict of tensors.
        Prefixes that wrappers add (`module.`, `_orig_mod.`) are dropped.
    part
        Which weights of a checkpoint: `model`, `average` where a stage keeps one, or another dict in the file.
    prefix
        Only names that begin so are taken, without it: `"backbone."` takes a backbone out of a larger model.
    rename
        Regular expressions and what replaces their matches, as in `re.sub`, one after the other, after the prefixes.
    partial
        Load what fits by name and shape, and say in the report what did not; the rest stays as it was.

    Raises
    ------
    WeightsError
        When a name is missing or unexpected or a shape differs (with `partial`: when no parameter fits), up to five
        are listed; when two names become one, or `prefix` or a pattern of `rename` matches nothing.
    CorruptError
        When the file is not what was written.

    Example
    -------
    >>> model = nn.Linear(2, 1)
    >>> weights = {"module.fc.weight": torch.ones(1, 2), "module.fc.bias": torch.ones(1), "module.step": torch.ones(1)}
    >>> print(load_weights(model, weights, prefix="fc."))
    loaded 2 of 2 tensors

    """
    own = model.state_dict()
    weights = _renamed(read_weights(source, part=part), own, prefix, rename, _named(source))
    report = _compared(weights, own)
    learning = {name for name, _ in model.named_parameters(remove_duplicate=False)} or set(own)
    if (report.differences and not partial) or (own and learning.isdisjoint(report.loaded)):
        fit = "hold no parameter of" if partial else "do not fit"
        differences = _first_five(report.differences)
        raise WeightsError(f"the weights of {_named(source)} {fit} {type(model).__name__}: {differences}")
    fitting = {name: weights[name] for name in report.loaded}
    _check_conversions(fitting, own, _named(source))
    model.load_state_dict(fitting, strict=False)  # they are compared above
    return report


def _renamed(
    weights: Mapping[str, Tensor], own: Container[str], prefix: str, rename: Mapping[str, str], source: str
) -> dict[str, Tensor]:
    """The weights under the names that the model should have them by."""
    before = {name: _bare(name, own) for name in weights}
    if prefix:
        pairs = [(name, each) for name, bare in before.items() for each in (name, bare) if each.startswith(prefix)]
        before = {name: _bare(each.removeprefix(prefix), own) for name, each in pairs}
        if not before:
            raise WeightsError(f"no name in {source} begins with {prefix!r}; it has {some(list(weights), 5)}")
    after = dict(before)
    for pattern, replacement in rename.items():
        try:
            changed = {name: re.subn(pattern, replacement, new) for name, new in after.items()}
        except (re.error, IndexError) as error:
            raise WeightsError(f"rename {pattern!r} to {replacement!r}: {error}") from error
        if not any(count for _, count in changed.values()):
            raise WeightsError(
                f"rename {pattern!r} matches no name in {source}; it has {some(list(after.values()), 5)}"
            )
        after = {name: new for name, (new, _) in changed.items()}
    origin: dict[str, str] = {}
    for name, new in after.items():
        if new in origin:
            raise WeightsError(f"{origin[new]} and {name} of {source} would both become {new}")
        origin[new] = name
    return {new: weights[name] for new, name in origin.items()}


def _compared(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> LoadReport:
    both = [name for name in own if name in weights]
    fitting = [name for name in both if weights[name].shape == own[name].shape]
    others = [name for name in both if weights[name].shape != own[name].shape]
    return LoadReport(
        loaded=tuple(fitting),
        missing=tuple(name for name in own if name not in weights),
        unexpected=tuple(name for name in weights if name not in own),
        other_shape=tuple((name, tuple(weights[name].shape), tuple(own[name].shape)) for name in others),
        other_type=tuple(
            (name, weights[name].dtype, own[name].dtype) for name in fitting if weights[name].dtype != own[name].dtype
        ),
    )


def _check_conversions(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Refuse what PyTorch cannot copy, before it has copied half of the rest."""
    for name, tensor in weights.items():
        mine = own[name]
        if tensor.dtype == mine.dtype and tensor.layout == mine.layout and not tensor.is_meta:
            continue
        try:
            torch.empty_like(mine).copy_(tensor)
        except (RuntimeError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise WeightsError(f"{name} of {source} cannot be copied into the model ({reason})") from error


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
    inner = data.get(part)
    found: Mapping[Any, Any] = inner if isinstance(inner, Mapping) else data
    if _holds_tensors(found):
        return dict(found)
    if found is inner:
        other = next(name for name, value in found.items() if not _holds_tensors({name: value}))
        raise WeightsError(
            f"{_named(source)}: {other!r} of {part!r} is {type(found[other]).__name__}, not a named tensor"
        )
    others = [name for name, value in data.items() if isinstance(value, Mapping) and value and _holds_tensors(value)]
    hint = f"; give part={others[0]!r}" if others else ""
    raise WeightsError(f"{_named(source)} holds no {part!r} weights; it has {some(list(data), 8)}{hint}")


def _holds_tensors(values: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in values.items())


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


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _first_five(differences: Sequence[str]) -> str:
    more = f", and {len(differences) - 5} more" if len(differences) > 5 else ""
    return "; ".join(differences[:5]) + more
