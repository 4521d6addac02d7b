"""Ranks are SciPy's to the last bit, whatever the type, the ties, the number of threads and of rows in a piece."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

import batteries as bt
from batteries.combine import ranks as module
from batteries.combine.ranks import doubled_ranks, ranks
from batteries.errors import BlendError


def scipys(array: Any, axis: int | None = 0) -> Any:
    return stats.rankdata(array, method="average", axis=axis) / len(array)


def columns(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    return {
        "all different": rng.random(n),
        "of both signs": rng.standard_normal(n),
        "few values": rng.integers(0, 3, n) * 1.5,
        "one value": np.full(n, -2.5),
        "both zeros": rng.choice([-0.0, 0.0, 1.0, -1.0], n),
        "runs of five": np.repeat(rng.random(n // 5 + 1), 5)[:n],
        "sorted with ties": np.sort(rng.integers(0, n // 4 + 1, n)).astype(float),
        "sorted downwards": -np.arange(n, dtype=float),
        "tiny": rng.random(n) * 1e-40,  # subnormal in float32
        "large": rng.standard_normal(n) * 3e37,
    }


DTYPES = ["float64", "float32", ">f4", ">f8", "float16", "int64", "int32", "int16", "int8", "uint64", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_ranks_are_scipys_to_the_bit(dtype: str, n: int) -> None:
    for name, column in columns(n).items():
        if np.dtype(dtype).kind in "iub":
            column = np.clip(column * 7, 0 if dtype == "uint64" else -100, 100)
        elif dtype == "float16":
            column = np.clip(column, -6e4, 6e4)
        typed = column.astype(dtype)
        assert ranks(typed).tobytes() == scipys(typed).tobytes(), name


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 64])
def test_runs_of_equal_values_may_reach_over_any_number_of_pieces(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PIECE", piece)
    for n in (1, 2, 3, 6, 7, 8, 29, 200):
        for name, column in columns(n).items():
            for dtype in ("float32", "float64"):
                typed = column.astype(dtype)
                assert ranks(typed).tobytes() == scipys(typed).tobytes(), (name, n)


@given(arrays("float64", st.integers(1, 40), elements=st.floats(allow_nan=False, allow_infinity=False)))
def test_any_float64_column_has_scipys_ranks(column: np.ndarray) -> None:
    assert ranks(column).tobytes() == scipys(column).tobytes()


@given(arrays("float32", st.integers(1, 40), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_any_float32_column_has_scipys_ranks(column: np.ndarray) -> None:
    assert ranks(column).tobytes() == scipys(column).tobytes()


def test_float64_values_that_are_one_float32_are_told_apart() -> None:
    column = np.array([1 + 2e-16, 1.0, 1 + 4e-16, 1.0])
    assert (ranks(column) * 4).tolist() == [3.0, 1.5, 4.0, 1.5]
    large = np.array([2**53 + 1, 2**53, 2**53 + 2])
    assert (ranks(large) * 3).tolist() == [2.0, 1.0, 3.0]


def test_every_column_is_ranked_alone_however_it_lies_in_memory() -> None:
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 9, (40, 5)).astype("float32")
    expected = scipys(wide)
    for same in (wide, np.asfortranarray(wide), np.repeat(wide, 2, axis=0)[::2]):
        assert ranks(same).tobytes() == expected.tobytes()
    assert ranks(wide[::-1]).tobytes() == expected[::-1].tobytes()


def test_within_folds_rows_are_ranked_among_their_own() -> None:
    rng = np.random.default_rng(0)
    wide, folds = rng.integers(0, 9, (60, 2)).astype("float64"), rng.choice([3, 0, 8], 60)
    found = ranks(wide, folds=folds)
    for fold in (3, 0, 8):
        assert found[folds == fold].tobytes() == scipys(wide[folds == fold]).tobytes()
    assert ranks(wide, folds=np.zeros(60)).tobytes() == ranks(wide).tobytes()


def test_doubled_ranks_are_whole_numbers_that_add_up() -> None:
    column = np.random.default_rng(0).integers(0, 5, 101).astype("float32")
    doubled = doubled_ranks(column)
    assert doubled.dtype == np.uint32
    assert doubled.sum() == 101 * 102


@pytest.mark.parametrize("n", [5, 3000])
def test_a_mean_of_ranks_has_the_same_bits_for_any_number_of_threads(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    members = [rng.random((n, 2)).astype("float32") for _ in range(7)]
    found = []
    for cores in (1, 2, 5):
        monkeypatch.setattr(module, "usable_cores", lambda cores=cores: cores)
        found.append(bt.blend(members, how="rank", weights=[1, 2, 3, 4, 5, 6, 7]).tobytes())
    assert len(set(found)) == 1


def test_threads_are_as_many_as_the_memory_of_the_members_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 64)
    column = np.broadcast_to(np.float32(1), (10_000_000,))  # no memory of its own
    assert module._workers([column] * 50, 50) == 2
    assert module._workers([column] * 200, 200) == 8
    assert module._workers([column], 1) == 1
    assert module._workers([column[:1000]] * 50, 50) == 50


def test_columns_of_one_value_are_warned_of() -> None:
    flat, other = np.zeros(5), np.arange(5.0)
    with pytest.warns(UserWarning, match=r"1 of 2 columns hold one value in all their rows \(the first is of member 2"):
        found = bt.blend([other, flat], how="rank")
    np.testing.assert_array_equal(found, scipys(other) / 2 + 0.3)
    assert ranks(flat).tolist() == [0.6] * 5


def test_a_column_of_one_value_in_every_fold_is_warned_of() -> None:
    folds = np.array([0, 0, 1, 1])
    with pytest.warns(UserWarning, match="1 of 1 columns hold one value"):
        bt.blend([np.array([1.0, 1, 2, 2])], how="rank", folds=folds)
    assert bt.blend([np.array([1.0, 1, 2, 3])], how="rank", folds=folds).tolist() == [0.75, 0.75, 0.5, 1.0]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1.0, np.nan, np.nan]), "there are 2 values that are NaN or infinite"),
        (np.array([1.0, np.inf], dtype="float32"), "there are 1 values that are NaN or infinite"),
        (np.zeros(0), r"\(n,\) or \(n, columns\) with rows, got \(0,\)"),
        (np.zeros((3, 0)), r"with rows, got \(3, 0\)"),
        (np.zeros((3, 1, 1)), r"with rows, got \(3, 1, 1\)"),
        (np.float64(1), r"with rows, got \(\)"),
    ],
)
def test_what_cannot_be_ranked_is_refused(array: np.ndarray, message: str) -> None:
    with pytest.raises(BlendError, match=message):
        ranks(array)


@pytest.mark.parametrize("cores", [1, 3])
def test_a_member_that_cannot_be_ranked_is_named(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: cores)
    members = [np.arange(20.0) for _ in range(9)]
    members[4] = np.where(members[4] > 17, np.nan, 1.0)
    with pytest.raises(BlendError, match="member 5 has 2 values that are NaN or infinite; predict them again"):
        bt.blend(members, how="rank")


def test_folds_of_another_length_are_refused() -> None:
    with pytest.raises(BlendError, match=r"3 rows but folds of shape \(2,\)"):
        ranks(np.zeros(3), folds=np.zeros(2))
