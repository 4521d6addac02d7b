"""Tables are checked before anything is built on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

import batteries as bt
from batteries.errors import DataError
from batteries.prepare import table as tables

GOOD = pl.DataFrame({"id": [1, 2], "x": [0.5, 0.5], "target": [0, 1]})


@dataclass(kw_only=True)
class Mine(bt.Experiment):
    metric = bt.Metric.accuracy()

    train: Any = None
    test: Any = None

    def table(self) -> Any:
        return self.train

    def test_table(self) -> Any:
        return self.test


def test_a_good_table_comes_back_as_it_is_lazy_or_not() -> None:
    assert tables.training_table(Mine(train=GOOD)) is GOOD
    assert_frame_equal(tables.training_table(Mine(train=GOOD.lazy())), GOOD)


def test_a_test_table_needs_no_target_and_may_be_absent() -> None:
    test = GOOD.drop("target")
    assert tables.test_table(Mine(test=test)) is test
    assert tables.test_table(Mine()) is None


WRONG = [
    (None, r"Mine\.table\(\) must return a polars DataFrame, got NoneType; pl\.DataFrame\(\.\.\.\) makes one"),
    ({"id": [1]}, r"Mine\.table\(\) must return a polars DataFrame, got dict"),
    (GOOD[:0], r"Mine\.table\(\) has no rows"),
    (
        GOOD.rename({"id": "key"}),
        r"Mine\.table\(\) has no id column 'id'; it has key, x, target\. Name another: id = 'key', or number the rows: "
        r"table\.with_row_index\('id'\)",
    ),
    (
        GOOD.rename({"target": "label"}),
        r"Mine\.table\(\) has no target column 'target'; it has id, x, label\. Add the column, or name another: "
        r"target = 'label'",
    ),
    (GOOD.with_columns(id=pl.col("x")), r"Mine\.table\(\): ids in 'id' must be whole numbers or texts, got Float64"),
    (GOOD.with_columns(id=pl.Series([1, None])), r"Mine\.table\(\): 1 of 2 ids in 'id' are empty"),
    (
        GOOD.with_columns(id=pl.lit(7)),
        r"Mine\.table\(\): 1 ids in 'id' occur more than once \(first: \[7\]\)\. Make them unique",
    ),
    (pl.DataFrame({f"c{i}": [1] for i in range(20)}), r"it has c0, c1, c2, .*c11, \.\.\.\. Name another"),
]


@pytest.mark.parametrize(("table", "message"), WRONG)
def test_a_table_that_cannot_be_used_is_refused_with_the_next_step(table: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        tables.training_table(Mine(train=table))
    assert caught.value.exit_code == 3


def test_the_test_table_is_checked_and_named_too() -> None:
    with pytest.raises(DataError, match=r"Mine\.test_table\(\): 1 ids in 'id' occur more than once \(first: \['a'\]\)"):
        tables.test_table(Mine(test=pl.DataFrame({"id": ["a", "b", "a"]})))


@pytest.mark.parametrize("ids", [["007", "7"], ["é", "e\u0301"], ["1e5", "100000"], ["a", "A"], [2**63 - 1, -1]])
def test_ids_that_only_look_alike_are_different(ids: list[Any]) -> None:
    table = pl.DataFrame({"id": ids, "target": [0, 1]})
    assert tables.training_table(Mine(train=table))["id"].to_list() == ids
