"""Strategies: scikit-learn's folds where it has the rule; every rule disjoint, complete and true to its word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import model_selection as sk

from batteries.errors import ConfigError, FoldsError
from batteries.prepare.folds import Folds, describe, grouped_column, make_folds, ordered_column
from batteries.prepare.made_elsewhere import FromFile, Predefined
from batteries.prepare.strategies import Grouped, HoldOut, KFold, Stratified, repeats
from batteries.prepare.time_folds import Purged, TimeOrdered


def table(n: int = 60, **columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"id": range(n), "target": [i % 3 for i in range(n)], **columns})


def fold_of(n: int, splits: Any) -> list[int]:
    """The fold of every row of n as scikit-learn's splits hold it out."""
    fold = np.full(n, -1)
    for number, (_, held_out) in enumerate(splits):
        fold[held_out] = number
    return fold.tolist()


# Classes with groups, and bins


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize("n", [2, 4])
def test_stratified_groups_are_scikit_learns(n: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    group = random.integers(0, 25, 200)
    rows = table(200, g=[f"p{g:02}" for g in group], c=random.integers(0, 3, 200))
    theirs = sk.StratifiedGroupKFold(n, shuffle=True, random_state=seed).split(group, rows["c"].to_numpy(), group)
    ours = make_folds(rows, Stratified("c", groups="g", n=n, seed=seed))
    assert ours.fold.tolist() == fold_of(200, theirs)


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(2, 8), min_size=6, max_size=15), n=st.integers(2, 3), seed=st.integers(0, 3))
def test_stratified_groups_are_never_parted_and_cover_every_row(sizes: list[int], n: int, seed: int) -> None:
    group = np.repeat(np.arange(len(sizes)), sizes)
    rows = table(len(group), g=group)
    folds = make_folds(rows, Stratified("target", groups="g", n=n, seed=seed))
    assert (folds.fold >= 0).all()
    assert all(len(set(folds.fold[group == g].tolist())) == 1 for g in range(len(sizes)))


def test_groups_and_classes_are_nearer_to_their_shares_than_groups_alone() -> None:
    random = np.random.default_rng(0)
    group = np.sort(random.integers(0, 40, 800))
    rows = table(800, g=group, c=(random.random(800) < np.where(group < 12, 0.7, 0.05)).astype(int))

    def spread(strategy: Any) -> float:
        fold = make_folds(rows, strategy).fold
        return float(np.std([rows["c"].to_numpy()[fold == f].mean() for f in range(4)]))

    assert spread(Stratified("c", groups="g", n=4)) < 0.5 * spread(Grouped("g", n=4))


def test_bins_are_scikit_learns_stratified_folds_of_the_quantiles() -> None:
    price = np.random.default_rng(0).lognormal(size=203)
    quantile = np.searchsorted(np.quantile(price, np.arange(1, 10) / 10), price, side="right")
    theirs = sk.StratifiedKFold(5, shuffle=True, random_state=3).split(price, quantile)
    ours = make_folds(table(203, price=price), Stratified("price", bins=10, seed=3))
    assert ours.fold.tolist() == fold_of(203, theirs)
    means = [price[ours.fold == f].mean() for f in range(5)]
    plain = make_folds(table(203, price=price), KFold(seed=3)).fold
    assert np.ptp(means) < np.ptp([price[plain == f].mean() for f in range(5)])


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.5, 7.0, 9.0]), min_size=10, max_size=60))
def test_bins_of_tied_values_have_rows_for_every_fold(values: list[float]) -> None:
    folds = make_folds(table(len(values), v=values), Stratified("v", bins=8, n=5))
    assert (folds.fold >= 0).all()
    assert np.ptp(np.bincount(folds.fold)) <= 8


# Held out once


def test_a_hold_out_is_scikit_learns_and_all_others_train() -> None:
    rows = table(90, g=[i % 9 for i in range(90)])
    for strategy, splitter, y, groups in (
        (HoldOut(0.3, seed=4), sk.ShuffleSplit, None, None),
        (HoldOut(0.3, column="target", seed=4), sk.StratifiedShuffleSplit, rows["target"], None),
        (HoldOut(0.3, groups="g", seed=4), sk.GroupShuffleSplit, None, rows["g"]),
    ):
        folds = make_folds(rows, strategy)
        theirs = splitter(1, test_size=0.3, random_state=4).split(np.zeros(90), y, groups)
        assert folds.fold.tolist() == fold_of(90, theirs)
        assert folds.n == 1
        assert sorted([*folds.training(0), *folds.held_out(0)]) == list(range(90))
        assert folds.covered.to_list() == folds.held_out(0).tolist()
        assert folds.test_share == len(folds.held_out(0)) / len(folds.training(0))


@pytest.mark.parametrize("share", [0, 1, 1.0, 0.0, -0.1, "0.2", None])
def test_a_share_that_leaves_nothing_is_refused(share: Any) -> None:
    with pytest.raises(ConfigError, match="the share held out must be between 0 and 1, got"):
        HoldOut(share)


