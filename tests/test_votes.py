"""Votes: the class of most members, ties decided by the summed probability, never by the order of members."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

import batteries as bt


@given(st.integers(1, 7).flatmap(lambda k: arrays("int64", (k, 9), elements=st.integers(-2, 4))))
def test_votes_of_codes_are_scipys_mode(codes: np.ndarray) -> None:
    expected = stats.mode(codes, axis=0).mode  # the least of several, too
    assert bt.blend(list(codes), how="vote").tolist() == expected.tolist()
    assert bt.blend(list(codes.astype("float32")), how="vote").tolist() == expected.tolist()


def test_weights_count_and_sums_of_shares_tie_as_numbers_do_on_paper() -> None:
    members = [np.array([2]), np.array([2]), np.array([1])]
    assert bt.blend(members, how="vote", weights=[0.1, 0.2, 0.3]).tolist() == [1]  # 0.1 + 0.2 > 0.3 in float64
    assert bt.blend(members, how="vote", weights=[0.1, 0.2, 0.31]).tolist() == [1]
    assert bt.blend(members, how="vote", weights=[0.1, 0.2, 0.29]).tolist() == [2]
    assert bt.blend(members, how="vote", weights=[0, 0, 1]).tolist() == [1]


def test_probabilities_of_one_column_vote_yes_or_no_and_tie_by_their_mean() -> None:
    members = [np.array([0.9, 0.1, 0.6, 0.5, 0.4]), np.array([0.4, 0.2, 0.1, 0.5, 0.6])]
    #          mean 0.65, tied    0.15     0.35, tied    0.5     0.5, tied
    assert bt.blend(members, how="vote").tolist() == [1, 0, 0, 1, 1]
    three = [*members, np.array([0.0, 0.9, 0.6, 0.0, 0.3])]
    assert bt.blend(three, how="vote").tolist() == [0, 0, 1, 1, 0]
    column = [member[:, None] for member in three]
    assert bt.blend(column, how="vote").tolist() == [[0], [0], [1], [1], [0]]


def test_classes_vote_for_their_most_probable_and_tie_by_the_summed_probability() -> None:
    sure, unsure = [0.1, 0.9, 0.0], [0.4, 0.3, 0.3]
    members = [np.array([sure, unsure]), np.array([unsure, [0.2, 0.2, 0.6]])]
    assert bt.blend(members, how="vote").tolist() == [[0, 1, 0], [0, 0, 1]]
    three = [*members, np.array([unsure, unsure])]
    assert bt.blend(three, how="vote").tolist() == [[1, 0, 0], [1, 0, 0]]


def test_a_tie_is_among_the_classes_with_most_votes_only() -> None:
    members = [np.array([[0.40, 0.35, 0.25]]), np.array([[0.05, 0.47, 0.48]])]  # class 1 has the larger sum, no vote
    assert bt.blend(members, how="vote").tolist() == [[0, 0, 1]]


def test_labels_vote_each_for_itself() -> None:
    members = [np.array([[0.9, 0.8, 0.1]]), np.array([[0.8, 0.1, 0.2]]), np.array([[0.1, 0.7, 0.3]])]
    assert bt.blend(members, how="vote", multilabel=True).tolist() == [[1, 1, 0]]


@given(
    arrays("float64", (4, 6, 3), elements=st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.4, 0.7])), st.permutations(range(4))
)
def test_the_order_of_members_decides_no_tie(members: np.ndarray, order: list[int]) -> None:
    found = bt.blend(list(members), how="vote")
    assert found.tobytes() == bt.blend(list(members[order]), how="vote").tobytes()
    assert (found.sum(axis=1) == 1).all()


@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 4)])
def test_a_vote_has_the_shape_of_its_members(shape: tuple[int, ...]) -> None:
    found = bt.blend([np.full(shape, 0.25)] * 3, how="vote")
    assert found.shape == shape
    assert found.dtype == np.float64
