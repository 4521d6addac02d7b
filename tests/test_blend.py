"""Blends against references in float64, on random and degenerate inputs; laws that every formula keeps."""

from __future__ import annotations

import math
import random as python_random
import warnings
from itertools import pairwise
from typing import Any, get_args

import mpmath
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import special, stats

import batteries as bt
from batteries.combine import walk as walking
from batteries.combine.blend import How, blend_predictions
from batteries.combine.ranks import ranks
from batteries.errors import BlendError
from batteries.experiment.predictions import Predictions

generator = np.random.default_rng(0)
MEMBERS = [generator.uniform(0.001, 1, (50, 3)).astype("float32") for _ in range(5)]
EXACT = np.stack(MEMBERS).astype("float64")
WEIGHTS = [1.0, 2.0, 0.0, 5.0, 1.0]
SHARES = (np.array(WEIGHTS) / 9)[:, None, None]
CLASSES = [member / member.sum(axis=1, keepdims=True) for member in EXACT]
ALL = get_args(How)
ALIKE = ("median", "trimmed")


def same(found: Any, expected: Any, rtol: float = 1e-12) -> None:
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=0)


def any_blend(members: list[np.ndarray], how: str, **options: Any) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*hold one value in all their rows")
        return bt.blend(members, how=how, **options)  # type: ignore[arg-type]


# Formulas against references


def test_the_mean_is_numpys_weighted_average() -> None:
    same(bt.blend(MEMBERS, weights=WEIGHTS), np.average(EXACT, axis=0, weights=WEIGHTS))
    same(bt.blend(MEMBERS), EXACT.mean(axis=0))


@pytest.mark.parametrize("power", [-30.0, -3.0, -1.0, -0.2, 0.0, 0.2, 0.5, 1.0, 2.0, 8.0, 20.0])
def test_the_power_mean_is_scipys(power: float) -> None:
    expected = stats.pmean(EXACT, power, axis=0, weights=np.array(WEIGHTS)[:, None, None])
    same(bt.blend(MEMBERS, how="power", power=power, weights=WEIGHTS), expected)


@pytest.mark.parametrize("power", [1e-23, 1e-21, 1e-9, -1e-9, 1e-3, -0.049, 0.051, 300.0, -300.0, 1e5, -1e5])
def test_a_power_mean_is_right_where_the_plain_formula_fails(power: float) -> None:
    members = np.array([[1e-5, 0.3, 1e-200, 7e200], [0.9, 0.31, 3e-200, 2e-200], [0.5, 0.3, 1e-190, 1.0]])
    shares = [0.7, 0.1, 0.2]

    def exact(column: np.ndarray) -> float:
        with mpmath.workdps(60):
            total = mpmath.fsum(mpmath.mpf(w) * mpmath.mpf(x) ** power for w, x in zip(shares, column, strict=True))
            return float((total / mpmath.fsum(map(mpmath.mpf, shares))) ** (1 / mpmath.mpf(power)))

    same(bt.blend(list(members), how="power", power=power, weights=shares), [exact(column) for column in members.T])


def test_the_power_mean_has_the_known_values() -> None:
    known = {-1: 0.4364, 0: 0.4899, 1: 0.55, 2: 0.6042, 4: 0.6760, 8: 0.7336, math.inf: 0.8, -math.inf: 0.3}
    for power, value in known.items():
        assert bt.blend([np.array([0.3]), np.array([0.8])], how="power", power=power)[0] == pytest.approx(
            value, abs=5e-5
        )


def test_the_infinite_powers_are_the_largest_and_the_least_of_the_members_that_count() -> None:
    counted = EXACT[[0, 1, 3, 4]]
    same(bt.blend(MEMBERS, how="power", power=math.inf, weights=WEIGHTS), counted.max(axis=0), rtol=0)
    same(bt.blend(MEMBERS, how="power", power=-math.inf, weights=WEIGHTS), counted.min(axis=0), rtol=0)
    same(bt.blend([np.array([0.0, 0.0]), np.array([0.0, 2.0])], how="power", power=3), [0, 2 * 0.5 ** (1 / 3)])


def test_harmonic_is_scipys() -> None:
    expected = stats.hmean(EXACT, axis=0, weights=np.broadcast_to(SHARES, EXACT.shape))
    same(bt.blend(MEMBERS, how="harmonic", weights=WEIGHTS), expected)


