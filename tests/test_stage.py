"""Stage and schedules: a declaration is checked when it is made; a rate depends on the count alone."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError
from math import inf, nan
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from batteries.config import to_plain
from batteries.errors import ConfigError, NotSafeError
from batteries.experiment.metric import Metric
from batteries.experiment.schedule import (
    Cosine,
    OneCycle,
    Plateau,
    Polynomial,
    Schedule,
    Steps,
    constant,
    cosine,
    linear,
)
from batteries.experiment.stage import Stage
from batteries.files import canonical_json

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
    ({"epochs": None}, r"epochs must be a whole number >= 1, got None"),
    ({"nan_limit": -1}, r"nan_limit must be a whole number >= 0, got -1"),
    ({"nan_limit": None}, r"nan_limit must be a whole number >= 0, got None"),
    ({"clip_value": 0}, r"clip_value must be above 0, or None, got 0"),
    ({"clip_value": nan}, r"clip_value must be a finite number, got nan"),
    ({"layer_decay": 0}, r"layer_decay must be above 0 and at most 1, or None, got 0"),
    ({"layer_decay": 1.1}, r"layer_decay must be above 0 and at most 1, or None, got 1\.1"),
    ({"layer_decay": True}, r"layer_decay must be a finite number, got True"),
    (
        {"lr_of": {"a": -1}},
        r"lr_of must be a dict of patterns of parameter names and multipliers of lr, .* got {'a': -1}",
    ),
    ({"lr_of": {"a": inf}}, r"lr_of must be a dict of patterns"),
    ({"lr_of": {1: 0.5}}, r"lr_of must be a dict of patterns"),
    ({"lr_of": None}, r"lr_of must be a dict of patterns .*, got None"),
    ({"lr_of": [("a", 1)]}, r"lr_of must be a dict of patterns"),
    ({"channels_last": 1}, r"channels_last must be True or False, or None, got 1"),
    ({"compile": None}, r"compile must be True or False, got None"),
    ({"compile": "yes"}, r"compile must be True or False, got 'yes'"),
    ({"recompute": 3}, r"recompute must be a pattern of module names, or a tuple of them, got 3"),
    ({"on_nan": "ignore"}, r"on_nan must be one of stop, skip, restore, got 'ignore'"),
    ({"on_nan": None}, r"on_nan must be one of stop, skip, restore, got None"),
    ({"fields": {"image size": 1}}, r"fields must be a dict of names of the experiment's fields and their values"),
    ({"fields": {1: 1}}, r"fields must be a dict of names"),
    ({"fields": ["image_size"]}, r"fields must be a dict of names"),
    ({"precision": ["fp32"]}, r"precision must be one of fp32, bf16, fp16, got \['fp32'\]"),
    ({"schedule": Cosine}, r"schedule must be one of .* got <class"),
    ({"decay": 1.0}, r"decay must be between 0 and 1, got 1\.0"),
    ({"precision": "fp8"}, r"precision must be one of fp32, bf16, fp16, got 'fp8'"),
    ({"average": "mean"}, r"average must be None, 'ema' or 'swa', got 'mean'"),
    (
        {"schedule": "cosin"},
        r"schedule must be one of constant, linear, cosine, one-cycle, step, polynomial, plateau, or a function",
    ),
    ({"schedule": [1]}, r"schedule must be one of constant"),
    ({"freeze": 3}, r"freeze must be a pattern of parameter names, or a tuple of them, got 3"),
    ({"freeze": ("a", 1)}, r"freeze must be a pattern of parameter names"),
    ({"start": ""}, r"start must be 'last', 'best', 'average' or a file's name, got ''"),
    ({"start": None}, r"start must be 'last', 'best', 'average' or a file's name, got None"),
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


def test_patterns_of_modules_to_recompute_become_a_tuple_too() -> None:
    assert Stage("a", epochs=1, recompute="blocks.*").recompute == ("blocks.*",)
    assert Stage("a", epochs=1, recompute=["a", "b"]).recompute == ("a", "b")  # type: ignore[arg-type]


def test_dicts_are_copied_so_that_a_stage_cannot_change_behind_its_back() -> None:
    rates, values = {"0.*": 0.1}, {"image_size": 224}
    stage = Stage("a", epochs=1, lr_of=MappingProxyType(rates), fields=values)
    rates["1.*"], values["image_size"] = 0.5, 112
    assert (type(stage.lr_of), stage.lr_of) == (dict, {"0.*": 0.1})
    assert stage.fields == {"image_size": 224}
    assert Stage("b", epochs=1).fields is not Stage("c", epochs=1).fields


def test_a_stage_with_dicts_is_compared_by_them_and_still_has_a_hash() -> None:
    one, other = (Stage("a", epochs=1, fields={"smoothing": value}) for value in (0.0, 0.1))
    assert one != other
    assert len({one, other, Stage("a", epochs=1, fields={"smoothing": 0.0})}) == 2


def test_a_number_of_numpy_is_a_number() -> None:
    assert to_plain(Stage("a", epochs=1, lr=np.float32(0.5)))["lr"] == 0.5


def test_a_stage_can_be_recorded_pickled_and_compared() -> None:
    stage = Stage("a", epochs=1, clip=1.0, schedule=linear)
    assert to_plain(stage)["schedule"] == "batteries.experiment.schedule:linear"
    assert pickle.loads(pickle.dumps(stage)) == stage
    assert stage != Stage("a", epochs=2, clip=1.0, schedule=linear)


def test_the_users_own_function_is_a_schedule() -> None:
    stage = Stage("a", epochs=1, schedule=lambda step, total: 1 / (1 + step), warmup=0.5)
    assert [stage.multiplier(s, 4) for s in range(4)] == [0.5, 1.0, 1.0, 0.5]


@pytest.mark.parametrize("gives", [nan, inf, -0.1, None, "1", True])
def test_a_schedule_that_gives_no_multiplier_is_named_with_the_update(gives: Any) -> None:
    stage = Stage("a", epochs=1, schedule=lambda step, total: gives)
    with pytest.raises(ConfigError, match=r"stage 'a': schedule gave .* at update 3 of 4; it must return a finite"):
        stage.multiplier(3, 4)


def test_schedules_with_other_numbers_have_other_plain_forms() -> None:
    schedules: list[Schedule] = [constant, linear, cosine, Cosine(), Cosine(floor=0.1), OneCycle(), OneCycle(rise=0.1)]
    schedules += [Steps(), Steps(at=(0.5,)), Polynomial(), Polynomial(power=1.0), Plateau(), Plateau(patience=0)]
    plain = [canonical_json(to_plain(Stage("a", epochs=1, schedule=schedule))) for schedule in schedules]
    assert len(set(plain)) == len(schedules)
    assert to_plain(Cosine(floor=0.5)) == {"class": "batteries.experiment.schedule:Cosine", "floor": 0.5}


def test_only_a_plateau_looks_at_the_scores() -> None:
    error = Metric("error", higher_is_better=False)
    bad = [0.1, 0.2, None]
    for schedule, wanted in (("plateau", 1.0), (Plateau(patience=1), 0.1), ("constant", 1.0)):
        assert Stage("a", epochs=1, schedule=schedule).multiplier(3, 4, bad, error) == wanted
    assert Stage("a", epochs=1, schedule=Plateau(patience=1)).multiplier(3, 4) == 1.0
    with pytest.raises(ConfigError, match=r"stage 'a': a plateau needs the metric of the scores"):
        Stage("a", epochs=1, schedule="plateau").multiplier(3, 4, bad)


def test_a_warmup_before_a_plateau_rises_to_what_the_scores_left() -> None:
    error = Metric("error", higher_is_better=False)
    stage = Stage("a", epochs=1, schedule=Plateau(patience=0, factor=0.5), warmup=0.5)
    assert [stage.multiplier(step, 8, [], error) for step in range(8)] == [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]
    assert [stage.multiplier(step, 8, [0.1, 0.1], error) for step in range(3, 8)] == [0.5] * 5
    assert stage.multiplier(0, 8, [0.1, 0.1], error) == 0.125
