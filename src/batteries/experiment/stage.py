"""Stage: one stretch of training under one set of hyperparameters.

In:    what the user writes in `Experiment.stages`.
Out:   a frozen, checked declaration.
Next:  `train.run` rebuilds a stage from it, also when resuming.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from math import isfinite
from numbers import Real
from typing import Literal, get_args

from batteries.errors import ConfigError
from batteries.experiment.schedule import SCHEDULES, Schedule, warmed_up
from batteries.files import safe_name

Precision = Literal["fp32", "bf16", "fp16"]
Average = Literal["ema", "swa"]


@dataclass(frozen=True, slots=True)
class Stage:
    """One stretch of training under one set of hyperparameters.

    >>> Stage("all", epochs=3, lr=1e-3, start="best", average="ema").name
    'all'
    """

    name: str
    _: KW_ONLY
    epochs: int
    lr: float = 1e-3
    """Highest learning rate; the schedule multiplies it."""
    weight_decay: float = 0.01
    """For weights of two and more dimensions; norms and biases are never decayed."""
    schedule: str | Schedule = "cosine"
    """`constant`, `linear`, `cosine`, or a function (step, total) -> multiplier."""
    warmup: float = 0.0
    """Share of the updates spent rising to `lr`."""
    batch_size: int | None = None
    """Samples in a batch; None takes the experiment's."""
    accumulate: int = 1
    """Batches per optimizer update; the gradient is the mean over all their samples."""
    clip: float | None = None
    """Largest norm of the gradient, applied once per update."""
    precision: Precision = "fp32"
    """`bf16` and `fp16` run the forward pass under autocast; `fp16` scales the loss."""
    freeze: str | tuple[str, ...] = ()
    """Patterns of parameter names that do not learn, such as `backbone.*`; their batch norms stand still too."""
    start: str = "last"
    """Weights to begin with: `last` or `best` of the stage before (initialisation in the first), or a file."""
    average: Average | None = None
    """Keep averaged weights beside the raw ones, score and predict with them: `ema` or `swa`."""
    decay: float = 0.999
    """Of the EMA; warmed up, so that short stages average too."""
    patience: int | None = None
    """Stop after so many epochs in a row without a better score."""

    def __post_init__(self) -> None:
        safe_name(self.name, "stage")
        if isinstance(self.freeze, str | list):
            object.__setattr__(self, "freeze", (self.freeze,) if isinstance(self.freeze, str) else tuple(self.freeze))
        self._at_least("epochs", 1)
        self._at_least("accumulate", 1)
        self._at_least("batch_size", 1)
        self._at_least("patience", 1)
        for field in ("lr", "weight_decay", "warmup", "clip", "decay"):
            self._finite(field)
        patterns = isinstance(self.freeze, tuple) and all(isinstance(p, str) for p in self.freeze)
        self._within("freeze", patterns, "a pattern of parameter names, or a tuple of them")
        self._within("start", isinstance(self.start, str) and self.start != "", "'last', 'best' or a file's name")
        self._within("lr", self.lr > 0, "above 0")
        self._within("weight_decay", self.weight_decay >= 0, "0 or above")
        self._within("warmup", 0 <= self.warmup < 1, "a share of the updates, 0 <= warmup < 1")
        self._within("clip", self.clip is None or self.clip > 0, "above 0, or None")
        self._within("decay", 0 < self.decay < 1, "between 0 and 1")
        self._within("precision", self.precision in get_args(Precision), f"one of {', '.join(get_args(Precision))}")
        self._within("average", self.average in (None, *get_args(Average)), "None, 'ema' or 'swa'")
        known = self.schedule in SCHEDULES if isinstance(self.schedule, str) else callable(self.schedule)
        self._within("schedule", known, f"one of {', '.join(SCHEDULES)}, or a function (step, total) -> multiplier")

    def _at_least(self, field: str, least: int) -> None:
        value = getattr(self, field)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
            raise ConfigError(f"stage {self.name!r}: {field} must be a whole number >= {least}, got {value!r}")

    def _finite(self, field: str) -> None:
        value = getattr(self, field)
        if value is None and field == "clip":
            return
        if not isinstance(value, Real) or isinstance(value, bool) or not isfinite(value):
            raise ConfigError(f"stage {self.name!r}: {field} must be a finite number, got {value!r}")

    def _within(self, field: str, fits: bool, wanted: str) -> None:
        if not fits:
            raise ConfigError(f"stage {self.name!r}: {field} must be {wanted}, got {getattr(self, field)!r}")

    def multiplier(self, step: int, total: int) -> float:
        """Learning-rate multiplier at update `step` of `total`."""
        schedule = SCHEDULES[self.schedule] if isinstance(self.schedule, str) else self.schedule
        warmup = int(self.warmup * total)
        return (warmed_up(schedule, warmup) if warmup else schedule)(step, total)