def test_the_geometric_mean_is_scipys_and_zero_wherever_a_member_is() -> None:
    same(bt.blend(MEMBERS, how="geometric"), stats.gmean(EXACT, axis=0))
    same(bt.blend(MEMBERS, how="geometric", weights=WEIGHTS), stats.gmean(EXACT, axis=0, weights=SHARES + 0 * EXACT))
    assert bt.blend([np.array([0.0, 0.5]), np.array([0.9, 0.5])], how="geometric").tolist() == [0.0, pytest.approx(0.5)]
    assert bt.blend([np.array([0.0]), np.array([0.9])], how="geometric", weights=[0, 1])[0] == pytest.approx(0.9)


def test_the_opinion_pool_is_the_geometric_mean_of_each_row_over_its_sum() -> None:
    plain = stats.gmean(EXACT, axis=0, weights=SHARES + 0 * EXACT)
    found = bt.blend(MEMBERS, how="geometric", normalize=True, weights=WEIGHTS)
    same(found, plain / plain.sum(axis=1, keepdims=True))
    tiny = [np.array([[1e-300, 1e-305]]), np.array([[1e-308, 1e-303]])]  # their product is 0 in float64
    same(bt.blend(tiny, how="geometric", normalize=True, weights=[1, 1]), [[0.5, 0.5]])


def test_the_opinion_pool_is_the_nearest_to_its_members_by_divergence() -> None:
    pool = bt.blend(CLASSES, how="geometric", normalize=True)[0]
    members = [member[0] for member in CLASSES]

    def divergence(q: np.ndarray) -> float:
        return sum(float(special.rel_entr(q, p).sum()) for p in members)

    for moved in ([1e-3, -1e-3, 0], [0, 1e-3, -1e-3], [-1e-3, 0, 1e-3]):
        assert divergence(pool + np.array(moved)) > divergence(pool)


def test_logit_is_the_sigmoid_of_the_mean_logit() -> None:
    column = EXACT[:, :, 0]
    expected = special.expit(np.average(special.logit(column), axis=0, weights=WEIGHTS))
    same(bt.blend(list(column), how="logit", weights=WEIGHTS), expected)
    labels = special.expit(np.average(special.logit(EXACT), axis=0, weights=WEIGHTS))
    same(bt.blend(MEMBERS, how="logit", weights=WEIGHTS, multilabel=True), labels)
    same(bt.blend([member[:, :1] for member in MEMBERS], how="logit", weights=WEIGHTS), labels[:, :1])


def test_logit_of_two_classes_is_the_logit_of_one() -> None:
    yes = [member[:, 0].astype("float64") for member in MEMBERS]
    both = bt.blend([np.stack([1 - p, p], axis=1) for p in yes], how="logit", weights=WEIGHTS)
    same(both[:, 1], bt.blend(yes, how="logit", weights=WEIGHTS))
    same(both.sum(axis=1), np.ones(50))


def test_logit_of_several_classes_is_the_softmax_of_the_mean_log() -> None:
    expected = special.softmax(np.average(np.log(CLASSES), axis=0, weights=WEIGHTS), axis=1)
    same(bt.blend(CLASSES, how="logit", weights=WEIGHTS), expected)
    same(bt.blend(CLASSES, how="geometric", normalize=True, weights=WEIGHTS), expected)


def test_logit_keeps_what_is_near_to_0_and_1() -> None:
    found = bt.blend([np.array([1e-300, 1e-9, 1 - 2**-53]), np.array([1e-280, 1e-7, 0.5])], how="logit")
    same(found, [1e-290, 1e-8, 1 / (1 + 2**-26.5)], rtol=1e-7)
    one = bt.blend([np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.3, 0.3])], how="logit")
    assert one.tolist() == [0.0, 1.0, 0.0, 1.0]


def test_rank_is_the_mean_of_scipys_ranks() -> None:
    assert ranks(np.array([0.2, 0.2, 0.2, 0.9])).tolist() == [0.5, 0.5, 0.5, 1.0]
    expected = np.average([stats.rankdata(member, axis=0) / 50 for member in MEMBERS], axis=0, weights=WEIGHTS)
    same(bt.blend(MEMBERS, how="rank", weights=WEIGHTS), expected)


