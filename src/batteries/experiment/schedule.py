"""Schedules: the learning rate as a pure function of the count of optimizer updates.

In:    the update count and how many there will be; for a plateau, the scores of the finished epochs.
Out:   a multiplier of the stage's learning rate, from 0 to 1.
Next:  the loop sets it before every update; resuming needs nothing but the count and the scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import cos, isfinite, pi
from numbers import Real

from batteries.errors import ConfigError
from batteries.experiment.metric import Metric

Schedule = Callable[[int, int], float]
"""`schedule(step, total)` -> multiplier; `step` counts from 0 to `total - 1`."""


def constant(step: int, total: int) -> float:
    """1 all the way."""
    return 1.0


def linear(step: int, total: int) -> float:
    """From 1 in a straight line to 0 at `total`."""
    return 1.0 - _done(step, total)


def cosine(step: int, total: int) -> float:
    """From 1 along half a cosine to 0 at `total` (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts)."""
    return _eased(1.0, 0.0, _done(step, total))


@dataclass(frozen=True, kw_only=True, slots=True)
class Cosine:
    """From 1 along half a cosine to `floor` at `total`.

    >>> Cosine(floor=0.1)(10, 10)
    0.1
    """

    floor: float = 0.0

    def __post_init__(self) -> None:
        _share(self, "floor")

    def __call__(self, step: int, total: int) -> float:
        """Return the multiplier at update `step` of `total`."""
        return self.floor + (1.0 - self.floor) * cosine(step, total)


@dataclass(frozen=True, kw_only=True, slots=True)
class OneCycle:
    """Up from `first` to 1 over the share `rise` of the updates, then down to `last`, along half cosines.

    Smith & Topin 2019, arXiv 1708.07120; the updates are counted as in `torch.optim.lr_scheduler.OneCycleLR`, whose
    `div_factor` is 1 / `first` and whose `final_div_factor` is `first` / `last`. The last update is at `last`.

    >>> [round(OneCycle()(step, 10), 2) for step in range(10)]
    [0.04, 0.52, 1.0, 0.95, 0.81, 0.61, 0.39, 0.19, 0.05, 0.0]
    """

    rise: float = 0.3
    first: float = 1 / 25
    last: float = 1 / 25e4

    def __post_init__(self) -> None:
        for name in ("rise", "first", "last"):
            _share(self, name)

    def __call__(self, step: int, total: int) -> float:
        """Return the multiplier at update `step` of `total`."""
        end, top = max(1, total) - 1, self.rise * max(1, total) - 1
        if step < top:
            return _eased(self.first, 1.0, step / top)
        return _eased(1.0, self.last, min(1.0, (step - top) / (end - top)) if end > top else 0.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Steps:
    """1, times `factor` from each of the shares `at` of the updates on.

    >>> [round(Steps(at=(0.5,))(step, 4), 2) for step in range(4)]
    [1.0, 1.0, 0.1, 0.1]
    """

    at: tuple[float, ...] = (1 / 3, 2 / 3)
    factor: float = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.at, list):
            object.__setattr__(self, "at", tuple(self.at))
        if not isinstance(self.at, tuple) or not all(_is_share(share) for share in self.at):
            raise ConfigError(f"schedule Steps: at must be shares of the updates, from 0 to 1, got {self.at!r}")
        _share(self, "factor")

    def __call__(self, step: int, total: int) -> float:
        """Return the multiplier at update `step` of `total`."""
        return float(self.factor ** sum(_done(step, total) >= share for share in self.at))


@dataclass(frozen=True, kw_only=True, slots=True)
class Polynomial:
    """From 1 to `floor` at `total`, as what is left of the updates to the power `power`.

    >>> [Polynomial()(step, 4) for step in range(5)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """

    power: float = 2.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not _is_number(self.power) or self.power <= 0:
            raise ConfigError(f"schedule Polynomial: power must be above 0, got {self.power!r}")
        _share(self, "floor")

    def __call__(self, step: int, total: int) -> float:
        """Return the multiplier at update `step` of `total`."""
        return float(self.floor + (1.0 - self.floor) * (1.0 - _done(step, total)) ** self.power)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plateau:
    """1, times `factor` whenever more than `patience` epochs in a row brought no better score, down to `floor`.

    A score is better when it beats the best before by more than the share `threshold` of it. For `cooldown` epochs
    after a reduction, bad epochs are not counted. For scores of 0 and above this is
    `torch.optim.lr_scheduler.ReduceLROnPlateau` in `rel` mode; for those below 0, the share is of their size.

    >>> Plateau(patience=1).after([0.7, 0.7, 0.6], Metric("auc", higher_is_better=True))
    0.1
    """

    factor: float = 0.1
    patience: int = 2
    threshold: float = 1e-4
    cooldown: int = 0
    floor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("factor", "floor", "threshold"):
            _share(self, name)
        for name in ("patience", "cooldown"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ConfigError(f"schedule Plateau: {name} must be a whole number >= 0, got {value!r}")

    def __call__(self, step: int, total: int) -> float:
        """Return 1, the multiplier before any epoch is scored; `after` knows the scores."""
        return 1.0

    def after(self, scores: Sequence[float | None], metric: Metric) -> float:
        """Return the multiplier after epochs with these scores; None, NaN and infinite ones are bad epochs."""
        multiplier, best, bad, cooling = 1.0, None, 0, 0
        for score in scores:
            better = score is not None and metric.better(score, self._limit(best, metric))
            best, bad = (score, 0) if better else (best, bad + 1)
            if cooling:
                cooling, bad = cooling - 1, 0
            if bad > self.patience:
                multiplier, bad, cooling = max(self.floor, multiplier * self.factor), 0, self.cooldown
        return multiplier

    def held(self, scores: Sequence[float | None], metric: Metric) -> Schedule:
        """Return the schedule until the next score comes: the multiplier after these ones at every update."""
        multiplier = self.after(scores, metric)
        return lambda step, total: multiplier

    def _limit(self, best: float | None, metric: Metric) -> float | None:
        """What a score must beat to count as better than `best`."""
        if best is None:
            return None
        return best * (1 + self.threshold if metric.higher_is_better == (best >= 0) else 1 - self.threshold)


def warmed_up(schedule: Schedule, warmup: int) -> Schedule:
    """`schedule`, after `warmup` updates that rise in a straight line to its first value."""

    def multiplier(step: int, total: int) -> float:
        if step < warmup:
            return (step + 1) / warmup * schedule(0, max(1, total - warmup))
        return schedule(step - warmup, max(1, total - warmup))

    return multiplier


def _done(step: int, total: int) -> float:
    """Share of the updates that are done: step / total, 1 from the end on."""
    return min(1.0, step / max(1, total))


def _eased(start: float, end: float, share: float) -> float:
    """From `start` to `end` along half a cosine."""
    return end + (start - end) * 0.5 * (1.0 + cos(pi * share))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def _is_share(value: object) -> bool:
    return _is_number(value) and 0 <= value <= 1  # type: ignore[operator]


def _share(schedule: object, name: str) -> None:
    if not _is_share(value := getattr(schedule, name)):
        raise ConfigError(f"schedule {type(schedule).__name__}: {name} must be from 0 to 1, got {value!r}")


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "one-cycle": OneCycle(),
    "step": Steps(),
    "polynomial": Polynomial(),
    "plateau": Plateau(),
}
