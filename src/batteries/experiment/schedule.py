"""Schedules: the learning rate as a pure function of the count of optimizer updates.

In:    the update count and how many there will be.
Out:   a multiplier of the stage's learning rate.
Next:  the loop sets it before every update; resuming needs nothing but the count.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi

Schedule = Callable[[int, int], float]
"""`schedule(step, total)` -> multiplier; `step` counts from 0 to `total - 1`."""


def constant(step: int, total: int) -> float:
    """1 all the way."""
    return 1.0


def linear(step: int, total: int) -> float:
    """From 1 in a straight line to 0 at `total`."""
    return max(0.0, 1.0 - step / max(1, total))


def cosine(step: int, total: int) -> float:
    """From 1 along half a cosine to 0 at `total` (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts)."""
    return 0.5 * (1.0 + cos(pi * min(1.0, step / max(1, total))))


def warmed_up(schedule: Schedule, warmup: int) -> Schedule:
    """`schedule`, after `warmup` updates that rise in a straight line to its first value."""

    def multiplier(step: int, total: int) -> float:
        if step < warmup:
            return (step + 1) / warmup * schedule(0, max(1, total - warmup))
        return schedule(step - warmup, max(1, total - warmup))

    return multiplier


SCHEDULES: dict[str, Schedule] = {"constant": constant, "linear": linear, "cosine": cosine}