def test_median_and_trimmed_mean_are_numpys_and_scipys() -> None:
    same(bt.blend(MEMBERS, how="median"), np.median(EXACT, axis=0))
    same(bt.blend(MEMBERS[:4], how="median"), np.median(EXACT[:4], axis=0))
    same(bt.blend(MEMBERS[:1], how="median"), EXACT[0], rtol=0)
    same(bt.blend(MEMBERS, how="trimmed"), stats.trim_mean(EXACT, 0.2, axis=0))
    same(bt.blend(MEMBERS, how="trimmed", trim=2), np.median(EXACT, axis=0))
    signed = [np.array([-3.0, 5.0]), np.array([2.0, -1e300]), np.array([-1.0, 1e300])]
    same(bt.blend(signed, how="median"), [-1.0, 5.0], rtol=0)


def test_mean_of_powers_orders_rows_as_the_power_mean_but_is_on_another_scale() -> None:
    found = bt.blend(MEMBERS, how="mean_of_powers", power=4, weights=WEIGHTS)
    same(found, np.average(EXACT**4, axis=0, weights=WEIGHTS))
    rooted = bt.blend(MEMBERS, how="power", power=4, weights=WEIGHTS)
    same(found ** (1 / 4), rooted)
    assert (np.argsort(found, axis=0) == np.argsort(rooted, axis=0)).all()


def test_mean_of_sharpened_sharpens_each_member_and_keeps_rows_at_1() -> None:
    expected = np.average([p**3 / (p**3).sum(axis=1, keepdims=True) for p in CLASSES], axis=0, weights=WEIGHTS)
    found = bt.blend(CLASSES, how="mean_of_sharpened", power=3, weights=WEIGHTS)
    same(found, expected)
    same(found.sum(axis=1), np.ones(50))
    binary = EXACT**0.5 / (EXACT**0.5 + (1 - EXACT) ** 0.5)
    labels = bt.blend(MEMBERS, how="mean_of_sharpened", power=0.5, weights=WEIGHTS, multilabel=True)
    same(labels, np.average(binary, axis=0, weights=WEIGHTS))
    column = bt.blend([m[:, 0] for m in MEMBERS], how="mean_of_sharpened", power=0.5, weights=WEIGHTS)
    same(column, labels[:, 0], rtol=0)
    assert bt.blend([np.array([0.0, 1.0])], how="mean_of_sharpened", power=3).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("power", [2.0, 0.5, -1.5])
def test_mean_of_rank_powers_is_the_mean_of_powers_of_ranks(power: float) -> None:
    expected = np.average([(stats.rankdata(m, axis=0) / 50) ** power for m in MEMBERS], axis=0, weights=WEIGHTS)
    same(bt.blend(MEMBERS, how="mean_of_rank_powers", power=power, weights=WEIGHTS), expected)


def test_the_five_power_averages_differ() -> None:
    members = [np.array([0.2, 0.7, 0.6]), np.array([0.9, 0.3, 0.8])]
    hows = ("power", "mean_of_powers", "mean_of_sharpened", "mean_of_rank_powers")
    found = [bt.blend(members, how=how, power=3) for how in hows] + [bt.blend(members) ** 3]  # type: ignore[arg-type]
    assert len({tuple(result.round(6)) for result in found}) == 5


# Laws

positive = arrays("float64", 12, elements=st.floats(0.01, 1.0))
ON_ONE_SCALE = ["mean", "geometric", "logit", "harmonic", "power", "median", "trimmed"]


@given(positive, st.sampled_from(ON_ONE_SCALE), st.floats(-20, 20))
def test_identical_members_blend_to_themselves(member: np.ndarray, how: str, power: float) -> None:
    member = np.minimum(member, 0.999)
    same(any_blend([member] * 3, how, power=power), member)


@given(st.lists(positive, min_size=3, max_size=5), st.sampled_from(ALL), st.randoms(use_true_random=False))
def test_order_of_members_and_rows_does_not_matter(
    members: list[np.ndarray], how: str, random: python_random.Random
) -> None:
    shares = [random.randint(1, 4) for _ in members] if how not in ALIKE else [1] * len(members)
    found = any_blend(members, how, weights=shares)
    order = random.sample(range(len(members)), len(members))
    shuffled = any_blend([members[k] for k in order], how, weights=[shares[k] for k in order])
    np.testing.assert_allclose(found, shuffled, rtol=1e-12)
    rows = np.array(random.sample(range(12), 12))
    assert any_blend([member[rows] for member in members], how, weights=shares).tobytes() == found[rows].tobytes()


