"""Segments: where one model wins and where it loses."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteries.experiment import Metric
from batteries.improve.segments import DISTANCE, distance, moved, parts, segments
from batteries.score.resample import Groups


def test_a_model_that_is_better_on_one_part_and_worse_on_another_is_found_out() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat(["left", "middle", "right"], 200)
    noise, targets = random.normal(size=600), np.zeros(600)
    first, second = noise.copy(), noise.copy()
    second[labels == "left"] *= 0.5
    second[labels == "right"] *= 1.5
    found = {s.name: s for s in segments(Metric.rmse(), targets, first, second, labels)}
    assert [(s.rows, s.measure) for s in found.values()] == [(200, "rmse")] * 3
    assert found["left"].gain > 0 > found["right"].gain
    assert found["middle"].gain == 0
    assert {name: s.stands_out for name, s in found.items()} == {"left": True, "middle": False, "right": True}
    assert found["left"].first == pytest.approx(Metric.rmse()(targets[:200], first[:200]), rel=1e-12)


def test_where_nothing_differs_few_parts_stand_out() -> None:
    """Two models of equal noise, 10 parts, 40 times: a family with a false one in about 2 of 40."""
    false = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        first, second = random.normal(size=(2, 400))
        found = segments(Metric.mae(), np.zeros(400), first, second, np.arange(400) % 10, seed=seed)
        false += any(segment.stands_out for segment in found)
    assert false <= 6  # 1 in 100 for a Binomial(40, 0.05)


def test_parts_on_which_the_metric_is_undefined_are_measured_by_the_distance_to_the_target() -> None:
    targets = np.arange(100) % 2
    first, second = np.full(100, 0.5), 0.5 + 0.1 * targets
    found = segments(Metric.auc(), targets, first, second, targets)
    assert [(s.name, s.measure) for s in found] == [("0", "distance"), ("1", "distance")]
    assert [s.gain for s in found] == pytest.approx([0.0, 0.1])
    assert segments(Metric.auc(), targets, first, second, np.arange(100) // 50)[0].measure == "auc"


def test_too_few_rows_have_no_p_and_groups_are_drawn_whole_within_a_part() -> None:
    random = np.random.default_rng(0)
    labels = np.array(["many"] * 400 + ["few"] * 19)
    targets = np.zeros(419)
    patients = np.arange(419) // 40
    shift = np.where(patients % 2 == 0, 0.9, 1.1)
    first, second = np.ones(419), shift + 0.01 * random.normal(size=419)
    second -= second[:400].mean() - 0.98
    few, many = segments(Metric.mae(), targets, first, second, labels)
    grouped = segments(Metric.mae(), targets, first, second, labels, how=Groups(patients))
    assert few.p is None
    assert not few.stands_out
    assert many.stands_out
    assert not grouped[1].stands_out
    alone = segments(Metric.mae(), targets, first, second, patients, how=Groups(patients))
    assert [segment.p for segment in alone] == [None] * 11


def test_numbers_of_many_values_are_divided_into_tenths_and_rare_texts_joined() -> None:
    tenths = parts(np.arange(1000) / 10)
    assert [len(rows) for _, rows in tenths] == [100] * 10
    assert tenths[0][0] == "0 to 9.99"
    names = [f"town-{number:02}" for number in range(30)] + ["town-00"] * 5
    texts = parts(pl.Series("town", names))
    assert len(texts) == 20
    assert texts[-1][0] == "11 rarer values"
    assert len(texts[0][1]) == 6


def test_rows_without_a_value_are_a_part() -> None:
    assert [(name, rows.tolist()) for name, rows in parts(pl.Series("x", [1.5, None, 1.5, float("nan")]))] == [
        ("1.5", [0, 2]),
        ("no value", [1, 3]),
    ]
    assert [name for name, _ in parts(pl.Series("flag", [True, None, False]))] == ["false", "true", "no value"]


@given(st.lists(st.integers(-30, 30) | st.none(), min_size=1, max_size=80))
def test_every_row_is_in_one_part(values: list[int | None]) -> None:
    rows = np.concatenate([rows for _, rows in parts(pl.Series("x", values, dtype=pl.Int64))])
    assert sorted(rows.tolist()) == list(range(len(values)))


def test_the_distance_is_to_the_target_or_to_certainty_of_its_class() -> None:
    codes = np.array([2, 0])
    chances = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.0]])
    assert distance(codes, chances) == pytest.approx([0.3, 0.5])
    assert distance(np.array([1, 0]), np.array([[0.7], [0.2]])) == pytest.approx([0.3, 0.2])
    assert distance(np.array([[1.0, 2.0]]), np.array([[2.0, 4.0]])) == pytest.approx([1.5])
    assert distance(np.array([0.5, 1.5]), chances) is None
    assert distance(np.array([3, 0]), chances) is None
    assert DISTANCE(codes, chances) == pytest.approx(0.4)
    assert np.isnan(DISTANCE(np.array([3, 0]), chances))


def test_the_rows_that_moved_most_are_named() -> None:
    ids = pl.Series("id", ["a", "b", "c", "d"])
    found = moved(ids, np.zeros(4), np.array([1.0, 1.0, 1.0, 1.0]), np.array([0.5, 1.0, 1.2, 0.1]), most=2)
    assert found is not None
    assert (found.nearer, found.farther, found.equal) == (2, 1, 1)
    assert (found.gained, found.lost) == (("d", "a"), ("c",))
    assert moved(ids, np.array([0.5] * 4), np.zeros((4, 2)), np.zeros((4, 2))) is None
