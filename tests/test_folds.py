"""Folds: disjoint, complete, never parting a group, written once and refused for anything else."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import model_selection as sk

import batteries as bt
from batteries.errors import ConfigError, CorruptError, FoldsError
from batteries.experiment.sealed import write_table
from batteries.prepare.folds import MAX_CLASSES, Folds, default_strategy, describe, make_folds, split
from batteries.prepare.strategies import Grouped, KFold, Stratified


def table(n: int = 30, **columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"id": range(n), "target": [i % 3 for i in range(n)], **columns})


def held_out(folds: Folds) -> list[list[int]]:
    return [folds.held_out(fold).tolist() for fold in range(folds.n)]


# What folds are

STRATEGIES = st.builds(
    lambda kind, n, seed: {"k": KFold(n=n, seed=seed), "s": Stratified("c", n=n, seed=seed)}.get(
        kind, Grouped("c", n=n, seed=seed)
    ),
    st.sampled_from("ksg"),
    st.integers(2, 5),
    st.integers(0, 3),
)


@settings(max_examples=60, deadline=None)
@given(strategy=STRATEGIES, sizes=st.lists(st.integers(5, 12), min_size=5, max_size=8), texts=st.booleans())
def test_every_row_is_held_out_exactly_once_and_trains_in_all_other_folds(
    strategy: Any, sizes: list[int], texts: bool
) -> None:
    groups = [g for g, size in enumerate(sizes) for _ in range(size)]
    random.Random(0).shuffle(groups)
    rows = pl.DataFrame({"id": range(len(groups)), "c": [f"g{g}" for g in groups] if texts else groups})
    folds = make_folds(rows, strategy)
    assert folds.n == strategy.n
    assert sorted(row for rows in held_out(folds) for row in rows) == list(range(len(groups)))
    for fold in range(folds.n):
        both = [*folds.training(fold), *folds.held_out(fold)]
        assert sorted(both) == list(range(len(groups)))
        assert len(folds.held_out(fold)) > 0
    if isinstance(strategy, Grouped):
        assert all(len(set(folds.fold[np.array(groups) == g])) == 1 for g in range(len(sizes)))
    if isinstance(strategy, Stratified):
        for g, size in enumerate(sizes):
            shares = np.bincount(folds.fold[np.array(groups) == g], minlength=folds.n)
            assert size // folds.n <= shares.min() <= shares.max() <= -(-size // folds.n)
    if isinstance(strategy, KFold):
        assert np.ptp(np.bincount(folds.fold)) <= 1


@pytest.mark.parametrize("n", [2, 5, 7])
@pytest.mark.parametrize("seed", [0, 11])
def test_plain_and_stratified_folds_are_scikit_learns_own(n: int, seed: int) -> None:
    rows = table(101, name=[["b", "a", "c", "a"][i % 4] for i in range(101)])
    zeros = np.zeros(len(rows))
    plain = sk.KFold(n, shuffle=True, random_state=seed).split(zeros)
    assert held_out(make_folds(rows, KFold(n=n, seed=seed))) == [valid.tolist() for _, valid in plain]
    for column in ("target", "name"):
        theirs = sk.StratifiedKFold(n, shuffle=True, random_state=seed).split(zeros, rows[column].to_numpy())
        ours = make_folds(rows, Stratified(column, n=n, seed=seed))
        assert held_out(ours) == [valid.tolist() for _, valid in theirs]


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=4, max_size=40), n=st.integers(2, 4), seed=st.integers(0, 5))
def test_grouped_folds_are_as_balanced_as_scikit_learns(sizes: list[int], n: int, seed: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    folds = make_folds(pl.DataFrame({"id": range(len(groups)), "g": groups}), Grouped("g", n=n, seed=seed))
    theirs = [len(valid) for _, valid in sk.GroupKFold(n).split(groups, groups=groups)]
    assert sorted(np.bincount(folds.fold).tolist()) == sorted(theirs)


def test_another_seed_deals_the_groups_otherwise_and_the_same_seed_alike() -> None:
    rows = table(60, g=[i % 20 for i in range(60)])
    first, again, other = (make_folds(rows, Grouped("g", seed=seed)).fold.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_groups_are_dealt_alike_whatever_the_type_that_holds_them() -> None:
    names = [f"g{i % 12:02}" for i in range(60)]
    kinds = [pl.String, pl.Categorical, pl.Enum(sorted(set(names)))]
    folds = [make_folds(table(60, g=pl.Series(names, dtype=kind)), Grouped("g")).fold.tolist() for kind in kinds]
    numbers = make_folds(table(60, g=[i % 12 for i in range(60)]), Grouped("g")).fold.tolist()
    assert folds == [numbers] * 3


def test_a_column_may_be_called_count() -> None:
    rows = pl.DataFrame({"id": range(20), "count": [0, 1] * 10})
    assert make_folds(rows, Stratified("count", n=2)).n == 2
    assert default_strategy(rows, "count") == Stratified("count")


# Wrong strategies


@pytest.mark.parametrize("make", [KFold, lambda n: Stratified("a", n=n), lambda n: Grouped("a", n=n)])
@pytest.mark.parametrize("n", [1, 0, -3, 2.5, "5", None])
def test_fewer_than_two_folds_are_refused_when_declared(make: Any, n: Any) -> None:
    with pytest.raises(ConfigError, match="folds: n must be a whole number >= 2, got "):
        make(n=n)


WRONG = [
    (KFold(n=31), "the table has 30 rows, fewer than 31 folds; lower n"),
    (Stratified("kind"), r"the folds need column 'kind'; the table has id, target, few, empty"),
    (Grouped("kind"), r"the folds need column 'kind'; the table has"),
    (Stratified("empty"), "the folds need column 'empty', but 29 of its rows are empty; fill them first"),
    (Grouped("empty"), "the folds need column 'empty', but 29 of its rows are empty; fill them first"),
    (Grouped("target"), "'target' has 3 groups, fewer than 5 folds; lower n"),
    (
        Stratified("few"),
        r"2 classes of 'few' have fewer rows than the 5 folds \(the rarest 2; first: \['b', 'c'\]\);"
        r" use Stratified\('few', n=2\) or KFold\(n=5\)",
    ),
]


@pytest.mark.parametrize(("strategy", "message"), WRONG)
def test_a_strategy_that_does_not_fit_the_table_is_refused(strategy: Any, message: str) -> None:
    rows = table(30, few=["a"] * 25 + ["b"] * 3 + ["c"] * 2, empty=[1] + [None] * 29)
    with pytest.raises(FoldsError, match=message):
        make_folds(rows, strategy)


@dataclass(frozen=True)
class Own:
    """A strategy of the user's."""

    fold: Any

    def columns(self) -> list[str]:
        return []

    def assign(self, table: pl.DataFrame) -> Any:
        return self.fold