@given(
    st.lists(positive, min_size=2, max_size=4),
    st.tuples(st.floats(-400, 400), st.floats(-400, 400)) | st.tuples(st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)),
    st.randoms(use_true_random=False),
)
def test_the_power_mean_never_falls_as_the_power_rises(
    members: list[np.ndarray], powers: tuple[float, float], random: python_random.Random
) -> None:
    shares = [random.random() + 0.01 for _ in members]
    ladder = [-math.inf, *sorted(powers), math.inf]
    found = [any_blend(members, "power", power=power, weights=shares) for power in ladder]
    for lower, higher in pairwise(found):
        assert (higher >= lower * (1 - 1e-13)).all()


whole = arrays("int64", 15, elements=st.integers(-(2**40), 2**40))


@given(st.lists(whole, min_size=1, max_size=4), st.sampled_from(["rank", "mean_of_rank_powers"]))
def test_a_rank_blend_does_not_change_under_rising_functions(members: list[np.ndarray], how: str) -> None:
    rising = [lambda x: x * 3 + 1, lambda x: np.cbrt(x.astype(float)), lambda x: x / 2**41, lambda x: x.astype(float)]
    warped = [function(member) for function, member in zip(rising, members, strict=False)]
    assert any_blend(members, how).tobytes() == any_blend(warped, how).tobytes()


@given(st.lists(positive, min_size=2, max_size=5), st.sampled_from(ON_ONE_SCALE), st.floats(-50, 50))
def test_a_mean_lies_between_its_members(members: list[np.ndarray], how: str, power: float) -> None:
    members = [np.minimum(member, 0.999) for member in members] + [members[0] * 0.5]
    found = any_blend(members, how, power=power)
    assert (found <= np.max(members, axis=0) * (1 + 1e-13)).all()
    assert (found >= np.min(members, axis=0) * (1 - 1e-13)).all()


