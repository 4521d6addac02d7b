"""Seed: one seed, a name for every use, and the generators put back as they were."""

from __future__ import annotations

import io
import random
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batteries.prepare.seed import (
    derive_seed,
    deterministic_only,
    random_state,
    random_state_kept,
    seed_everything,
    set_random_state,
)


def draw() -> tuple[float, float, float, float]:
    return (random.random(), random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(())))


def test_derived_seeds_never_change() -> None:
    assert derive_seed(42) == 1934056628
    assert derive_seed(42, "shuffle", 0, 3) == 2232147995


@settings(deadline=None)
@given(seed=st.integers(), names=st.lists(st.text(max_size=4) | st.integers(), max_size=3))
def test_a_derived_seed_is_one_of_32_bits(seed: int, names: list[str | int]) -> None:
    assert 0 <= derive_seed(seed, *names) < 2**32
    assert derive_seed(seed, *names) == derive_seed(seed, *names)


def test_every_use_has_a_seed_of_its_own() -> None:
    uses = product(range(5), ("init", "shuffle", "sample"), range(10), range(10))
    assert len({derive_seed(*use) for use in uses}) == 5 * 3 * 10 * 10


def test_derived_seeds_are_the_same_in_a_process_with_another_hash_seed() -> None:
    code = "from batteries.prepare.seed import derive_seed; print(derive_seed(7, 'shuffle', 1))"
    env = {"PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert int(done.stdout) == derive_seed(7, "shuffle", 1)


def test_one_seed_gives_the_same_numbers_from_every_generator() -> None:
    seed_everything(3)
    first = draw()
    seed_everything(4)
    assert draw() != first
    seed_everything(3)
    assert draw() == first


def test_the_saved_state_continues_where_it_was_also_through_a_file() -> None:
    draw()
    file = io.BytesIO()
    torch.save(random_state(), file)
    expected = [draw() for _ in range(3)]
    file.seek(0)
    set_random_state(torch.load(file, weights_only=True))
    assert [draw() for _ in range(3)] == expected


def test_kept_generators_are_as_before_even_after_an_error() -> None:
    state = random_state()
    expected = draw()
    set_random_state(state)
    with pytest.raises(ZeroDivisionError), random_state_kept():
        seed_everything(int(draw() != expected) // 0)
    assert draw() == expected


def test_deterministic_algorithms_are_asked_for_only_when_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    seed_everything(0)
    assert not torch.are_deterministic_algorithms_enabled()
    try:
        seed_everything(0, deterministic=True)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_every_device_there_is_gets_the_seed() -> None:
    devices = ["cpu"]
    devices += ["cuda"] if torch.cuda.is_available() else []
    devices += ["xpu"] if torch.xpu.is_available() else []
    devices += ["mps"] if torch.backends.mps.is_available() else []
    for device in devices:
        seed_everything(5)
        state = random_state()
        first = torch.rand(3, device=device)
        set_random_state(state)
        assert torch.equal(torch.rand(3, device=device), first)
        seed_everything(5)
        assert torch.equal(torch.rand(3, device=device), first)


def test_seeds_beyond_the_32_bits_of_numpy_are_taken() -> None:
    seed_everything(2**40 + 1)
    first = draw()
    seed_everything(2**40 + 1)
    assert draw() == first
    seed_everything(2**40)
    assert draw() != first


def test_a_state_of_an_older_version_or_another_machine_is_restored_as_far_as_it_goes() -> None:
    state = random_state()
    expected = draw()
    foreign = {**{name: state[name] for name in ("python", "numpy", "torch")}, "cuda": [torch.get_rng_state()] * 99}
    set_random_state(foreign)
    assert draw() == expected
    set_random_state({**foreign, "xpu": [torch.get_rng_state()] * 99})
    assert draw() == expected


def test_seeding_again_does_not_take_determinism_back() -> None:
    try:
        seed_everything(0, deterministic=True)
        seed_everything(1)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        deterministic_only(False)
    assert not torch.are_deterministic_algorithms_enabled()
