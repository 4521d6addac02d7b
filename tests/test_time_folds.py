"""Time folds: no model sees what comes after, or overlaps with, what it is judged on."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import model_selection as sk

from batteries.errors import ConfigError, FoldsError
from batteries.prepare.folds import Folds, make_folds
from batteries.prepare.time_folds import Purged, TimeOrdered


def table(n: int, **columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"id": range(n), "target": [i % 2 for i in range(n)], **columns})


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("size", [None, 4])
def test_blocks_of_one_row_a_moment_are_scikit_learns(n: int, gap: int, window: int | None, size: int | None) -> None:
    order = np.random.default_rng(0).permutation(61)  # the table need not be in the order of time
    days = [date(2024, 1, 1) + timedelta(int(day)) for day in order]
    folds = make_folds(table(61, day=days), TimeOrdered("day", n=n, gap=gap, window=window, size=size))
    theirs = sk.TimeSeriesSplit(n, gap=gap, max_train_size=window, test_size=size).split(order)
    for fold, (training, held_out) in enumerate(theirs):
        assert sorted(order[folds.training(fold)].tolist()) == training.tolist()
        assert sorted(order[folds.held_out(fold)].tolist()) == held_out.tolist()
    assert folds.n == n


@settings(max_examples=80, deadline=None)
@given(
    moments=st.lists(st.integers(0, 30), min_size=20, max_size=80),
    n=st.integers(1, 4),
    gap=st.integers(0, 2),
    window=st.one_of(st.none(), st.integers(1, 10)),
)
def test_training_is_earlier_by_the_gap_and_moments_are_never_parted(
    moments: list[int], n: int, gap: int, window: int | None
) -> None:
    moment = np.array(moments)
    order = np.unique(moment)
    if len(order) // (n + 1) < 1 or len(order) - gap - len(order) // (n + 1) * n < 1:
        return
    folds = make_folds(table(len(moments), t=moments), TimeOrdered("t", n=n, gap=gap, window=window))
    place = np.searchsorted(order, moment)
    for fold in range(n):
        training, held_out = place[folds.training(fold)], place[folds.held_out(fold)]
        assert training.max() == held_out.min() - gap - 1
        assert window is None or training.min() >= held_out.min() - gap - window
        assert set(held_out.tolist()) == set(range(held_out.min(), held_out.max() + 1))
    assert all(len(set(folds.fold[place == p].tolist())) == 1 for p in range(len(order)))


def test_a_hold_out_of_the_last_rows_is_one_fold() -> None:
    folds = make_folds(table(10, t=range(10)), TimeOrdered("t", n=1, size=3, gap=1))
    assert folds.held_out(0).tolist() == [7, 8, 9]
    assert folds.training(0).tolist() == [0, 1, 2, 3, 4, 5]
    assert folds.covered.to_list() == [7, 8, 9]


KINDS: list[Any] = [
    [date(2024, 1, 1) + timedelta(days=i) for i in range(12)],
    [datetime(2024, 3, 30, 20, tzinfo=UTC) + timedelta(hours=i) for i in range(12)],
    pl.datetime_range(datetime(2024, 3, 31), datetime(2024, 3, 31, 11), "1h", time_zone="Europe/Berlin", eager=True)[
        :12
    ].extend(
        pl.Series([datetime(2024, 4, 1)]).dt.replace_time_zone("Europe/Berlin").cast(pl.Datetime("us", "Europe/Berlin"))
    ),
    [float(i) for i in range(12)],
    range(12),
]


@pytest.mark.parametrize("times", KINDS)
def test_any_type_of_time_gives_the_same_blocks(times: Any) -> None:
    column = pl.Series("t", times)[:12]
    n = len(column)
    same = make_folds(table(n, t=range(n)), TimeOrdered("t", n=2))
    folds = make_folds(table(n, t=column), TimeOrdered("t", n=2))
    assert folds.fold.tolist() == same.fold.tolist()
    assert np.array_equal(folds.trains, same.trains)  # type: ignore[arg-type]


def folds_or_none(rows: pl.DataFrame, strategy: Purged) -> Folds | None:
    """Folds, or None where so few rows leave none to train."""
    try:
        return make_folds(rows, strategy)
    except FoldsError:
        return None


@settings(max_examples=100, deadline=None)
@given(
    spans=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), min_size=15, max_size=50),
    n=st.integers(2, 4),
    embargo=st.integers(0, 4),
)
def test_purging_and_embargo_are_those_of_brute_force(spans: list[tuple[int, int]], n: int, embargo: int) -> None:
    start = np.array([s for s, _ in spans])
    end = np.array([s + length for s, length in spans])
    rows = table(len(spans), start=start, end=end)
    folds = folds_or_none(rows, Purged("start", "end", n=n, embargo=embargo))
    assume(folds is not None)
    assert folds is not None
    assert (folds.fold >= 0).all()
    for fold in range(n):
        held_out = folds.held_out(fold).tolist()
        last = max(end[i] for i in held_out)
        allowed = [
            j
            for j in range(len(spans))
            if j not in held_out
            and not any(start[j] <= end[i] and start[i] <= end[j] for i in held_out)
            and not last < start[j] <= last + embargo
        ]
        assert folds.training(fold).tolist() == allowed
    order = [start[folds.held_out(fold)] for fold in range(n)]
    assert all(a.max() < b.min() for a, b in pairwise(order))


def test_purged_blocks_without_overlap_are_those_of_an_unshuffled_kfold() -> None:
    rows = table(23, start=range(0, 46, 2), end=range(1, 47, 2))
    folds = make_folds(rows, Purged("start", "end", n=5))
    for fold, (training, held_out) in enumerate(sk.KFold(5).split(np.zeros(23))):
        assert folds.held_out(fold).tolist() == held_out.tolist()
        assert folds.training(fold).tolist() == training.tolist()


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_an_embargo_of_days_is_that_of_as_many_units(zone: str | None) -> None:
    begin = pl.Series([datetime(2024, 1, 1) + timedelta(days=i) for i in range(30)]).dt.replace_time_zone(zone)
    days = table(30, a=begin, b=begin.dt.offset_by("2d"))
    units = table(30, a=range(30), b=range(2, 32))
    by_length = make_folds(days, Purged("a", "b", n=3, embargo="3d"))
    by_number = make_folds(units, Purged("a", "b", n=3, embargo=3))
    assert np.array_equal(by_length.trains, by_number.trains)  # type: ignore[arg-type]
    assert by_number.training(0).tolist() == list(range(15, 30))  # fold 0 is known by day 11; the embargo ends on 14


def test_who_trains_survives_the_file_and_is_part_of_the_digest() -> None:
    rows = table(20, t=range(20))
    digests = set()
    for strategy in (TimeOrdered("t", n=2), TimeOrdered("t", n=2, gap=1), Purged("t", "t", n=2)):
        folds = make_folds(rows, strategy)
        folds.save(Path("f.parquet"))
        again = Folds.load("f.parquet")
        assert again.digest == folds.digest
        for fold in range(folds.n):
            assert again.training(fold).tolist() == folds.training(fold).tolist()
        digests.add(folds.digest)
        changed = Folds(folds.ids, folds.fold, folds.about, folds.trains & (np.arange(20) > 0)[:, None])  # type: ignore[operator]
        assert changed.digest != folds.digest
    assert len(digests) == 3


WRONG = [
    (TimeOrdered("text"), r"column 'text' is of type String, not dates, times or numbers; .*str\.to_datetime"),
    (TimeOrdered("nan"), "the folds need column 'nan', but 1 of its rows are NaN"),
    (TimeOrdered("null"), "the folds need column 'null', but 1 of its rows are empty"),
    (TimeOrdered("two"), "'two' has 2 different moments, too few for 5 blocks of 1 after a gap of 0"),
    (TimeOrdered("t", n=3, size=4), "'t' has 12 different moments, too few for 3 blocks of 4 after a gap of 0"),
    (TimeOrdered("t", n=2, gap=9), "too few for 2 blocks of 4 after a gap of 9 and something to train on; lower n"),
    (Purged("t", "day"), "'t' is Int64 and 'day' Date; cast one to the type of the other"),
    (Purged("t", "before"), r"2 rows end before they start \(rows \[3, 5\], \.\.\.\); correct 'before'"),
    (Purged("t", "t", embargo="3d"), "an embargo of '3d' does not fit column 't' of Int64: give a number"),
    (Purged("day", "day", embargo=3), "an embargo of 3 does not fit column 'day' of Date: give a number for"),
    (Purged("day", "day", embargo="3 weeks"), r"^the embargo '3 weeks' is no length of time .*, or turn the .* dates$"),
    (Purged("span", "span", embargo="3d"), r"^the embargo '3d' is no length of time that Duration.* into dates$"),
    (Purged("two", "two", n=3), r"'two' has too few different moments \(2\) for 3 folds; lower n"),
    (Purged("t", "always", n=2), "no row is left to train when fold 0 of 2 is held out: all overlap its time"),
]


@pytest.mark.parametrize(("strategy", "message"), WRONG)
def test_times_that_do_not_fit_are_refused(strategy: Any, message: str) -> None:
    rows = table(
        12,
        t=range(12),
        text=["2024-01-01"] * 12,
        nan=[float("nan"), *range(11)],
        null=[None, *range(11)],
        two=[0, 1] * 6,
        day=[date(2024, 1, 1) + timedelta(i) for i in range(12)],
        span=[timedelta(i) for i in range(12)],
        before=[0, 1, 2, 1, 4, 0, *range(6, 12)],
        always=[100] * 12,
    )
    with pytest.raises(FoldsError, match=message):
        make_folds(rows, strategy)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TimeOrdered("t", n=0),
        lambda: TimeOrdered("t", gap=-1),
        lambda: TimeOrdered("t", gap="7d"),  # type: ignore[arg-type]
        lambda: TimeOrdered("t", window=0),
        lambda: TimeOrdered("t", size=1.5),  # type: ignore[arg-type]
        lambda: Purged("a", "b", n=1),
        lambda: Purged("a", "b", embargo=-1),
        lambda: Purged("a", "b", embargo=float("nan")),
        lambda: Purged("a", "b", embargo="-3d"),
        lambda: Purged("a", "b", embargo=""),
        lambda: Purged("a", "b", embargo="three days"),
    ],
)
def test_settings_that_cannot_be_are_refused_when_declared(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"folds: (n|gap|window|size|the embargo) must be "):
        make()
