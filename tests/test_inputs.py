"""Inputs: columns as numbers, without a look at held-out rows."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from batteries.errors import UsageError
from batteries.prepare.inputs import Standardise, category_codes, word_codes
from batteries.train.average import average_checkpoints

DATA = load_breast_cancer().data.astype("float32")


def counted(rows: np.ndarray) -> Standardise:
    """A layer trained on `rows`, 50 at a time."""
    layer = Standardise(rows.shape[1])
    for piece in torch.from_numpy(rows).split(50):
        layer(piece)
    return layer.eval()


def test_columns_are_standardised_as_scikit_learn_does_it_on_the_training_rows() -> None:
    layer, reference = counted(DATA[:400]), StandardScaler().fit(DATA[:400].astype("float64"))
    assert np.allclose(layer(torch.from_numpy(DATA[400:])), reference.transform(DATA[400:]), atol=1e-4)


def test_rows_that_are_only_predicted_change_nothing() -> None:
    layer = counted(DATA[:400])
    before = layer(torch.from_numpy(DATA[:5]))
    layer(torch.from_numpy(1000 * DATA[400:]))
    assert torch.equal(layer(torch.from_numpy(DATA[:5])), before)


def test_missing_values_are_not_counted_and_become_the_mean() -> None:
    holes = DATA[:400].copy()
    holes[::3, 2] = np.nan
    layer, reference = counted(holes), StandardScaler().fit(holes)
    out = layer(torch.from_numpy(holes))
    assert (out[::3, 2] == 0).all()
    assert np.allclose(out[1::3], reference.transform(holes)[1::3], atol=1e-4)


def test_infinite_values_count_as_missing() -> None:
    layer = Standardise(1)
    out = layer(torch.tensor([[1.0], [3.0], [torch.inf], [-torch.inf]]))
    assert out.flatten().tolist() == [-1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("value", [0.0, 3.7, 1e7])
def test_a_column_that_says_the_same_everywhere_becomes_zero(value: float) -> None:
    column = torch.full((50, 1), value)
    layer = Standardise(1)
    assert (layer(column) == 0).all()
    assert (layer.eval()(column) == 0).all()
    assert (layer(torch.tensor([[float("nan")]])) == 0).all()


def test_the_average_of_two_models_has_the_moments_of_both_sets_of_rows() -> None:
    halves = [counted(DATA[:300]), counted(DATA[300:500])]
    averaged = Standardise(DATA.shape[1]).eval()
    averaged.load_state_dict(average_checkpoints([half.state_dict() for half in halves]))
    both = counted(DATA[:500])
    assert torch.allclose(averaged(torch.from_numpy(DATA)), both(torch.from_numpy(DATA)), atol=1e-4)


def test_categories_are_places_and_whatever_else_is_zero() -> None:
    assert category_codes(pl.Series(["b", None, "c", "a"]), ["a", "b"]).tolist() == [2, 0, 0, 1]
    assert category_codes(pl.Series([True, False, None]), ["false", "true"]).tolist() == [2, 1, 0]
    assert category_codes(pl.Series([], dtype=pl.String), []).tolist() == []


def test_a_word_has_one_code_wherever_it_stands_and_texts_end_in_zeros() -> None:
    codes = word_codes(pl.Series(["To be, or not", "not TO", "", None]), length=4)
    assert codes.shape == (4, 7)
    assert codes[0, 0] == codes[1, 1] != 0
    assert (codes[1, 2:4] == 0).all()
    assert codes[1, 4] != 0
    assert (codes[1, 5:] == 0).all()
    assert (codes[2:] == 0).all()


def test_codes_do_not_depend_on_the_other_texts_and_stay_within_the_buckets() -> None:
    texts = pl.Series([f"word{n} and word{n + 1}" for n in range(500)])
    codes = word_codes(texts, length=5, buckets=100)
    assert codes.min() >= 0
    assert codes.max() <= 99
    assert np.array_equal(codes[7:9], word_codes(texts[7:9], length=5, buckets=100))


def test_a_pair_of_words_in_another_order_is_another_pair() -> None:
    first, second = word_codes(pl.Series(["man bites", "bites man"]), length=2)
    assert set(first[:2]) == set(second[:2])
    assert first[2] != second[2]


def test_word_codes_refuses_sizes_that_hold_nothing() -> None:
    with pytest.raises(UsageError, match="length >= 1 and buckets >= 2, got 0 and 5"):
        word_codes(pl.Series(["a"]), length=0, buckets=5)