@pytest.mark.parametrize("how", [how for how in ALL if "rank" not in how])
@pytest.mark.parametrize("size", [1, 2, 3, 17, 1000])
def test_a_row_has_the_same_bits_whatever_rows_are_beside_it(
    how: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [np.ascontiguousarray(member) for member in CLASSES] + [CLASSES[0][::-1]] * 6
    whole = bt.blend(members, how=how)  # type: ignore[arg-type]
    monkeypatch.setattr(walking, "_BLOCK", size * len(members) * 3)
    assert bt.blend(members, how=how).tobytes() == whole.tobytes()  # type: ignore[arg-type]
    for row in (0, 49):
        assert bt.blend([m[row : row + 1] for m in members], how=how).tobytes() == whole[row].tobytes()  # type: ignore[arg-type]
    fortran = [np.asfortranarray(member) for member in members]
    assert bt.blend(fortran, how=how).tobytes() == whole.tobytes()  # type: ignore[arg-type]


# Edges


def test_huge_and_tiny_values_do_not_overflow() -> None:
    big, tiny = np.array([1e300, 1e-300]), np.array([1e299, 1e-299])
    same(bt.blend([big, tiny], how="power", power=50), np.array([1e300, 1e-299]) * 0.5 ** (1 / 50), rtol=1e-9)
    same(bt.blend([big, tiny], how="power", power=-50), np.array([1e299, 1e-300]) * 2 ** (1 / 50), rtol=1e-9)
    half = [np.array([65504.0], dtype="float16")] * 3
    assert bt.blend(half)[0] == pytest.approx(65504)
    assert bt.blend(half, how="power", power=4)[0] == pytest.approx(65504)


def test_whole_numbers_and_truth_values_are_numbers() -> None:
    same(bt.blend([np.array([1, 2]), np.array([4, 4])]), [2.5, 3.0])
    same(bt.blend([np.array([True, False]), np.array([True, True])]), [1.0, 0.5])
    same(bt.blend([np.array([200, 3], dtype="uint8"), np.array([100, 1], dtype="uint8")]), [150.0, 2.0])


@pytest.mark.parametrize("how", [how for how in ALL if how != "trimmed"])
def test_one_member_of_one_row_can_be_blended(how: str) -> None:
    ends = {"rank": 1.0, "mean_of_rank_powers": 1.0, "mean_of_powers": 0.49, "vote": 1.0}
    ends["mean_of_sharpened"] = 0.49 / (0.49 + 0.09)
    assert any_blend([np.array([0.7])], how).tolist() == [pytest.approx(ends.get(how, 0.7))]


def test_a_thousand_members_blend() -> None:
    members = list(np.random.default_rng(0).random((1000, 5)))
    same(bt.blend(members), np.mean(members, axis=0))
    same(bt.blend(members, how="trimmed", trim=100), stats.trim_mean(members, 0.1, axis=0))
    assert bt.blend(members, how="vote").tolist() == (np.mean(np.array(members) >= 0.5, axis=0) > 0.5).tolist()


def test_members_that_do_not_count_are_not_read_but_for_nan() -> None:
    negative = -np.ones(2)
    assert bt.blend([np.array([0.25, 1.0]), negative], how="geometric", weights=[1, 0]).tolist() == [0.25, 1.0]
    for how in ("mean", "rank"):
        with pytest.raises(BlendError, match="member 2 has 1 values that are NaN or infinite"):
            bt.blend([np.arange(2.0), np.array([1, np.nan])], how=how, weights=[1, 0])  # type: ignore[arg-type]


def test_a_result_can_be_written_into_a_given_array() -> None:
    out = np.full((50, 3), np.nan)
    for how in ("mean", "rank"):
        combine = bt.Blend(how=how, weights=tuple(WEIGHTS))  # type: ignore[arg-type]
        assert combine(MEMBERS, out=out) is out
        assert out.tobytes() == combine(MEMBERS).tobytes()


# Clipping


def test_values_are_clipped_when_asked_and_counted() -> None:
    members = [np.array([0.0, 0.5, 1.0, 0.2]), np.array([0.9, 1.0, 0.0, 0.2])]
    with pytest.warns(UserWarning, match=r"4 of 8 values were clipped to 0.01 to 1 - 0.01 \(member 1: 2, member 2: 2"):
        found = bt.blend(members, how="logit", clip=0.01)
    clipped = np.clip(members, 0.01, 0.99)
    same(found, special.expit(special.logit(clipped).mean(axis=0)))
    with pytest.warns(UserWarning, match=r"2 of 8 values were clipped to 1e-15 and above \(member 1: 1, member 2: 1"):
        found = bt.blend(members, how="geometric", clip=1e-15)
    same(found, stats.gmean(np.maximum(members, 1e-15), axis=0))
    with pytest.warns(UserWarning, match="2 of 8 values were clipped"):
        found = bt.blend(members, how="harmonic", clip=1e-15)
    same(found, stats.hmean(np.maximum(members, 1e-15), axis=0))


def test_nothing_is_said_where_nothing_is_clipped() -> None:
    assert bt.blend([np.array([0.4])], how="logit", clip=1e-7)[0] == pytest.approx(0.4)


def test_clipping_does_not_make_other_numbers_probabilities() -> None:
    with pytest.raises(BlendError, match=r"member 1 has 1 values that 'logit' does not take, such as 1\.5"):
        bt.blend([np.array([0.5, 1.5])], how="logit", clip=1e-7)
    with pytest.raises(BlendError, match="needs values of 0 or above"):
        bt.blend([np.array([0.5, -1.5])], how="harmonic", clip=1e-7)


# What is refused

ONES = np.ones(3)
SURE, SURE_NOT = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.0, 1.0], [0.5, 0.5]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"members": []}, "nothing to blend"),
        ({"members": [ONES, np.ones(4)]}, r"member 2 has shape \(4,\), member 1 has \(3,\)"),
        ({"members": [ONES, np.ones((3, 1))]}, r"member 2 has shape \(3, 1\), member 1 has \(3,\)"),
        ({"members": [np.ones(0)]}, r"with at least one row, got \(0,\)"),
        ({"members": [np.ones((2, 2, 2))]}, r"must be \(n,\) or \(n, columns\) .* got \(2, 2, 2\)"),
        ({"members": [ONES, np.array([1, np.nan, 1])]}, "member 2 has 1 values that are NaN or inf.* rows: \\[1\\]"),
        ({"members": [ONES, np.array([1, np.inf, 1])], "how": "harmonic"}, "member 2 has 1 values that are NaN or inf"),
        ({"members": [ONES, np.array([1, np.nan, 1])], "how": "vote"}, "member 2 has 1 values that are NaN or inf"),
        ({"members": [ONES, np.array([1, -np.inf, 1])], "how": "power", "power": np.inf}, "member 2 has 1 values that"),
        ({"members": [ONES, np.array(["a"] * 3)]}, "member 2 holds <U1, not numbers"),
        ({"members": [ONES.astype(complex)]}, "member 1 holds complex128, not numbers"),
        ({"members": [ONES.astype(np.longdouble)]}, "member 1 holds .*, not numbers of 64 bits"),
        ({"members": [ONES] * 2, "weights": [1.0]}, "2 members need 2 weights, got 1"),
        ({"members": [ONES] * 2, "weights": [1.0, -1.0]}, "0 or above"),
        ({"members": [ONES] * 2, "weights": [0.0, 0.0]}, "not all 0"),
        ({"members": [ONES] * 2, "weights": [1.0, np.nan]}, "finite"),
        ({"members": [ONES] * 2, "weights": []}, "not all 0"),
        ({"members": [ONES] * 2, "weights": [1, 2], "how": "median"}, "'median' takes all members alike; leave out"),
        ({"members": [ONES] * 3, "weights": [1, 0, 1], "how": "trimmed"}, "'trimmed' takes all members alike"),
        (
            {"members": [ONES, -ONES], "how": "power"},
            r"member 2 has 3 values that 'power' does not take, such as -1 \(first rows: \[0, 1, 2\]\): it needs"
            " values of 0 or above. how='mean', 'median' and 'rank' take any number",
        ),
        ({"members": [ONES, np.zeros(3)], "how": "power", "power": -1.0}, "needs values above 0"),
        ({"members": [ONES, np.zeros(3)], "how": "harmonic"}, "'harmonic' does not take, such as 0"),
        ({"members": [ONES, -ONES], "how": "geometric"}, "needs values of 0 or above"),
        ({"members": [ONES, -ONES], "how": "mean_of_powers"}, "needs values of 0 or above"),
        ({"members": [ONES, 2 * ONES], "how": "logit"}, "'logit' does not take, such as 2 .*: it needs probabilities"),
        ({"members": [2.5 * ONES], "how": "mean_of_sharpened"}, "it needs probabilities from 0 to 1"),
        ({"members": [2.5 * ONES], "how": "vote"}, "'vote' does not take, such as 2.5"),
        ({"members": [SURE * 2], "how": "vote"}, "'vote' does not take, such as 2"),
        ({"members": [SURE * 0.4], "how": "logit"}, r"2 rows of member 1 do not add up to 1, but to 0.4 .*multilabel"),
        ({"members": [SURE * 0.4], "how": "mean_of_sharpened"}, "2 rows of member 1 do not add up to 1"),
        ({"members": [SURE, SURE_NOT], "how": "logit"}, r"no value in 1 rows \(first: \[0\]\).*such as clip=1e-7"),
        ({"members": [SURE, SURE_NOT], "how": "geometric", "normalize": True}, r"no value in 1 rows \(first: \[0\]\)"),
        ({"members": [SURE[:, 0], SURE_NOT[:, 0]], "how": "logit"}, "'logit' has no value in 1 rows"),
        ({"members": [ONES * 1e300], "how": "mean_of_powers"}, r"too large for a float64 in 3 rows \(first: \[0, 1, 2"),
        ({"members": [ONES], "how": "power", "power": np.nan}, "'power' needs a power that is a number, got nan"),
        (
            {"members": [ONES], "how": "mean_of_powers", "power": np.inf},
            "that is a finite number other than 0, got inf",
        ),
        ({"members": [ONES], "how": "mean_of_powers", "power": 0}, "that is a finite number other than 0, got 0"),
        ({"members": [ONES], "how": "mean_of_sharpened", "power": -1}, "that is a finite number above 0, got -1"),
        ({"members": [ONES], "how": "mean_of_rank_powers", "power": 0}, "that is a finite number other than 0, got 0"),
        ({"members": [ONES] * 2, "how": "trimmed"}, "'trimmed' of 2 members can leave out from 1 to 0 of them"),
        ({"members": [ONES] * 5, "how": "trimmed", "trim": 3}, "from 1 to 2 of them at each end, got trim=3"),
        ({"members": [ONES] * 5, "how": "trimmed", "trim": 0}, "how='mean' leaves out none"),
        (
            {"members": [ONES], "clip": 0.1},
            "'mean' does not read clip=0.1; it is for geometric, logit, harmonic, power",
        ),
        (
            {"members": [ONES], "how": "logit", "normalize": True},
            "'logit' does not read normalize=True; it is for geom",
        ),
        ({"members": [ONES], "how": "geometric", "normalize": True}, "normalize needs columns that are classes"),
        ({"members": [ONES], "how": "logit", "clip": 0.5}, "clip must be above 0 and below 0.5, such as 1e-7, got 0.5"),
        ({"members": [ONES], "how": "logit", "clip": 1e-17}, "clip must be above 0"),
        ({"members": [ONES], "how": "logit", "clip": np.nan}, "clip must be above 0"),
        ({"members": [ONES], "folds": np.zeros(3)}, "folds are for blends of ranks .*, not for 'mean'"),
        ({"members": [ONES], "how": "rank", "folds": np.zeros(2)}, r"3 rows but folds of shape \(2,\)"),
        ({"members": [ONES], "how": "best"}, "no blend 'best'; choose one of mean, geometric, logit, harmonic, power"),
    ],
)
def test_what_cannot_be_blended_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BlendError, match=message):
        bt.blend(**arguments)


