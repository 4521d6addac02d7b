"""Schedules: pure functions of the update count, equal to the formulas and to torch's schedulers."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from math import ceil, inf, isfinite, nan
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from batteries.errors import ConfigError
from batteries.experiment.metric import Metric
from batteries.experiment.schedule import (
    SCHEDULES,
    Cosine,
    OneCycle,
    Plateau,
    Polynomial,
    Schedule,
    Steps,
    constant,
    cosine,
    linear,
    warmed_up,
)

LOSS = Metric("loss", higher_is_better=False)
AUC = Metric("auc", higher_is_better=True)

shares = st.floats(0, 1)
schedules: st.SearchStrategy[Schedule] = st.one_of(
    st.sampled_from(sorted(SCHEDULES)).map(SCHEDULES.__getitem__),
    st.builds(Cosine, floor=shares),
    st.builds(OneCycle, rise=shares, first=shares, last=shares),
    st.builds(Steps, at=st.lists(shares, max_size=4).map(tuple), factor=shares),
    st.builds(Polynomial, power=st.floats(0.01, 10), floor=shares),
    st.builds(Plateau, factor=shares, floor=shares),
)


def optimizer(lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)


def rates(scheduler: lr_scheduler.LRScheduler, total: int) -> list[float]:
    """What torch's scheduler sets before each of `total` updates."""
    values = []
    for step in range(total):
        values.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.optimizer.step()
        if step < total - 1:
            scheduler.step()
    return values


@settings(deadline=None)
@given(schedule=schedules, total=st.integers(1, 200), warmup=st.integers(0, 250))
def test_every_schedule_is_a_share_at_every_update_with_and_without_warmup(
    schedule: Schedule, total: int, warmup: int
) -> None:
    for each in (schedule, warmed_up(schedule, warmup)):
        values = [each(step, total) for step in range(total + 2)]
        assert all(type(value) is float and isfinite(value) and 0 <= value <= 1 for value in values)


@settings(deadline=None)
@given(total=st.integers(1, 500), warmup=st.integers(0, 400), name=st.sampled_from(sorted(SCHEDULES)))
def test_a_rate_rises_through_the_warmup_and_all_but_one_cycle_never_after_it(
    total: int, warmup: int, name: str
) -> None:
    warmup = min(warmup, total - 1)
    values = [warmed_up(SCHEDULES[name], warmup)(step, total) for step in range(total)]
    assert values[:warmup] == sorted(values[:warmup])
    if name != "one-cycle":
        assert max(values) == 1
        assert values[warmup:] == sorted(values[warmup:], reverse=True)
        assert min(values) > 0


def test_the_values_of_schedules_are_the_formulas() -> None:
    assert [constant(s, 4) for s in range(4)] == [1, 1, 1, 1]
    assert [linear(s, 4) for s in range(5)] == [1, 0.75, 0.5, 0.25, 0]
    assert [cosine(s, 4) for s in range(5)] == pytest.approx([1, 0.5 + 0.125**0.5, 0.5, 0.5 - 0.125**0.5, 0])
    assert [Polynomial(floor=0.5)(s, 2) for s in range(3)] == [1, 0.625, 0.5]
    assert [Steps(at=(0.25, 0.75), factor=0.5)(s, 4) for s in range(4)] == [1, 0.5, 0.5, 0.25]
    assert [warmed_up(linear, 2)(s, 6) for s in range(6)] == [0.5, 1, 1, 0.75, 0.5, 0.25]


def test_a_schedule_past_its_end_stays_at_the_end() -> None:
    for schedule in SCHEDULES.values():
        assert schedule(9, 4) == schedule(5, 4)
        assert isfinite(schedule(0, 0))
    assert linear(9, 4) == cosine(9, 4) == 0
    assert OneCycle()(9, 4) == OneCycle()(3, 4) == 1 / 25e4