def test_a_strategy_of_the_users_own_is_as_good() -> None:
    folds = make_folds(table(4), Own(np.array([1, 0, 1, 0])))
    assert held_out(folds) == [[1, 3], [0, 2]]
    assert held_out(make_folds(table(4), Own([1, 0, 1, 0]))) == held_out(folds)
    folds.save(Path("folds.parquet"))
    assert Folds.load(Path("folds.parquet")).digest == folds.digest


@pytest.mark.parametrize(
    "fold",
    [
        [0, 0, 0, 0],
        [1, 2, 1, 2],
        [0, 2, 0, 2],
        [-2, 0, 1, 0],
        [-1, -1, -1, -1],
        [0, 1, 0],
        [0.0, 1.0, 0.0, 1.0],
        [[0], [1], [0], [1]],
    ],
)
def test_folds_with_a_gap_an_empty_one_or_another_length_are_refused(fold: Any) -> None:
    with pytest.raises(
        FoldsError, match=r"folds must be numbered 0 to n - 1|4 rows need one whole number each|no row is left"
    ):
        make_folds(table(4), Own(np.array(fold)))


# What is chosen when nothing is said


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ([0, 1] * 50, Stratified("target")),
        (["a", "b"] * 50, Stratified("target")),
        ([True, False] * 50, Stratified("target")),
        ([0.0, 1.0] * 50, KFold()),
        ([0] * 96 + [1] * 4, KFold()),
        (list(range(100)), KFold()),
        ([i % (MAX_CLASSES + 1) for i in range(5 * (MAX_CLASSES + 1))], KFold()),
    ],
)
def test_a_target_that_looks_like_classes_is_stratified(target: list[Any], expected: Any) -> None:
    assert default_strategy(pl.DataFrame({"target": target}), "target") == expected


def test_a_categorical_target_is_stratified() -> None:
    column = pl.Series("target", ["a", "b"] * 10, dtype=pl.Categorical)
    assert default_strategy(pl.DataFrame({"target": column}), "target") == Stratified("target")


# Files


@dataclass(kw_only=True)
class Mine(bt.Experiment):
    metric = bt.Metric.accuracy()

    rows: Any = None

    def table(self) -> Any:
        return self.rows


