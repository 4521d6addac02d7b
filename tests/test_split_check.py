"""The split check names every flaw planted in real tables, and raises no alarm on the originals."""

from __future__ import annotations

import inspect
import json
import random
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn import datasets

import batteries as bt
from batteries.cli.app import main
from batteries.errors import FoldsError, UsageError
from batteries.prepare.alike import alike_rows, duplicate_groups
from batteries.prepare.chance import expected_pairs, pairs_of
from batteries.prepare.duplicates import equal_rows
from batteries.prepare.folds import Folds, make_folds
from batteries.prepare.made_elsewhere import FromFile, Predefined
from batteries.prepare.split_check import SplitCheck, check_split, check_split_of
from batteries.prepare.strategies import Grouped, HoldOut, KFold, Stratified
from batteries.prepare.time_folds import Purged, TimeOrdered


def numbers(name: str) -> pl.DataFrame:
    """One of scikit-learn's real tables, a column for each feature; iris without its one repeated flower."""
    data = getattr(datasets, f"load_{name}")()
    columns = {f"x{i}": column for i, column in enumerate(data.data.T)}
    table = pl.DataFrame({"target": data.target, **columns}).unique(maintain_order=True)
    return table.with_row_index("id").cast({"id": pl.Int64})


def images() -> pl.DataFrame:
    data = datasets.load_digits()
    return pl.DataFrame({"id": range(400), "target": data.target[:400], "pixels": data.images[:400].astype("uint8")})


def texts() -> pl.DataFrame:
    """Paragraphs of what scikit-learn says of its tables, and of what the standard library says of `random`."""
    of_tables = [
        getattr(datasets, f"load_{name}")().DESCR for name in ("iris", "wine", "diabetes", "digits", "linnerud")
    ]
    of_random = [inspect.getdoc(each) for _, each in inspect.getmembers(random.Random, inspect.isfunction)]
    found = {text for told in [*of_tables, *of_random] for text in re.split(r"\n\s*\n", told or "")}
    kept = sorted(text for text in found if len(text) >= 60)
    return pl.DataFrame({"id": range(len(kept)), "target": [len(text) % 2 for text in kept], "text": kept})


def checked(table: pl.DataFrame, strategy: Any = None, **how: Any) -> SplitCheck:
    return check_split(table, make_folds(table, strategy or KFold()), show=False, **how)


def kinds(found: SplitCheck) -> list[str]:
    return [leak.kind for leak in found.leaks]


def in_two_folds(table: pl.DataFrame, copies: pl.DataFrame) -> pl.DataFrame:
    """The table and then copies with ids of their own, all originals in fold 0 or 1 and their copies in fold 2."""
    copies = copies.with_columns(id=pl.int_range(len(table), len(table) + len(copies), dtype=pl.Int64))
    fold = [*(row % 2 for row in range(len(table))), *[2] * len(copies)]
    return pl.concat([table, copies]).with_columns(fold=pl.Series(fold))


# Clean originals


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes", "digits"])
@pytest.mark.parametrize("strategy", [KFold(), KFold(n=3, seed=1), HoldOut(0.25)])
def test_real_tables_of_numbers_raise_no_alarm(name: str, strategy: Any) -> None:
    found = checked(numbers(name), strategy)
    assert found.leaks == ()
    found.refuse()


@pytest.mark.parametrize("make", [images, texts])
def test_real_images_and_texts_raise_no_alarm(make: Any) -> None:
    assert checked(make()).leaks == ()


def test_the_flower_that_iris_has_twice_is_no_surprise() -> None:
    data = datasets.load_iris()
    table = pl.DataFrame({"target": data.target, **{f"x{i}": x for i, x in enumerate(data.data.T)}}).with_row_index(
        "id"
    )
    table = table.cast({"id": pl.Int64})
    found = checked(table)
    assert found.leaks == ()
    assert found.notes[0].startswith("1 pair of rows is equal in all 4 columns (x0, x1, x2, ...) and no duplicates")
    copied = in_two_folds(table, table[:12])
    assert kinds(checked(copied, Predefined("fold"))) == ["duplicates"]