def test_faults_are_counted_over_all_rows_and_the_first_named(monkeypatch: pytest.MonkeyPatch) -> None:
    member = np.ones(1000)
    member[[7, 300, 301, 302, 500, 999]] = -1
    other = np.where(np.arange(1000) > 990, np.nan, 1.0)
    monkeypatch.setattr(walking, "_BLOCK", 100)
    with pytest.raises(BlendError, match=r"member 1 has 6 values .*\(first rows: \[7, 300, 301, 302, 500\]\)"):
        bt.blend([member, np.ones(1000)], how="geometric")
    with pytest.raises(
        BlendError, match=r"member 2 has 9 values that are NaN .*\(first rows: \[991, 992, 993, 994, 995"
    ):
        bt.blend([member, other], how="geometric")


# Predictions


def test_predictions_are_joined_by_id() -> None:
    first = Predictions(pl.Series(["a", "b", "c"]), np.array([0.1, 0.2, 0.3]), targets=np.array([0, 1, 0]))
    second = Predictions(pl.Series(["c", "a", "b"]), np.array([0.9, 0.7, 0.8]))
    blended = blend_predictions([first, second], bt.Blend(weights=(1, 3)))
    assert blended.ids.to_list() == ["a", "b", "c"]
    same(blended.values, [0.55, 0.65, 0.75])
    assert blended.targets is first.targets


