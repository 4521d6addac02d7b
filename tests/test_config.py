"""Config: dataclasses become plain data and back, and what does not fit is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import pytest

from batteries.config import check_values, parse_overrides, to_plain
from batteries.errors import ConfigError
from batteries.files import canonical_json

if TYPE_CHECKING:
    from fractions import Fraction


@dataclass
class Inner:
    depth: int = 2


@dataclass
class Fields:
    lr: float = 1e-3
    width: int = 8
    name: str = "a"
    flip: bool = False
    average: str | None = None
    mode: Literal["ema", "swa"] = "ema"
    widths: tuple[int, ...] = (8, 8)
    inner: Inner = field(default_factory=Inner)
    array: np.ndarray[Any, Any] | None = None
    shared: ClassVar[int] = 3


def test_a_dataclass_becomes_what_json_can_hold() -> None:
    plain = to_plain(Fields(widths=(1, 2)))
    assert plain["widths"] == [1, 2]
    assert plain["inner"] == {"depth": 2}
    assert "shared" not in plain
    canonical_json(plain)


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (Path("a/b"), "a/b"),
        ({"b", "a"}, ["a", "b"]),
        ({1: (2,)}, {"1": [2]}),
        (range(3), [0, 1, 2]),
        (len, "builtins:len"),
        (Inner, f"{__name__}:Inner"),
    ],
)
def test_every_kind_of_value_has_a_plain_form(value: object, plain: object) -> None:
    result = to_plain(value)
    assert result == plain
    assert type(result) is type(plain)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float32("-inf")])
def test_a_number_that_is_not_finite_is_no_config_value(value: float) -> None:
    with pytest.raises(ConfigError, match="cannot be a config value; use None to say 'none'"):
        to_plain(value)


def test_a_value_without_a_text_form_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"a field holds array\(\[0\]\); use numbers, texts, lists or dataclasses"):
        to_plain({"a": np.zeros(1, dtype=int)})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("lr=3e-4", 3e-4),
        (" lr = 1 ", 1.0),
        ("width=16", 16),
        ("name=x=y", "x=y"),
        ("name=", ""),
        ("name=None", "None"),
        ("flip=true", True),
        ("flip=0", False),
        ("average=none", None),
        ("average=None", None),
        ("average=ema", "ema"),
        ("mode=swa", "swa"),
    ],
)
def test_a_text_is_read_as_the_type_of_its_field(text: str, value: object) -> None:
    (read,) = parse_overrides(Fields, [text]).values()
    assert read == value
    assert type(read) is type(value)


def test_the_last_of_two_texts_for_one_field_wins() -> None:
    assert parse_overrides(Fields, ["lr=1", "lr=2"]) == {"lr": 2.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", r"--set 'lr': write name=value"),
        ("rate=1", r"Fields has no field 'rate'; its fields are array, average, flip, inner, lr, mode, name, width"),
        ("shared=1", r"Fields has no field 'shared'"),
        ("lr=fast", r"Fields\.lr = 'fast': Input should be a valid number"),
        ("lr=none", r"Fields\.lr = 'none': Input should be a valid number"),
        ("width=1.5", r"Fields\.width = '1\.5': Input should be a valid integer"),
        ("mode=mean", r"Fields\.mode = 'mean': Input should be 'ema' or 'swa'"),
        ("array=1", r"Fields\.array is a .*ndarray.*, which cannot be set from a text"),
    ],
)
def test_a_text_that_does_not_fit_is_refused_with_the_field_and_the_value(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_overrides(Fields, [text])


def test_plain_values_of_a_record_come_back_as_the_fields_they_were() -> None:
    fields = Fields(lr=1, widths=(3,), inner=Inner(5), average="swa")
    assert Fields(**check_values(Fields, to_plain(fields) | {"array": None})) == fields


def test_a_type_that_only_a_type_checker_knows_is_said_so() -> None:
    @dataclass
    class Late:
        share: Fraction | None = None
        lr: float = 0.1

    assert check_values(Late, {}) == {}
    with pytest.raises(ConfigError, match=r"Late is not known at run time .*'Fraction'.*import it outside TYPE_CHECK"):
        check_values(Late, {"lr": 1})


def test_callables_of_one_name_in_one_place_are_one_value() -> None:
    def schedule(step: int, total: int) -> float:
        return 1.0

    same: Callable[[int, int], float] = schedule
    assert to_plain(same) == f"{__name__}:{schedule.__qualname__}"


def test_a_list_is_typed_as_json() -> None:
    @dataclass
    class Layers:
        hidden: tuple[int, ...] = (8,)

    assert parse_overrides(Layers, ["hidden=[64,32]"]) == {"hidden": (64, 32)}
    with pytest.raises(ConfigError, match=r"Layers\.hidden = '8,8'"):
        parse_overrides(Layers, ["hidden=8,8"])