def test_groups_and_time_that_are_kept_raise_no_alarm() -> None:
    table = numbers("diabetes").with_columns(g=pl.int_range(442) // 5, day=pl.int_range(442) // 3)
    assert checked(table, Grouped("g")).leaks == ()
    assert checked(table, Stratified("target", bins=5, groups="g")).leaks == ()
    assert checked(table, TimeOrdered("day")).leaks == ()
    assert checked(table, Purged("day", "day")).leaks == ()


# Planted flaws


@pytest.mark.parametrize("name", ["wine", "breast_cancer", "diabetes", "digits"])
@pytest.mark.parametrize("label", ["same", "other"])
def test_copied_rows_are_named_whatever_their_label(name: str, label: str) -> None:
    table = numbers(name)
    copies = table[[3, 10, 20]]
    if label == "other":
        copies = copies.with_columns(target=1 - pl.col("target"))
    (leak,) = checked(in_two_folds(table, copies), Predefined("fold")).leaks
    n = len(table)
    assert leak.kind == "duplicates"
    assert leak.rows == 6
    assert leak.pairs == ((10, n + 1, 0), (20, n + 2, 0), (3, n, 1), (n, 3, 2), (n + 1, 10, 2))
    assert f"fold 0: 10 and {n + 1}; fold 0: 20 and {n + 2}; fold 1: 3 and {n}" in leak.sentence


def test_a_minority_that_was_oversampled_before_the_split_is_found() -> None:
    table = numbers("breast_cancer")
    rare = table.filter(pl.col("target") == 0)
    table = pl.concat([table, rare, rare]).with_columns(id=pl.int_range(569 + 2 * len(rare)))
    found = checked(table, Stratified("target"))
    assert kinds(found) == ["duplicates"]
    assert found.leaks[0].rows > 500


def test_a_row_number_beside_the_id_does_not_hide_duplicates() -> None:
    table = numbers("wine")
    table = in_two_folds(table, table[[5]]).with_columns(pl.int_range(100, 279).alias("Unnamed: 0"))
    assert kinds(checked(table, Predefined("fold"))) == ["duplicates"]


@pytest.mark.parametrize("kind", ["code", "moment"])
def test_duplicates_that_a_name_or_a_moment_of_each_row_hides_are_noted(kind: str) -> None:
    rows = in_two_folds(numbers("wine"), numbers("wine").head(9))
    moments = pl.Series(kind, [datetime(2024, 1, 1) + timedelta(hours=i) for i in range(len(rows))])
    hidden = rows.with_columns(moments if kind == "moment" else moments.dt.strftime("u%m%d%H").alias(kind))
    found = checked(hidden, Predefined("fold"))
    assert found.leaks == ()
    assert found.notes[-1].startswith(f"9 rows repeat another in all but column {kind}, different in every row")
    assert kinds(checked(rows, Predefined("fold"))) == ["duplicates"]


def test_duplicates_that_are_held_out_together_are_no_leak() -> None:
    table = numbers("wine")
    table = pl.concat([table, table[[3, 10]].with_columns(id=pl.Series([500, 501], dtype=pl.Int64))])
    assert kinds(checked(table.with_columns(fold=pl.int_range(180) % 3), Predefined("fold"))) == ["duplicates"]
    table = table.with_columns(same=duplicate_groups(table))
    assert checked(table, Grouped("same")).leaks == ()
    assert table["same"].n_unique() == 178


def test_duplicates_join_groups_so_that_both_are_held_out_together() -> None:
    table = numbers("wine").with_columns(g=pl.int_range(178) // 2)
    table = pl.concat([table, table[[3]].with_columns(id=pl.lit(500, dtype=pl.Int64), g=pl.lit(80, dtype=pl.Int64))])
    same = duplicate_groups(table, groups="g")
    assert len({same[row] for row in (2, 3, 178, 160, 161)}) == 1
    assert len(np.unique(same)) == 88


def test_a_copy_of_another_row_in_training_only_is_a_leak_too() -> None:
    table = numbers("wine")
    table = pl.concat([table, table[[3]].with_columns(id=pl.lit(500, dtype=pl.Int64))])
    fold = pl.Series([0 if row == 3 else -1 for row in range(179)])
    (leak,) = checked(table.with_columns(fold=fold), Predefined("fold")).leaks
    assert (leak.rows, leak.pairs) == (1, ((3, 500, 0),))


def test_parted_groups_are_named() -> None:
    table = numbers("diabetes").with_columns(patient=pl.int_range(442) // 4)
    found = checked(table, KFold(), groups=["patient"])
    (leak,) = found.leaks
    assert leak.kind == "groups"
    first = leak.pairs[0]
    assert first[0] // 4 == first[1] // 4
    with pytest.raises(
        FoldsError, match=r"(?s)are of the same patient as .*Hold groups out whole: folds = bt\.Grouped"
    ):
        found.refuse()


def test_a_column_that_looks_like_groups_is_noted_and_raises_no_alarm() -> None:
    table = numbers("diabetes").with_columns(patient=pl.int_range(442) // 4)
    found = checked(table)
    assert found.leaks == ()
    assert any("'patient' looks like groups, and 4" in note and "--groups patient" in note for note in found.notes)


def test_training_on_what_comes_later_is_named() -> None:
    table = numbers("diabetes").with_columns(day=pl.int_range(442))
    found = checked(table, KFold(n=2), time="day")
    (leak,) = found.leaks
    assert leak.kind == "time"
    assert all(held <= trains for held, trains, _ in leak.pairs)
    with pytest.raises(FoldsError, match=r"(?s)are not later in day than .*folds = bt\.TimeOrdered\('day'\)"):
        found.refuse()


@pytest.mark.parametrize("change", ["brighter", "same"])
def test_near_duplicate_images_in_arrays_are_named(change: str) -> None:
    table = images()
    pixels = table["pixels"].to_numpy().astype(int)
    copies = table[[7, 8]]
    copies = copies.with_columns(pixels=pl.Series((pixels[[7, 8]] + (change == "brighter")).astype("uint8")))
    found = checked(in_two_folds(table, copies), Predefined("fold"))
    (leak,) = found.leaks
    assert leak.kind == ("near-duplicates" if change == "brighter" else "duplicates")
    assert {frozenset(pair[:2]) for pair in leak.pairs} == {frozenset({7, 400}), frozenset({8, 401})}


def test_near_duplicate_image_files_are_named_and_unreadable_ones_noted() -> None:
    for row, pixels in enumerate(datasets.load_digits().images[:60]):
        large = Image.fromarray((pixels * 15).astype("uint8")).resize((96, 96), Image.Resampling.BICUBIC)
        large.save(f"{row}.png")
        if row == 5:
            large.resize((80, 80)).save("again.jpg", quality=85)
    Path("59.png").write_bytes(b"no image")
    table = pl.DataFrame({"id": range(60), "target": [0, 1] * 30, "file": [f"{row}.png" for row in range(60)]})
    assert checked(table).leaks == ()
    found = checked(in_two_folds(table, table[[5]].with_columns(file=pl.lit("again.jpg"))), Predefined("fold"))
    (leak,) = found.leaks
    assert (leak.kind, leak.where, leak.pairs) == ("near-duplicates", "column file", ((5, 60, 1), (60, 5, 2)))
    assert found.notes[-1] == "1 files of 'file' are not compared (first: 59.png: not an image)"


def test_near_duplicate_texts_are_named_and_equal_rows_told_once() -> None:
    table = texts()
    changed = table[[11]].with_columns(text=pl.col("text").str.replace_all("the", "THE") + " Really.")
    found = checked(in_two_folds(table, pl.concat([changed, table[[30]]])), Predefined("fold"))
    assert kinds(found) == ["duplicates", "near-duplicates"]
    n = len(table)
    assert {frozenset(pair[:2]) for pair in found.leaks[0].pairs} == {frozenset({30, n + 1})}
    assert {frozenset(pair[:2]) for pair in found.leaks[1].pairs} == {frozenset({11, n})}


def test_leaks_of_an_allowed_kind_are_let_pass_and_all_others_are_not() -> None:
    table = numbers("wine").with_columns(g=pl.int_range(178) // 3)
    found = checked(in_two_folds(table, table[[3]]), Predefined("fold"), groups=["g"])
    assert kinds(found) == ["groups", "duplicates"]
    found.refuse(["groups", "duplicates"])
    with pytest.raises(
        FoldsError,
        match=r"(?s)Predefined.* lets a model see what it is judged on.*duplicates: 2 .*allow it: --allow duplicates$",
    ):
        found.refuse(["groups"])
    with pytest.raises(UsageError, match="there is no leak called 'group' to allow; they are duplicates, near-dup"):
        found.refuse(["group"])


# What cannot be told


def test_rows_of_few_values_are_not_taken_for_duplicates() -> None:
    random_ = np.random.default_rng(0)
    table = pl.DataFrame(
        {"id": range(500), "target": [0, 1] * 250, "a": random_.integers(0, 4, 500), "b": ["x", "y"] * 250}
    )
    found = checked(table)
    assert found.leaks == ()
    assert (
        "pairs of rows are equal in all 2 columns (a, b) and no duplicates: rows that differ by a step"
        in found.notes[0]
    )


@pytest.mark.parametrize("seed", range(5))
def test_pairs_by_chance_are_foretold_also_where_columns_depend_on_each_other(seed: int) -> None:
    random_ = np.random.default_rng(seed)
    age = random_.normal(40, 10, 3000).round()
    years = (age - 20 - random_.poisson(5, 3000)).clip(0)
    table = pl.DataFrame({"age": age, "years": years, "grade": (years // 10).clip(0, 3)})
    group = equal_rows(table)
    assert expected_pairs(table, table.columns, group) == pytest.approx(pairs_of(group), rel=0.1)


def test_a_table_of_ids_and_targets_says_that_nothing_is_compared() -> None:
    found = checked(pl.DataFrame({"id": range(20), "target": [0, 1] * 10, "part": ["train"] * 20}))
    assert found.leaks == ()
    assert found.notes == ("rows are not compared: beside id and target no column differs from row to row",)


def test_columns_of_any_type_can_be_compared() -> None:
    table = pl.DataFrame(
        {
            "id": range(6),
            "target": [0, 1] * 3,
            "list": [[1], [2], [3], [4], [5], [1]],
            "struct": [{"a": i % 5} for i in range(6)],
            "object": pl.Series([object() for _ in range(6)], dtype=pl.Object),
            "empty": [None] * 6,
            "nan": [float("nan"), 1.0, 2.0, 3.0, 4.0, float("nan")],
        }
    )
    (found,) = alike_rows(table, apart=["id", "target"]).alike
    assert found.group.tolist() == [0, 1, 2, 3, 4, 0]


def test_folds_of_another_order_are_refused() -> None:
    table = numbers("wine")
    with pytest.raises(FoldsError, match="the folds are of other ids than the table, or in another order"):
        check_split(table.reverse(), make_folds(table, KFold()), show=False)


# Balance


def test_a_fold_without_a_class_is_noted() -> None:
    table = numbers("wine").with_columns(fold=pl.col("target").clip(0, 1))
    notes = checked(table, Predefined("fold")).notes
    assert "fold 0 holds out no row of 2 of 3 classes (first: [1, 2])" in notes
    assert "fold 0 trains on no row of 1 of 3 classes (first: [0])" in notes


def test_a_line_tells_rows_groups_and_target_of_a_fold() -> None:
    table = numbers("diabetes").with_columns(g=pl.int_range(442) // 4)
    found = checked(table, Grouped("g", n=2))
    for line in found.folds:
        rows = make_folds(table, Grouped("g", n=2)).held_out(line.fold)
        assert (line.rows, line.trains) == (len(rows), 442 - len(rows))
        assert line.groups == len(set(table["g"].to_numpy()[rows].tolist()))
        assert line.mean == pytest.approx(table["target"].to_numpy()[rows].mean())
        assert line.deviation == pytest.approx(table["target"].to_numpy()[rows].std())
    shares = [line.shares for line in checked(numbers("wine"), Stratified("target", n=2)).folds]
    assert all(share is not None and sum(share.values()) == pytest.approx(1) for share in shares)


# Of an experiment, and the command


@dataclass(kw_only=True)
class Wine(bt.Experiment):
    metric = bt.Metric.accuracy()
    folds = Grouped("g", n=3)

    def table(self) -> pl.DataFrame:
        return numbers("wine").with_columns(g=pl.int_range(178) // 2)


def test_folds_made_elsewhere_are_held_to_the_groups_that_the_experiment_declares() -> None:
    ids = pl.int_range(178, eager=True).alias("id")
    pl.DataFrame({"id": ids, "fold": ids // 2 % 3}).write_csv("good.csv")
    pl.DataFrame({"id": ids, "fold": ids % 3}).write_csv("bad.csv")
    assert check_split_of(Wine(), file=Path("good.csv"), show=False).leaks == ()
    assert kinds(check_split_of(Wine(), file=Path("bad.csv"), show=False)) == ["groups"]
    assert not Path("runs").exists()


def test_our_own_file_is_checked_as_it_was_written() -> None:
    folds = bt.split(Wine())
    found = check_split_of(Wine(), file=Path("runs/folds.parquet"), show=False)
    assert (found.digest, found.strategy) == (folds.digest, "Grouped(column='g', n=3, seed=0)")
    assert check_split_of(Wine(), show=False).digest == folds.digest


EXPERIMENT = """
from dataclasses import dataclass
import polars as pl
from sklearn.datasets import load_wine
import batteries as bt
from batteries.prepare.made_elsewhere import FromFile

@dataclass(kw_only=True)
class Wine(bt.Experiment):
    copies: int = 0
    metric = bt.Metric.accuracy()
    folds = {folds}

    def table(self):
        data = load_wine()
        table = pl.DataFrame({{"target": data.target, **{{f"x{{i}}": x for i, x in enumerate(data.data.T)}}}})
        table = table.with_columns(g=pl.int_range(178) // 3)
        return pl.concat([table, table[:{copies}]]).with_row_index("id")

    def dataset(self, rows, *, training): ...
    def model(self): ...
    def loss(self, outputs, targets): ...
"""


def experiment(folds: str, copies: int = 0) -> None:
    Path("experiment.py").write_text(EXPERIMENT.format(folds=folds, copies=copies))


def test_a_split_that_leaks_is_not_written_until_it_is_allowed(capfd: pytest.CaptureFixture[str]) -> None:
    experiment("bt.KFold(n=3)", copies=2)
    assert main(["split"]) == 3
    out, err = capfd.readouterr()
    assert out.splitlines()[0].split() == ["fold", "rows", "trains", "on", "0", "%", "1", "%", "2", "%"]
    assert re.search(
        r"duplicates: \d held-out rows equal a row that trains, in all 14 columns \(x0, x1, x2, \.\.\.\)", err
    )
    assert err.rstrip().endswith("Or allow it: --allow duplicates")
    assert not Path("runs/folds.parquet").exists()
    assert main(["split", "--allow", "duplicates"]) == 0
    assert Path("runs/folds.parquet").exists()
    assert main(["split"]) == 3
    assert main(["split", "--json"]) == 3
    out, err = capfd.readouterr()
    told = json.loads(out[out.index("{") :])
    assert [leak["kind"] for leak in told["leaks"]] == ["duplicates"]


def test_the_table_of_a_check_fits_80_columns(capfd: pytest.CaptureFixture[str]) -> None:
    experiment('bt.Grouped("g")')
    assert main(["split"]) == 0
    ids = range(178)
    pl.DataFrame({"id": ids, "fold": [i % 5 for i in ids]}).write_csv("folds.csv")
    assert main(["split", "--check", "folds.csv"]) == 3
    assert main(["split", "--check", "folds.csv", "--allow", "groups"]) == 0
    out = capfd.readouterr().out
    assert all(len(line) <= 80 or "digest" in line for line in out.splitlines())
    assert out.splitlines()[-1] == "nothing leaks but groups, which are allowed"


def test_a_split_made_elsewhere_is_adopted_by_naming_its_file(capfd: pytest.CaptureFixture[str]) -> None:
    experiment('FromFile("folds.csv")')
    assert main(["split"]) == 3
    assert "folds.csv: there is no such file of folds" in capfd.readouterr().err
    pl.DataFrame({"fold": [i % 4 for i in range(178)], "id": range(178)}).write_csv("folds.csv")
    assert main(["split"]) == 0
    assert Folds.load("runs/folds.parquet").fold.tolist() == [i % 4 for i in range(178)]
    Path("folds.csv").unlink()
    assert main(["split"]) == 0  # runs/folds.parquet is the split from now on


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("split --allow all", 2, "there is no leak called 'all' to allow"),
        ("split --groups gone", 3, "the folds need column 'gone'; the table has id, target, x0"),
        ("split --time gone", 3, "the folds need column 'gone'"),
        ("split --check gone.csv", 3, "gone.csv: there is no such file of folds"),
        ("split --check .", 3, "there is no such file of folds"),
        ("split --check experiment.py", 3, "experiment.py: "),
    ],
)
def test_wrong_words_of_a_split_are_refused(
    line: str, code: int, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    experiment("bt.KFold(n=3)")
    assert main(line.split()) == code
    err = capfd.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not Path("runs/folds.parquet").exists()


def test_a_file_of_folds_that_was_damaged_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    experiment("bt.KFold(n=3)")
    assert main(["split"]) == 0
    data = bytearray(Path("runs/folds.parquet").read_bytes())
    data[100] ^= 1
    Path("other.parquet").write_bytes(data)
    assert main(["split", "--check", "other.parquet"]) == 4
    assert "other.parquet: was changed or damaged" in capfd.readouterr().err


def test_from_file_is_a_strategy_like_any_other() -> None:
    assert FromFile("folds.csv").columns() == []
