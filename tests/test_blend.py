"""Blends against references, on random and degenerate inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

import batteries as bt
from batteries.combine.blend import ranks
from batteries.errors import BlendError

generator = np.random.default_rng(0)
MEMBERS = [generator.uniform(0.001, 1, (50, 3)).astype("float32") for _ in range(4)]
WEIGHTS = [1.0, 2.0, 0.0, 5.0]


def test_the_mean_is_numpys_weighted_average() -> None:
    expected = np.average(np.stack(MEMBERS).astype("float64"), axis=0, weights=WEIGHTS)
    np.testing.assert_allclose(bt.blend(MEMBERS, weights=WEIGHTS), expected, rtol=1e-12)


@pytest.mark.parametrize("power", [-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 8.0, 300.0])
def test_the_power_mean_is_scipys(power: float) -> None:
    expected = stats.pmean(np.stack(MEMBERS).astype("float64"), power, axis=0, weights=np.array(WEIGHTS)[:, None, None])
    if power == 300:  # SciPy underflows there; the mean of so high a power is nearly the largest
        expected = np.maximum.reduce([m for m, w in zip(MEMBERS, WEIGHTS, strict=True) if w]).astype("float64")
        np.testing.assert_allclose(bt.blend(MEMBERS, how="power", power=power, weights=WEIGHTS), expected, rtol=0.01)
        return
    np.testing.assert_allclose(bt.blend(MEMBERS, how="power", power=power, weights=WEIGHTS), expected, rtol=1e-12)


def test_the_power_mean_has_the_known_values() -> None:
    known = {-1: 0.4364, 0: 0.4899, 1: 0.55, 2: 0.6042, 4: 0.6760, 8: 0.7336}
    for power, value in known.items():
        assert bt.blend([np.array([0.3]), np.array([0.8])], how="power", power=power)[0] == pytest.approx(
            value, abs=5e-5
        )


def test_the_geometric_mean_is_scipys_and_zero_wherever_a_member_is() -> None:
    np.testing.assert_allclose(
        bt.blend(MEMBERS, how="geometric"), stats.gmean(np.stack(MEMBERS).astype("float64"), axis=0), rtol=1e-12
    )
    assert bt.blend([np.array([0.0, 0.5]), np.array([0.9, 0.5])], how="geometric").tolist() == [0.0, pytest.approx(0.5)]


def test_huge_and_tiny_values_do_not_overflow() -> None:
    big, tiny = np.array([1e300, 1e-300]), np.array([1e299, 1e-299])
    result = bt.blend([big, tiny], how="power", power=50)
    np.testing.assert_allclose(result, np.array([1e300, 1e-299]) * 0.5 ** (1 / 50), rtol=1e-9)


def test_ranks_average_ties_and_take_each_column_alone() -> None:
    assert ranks(np.array([0.2, 0.2, 0.2, 0.9])).tolist() == [0.5, 0.5, 0.5, 1.0]
    for column in range(3):
        expected = np.mean([stats.rankdata(member[:, column]) / 50 for member in MEMBERS], axis=0)
        np.testing.assert_allclose(bt.blend(MEMBERS, how="rank")[:, column], expected, rtol=1e-12)


def test_a_rank_blend_does_not_change_under_a_rising_function() -> None:
    members = [member[:, 0] for member in MEMBERS]
    warped = [members[0] ** 3, np.exp(members[1]), members[2] * 10 + 1, members[3]]
    np.testing.assert_array_equal(bt.blend(members, how="rank"), bt.blend(warped, how="rank"))


unit = arrays("float64", 12, elements=st.floats(0.01, 1.0))


@given(unit, st.sampled_from(["mean", "geometric", "power"]))
def test_identical_members_blend_to_themselves(member: np.ndarray, how: str) -> None:
    np.testing.assert_allclose(bt.blend([member] * 3, how=how), member, rtol=1e-12)


@given(st.lists(unit, min_size=2, max_size=4), st.sampled_from(["mean", "geometric", "power", "rank"]), st.randoms())
def test_order_of_members_and_rows_does_not_matter(members: list[np.ndarray], how: str, random: object) -> None:
    shuffled = list(members)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    np.testing.assert_allclose(bt.blend(members, how=how), bt.blend(shuffled, how=how), rtol=1e-12)
    rows = np.random.default_rng(1).permutation(12)
    np.testing.assert_allclose(
        bt.blend(members, how=how)[rows], bt.blend([member[rows] for member in members], how=how), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"members": []}, "nothing to blend"),
        ({"members": [np.ones(3), np.ones(4)]}, r"member 2 has shape \(4,\), member 1 has \(3,\)"),
        ({"members": [np.ones(3), np.array([1, np.nan, 1])]}, "member 2 has 1 values that are NaN"),
        ({"members": [np.ones(3), np.array(["a"] * 3)]}, "member 2 holds <U1, not numbers"),
        ({"members": [np.ones(3)] * 2, "weights": [1.0]}, "2 members need 2 weights, got 1"),
        ({"members": [np.ones(3)] * 2, "weights": [1.0, -1.0]}, "0 or above"),
        ({"members": [np.ones(3)] * 2, "weights": [0.0, 0.0]}, "not all 0"),
        ({"members": [np.ones(3)] * 2, "weights": [1.0, np.nan]}, "finite"),
        ({"members": [np.ones(3), -np.ones(3)], "how": "power"}, "need values 0 or above, found -1.0"),
        ({"members": [np.ones(3), np.zeros(3)], "how": "power", "power": -1.0}, "need values above 0"),
        ({"members": [np.ones(3)], "how": "power", "power": np.inf}, "power must be a finite number"),
        ({"members": [np.ones(3)], "how": "median"}, "no blend 'median'; choose one of mean"),
    ],
)
def test_what_cannot_be_blended_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BlendError, match=message):
        bt.blend(**arguments)  # type: ignore[arg-type]
