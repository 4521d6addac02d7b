"""Stage: one stretch of training under one set of hyperparameters.

In:    what the user writes in `Experiment.stages`.
Out:   a frozen, checked declaration.
Next:  `train.run` rebuilds a stage from it, also when resuming.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from math import isfinite
from numbers import Real
from typing import Any, Literal, get_args

from batteries.errors import ConfigError
from batteries.experiment.metric import Metric
from batteries.experiment.schedule import SCHEDULES, Plateau, Schedule, warmed_up
from batteries.files import safe_name

Precision = Literal["fp32", "bf16", "fp16"]
Average = Literal["ema", "swa"]
OnNan = Literal["stop", "skip", "restore"]


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
    layer_decay: float | None = None
    """Each layer learns at this share of the rate of the layer after it; the last one learns at `lr`."""
    lr_of: Mapping[str, float] = field(default_factory=dict, hash=False)
    """Patterns of parameter names and what multiplies `lr` for them, such as `{"backbone.*": 0.1}`."""
    weight_decay: float = 0.01
    """For weights of two and more dimensions; norms and biases are never decayed."""
    schedule: str | Schedule = "cosine"
    """`constant`, `linear`, `cosine`, `one-cycle`, `step`, `polynomial`, `plateau`, one of these with numbers of its
    own such as `OneCycle(rise=0.1)`, or a function (step, total) -> multiplier."""
    warmup: float = 0.0
    """Share of the updates spent rising to the first rate of the schedule."""
    batch_size: int | None = None
    """Samples in a batch; None takes the experiment's."""
    accumulate: int = 1
    """Batches per optimizer update; the gradient is the mean over all their samples."""
    clip: float | None = None
    """Largest norm of the gradient, applied once per update."""
    clip_value: float | None = None
    """Largest absolute value of an entry of the gradient, applied once per update, before the norm."""
    precision: Precision = "fp32"
    """`bf16` and `fp16` run the forward pass under autocast; `fp16` scales the loss."""
    channels_last: bool | None = None
    """Keep images and 2-d convolutions in the order channel by channel; None: where it is known to be faster."""
    compile: bool = False
    """Run the training step through `torch.compile`."""
    recompute: str | tuple[str, ...] = ()
    """Patterns of module names whose activations are computed again in the backward pass instead of kept
    (activation checkpointing): less memory, more time, the same gradients."""
    freeze: str | tuple[str, ...] = ()
    """Patterns of parameter names that do not learn, such as `backbone.*`; their batch norms stand still too."""
    start: str = "last"
    """Weights to begin with: `last`, `best` or `average` (the mean of the few best) of the stage before
    (initialisation in the first), or a file of weights that fit the whole model: load a part of one in `model()`,
    with `load_weights(..., partial=True)`."""
    average: Average | None = None
    """Keep averaged weights beside the raw ones, score and predict with them: `ema` or `swa`."""
    decay: float = 0.999
    """Of the EMA; warmed up, so that short stages average too."""
    patience: int | None = None
    """Stop after so many epochs in a row without a better score."""
    on_nan: OnNan = "stop"
    """When the loss or the gradient of an update is not finite: `stop` with an error, `skip` the update, or
    `restore` the newest checkpoint with a score and go on."""
    nan_limit: int = 10
    """How many updates of the stage may be skipped or restored."""
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """Fields of the experiment that have other values in this stage, such as `{"image_size": 224}`."""

    def __post_init__(self) -> None:
        safe_name(self.name, "stage")
        for name in ("freeze", "recompute"):
            if isinstance(patterns := getattr(self, name), str | list):
                object.__setattr__(self, name, (patterns,) if isinstance(patterns, str) else tuple(patterns))
        for name in ("lr_of", "fields"):
            if isinstance(mapping := getattr(self, name), Mapping):
                object.__setattr__(self, name, dict(mapping))
        for name, fits, wanted in _CHECKS:
            value = getattr(self, name)
            if not (value is None and name in _MAY_BE_NONE) and not fits(value):
                raise ConfigError(f"stage {self.name!r}: {name} must be {wanted}, got {value!r}")

    def multiplier(
        self, step: int, total: int, scores: Sequence[float | None] = (), metric: Metric | None = None
    ) -> float:
        """Learning-rate multiplier at update `step` of `total`.

        Parameters
        ----------
        scores
            Validation scores of the finished epochs of the stage; only a `Plateau` looks at them.
        metric
            Says which way is up; not needed without scores.

        Raises
        ------
        ConfigError
            When the schedule returns what no learning rate can be multiplied by; scores without a metric.

        """
        schedule = SCHEDULES[self.schedule] if isinstance(self.schedule, str) else self.schedule
        if isinstance(schedule, Plateau) and scores:
            if metric is None:
                raise ConfigError(f"stage {self.name!r}: a plateau needs the metric of the scores, for which way is up")
            schedule = schedule.held(scores, metric)
        warmup = int(self.warmup * total)
        multiplier = (warmed_up(schedule, warmup) if warmup else schedule)(step, total)
        if not _is_finite(multiplier) or multiplier < 0:
            raise ConfigError(
                f"stage {self.name!r}: schedule gave {multiplier!r} at update {step} of {total};"
                " it must return a finite number, 0 or above"
            )
        return multiplier


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and isfinite(value)


