"""Words: how advice writes names and figures.

In:    names and numbers.
Out:   texts.
Next:  `advice` and `alarms` make sentences of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

NAMED = 6
"""Columns or classes that are named in a sentence."""


def quoted(text: str) -> str:
    """A name in quotes, as Python writes it too."""
    return json.dumps(text, ensure_ascii=False)


def named(names: Sequence[str]) -> str:
    """The first few names in quotes, for a call."""
    return ", ".join(map(quoted, names[:NAMED]))


def counted(count: int, thing: str, verb: str = "", verbs: str = "") -> str:
    """`1 row repeats`, `2 rows repeat`.

    >>> counted(1, "row", "repeats", "repeat"), counted(2000, "row")
    ('1 row repeats', '2,000 rows')
    """
    text = f"{count:,} {thing}{'' if count == 1 else 's'}"
    word = verb if count == 1 else verbs or verb
    return f"{text} {word}" if word else text


def ids_of(groups: Sequence[Sequence[str]]) -> str:
    """The first few groups of ids: `ids 3, 7; 5, 9`."""
    return "ids " + "; ".join(", ".join(ids) for ids in groups[:3])