def test_a_hold_out_of_classes_and_groups_at_once_names_what_does_both() -> None:
    with pytest.raises(ConfigError, match=r"not both; fold 0 of Stratified\('c', groups='g'\) has both"):
        HoldOut(0.2, column="c", groups="g")


def test_a_hold_out_too_small_for_its_classes_is_refused_with_the_reason() -> None:
    with pytest.raises(FoldsError, match=r"2% of 60 rows cannot be held out: .*number of classes"):
        make_folds(table(), HoldOut(0.02, column="target"))


# Made elsewhere


@pytest.mark.parametrize(
    ("column", "fold"),
    [
        ([0, 1, 2, 0], [0, 1, 2, 0]),
        ([1, 2, 3, 1], [0, 1, 2, 0]),
        ([-1, 1, 3, -1], [-1, 0, 1, -1]),
        (["b", "a", "b", "c"], [1, 0, 1, 2]),
        (["0", "10", "2", "0"], [0, 2, 1, 0]),
        ([0.0, 1.0, 0.0, 1.0], [0, 1, 0, 1]),
        ([True, False, True, False], [1, 0, 1, 0]),
        (["b", "-1", "b", "a"], [1, -1, 1, 0]),
        (pl.Series(["2", "-1", "0", "2"], dtype=pl.Categorical), [1, -1, 0, 1]),
        (pl.Series(["2", "-1", "0", "2"], dtype=pl.Enum(["2", "-1", "0"])), [1, -1, 0, 1]),
        (pl.Series(["b", "a", "b", "c"], dtype=pl.Enum(["c", "b", "a"])), [1, 0, 1, 2]),
    ],
)
def test_a_column_of_folds_is_numbered_from_0_and_minus_1_always_trains(column: list[Any], fold: list[int]) -> None:
    assert make_folds(table(4, mine=column), Predefined("mine")).fold.tolist() == fold


@pytest.mark.parametrize("column", [[0.5, 1, 2, 0], [-2, 0, 1, 0], [float("inf"), 1, 0, 1], ["inf", "1", "0", "1"]])
def test_a_column_with_other_numbers_is_no_column_of_folds(column: list[Any]) -> None:
    with pytest.raises(FoldsError, match=r"column 'mine': folds must be whole numbers from -1 on, got \["):
        make_folds(table(4, mine=column), Predefined("mine"))


def test_predefined_folds_are_scikit_learns() -> None:
    fold = np.random.default_rng(0).integers(-1, 4, 60)
    ours = make_folds(table(mine=fold), Predefined("mine"))
    for number, (training, held_out) in enumerate(sk.PredefinedSplit(fold).split()):
        assert ours.held_out(number).tolist() == held_out.tolist()
        assert ours.training(number).tolist() == training.tolist()


@pytest.mark.parametrize("write", ["csv", "parquet"])
@pytest.mark.parametrize("texts", [False, True])
def test_folds_of_a_file_are_joined_by_id(write: str, texts: bool) -> None:
    ids = ["007", "7", "a,b", 'q"'] if texts else [3, 1, 10, 2]
    made = pl.DataFrame({"fold": [1, 2, 1, 2], "id": ids, "more": [0.5] * 4})
    path = f"theirs.{write}"
    made.write_csv(path) if write == "csv" else made.write_parquet(path)
    folds = make_folds(pl.DataFrame({"id": ids[::-1]}), FromFile(path))
    assert dict(zip(folds.ids, folds.fold.tolist(), strict=True)) == dict(zip(ids, [0, 1, 0, 1], strict=True))


