"""Config: the fields of an experiment as plain data, and back from what a user types.

In:    a dataclass; texts such as `lr=1e-3`.
Out:   JSON-ready values with one digest; the same dataclass with other values.
Next:  `experiment` builds on it; a run keeps the values beside its results.
"""

from __future__ import annotations

import dataclasses
import json
import numbers
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batteries.errors import ConfigError


def to_plain(value: object) -> Any:
    """Turn dataclasses, tuples, paths and callables into what JSON can hold; refuse what has no text form."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        plain = {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"class": to_plain(type(value)), **plain} if callable(value) else plain  # two may have the same fields
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, numbers.Integral):  # NumPy's
        return int(value)
    if isinstance(value, numbers.Real):
        value = float(value)
        if value != value or value in (float("inf"), float("-inf")):
            raise ConfigError(f"{value!r} cannot be a config value; use None to say 'none'")
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [to_plain(v) for v in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if callable(value):
        return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', type(value).__name__)}"
    raise ConfigError(f"a field holds {value!r}; use numbers, texts, lists or dataclasses so that it can be recorded")


def parse_overrides(cls: type, texts: Sequence[str]) -> dict[str, Any]:
    """Read `name=value` texts as the types that the dataclass `cls` declares.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Small:
    ...     lr: float = 1e-3
    >>> parse_overrides(Small, ["lr=3e-4"])
    {'lr': 0.0003}
    """
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text!r}: write name=value")
        pairs[name.strip()] = _listed(value.strip())
    return check_values(cls, pairs)


def _listed(text: str) -> Any:
    """A list where the text is one in JSON, such as `[64,32]`; else the text."""
    try:
        return json.loads(text) if text.startswith("[") else text
    except (ValueError, RecursionError):
        return text


def check_values(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` as the declared types of the fields of `cls`; name the field that does not fit."""
    from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

    known = {f.name for f in dataclasses.fields(cls)}
    if unknown := sorted(set(values) - known):
        raise ConfigError(f"{cls.__name__} has no field {unknown[0]!r}; its fields are {', '.join(sorted(known))}")
    hints = _hints(cls) if values else {}
    checked = {}
    for name, value in values.items():
        try:
            checked[name] = None if _says_none(value, hints[name]) else TypeAdapter(hints[name]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"]
            raise ConfigError(f"{cls.__name__}.{name} = {value!r}: {reason}") from None
        except PydanticSchemaGenerationError:
            raise ConfigError(f"{cls.__name__}.{name} is a {hints[name]}, which cannot be set from a text") from None
    return checked


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except NameError as error:
        raise ConfigError(
            f"a type of a field of {cls.__name__} is not known at run time ({error}); import it outside TYPE_CHECKING"
        ) from error


def _says_none(value: Any, hint: Any) -> bool:
    """Whether None is meant and allowed; a field that holds a text may be called `none`."""
    return (value is None or (isinstance(value, str) and value.lower() == "none")) and type(None) in typing.get_args(
        hint
    )