@pytest.mark.parametrize("floor", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("total", [1, 7, 100])
def test_cosine_is_that_of_torch(total: int, floor: float) -> None:
    theirs = rates(lr_scheduler.CosineAnnealingLR(optimizer(), T_max=total, eta_min=floor), total)
    assert [Cosine(floor=floor)(step, total) for step in range(total)] == pytest.approx(theirs, abs=1e-12)
    assert Cosine()(total // 2, total) == cosine(total // 2, total)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("total", [1, 7, 100])
def test_polynomial_is_that_of_torch(total: int, power: float) -> None:
    theirs = rates(lr_scheduler.PolynomialLR(optimizer(), total_iters=total, power=power), total)
    assert [Polynomial(power=power)(step, total) for step in range(total)] == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("total", [1, 2, 3, 7, 9, 100])
@pytest.mark.parametrize("at", [(1 / 3, 2 / 3), (0.07, 0.29, 0.57), (0.5, 0.5), (1.0,), ()])
def test_steps_are_those_of_torch(at: tuple[float, ...], total: int) -> None:
    milestones = [next(step for step in range(total + 1) if step / total >= share) for share in at]
    assert all(abs(step - ceil(share * total)) <= 1 for step, share in zip(milestones, at, strict=True))
    theirs = rates(lr_scheduler.MultiStepLR(optimizer(), milestones, gamma=0.1), total)
    assert [Steps(at=at)(step, total) for step in range(total)] == pytest.approx(theirs)


@pytest.mark.parametrize("rise", [0.0, 0.001, 0.1, 0.3, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("total", [1, 2, 3, 9, 50, 301])
@pytest.mark.parametrize(("first", "last"), [(1 / 25, 1 / 25e4), (0.5, 0.25), (1.0, 1.0)])
def test_one_cycle_is_that_of_torch_over_a_whole_run(rise: float, total: int, first: float, last: float) -> None:
    cycle = OneCycle(rise=rise, first=first, last=last)
    if rise * total == 1:  # torch divides by zero there; the rise is over before it begins
        assert [cycle(0, total), cycle(total - 1, total)] == [1.0, last if total > 1 else 1.0]
        return
    scheduler = lr_scheduler.OneCycleLR(
        optimizer(), max_lr=1.0, total_steps=total, pct_start=rise, div_factor=1 / first, final_div_factor=first / last
    )
    assert [cycle(step, total) for step in range(total)] == pytest.approx(rates(scheduler, total), abs=1e-12)


scores = st.lists(st.one_of(st.floats(0, 2), st.sampled_from([0.5, 0.50004, 0.5001, 0.0, nan])), max_size=40)


@settings(deadline=None, max_examples=300)
@given(
    scores=scores,
    higher=st.booleans(),
    factor=st.sampled_from([0.1, 0.5, 0.9]),
    patience=st.integers(0, 4),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    cooldown=st.integers(0, 3),
    floor=st.sampled_from([0.0, 0.05]),
)
def test_plateau_is_that_of_torch_after_every_epoch(
    scores: list[float],
    higher: bool,
    factor: float,
    patience: int,
    threshold: float,
    cooldown: int,
    floor: float,
) -> None:
    plateau = Plateau(factor=factor, patience=patience, threshold=threshold, cooldown=cooldown, floor=floor)
    adam = optimizer()
    mode: Literal["max", "min"] = "max" if higher else "min"
    theirs = lr_scheduler.ReduceLROnPlateau(
        adam,
        mode=mode,
        factor=factor,
        patience=patience,
        threshold=threshold,
        cooldown=cooldown,
        min_lr=floor,
        eps=0.0,
    )
    for epoch, score in enumerate(scores):
        theirs.step(score)
        assert plateau.after(scores[: epoch + 1], AUC if higher else LOSS) == adam.param_groups[0]["lr"]


@settings(deadline=None)
@given(scores=st.lists(st.floats(-2, 2), max_size=30))
def test_a_plateau_of_a_score_is_that_of_its_negative_the_other_way_up(scores: list[float]) -> None:
    plateau = Plateau(patience=1, threshold=0.1)
    assert plateau.after(scores, AUC) == plateau.after([-score for score in scores], LOSS)


@pytest.mark.parametrize("bad", [None, nan, inf, -inf])
@pytest.mark.parametrize("metric", [LOSS, AUC])
def test_a_score_that_is_not_finite_is_a_bad_epoch(bad: float | None, metric: Metric) -> None:
    plateau = Plateau(patience=1, factor=0.5)
    assert [plateau.after([0.5, *[bad] * n], metric) for n in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    assert plateau.after([bad, bad, 0.5], metric) == 0.5


def test_a_negative_score_that_gets_worse_is_no_improvement() -> None:
    assert Plateau(patience=0).after([-1.0, -0.99995], LOSS) == 0.1
    assert Plateau(patience=0).after([-1.0, -1.0], LOSS) == 0.1
    assert Plateau(patience=0).after([-1.0, -1.1], LOSS) == 1.0


def test_a_plateau_after_some_scores_stands_still_until_the_next() -> None:
    held: Any = Plateau(patience=0).held([0.5, 0.5], LOSS)
    assert {held(step, 10) for step in range(10)} == {0.1}
    assert warmed_up(held, 5)(0, 10) == pytest.approx(0.02)


def test_schedules_are_values() -> None:
    for schedule in (Cosine(floor=0.1), OneCycle(), Steps(), Polynomial(), Plateau()):
        assert pickle.loads(pickle.dumps(schedule)) == schedule
        assert hash(schedule) == hash(pickle.loads(pickle.dumps(schedule)))
    assert Steps(at=[0.5]) == Steps(at=(0.5,))  # type: ignore[arg-type]


WRONG: Sequence[tuple[type, dict[str, Any], str]] = [
    (Cosine, {"floor": 1.1}, r"schedule Cosine: floor must be from 0 to 1, got 1\.1"),
    (Cosine, {"floor": nan}, r"floor must be from 0 to 1, got nan"),
    (Cosine, {"floor": True}, r"floor must be from 0 to 1, got True"),
    (OneCycle, {"rise": -0.1}, r"schedule OneCycle: rise must be from 0 to 1, got -0\.1"),
    (OneCycle, {"first": 25}, r"schedule OneCycle: first must be from 0 to 1, got 25"),
    (OneCycle, {"last": "0"}, r"schedule OneCycle: last must be from 0 to 1, got '0'"),
    (Steps, {"at": (30, 60)}, r"schedule Steps: at must be shares of the updates, from 0 to 1, got \(30, 60\)"),
    (Steps, {"at": 0.5}, r"schedule Steps: at must be shares of the updates"),
    (Steps, {"factor": 10}, r"schedule Steps: factor must be from 0 to 1, got 10"),
    (Polynomial, {"power": 0}, r"schedule Polynomial: power must be above 0, got 0"),
    (Polynomial, {"power": inf}, r"schedule Polynomial: power must be above 0, got inf"),
    (Plateau, {"patience": -1}, r"schedule Plateau: patience must be a whole number >= 0, got -1"),
    (Plateau, {"cooldown": 1.0}, r"schedule Plateau: cooldown must be a whole number >= 0, got 1\.0"),
    (Plateau, {"threshold": -1e-4}, r"schedule Plateau: threshold must be from 0 to 1, got -0\.0001"),
]


@pytest.mark.parametrize(("schedule", "fields", "message"), WRONG)
def test_a_number_that_cannot_work_is_refused(schedule: type, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        schedule(**fields)
