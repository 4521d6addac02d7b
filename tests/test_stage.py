"""Stage and schedules: a declaration is checked when it is made; a rate depends on the count alone."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from math import cos, inf, nan, pi
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batteries.config import to_plain
from batteries.errors import ConfigError, NotSafeError
from batteries.experiment.schedule import SCHEDULES, constant, cosine, linear, warmed_up
from batteries.experiment.stage import Stage

WRONG = [
    ({"epochs": 0}, r"stage 'a': epochs must be a whole number >= 1, got 0"),
    ({"epochs": 1.0}, r"epochs must be a whole number >= 1, got 1\.0"),
    ({"epochs": True}, r"epochs must be a whole number >= 1, got True"),
    ({"epochs": "3"}, r"epochs must be a whole number >= 1, got '3'"),
    ({"accumulate": 0}, r"accumulate must be a whole number >= 1, got 0"),
    ({"batch_size": 0}, r"batch_size must be a whole number >= 1, got 0"),
    ({"patience": 0}, r"patience must be a whole number >= 1, got 0"),
    ({"lr": 0.0}, r"lr must be above 0, got 0\.0"),
    ({"lr": nan}, r"lr must be a finite number, got nan"),
    ({"lr": inf}, r"lr must be a finite number, got inf"),
    ({"lr": "1e-3"}, r"lr must be a finite number, got '1e-3'"),
    ({"lr": None}, r"lr must be a finite number, got None"),
    ({"weight_decay": -0.1}, r"weight_decay must be 0 or above, got -0\.1"),
    ({"warmup": 1.0}, r"warmup must be a share of the updates, 0 <= warmup < 1, got 1\.0"),
    ({"warmup": 100}, r"warmup must be a share of the updates, 0 <= warmup < 1, got 100"),
    ({"clip": 0.0}, r"clip must be above 0, or None, got 0\.0"),
    ({"clip": inf}, r"clip must be a finite number, got inf"),
    ({"decay": 1.0}, r"decay must be between 0 and 1, got 1\.0"),
    ({"precision": "fp8"}, r"precision must be one of fp32, bf16, fp16, got 'fp8'"),
    ({"average": "mean"}, r"average must be None, 'ema' or 'swa', got 'mean'"),
    ({"schedule": "cosin"}, r"schedule must be one of constant, linear, cosine, or a function \(step, total\)"),
    ({"schedule": [1]}, r"schedule must be one of constant"),
    ({"freeze": 3}, r"freeze must be a pattern of parameter names, or a tuple of them, got 3"),
    ({"freeze": ("a", 1)}, r"freeze must be a pattern of parameter names"),
    ({"start": ""}, r"start must be 'last', 'best' or a file's name, got ''"),
    ({"start": None}, r"start must be 'last', 'best' or a file's name, got None"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG)
def test_a_field_that_cannot_work_is_refused_with_the_stage_and_the_value(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Stage("a", **{"epochs": 1} | fields)


@pytest.mark.parametrize("name", ["", "../a", "a b", 3])
def test_a_stage_needs_a_name_that_a_folder_can_have(name: Any) -> None:
    with pytest.raises(NotSafeError, match=r"stage .* cannot be used as a file name"):
        Stage(name, epochs=1)


def test_a_stage_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Stage("a", epochs=1).epochs = 2  # type: ignore[misc]


def test_the_number_of_epochs_cannot_be_left_out_and_everything_is_named() -> None:
    with pytest.raises(TypeError, match="epochs"):
        Stage("a")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        Stage("a", 3)  # type: ignore[misc]


def test_one_pattern_or_a_list_of_them_becomes_a_tuple() -> None:
    assert Stage("a", epochs=1, freeze="b.*").freeze == ("b.*",)
    assert Stage("a", epochs=1, freeze=["b.*", "c"]).freeze == ("b.*", "c")  # type: ignore[arg-type]


def test_a_number_of_numpy_is_a_number() -> None:
    assert to_plain(Stage("a", epochs=1, lr=np.float32(0.5)))["lr"] == 0.5


def test_a_stage_can_be_recorded_pickled_and_compared() -> None:
    stage = Stage("a", epochs=1, clip=1.0, schedule=linear)
    assert to_plain(stage)["schedule"] == "batteries.experiment.schedule:linear"
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert stage != Stage("a", epochs=2, clip=1.0, schedule=linear)


@settings(deadline=None)
@given(total=st.integers(1, 500), share=st.floats(0, 0.99), name=st.sampled_from(sorted(SCHEDULES)))
def test_a_rate_rises_through_the_warmup_and_never_after_it(total: int, share: float, name: str) -> None:
    stage = Stage("a", epochs=1, schedule=name, warmup=share)
    rates = [stage.multiplier(step, total) for step in range(total)]
    warmup = int(share * total)
    assert all(0 < rate <= 1 for rate in rates)
    assert max(rates) == 1
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


def test_the_values_of_schedules_are_the_formulas() -> None:
    assert [constant(s, 4) for s in range(4)] == [1, 1, 1, 1]
    assert [linear(s, 4) for s in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert [cosine(s, 4) for s in range(5)] == [0.5 * (1 + cos(pi * s / 4)) for s in range(5)]
    assert [warmed_up(linear, 2)(s, 6) for s in range(6)] == [0.5, 1, 1, 0.75, 0.5, 0.25]


def test_a_schedule_past_its_end_stays_at_the_end() -> None:
    assert linear(9, 4) == 0
    assert cosine(9, 4) == cosine(4, 4) == 0
    assert linear(0, 0) == cosine(0, 0) == 1


def test_the_users_own_function_is_a_schedule() -> None:
    stage = Stage("a", epochs=1, schedule=lambda step, total: 1 / (1 + step), warmup=0.5)
    assert [stage.multiplier(s, 4) for s in range(4)] == [0.5, 1.0, 1.0, 0.5]
