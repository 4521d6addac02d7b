"""Walk: one formula over all rows, block by block, nothing let through that it is not defined on.

In:    members, and a plan: the formula, the values it takes, how near to their borders.
Out:   the result, written into an array that may lie on the disk, as may the members.
Next:  `blend` makes the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.combine.blocks import in_stripes, pieces
from batteries.combine.checks import Domain, Findings, clip_block
from batteries.errors import BlendError

Array = NDArray[np.float64]
Numbered = tuple[int, NDArray[Any]]
"""A member and its number, from 1."""
_BLOCK = 1 << 17
"""Values in a block, of all members: 1 MiB, which stays in the cache of a core."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A formula and what may go into it."""

    how: str
    formula: Callable[[Array], Array]
    domain: Domain
    classes: bool = False
    """Whether columns are the classes of one choice, so that rows add up to 1."""
    clip: float | None = None


def walk(plan: Plan, members: Sequence[Numbered], out: Array) -> None:
    """Write the plan's result for every row into `out`.

    Raises
    ------
    BlendError
        When a value is not in the domain or a row has no result; `out` is then of no use.

    """
    columns = out[0].size
    size = max(1, _BLOCK // (len(members) * columns))
    found = Findings.merged(in_stripes(len(out), size, lambda blocks: _stripe(plan, members, out, size, blocks)))
    found.refuse(plan.how, plan.domain)
    if plan.clip is not None:
        found.warn_of_clipping(*_borders(plan), out.size * len(members))


def _stripe(
    plan: Plan, members: Sequence[Numbered], out: Array, size: int, blocks: Iterator[tuple[int, int]]
) -> Findings:
    found, numbers = Findings(), [number for number, _ in members]
    memory = np.empty(len(members) * size * out[0].size)
    with np.errstate(all="ignore"):
        for a, b in blocks:
            shape = (len(members), b - a, *out.shape[1:])
            block = memory[: len(members) * out[a:b].size].reshape(shape)
            for values, (_, member) in zip(block, members, strict=True):
                values[...] = member[a:b]
            if not found.fit(block, numbers, a, plan.domain, classes=plan.classes):
                continue
            if plan.clip is not None:
                clip_block(block, numbers, a, *_borders(plan), found)
            result = plan.formula(block)
            found.note_results(result, a)
            out[a:b] = result
    return found


def _borders(plan: Plan) -> tuple[float, float]:
    assert plan.clip is not None
    return plan.clip, (1 - plan.clip if plan.domain.high < inf else inf)


def refuse_not_finite(members: Sequence[Numbered]) -> None:
    """Raise BlendError for the first member that holds NaN or infinite values."""
    for number, member in members:
        bad = sum(int((~np.isfinite(member[a:b])).sum()) for a, b in pieces(0, len(member), _BLOCK))
        if bad:
            raise BlendError(f"member {number} has {bad} values that are NaN or infinite; predict them again")