def test_predictions_are_ranked_within_the_folds_of_the_first() -> None:
    ids, folds = pl.Series(range(6)), np.array([0, 1, 0, 1, 0, 1])
    values = np.array([0.1, 5.0, 0.3, 6.0, 0.2, 7.0])
    first = Predictions(ids, values, folds=folds)
    rank = bt.Blend(how="rank", weights=(1.0,))
    same(blend_predictions([first], rank, within_folds=True).values, np.array([1, 1, 3, 2, 2, 3]) / 3)
    with pytest.raises(BlendError, match="know no folds to rank within"):
        blend_predictions([Predictions(ids, values)], rank, within_folds=True)
    with pytest.raises(BlendError, match="nothing to blend"):
        blend_predictions([], rank)


# Options


def test_options_name_all_that_decides_and_nothing_else() -> None:
    def options(**given: Any) -> dict[str, Any]:
        return bt.Blend(weights=(1, 1, 1), **given).options()

    assert options() == {"how": "mean"}
    assert options(power=3, trim=7) == {"how": "mean"}
    assert options(how="power", power=3.0) == {"how": "power", "power": 3.0, "clip": None}
    assert options(how="power", power=-math.inf)["power"] == "-inf"
    assert options(how="trimmed") == {"how": "trimmed", "trim": 1}
    assert options(how="geometric", clip=1e-7) == {"how": "geometric", "clip": 1e-7, "normalize": False}
    assert options(how="vote", multilabel=True) == {"how": "vote", "multilabel": True}