def _is_count(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_one_of(names: object) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in get_args(names)


def _are_patterns(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(pattern, str) for pattern in value)


def _are_multipliers(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(pattern, str) and _is_finite(number) and number >= 0 for pattern, number in value.items()
    )


def _are_fields(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(name, str) and name.isidentifier() for name in value)


def _is_schedule(value: Any) -> bool:
    return value in SCHEDULES if isinstance(value, str) else callable(value) and not isinstance(value, type)


_FINITE = "a finite number"
_YES_OR_NO = "True or False"
_MAY_BE_NONE = frozenset({"batch_size", "patience", "clip", "clip_value", "layer_decay", "channels_last", "average"})
_CHECKS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    *(
        (name, _is_count(least), f"a whole number >= {least}")
        for name, least in {"epochs": 1, "accumulate": 1, "batch_size": 1, "patience": 1, "nan_limit": 0}.items()
    ),
    *(
        (name, _is_finite, _FINITE)
        for name in ("lr", "weight_decay", "warmup", "clip", "clip_value", "decay", "layer_decay")
    ),
    ("lr", lambda value: value > 0, "above 0"),
    ("layer_decay", lambda value: 0 < value <= 1, "above 0 and at most 1, or None"),
    ("lr_of", _are_multipliers, "a dict of patterns of parameter names and multipliers of lr, finite, 0 or above"),
    ("weight_decay", lambda value: value >= 0, "0 or above"),
    ("schedule", _is_schedule, f"one of {', '.join(SCHEDULES)}, or a function (step, total) -> multiplier"),
    ("warmup", lambda value: 0 <= value < 1, "a share of the updates, 0 <= warmup < 1"),
    ("clip", lambda value: value > 0, "above 0, or None"),
    ("clip_value", lambda value: value > 0, "above 0, or None"),
    ("precision", _is_one_of(Precision), f"one of {', '.join(get_args(Precision))}"),
    ("channels_last", lambda value: isinstance(value, bool), f"{_YES_OR_NO}, or None"),
    ("compile", lambda value: isinstance(value, bool), _YES_OR_NO),
    ("recompute", _are_patterns, "a pattern of module names, or a tuple of them"),
    ("freeze", _are_patterns, "a pattern of parameter names, or a tuple of them"),
    ("start", lambda value: isinstance(value, str) and value != "", "'last', 'best', 'average' or a file's name"),
    ("average", _is_one_of(Average), "None, 'ema' or 'swa'"),
    ("decay", lambda value: 0 < value < 1, "between 0 and 1"),
    ("on_nan", _is_one_of(OnNan), f"one of {', '.join(get_args(OnNan))}"),
    ("fields", _are_fields, "a dict of names of the experiment's fields and their values"),
)
"""Field, what its value must satisfy, and that in words; in order, finite before in range."""
