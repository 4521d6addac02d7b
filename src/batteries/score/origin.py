"""Origin: what an entry came from, and what was changed since.

In:    the entries of the ledger with their configs, oldest first.
Out:   the parent of each and the differences in words; a name for all that decides a run but its seed.
Next:  the board shows them; `improve.seeds` puts runs of one recipe together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batteries.files import digest_of

_RECIPE = ("experiment", "stages", "metric", "columns", "folds", "data", "code")


@dataclass(frozen=True)
class Origin:
    """Where an entry comes from."""

    parent: str | None
    """The run before it of the same experiment; what it was derived from; None for the first, and for a blend."""
    changed: tuple[str, ...]
    """`lr 0.004 -> 0.002`, `code`; for what was made of others, of which."""


def origins(entries: Sequence[Mapping[str, Any]]) -> dict[str, Origin]:
    """Return the origin of every entry, by name.

    >>> run = {"kind": "run", "experiment": "toy"}
    >>> origins([{**run, "name": f"toy-{n}", "config": {"fields": {"lr": n}}} for n in (1, 2)])["toy-2"]
    Origin(parent='toy-1', changed=('lr 1 -> 2',))
    """
    found, newest = {}, dict[str, Mapping[str, Any]]()
    for entry in entries:
        name, config = entry["name"], entry["config"]
        if made_of := [config["of"]] if "of" in config else list(config.get("members", ())):
            said = f"{config['how']} of" if "how" in config else "of"
            found[name] = Origin(config.get("of"), (f"{said} {', '.join(made_of)}",))
        elif entry["kind"] == "run" and (before := newest.get(entry["experiment"])):
            found[name] = Origin(before["name"], tuple(_changes(before["config"], config)))
        else:
            found[name] = Origin(None, ())
        if entry["kind"] == "run":
            newest[entry["experiment"]] = entry
    return found


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """What decides a result and is not what it was; stages only where no field says why."""
    fields = [{k: v for k, v in each.get("fields", {}).items() if k != "num_workers"} for each in (then, now)]
    for name in dict.fromkeys([*fields[0], *fields[1]]):
        before, after = (each.get(name) for each in fields)
        if before != after:
            yield f"{name} {_short(before)} -> {_short(after)}"
    for part in ("stages", "metric", "columns", "folds", "data", "code"):
        if then.get(part) != now.get(part) and not (part == "stages" and fields[0] != fields[1]):
            yield part


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 24 else f"{text[:21]}..."


def recipe(config: Mapping[str, Any]) -> str | None:
    """Name all that decides a run but its seed; None for what is no run."""
    if config.get("kind") != "run" or not set(_RECIPE) <= set(config):
        return None
    fields = {name: value for name, value in config["fields"].items() if name not in ("seed", "num_workers")}
    return digest_of([fields, *(config[key] for key in _RECIPE)])
