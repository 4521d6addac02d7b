"""Lineage: what an entry's test predictions were made of, down to the runs.

In:    an entry.
Out:   a tree of entries with weights and the digests of their prediction files, as plain data.
Next:  `submit` writes it into the submission's record, `reproduce` makes the same again from it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from batteries.combine.blend import How
from batteries.errors import UsageError
from batteries.files import digest_file
from batteries.score.entry import Entry, open_entry

_OPTIONS = ("how", "power", "trim", "clip", "normalize", "multilabel")
"""What a blend's config says of its formula."""


def lineage(entry: Entry) -> dict[str, Any]:
    """Return name, kind, identity, digest of the test predictions, and the same of each member with its weight.

    `blend` is the formula of one, with its options. Members that are no longer there have no digest.
    """
    config, root = entry.config, entry.folder.parent
    made_of = config.get("members") or ({config["of"]: 1.0} if "of" in config else {})
    formula = {key: config[key] for key in _OPTIONS if key in config}
    is_blend = entry.kind == "blend" and formula.get("how") in get_args(How)
    return {
        "entry": entry.name,
        "kind": entry.kind,
        "identity": config["identity"],
        "test": digest_file(entry.folder / "test.parquet"),
        **({"blend": formula} if is_blend else {}),
        "members": [{"weight": weight, **_member(root, name)} for name, weight in made_of.items()],
    }


def _member(root: Path, name: str) -> dict[str, Any]:
    try:
        member = open_entry(root, name)
    except UsageError:
        return {"entry": name, "kind": None, "identity": None, "test": None, "members": []}
    if not (member.folder / "test.parquet").exists():
        return {"entry": name, "kind": member.kind, "identity": member.config["identity"], "test": None, "members": []}
    return lineage(member)


def names_in(tree: dict[str, Any]) -> list[str]:
    """Return the names of all entries in a tree, each once, from the leaves up."""
    below = [name for member in tree["members"] for name in names_in(member)]
    return list(dict.fromkeys([*below, tree["entry"]]))