WRONG = [
    ("id,fold\n0,0\n1,1\n1,1\n2,0\n3,1", r"f\.csv: 1 ids occur more than once \(first: \[1\]\)"),
    ("id,fold\n0,0\n1,1\n2,0", r"f\.csv: 1 of 4 rows of the table have no fold \(first: \[3\]\); write -1 for"),
    ("id,fold\n0,0\n1,1\n2,0\n3,1\n8,1", r"f\.csv: 1 of its ids are not in the table \(first: \[8\]\)"),
    ("id,fold\n0,0\nx,1\n2,0\n3,1", r"f\.csv: ids must be Int64 as in the table, got \['x'\]"),
    ("id,fold\n0,0\n1,\n2,0\n3,1", r"f\.csv, column 'fold': 1 of its rows have no fold; write -1"),
    ("id,kfold\n0,0\n1,1\n2,0\n3,1", r"f\.csv: has no column 'fold'; it has id, kfold\. Rename its columns"),
    ("id,fold\n0,0\n1,1.5\n2,0\n3,1", r"f\.csv, column 'fold': folds must be whole numbers from -1 on, got \[1\.5\]"),
    ("", r"f\.csv: cannot be read \("),
    (None, r"f\.csv: there is no such file of folds"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_a_file_that_does_not_give_every_row_one_fold_is_refused(text: str | None, message: str) -> None:
    if text is not None:
        Path("f.csv").write_text(text)
    with pytest.raises(FoldsError, match=message):
        make_folds(table(4), FromFile("f.csv"))


# Repeats


def test_repeats_are_scikit_learns_folds_of_seeds_of_their_own() -> None:
    rows = table()
    made = [make_folds(rows, strategy) for strategy in repeats(KFold(n=3, seed=5), 4)]
    assert made[0].digest == make_folds(rows, KFold(n=3, seed=5)).digest
    assert len({folds.digest for folds in made}) == 4
    for strategy, folds in zip(repeats(KFold(n=3, seed=5), 4), made, strict=True):
        theirs = sk.KFold(3, shuffle=True, random_state=strategy.seed).split(np.zeros(60))
        assert folds.fold.tolist() == fold_of(60, theirs)
    assert repeats(KFold(seed=5), 6)[:4] == [*repeats(KFold(seed=5), 4)]


@pytest.mark.parametrize("strategy", [TimeOrdered("day"), Purged("a", "b"), Predefined("fold")])
def test_repeats_of_what_draws_nothing_are_refused(strategy: Any) -> None:
    with pytest.raises(ConfigError, match="draws nothing at random, so that repeats would all be the same"):
        repeats(strategy, 3)


# What does not fit


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (Stratified("x"), r"use Stratified\('x', n=2\) or KFold\(n=5\), Stratified\('x', bins=10\) for a number"),
        (Stratified("nan", bins=4), "the folds need column 'nan', but 1 of its rows are NaN; fill them first"),
        (Stratified("text", bins=4), "bins are of numbers, and column 'text' holds String; leave bins away"),
        (Stratified("target", groups="few"), "'few' has 2 groups, fewer than 5 folds; lower n"),
        (Stratified("target", groups="nan"), "the folds need column 'nan', but 1 of its rows are NaN"),
        (HoldOut(0.2, groups="gone"), "the folds need column 'gone'; the table has id, target"),
        (Predefined("nan"), "the folds need column 'nan', but 1 of its rows are NaN"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_what_to_do(strategy: Any, message: str) -> None:
    rows = table(
        x=np.arange(60) / 7,
        nan=[float("nan"), *range(59)],
        text=["a"] * 60,
        few=[0, 1] * 30,
    )
    with pytest.raises(FoldsError, match=message):
        make_folds(rows, strategy)


def test_groups_of_which_scikit_learn_leaves_a_fold_empty_are_refused() -> None:
    groups = [0] + [1] * 6 + [2] * 3 + [3] * 5 + [4]
    labels = [0, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0]
    with pytest.raises(FoldsError, match="'g' has too few or too uneven groups: fold 3 got none; lower n"):
        make_folds(pl.DataFrame({"id": range(16), "c": labels, "g": groups}), Stratified("c", groups="g"))


@pytest.mark.parametrize("bins", [1, 0, 2.5, "10"])
def test_a_number_of_bins_that_cannot_be_is_refused(bins: Any) -> None:
    with pytest.raises(ConfigError, match="bins must be a whole number >= 2, got"):
        Stratified("x", bins=bins)


# How they are told


def test_a_strategy_is_told_without_what_was_not_asked_for() -> None:
    assert describe(Stratified("label")) == "Stratified(column='label', n=5, seed=0)"  # as files written before say
    assert describe(Stratified("y", groups="g")) == "Stratified(column='y', groups='g', n=5, seed=0)"
    assert describe(HoldOut(0.25)) == "HoldOut(share=0.25, seed=0)"


@pytest.mark.parametrize(
    ("strategy", "groups", "time"),
    [
        (Grouped("patient"), "patient", None),
        (Grouped("it's"), "it's", None),
        (Stratified("y", groups="patient"), "patient", None),
        (HoldOut(0.2, groups="patient"), "patient", None),
        (Stratified("groups"), None, None),
        (KFold(), None, None),
        (TimeOrdered("day"), None, "day"),
    ],
)
def test_the_columns_that_bind_rows_are_read_from_what_is_told(
    strategy: Any, groups: str | None, time: str | None
) -> None:
    assert grouped_column(describe(strategy)) == groups
    assert ordered_column(describe(strategy)) == time


def test_folds_written_before_rows_could_train_in_some_only_load_as_they_were() -> None:
    """The two columns and the metadata that version 0.1 wrote."""
    from batteries.experiment.sealed import write_table

    about = make_folds(table(6), Stratified("target", n=2)).about
    write_table(Path("old.parquet"), pl.DataFrame({"id": range(6), "fold": [0, 0, 0, 1, 1, 1]}), about)
    old = Folds.load("old.parquet")
    assert old.trains is None
    assert old.training(0).tolist() == [3, 4, 5]
    assert old.plain() == {"n": 2, "strategy": "Stratified(column='target', n=2, seed=0)", "digest": old.digest}