def with_folds(rows: pl.DataFrame, strategy: Any) -> Mine:
    mine = Mine(rows=rows)
    mine.folds = strategy  # type: ignore[misc]
    return mine


def test_folds_are_written_once_and_read_ever_after() -> None:
    first = split(with_folds(table(), KFold(n=3)), "runs")
    written = Path("runs/folds.parquet").read_bytes()
    again = split(with_folds(table(), KFold(n=3)), "runs")
    assert Path("runs/folds.parquet").read_bytes() == written
    assert again.fold.tolist() == first.fold.tolist()
    assert again.digest == first.digest
    assert again.strategy == "KFold(n=3, seed=0)" == describe(KFold(n=3))


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (table()[:-1], r"ids changed \(30 rows then, 29 now\)"),
        (table().reverse(), "ids changed"),
        (table().with_columns(id=pl.col("id") + 1), "ids changed"),
        (table().with_columns(id=pl.col("id").cast(pl.String)), "ids changed"),
        (table().with_columns(target=pl.lit(0)), "column 'target' changed"),
        (table().with_columns(g=pl.lit(0)), "column 'g' changed"),
        (table(), "column 'g' changed"),
    ],
)
def test_folds_of_another_table_are_refused(changed: pl.DataFrame, what: str) -> None:
    strategy = Grouped("g", n=3)
    groups = [i % 10 for i in range(30)]
    split(with_folds(table(g=groups), strategy))
    changed = changed if "g" in changed.columns or what.startswith("column 'g'") else changed.with_columns(g=pl.lit(1))
    with pytest.raises(FoldsError, match=rf"the folds were made from another table: its {what}"):
        split(with_folds(changed, strategy))


def test_a_column_that_decides_nothing_may_change() -> None:
    split(with_folds(table(x=[1.0] * 30), KFold(n=3)))
    split(with_folds(table(y=[2.0] * 30), KFold(n=3)))


@pytest.mark.parametrize("other", [KFold(n=4), KFold(n=3, seed=1), Stratified("target", n=3), None])
def test_another_strategy_is_refused_and_both_are_named(other: Any) -> None:
    split(with_folds(table(), KFold(n=3)))
    with pytest.raises(
        FoldsError, match=r"runs/folds\.parquet holds KFold\(n=3, seed=0\), the experiment asks for .*\("
    ):
        split(with_folds(table(), other))


def test_missing_folds_say_how_to_make_them() -> None:
    with pytest.raises(FoldsError, match=r"runs/folds\.parquet does not exist; make the folds first: batteries split"):
        Folds.load(Path("runs/folds.parquet"))


def test_no_flipped_bit_of_the_file_gives_other_folds() -> None:
    path = Path("folds.parquet")
    make_folds(table(), Stratified("target", n=3)).save(path)
    whole = path.read_bytes()
    for bit in random.Random(0).sample(range(8 * len(whole)), 400):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CorruptError, match=r"folds\.parquet: .* Restore it from a copy"):
            Folds.load(path)


def test_a_file_of_something_else_is_no_folds() -> None:
    write_table(Path("p.parquet"), pl.DataFrame({"id": [1], "prediction": [0.5]}), {"about": "{}"})
    with pytest.raises(CorruptError, match=r"p\.parquet: holds no folds but id, prediction; restore it from a copy"):
        Folds.load(Path("p.parquet"))


def test_damaged_folds_stop_the_split_and_are_not_written_anew() -> None:
    split(with_folds(table(), KFold(n=3)))
    Path("runs/folds.parquet").write_bytes(b"")
    with pytest.raises(CorruptError):
        split(with_folds(table(), KFold(n=3)))
    assert Path("runs/folds.parquet").read_bytes() == b""


@pytest.mark.parametrize("ids", [["007", "7", "1e5", "100000"], ["é", "e\u0301", "", " "], [2**63 - 1, -1, 0, 1]])
def test_ids_come_back_exactly(ids: list[Any]) -> None:
    make_folds(pl.DataFrame({"id": ids}), KFold(n=2)).save(Path("folds.parquet"))
    assert Folds.load(Path("folds.parquet")).ids.to_list() == ids


def test_the_digest_names_the_rows_the_folds_and_the_strategy() -> None:
    digests = {
        make_folds(table(), KFold(n=3)).digest,
        make_folds(table(), KFold(n=3, seed=1)).digest,
        make_folds(table(), Stratified("target", n=3)).digest,
        make_folds(table(29), KFold(n=3)).digest,
        make_folds(table().with_columns(id=pl.col("id") + 1), KFold(n=3)).digest,
    }
    assert len(digests) == 5
    assert make_folds(table(), KFold(n=3)).digest in digests
