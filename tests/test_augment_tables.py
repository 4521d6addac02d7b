"""Tables and texts: swapped and dropped values, dropped tokens, each row by its own numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from batteries.errors import UsageError
from batteries.prepare.augment import SampleRandom, feature_dropout, swap_noise, token_drop


def random_of(rows: Any, *, epoch: int = 0) -> SampleRandom:
    return SampleRandom(5, epoch=epoch, rows=torch.as_tensor(rows))


def features(n: int = 12) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(1))


def texts(n: int = 12, length: int = 9) -> Tensor:
    """Ids from 3 on between 1 and 2, padded with 0."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(3, 50, (n, length), generator=generator)
    ends = torch.randint(2, length, (n,), generator=generator)
    ids[:, 0] = 1
    places = torch.arange(length)
    ids[places == ends[:, None]] = 2
    return ids.masked_fill(places > ends[:, None], 0)


CHANGES: dict[str, tuple[Callable[[], Tensor], Callable[..., Tensor]]] = {
    "swap noise": (features, lambda data, random, p=0.4: swap_noise(data, random, among=features(50), p=p)),
    "feature dropout": (features, lambda data, random, p=0.4: feature_dropout(data, random, p=p)),
    "token drop": (texts, lambda data, random, p=0.4: token_drop(data, random, p=p, keep=(1, 2))[0]),
    "mask": (texts, lambda data, random, p=0.4: token_drop(data, random, p=p, keep=(1, 2))[1]),
}


@pytest.mark.parametrize("change", CHANGES)
@settings(max_examples=20)
@given(order=st.permutations(range(12)), cut=st.integers(1, 11))
def test_a_row_is_changed_alike_in_any_batch(change: str, order: list[int], cut: int) -> None:
    data, changed = CHANGES[change]
    whole = changed(data(), random_of(range(12)))
    parts = [changed(data()[rows], random_of(rows)) for rows in (order[:cut], order[cut:])]
    assert torch.equal(torch.cat(parts), whole[order])
    assert not torch.equal(whole, changed(data(), random_of(range(12), epoch=1)))


@pytest.mark.parametrize("change", ["swap noise", "feature dropout", "token drop"])
def test_with_p_0_rows_stay_as_they_are(change: str) -> None:
    data, changed = CHANGES[change]
    assert torch.equal(changed(data(), random_of(range(12)), p=0), data())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64, torch.uint8])
def test_the_type_is_kept(dtype: torch.dtype) -> None:
    data = (features() * 10).abs().to(dtype)
    for found in (
        swap_noise(data, random_of(range(12)), among=features(9)),
        feature_dropout(data, random_of(range(12))),
    ):
        assert (found.dtype, found.shape) == (dtype, data.shape)


def test_swapped_values_are_those_of_other_rows_in_the_same_column_as_often_as_said() -> None:
    pool = torch.arange(4.0)[:, None] + torch.tensor([10.0, 20.0, 30.0])
    found = swap_noise(torch.zeros(20_000, 3), random_of(range(20_000)), among=pool, p=0.3)
    for column in range(3):
        values = found[:, column]
        assert stats.binomtest(int((values > 0).sum()), 20_000, 0.3).pvalue > 1e-4  # the seed is fixed
        counts = (values[values > 0] - 10 * (column + 1)).long().bincount()
        assert len(counts) == 4
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4
    swapped = found > 0
    assert stats.pearsonr(swapped[:, 0].double(), swapped[:, 1].double()).pvalue > 1e-4  # each value by itself


def test_dropped_values_are_filled_and_the_others_not_scaled() -> None:
    data, means = features(5000), torch.arange(6.0) + 100
    found = feature_dropout(data, random_of(range(5000)), p=0.2, fill=means)
    dropped = found >= 100
    assert torch.equal(found, torch.where(dropped, means, data))
    assert stats.binomtest(int(dropped.sum()), 30_000, 0.2).pvalue > 1e-4
    assert feature_dropout(data, random_of(range(5000)), p=1, fill=float("nan")).isnan().all()


def dropped_by_hand(ids: Tensor, random: SampleRandom, p: float, keep: tuple[int, ...], pad: int) -> list[list[int]]:
    gone = random.uniform(ids.shape[1]) < p
    result = []
    for text, out in zip(ids.tolist(), gone.tolist(), strict=True):
        left = [token for token, away in zip(text, out, strict=True) if token == pad or token in keep or not away]
        left = text if not any(token != pad for token in left) else left
        result.append(left + [pad] * (len(text) - len(left)))
    return result


@pytest.mark.parametrize(("p", "keep"), [(0.3, (1, 2)), (1.0, (1, 2)), (0.5, ()), (1.0, ())])
def test_tokens_are_left_out_as_by_hand_and_the_mask_says_where_tokens_are(p: float, keep: tuple[int, ...]) -> None:
    ids, mask = token_drop(texts(40), random_of(range(40)), p=p, keep=keep)
    assert ids.tolist() == dropped_by_hand(texts(40), random_of(range(40)), p, keep, 0)
    assert torch.equal(mask, ids != 0)
    assert mask.any(dim=1).all()
    assert ids.dtype == texts().dtype


def test_a_mask_tells_padding_from_a_token_with_the_same_id() -> None:
    """As where the id that ends a text pads it too: 7 7 5 7 | 7."""
    ids, mask = torch.tensor([[7, 7, 5, 7, 7]]), torch.tensor([[1, 1, 1, 1, 0]])
    left, held = token_drop(ids, random_of([0]), p=1.0, keep=(5,), pad=7, mask=mask)
    assert left.tolist() == [[5, 7, 7, 7, 7]]
    assert held.tolist() == [[True, False, False, False, False]]
    same, held = token_drop(ids, random_of([0]), p=0, pad=7, mask=mask)
    assert torch.equal(same, ids)
    assert torch.equal(held, mask.bool())


def test_padding_in_front_stays_in_front() -> None:
    left, mask = token_drop(torch.tensor([[0, 0, 5, 6]]), random_of([0]), p=1.0, keep=(6,))
    assert left.tolist() == [[0, 0, 6, 0]]
    assert mask.tolist() == [[False, False, True, False]]


def test_an_empty_text_stays_empty() -> None:
    ids, mask = token_drop(torch.zeros(2, 4, dtype=torch.int64), random_of(range(2)), p=1.0)
    assert not ids.any()
    assert not mask.any()


def test_what_does_not_fit_is_refused_with_its_shape() -> None:
    random = random_of(range(12))
    with pytest.raises(UsageError, match=r"as many columns in among, got \(12, 6\) and \(50, 5\)"):
        swap_noise(features(), random, among=features(50)[:, :5])
    with pytest.raises(UsageError, match=r"at least one row .* got \(12, 6\) and \(0, 6\)"):
        swap_noise(features(), random, among=features(0))
    with pytest.raises(UsageError, match=r"integer ids \(n, length\), got torch.float32 \(12, 6\)"):
        token_drop(features(), random)
    with pytest.raises(UsageError, match=r"got torch.int64 \(12, 9\) and a mask \(12, 8\)"):
        token_drop(texts(), random, mask=torch.ones(12, 8))
    for change in ("swap noise", "feature dropout", "token drop"):
        data, changed = CHANGES[change]
        with pytest.raises(UsageError, match="probability between 0 and 1, got -1"):
            changed(data(), random, p=-1)
    assert np.isfinite(features().numpy()).all()
