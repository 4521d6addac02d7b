"""Predictions know their rows: nothing is misaligned, doubled, missing or silently damaged."""

from __future__ import annotations

import os
import random
import unicodedata
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batteries.errors import CorruptError, OutOfFoldError, PredictionsError
from batteries.experiment.predictions import Predictions, column_digest, out_of_fold
from batteries.experiment.sealed import write_table

NFC, NFD = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
ODD = [
    NFC,
    NFD,
    "007",
    "7",
    "1e5",
    "100000",
    "1E5",
    " a",
    "a ",
    "a,b",
    'a"b',
    "a\nb",
    "NA",
    "",
    "null",
    "=1+1",
    "A",
    "a",
]
LARGE = [0, -1, 2**63 - 1, -(2**63), 2**53 + 1, 2**53]


def equal(a: Predictions, b: Predictions) -> bool:
    arrays = [(a.values, b.values), (a.targets, b.targets), (a.folds, b.folds)]
    same = all((x is None) == (y is None) and (x is None or same_array(x, y)) for x, y in arrays)
    return same and a.ids.dtype == b.ids.dtype and a.ids.to_list() == b.ids.to_list() and dict(a.about) == dict(b.about)


def same_array(x: Any, y: Any) -> bool:
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def some(n: int = 12, *, columns: int = 3) -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(
        pl.Series("id", [f"row{i}" for i in range(n)]),
        rng.random((n, columns)).astype("float32"),
        targets=rng.integers(0, columns, n),
        folds=rng.integers(0, 2, n),
        about={"folds": "abc"},
    )


# What predictions are made of

WRONG: list[tuple[Any, Any, str]] = [
    (pl.Series([0.5, 1.0]), np.zeros(2), "ids must be whole numbers or texts, got Float64"),
    (pl.Series([True, False]), np.zeros(2), "ids must be whole numbers or texts, got Boolean"),
    ([1, 2], np.zeros(2), "ids in a polars Series and values in a NumPy array, got list and ndarray"),
    (pl.Series([1, 2]), [0.1, 0.2], "ids in a polars Series and values in a NumPy array, got Series and list"),
    (pl.Series([1, 2]), np.zeros(3), r"2 ids but values of shape \(3,\)"),
    (pl.Series([1, 2]), np.array(0.5), r"2 ids but values of shape \(\)"),
    (pl.Series([1, None]), np.zeros(2), "1 of 2 ids are empty"),
    (pl.Series([3, 1, 3, 1]), np.zeros(4), r"2 ids are predicted more than once \(first: \[3, 1\]\)"),
    (
        pl.Series([1, 2]),
        np.zeros((2, 2, 2)),
        r"predictions must be numbers, \(n,\) or \(n, columns\), got float64 \(2, 2",
    ),
    (pl.Series([1, 2]), np.array(["a", "b"]), r"predictions must be numbers, .*, got <U1 \(2,\)"),
    (pl.Series([1, 2]), np.zeros(2, dtype=complex), "predictions must be numbers, .*, got complex128"),
    (pl.Series([1, 2]), np.zeros(2, dtype=np.longdouble), "predictions must be numbers"),
    (pl.Series([7, 8]), np.array([0.5, np.nan]), r"1 of 2 predictions are NaN or infinite \(first ids: \[8\]\)"),
    (pl.Series([7, 8]), np.array([[0.5, 1], [0, -np.inf]]), r"1 of 2 predictions are NaN or infinite .*\[8\]"),
]


@pytest.mark.parametrize(("ids", "values", "message"), WRONG)
def test_predictions_that_cannot_be_trusted_are_refused(ids: Any, values: Any, message: str) -> None:
    with pytest.raises(PredictionsError, match=message) as caught:
        Predictions(ids, values)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("what", ["targets", "folds"])
def test_targets_and_folds_of_another_length_are_refused(what: str) -> None:
    with pytest.raises(PredictionsError, match=rf"2 ids but {what} of shape \(3,\)"):
        Predictions(pl.Series([1, 2]), np.zeros(2), **{what: np.zeros(3, dtype=np.int64)})


def test_of_many_wrong_ids_the_first_five_are_named() -> None:
    with pytest.raises(PredictionsError, match=r"9 of 9 predictions .*\(first ids: \[0, 1, 2, 3, 4\]\)"):
        Predictions(pl.Series(range(9)), np.full(9, np.nan))


def test_texts_that_look_alike_are_different_ids() -> None:
    assert len(Predictions(pl.Series(ODD), np.arange(len(ODD)))) == len(ODD)


# Alignment


@settings(deadline=None)
@given(order=st.permutations(range(len(ODD))))
def test_any_order_of_ids_gives_each_id_its_own_values(order: list[int]) -> None:
    whole = Predictions(
        pl.Series(ODD),
        np.arange(len(ODD)) / 7,
        targets=np.arange(len(ODD)),
        folds=np.arange(len(ODD)) % 2,
        about={"a": "b"},
    )
    aligned = whole.align(pl.Series([ODD[i] for i in order]))
    assert aligned.ids.to_list() == [ODD[i] for i in order]
    assert aligned.targets is not None
    assert aligned.targets.tolist() == order
    assert equal(aligned.align(whole.ids), whole)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["a", "b", "c"], r"1 of 3 ids have no prediction \(first: \['c'\]\)"),
        (["a", "B"], r"1 of 2 ids have no prediction \(first: \['B'\]\)"),
        (["a", None], r"1 of 2 ids have no prediction \(first: \[None\]\)"),
        (["a"], r"1 predictions belong to no asked id \(first: \['b'\]\)"),
        (["a", "a"], r"1 ids are asked for more than once \(first: \['a'\]\)"),
        (["a", "b", "b"], r"1 ids are asked for more than once \(first: \['b'\]\)"),
        ([1, 2], "ids are Int64 here and String there; read both files with the same types"),
    ],
)
def test_ids_that_are_not_exactly_the_predicted_ones_are_refused(asked: list[Any], message: str) -> None:
    with pytest.raises(PredictionsError, match=message):
        Predictions(pl.Series(["a", "b"]), np.zeros(2)).align(pl.Series(asked))


def test_whole_numbers_of_another_width_are_the_same_ids() -> None:
    aligned = Predictions(pl.Series([1, 2], dtype=pl.UInt32), np.array([0.1, 0.2])).align(pl.Series([2, 1]))
    assert aligned.values.tolist() == [0.2, 0.1]


def test_an_id_too_large_for_the_predicted_ones_is_named() -> None:
    predictions = Predictions(pl.Series([1, 2], dtype=pl.Int64), np.zeros(2))
    with pytest.raises(PredictionsError, match=r"ids \[9223372036854775808\] have no prediction"):
        predictions.align(pl.Series([1, 2**63], dtype=pl.UInt64))


# Files


@pytest.mark.parametrize("ids", [ODD, LARGE], ids=["texts", "numbers"])
def test_ids_come_back_exactly(ids: list[Any]) -> None:
    whole = Predictions(pl.Series(ids), np.linspace(0, 1, len(ids)))
    whole.save(Path("p.parquet"))
    assert equal(Predictions.load(Path("p.parquet")), whole)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3)])
def test_values_come_back_bit_for_bit(dtype: str, shape: tuple[int, ...]) -> None:
    values = (np.random.default_rng(0).random(shape) * 3).astype(dtype)
    whole = Predictions(pl.Series("key", range(4)), values, targets=np.arange(8.0).reshape(4, 2))
    whole.save(Path("p.parquet"))
    assert equal(Predictions.load(Path("p.parquet")), whole)


@settings(max_examples=30, deadline=None)
@given(
    ids=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), unique=True, max_size=6),
    folds=st.booleans(),
)
def test_any_texts_are_ids(ids: list[str], folds: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "any.parquet"
    number = np.arange(len(ids), dtype=np.int64)
    whole = Predictions(pl.Series(ids, dtype=pl.String), number / 3, folds=number if folds else None)
    whole.save(path)
    assert equal(Predictions.load(path), whole)


def test_a_saved_file_is_plain_parquet_with_named_columns() -> None:
    some(columns=2).save(Path("p.parquet"))
    assert pl.read_parquet("p.parquet").columns == ["id", "fold", "target", "prediction_0", "prediction_1"]
    Predictions(pl.Series([1]), np.zeros(1)).save(Path("p.parquet"))
    assert pl.read_parquet("p.parquet").columns == ["id", "prediction"]


def test_a_path_is_a_path_and_no_pattern() -> None:
    folder = Path("[a]*")
    folder.mkdir()
    some().save(folder / "p?.parquet")
    assert equal(Predictions.load(folder / "p?.parquet"), some())


def test_no_flipped_bit_of_a_saved_file_is_loaded() -> None:
    path = Path("p.parquet")
    some().save(path)
    whole = path.read_bytes()
    bits = random.Random(0).sample(range(8 * len(whole)), 600)
    for bit in [*bits, *range(64), *range(8 * len(whole) - 64, 8 * len(whole))]:
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(CorruptError, match=r"p\.parquet: .*(damaged|no digest)"):
            Predictions.load(path)
    path.write_bytes(whole)
    assert equal(Predictions.load(path), some())


def test_a_file_cut_off_zeroed_or_grown_is_refused() -> None:
    path = Path("p.parquet")
    some().save(path)
    whole = path.read_bytes()
    cut = [whole[:length] for length in range(0, len(whole), 37)]
    zeroed = [whole[:start] + bytes(64) + whole[start + 64 :] for start in range(0, len(whole) - 64, 64)]
    for data in [*cut, *zeroed, whole + b"\0", whole + whole]:
        path.write_bytes(data)
        with pytest.raises(CorruptError):
            Predictions.load(path)


def test_a_file_changed_with_another_tool_is_refused() -> None:
    path = Path("p.parquet")
    some().save(path)
    metadata = pl.read_parquet_metadata(path)
    better = pl.read_parquet(path).with_columns(prediction_0=pl.lit(1, dtype=pl.Float32))
    better.write_parquet(path)
    with pytest.raises(CorruptError, match="was not written by Batteries, or was damaged since"):
        Predictions.load(path)
    better.write_parquet(path, metadata=metadata)
    with pytest.raises(CorruptError, match="was changed or damaged after it was written"):
        Predictions.load(path)


def test_what_is_no_file_of_predictions_is_refused() -> None:
    Path("text.parquet").write_text("id,prediction\n1,0.5\n")
    Path("folder.parquet").mkdir()
    os.mkfifo("pipe.parquet")
    write_table(Path("other.parquet"), pl.DataFrame({"a": [1]}), {"strategy": "KFold"})
    for name, message in (
        ("text", "was not written by Batteries"),
        ("folder", "is not a file"),
        ("pipe", "is not a file"),
        ("other", "holds no predictions but a"),
    ):
        with pytest.raises(CorruptError, match=rf"{name}\.parquet: {message}"):
            Predictions.load(Path(f"{name}.parquet"))
    with pytest.raises(PredictionsError, match=r"missing\.parquet does not exist; run: batteries train"):
        Predictions.load(Path("missing.parquet"))


def test_a_file_of_a_later_version_is_not_guessed_at() -> None:
    write_table(Path("p.parquet"), some().frame(), {"schema": "2", "about": "{}"})
    with pytest.raises(PredictionsError, match="was written by a newer Batteries"):
        Predictions.load(Path("p.parquet"))


# Out-of-fold


def part(ids: list[Any], fold: int, **changed: Any) -> Predictions:
    given: dict[str, Any] = {
        "values": np.array([float(hash(i) % 97) for i in ids]),
        "targets": np.arange(len(ids)),
        "folds": np.full(len(ids), fold),
        "about": {"folds": "abc"},
    } | changed
    return Predictions(pl.Series(ids), given.pop("values"), **given)


ROWS = pl.Series("id", [5, 3, 1, 2, 4])


def test_folds_are_joined_in_the_order_of_the_table() -> None:
    whole = out_of_fold([part([1, 2], 0), part([3, 5, 4], 1)], ROWS)
    assert whole.ids.to_list() == [5, 3, 1, 2, 4]
    assert whole.values.tolist() == [5, 3, 1, 2, 4]
    assert whole.folds is not None
    assert whole.folds.tolist() == [1, 1, 0, 0, 1]
    assert whole.about == {"folds": "abc"}


def test_the_order_of_the_folds_changes_nothing() -> None:
    parts = [part([1, 2], 0), part([3], 1), part([5, 4], 2)]
    assert equal(out_of_fold(parts, ROWS), out_of_fold(reversed(parts), ROWS))


def test_with_some_folds_missing_the_rest_is_joined_when_asked_for() -> None:
    with pytest.raises(OutOfFoldError, match=r"3 of 5 rows have no out-of-fold prediction \(first: \[5, 3, 4\]\)"):
        out_of_fold([part([1, 2], 0)], ROWS)
    assert out_of_fold([part([2, 1], 0)], ROWS, complete=False).ids.to_list() == [1, 2]


WRONG_PARTS = [
    ([], "there are no predictions of any fold to join"),
    ([part([1, 2, 3], 0), part([3, 4, 5], 1)], r"1 rows are predicted by two folds \(first: \[3\]\)"),
    ([part([1, 2, 3, 4, 5, 6], 0)], r"1 predictions belong to no asked id \(first: \[6\]\)"),
    ([part([1, 2, 3], 0), part([4, 5], 1, about={"folds": "other"})], "folds of two splits cannot be joined"),
    ([part([1, 2, 3], 0), part([4, 5], 1, values=np.zeros((2, 2)))], r"different numbers of columns: \(\) and \(2,\)"),
    ([part(["1", "2", "3", "4", "5"], 0)], "ids are Int64 in the table and String in the predictions"),
    ([part([1, 2, 3], 0), part(["4", "5"], 1)], "ids are Int64 in the table and String in the predictions"),
]


@pytest.mark.parametrize(("parts", "message"), WRONG_PARTS)
def test_parts_that_are_no_whole_are_refused(parts: list[Predictions], message: str) -> None:
    with pytest.raises(OutOfFoldError, match=message):
        out_of_fold(parts, ROWS)


def test_large_numbers_are_compared_exactly() -> None:
    ids = pl.Series([2**63, 2**63 + 1], dtype=pl.UInt64)
    halves = [Predictions(ids[i : i + 1], np.array([float(i)]), folds=np.array([i])) for i in range(2)]
    assert out_of_fold(halves, ids.reverse()).values.tolist() == [1, 0]
    near = [2**53, 2**53 + 1]
    signed = Predictions(pl.Series(near), np.array([0.0, 1.0]), folds=np.zeros(2, dtype=np.int64))
    assert out_of_fold([signed], pl.Series(near[::-1], dtype=pl.UInt64)).values.tolist() == [1, 0]


# Digests of columns

COLUMNS: list[Any] = [
    pl.Series([1, 2, 3]),
    pl.Series([1, 2, 3], dtype=pl.Int32),
    pl.Series([1, None, 3]),
    pl.Series([1, 3, None]),
    pl.Series([1.0, 2.0, 3.0]),
    pl.Series([0.0]),
    pl.Series([-0.0]),
    pl.Series([None, None, None]),
    pl.Series([True, False, None]),
    pl.Series(["a", "bc", None]),
    pl.Series(["ab", "c", None]),
    pl.Series(["ab", "c", "None"]),
    pl.Series(["ab", "", "c"]),
    pl.Series([b"ab", b"", b"c"]),
    pl.Series([[1], [2, 3], []]),
    pl.Series([[1, 2], [3], []]),
    pl.Series([[1, 2], [3], None]),
    pl.Series([[1, 2], [None], None]),
    pl.Series([[["a"], []], []]),
    pl.Series([[[], ["a"]], []]),
    pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)),
    pl.Series([[1, 2], None], dtype=pl.Array(pl.Int64, 2)),
    pl.Series(np.arange(8).reshape(2, 2, 2)),
    pl.Series([{"a": 1, "b": 2}, None]),
    pl.Series([{"a": 1, "b": None}, None]),
    pl.Series([{"a": 1, "c": 2}, None]),
    pl.Series([1, 2], dtype=pl.Int128),
    pl.Series([Decimal("1.50"), Decimal("2.50")]),
    pl.Series([0, 1], dtype=pl.Datetime("us")),
    pl.Series([0, 1], dtype=pl.Datetime("ms")),
    pl.Series([0, 1], dtype=pl.Date),
    pl.Series(["a", "b"], dtype=pl.Categorical),
    pl.Series(["b", "a"], dtype=pl.Categorical),
    pl.Series(["b", "a"], dtype=pl.Enum(["a", "b"])),
]


def test_every_kind_of_column_has_a_digest_of_its_own_that_stays() -> None:
    digests = [column_digest(column) for column in COLUMNS]
    assert len(set(digests)) == len(COLUMNS)
    assert digests == [column_digest(column.clone()) for column in COLUMNS]


@pytest.mark.parametrize("column", COLUMNS, ids=lambda c: str(c.dtype))
def test_the_digest_does_not_depend_on_chunks_slices_or_the_name(column: pl.Series) -> None:
    twice = pl.concat([column, column])
    pieces = pl.concat([*(column[i : i + 1] for i in range(len(column))), column], rechunk=False).alias("other")
    assert column_digest(pieces) == column_digest(twice.rechunk())
    assert column_digest(twice[: len(column)]) == column_digest(twice[len(column) :]) == column_digest(column)


def test_digests_of_columns_are_the_same_on_every_machine() -> None:
    assert column_digest(pl.Series([1, 2, None])).startswith("ab8f7c9893ffe746")
    assert column_digest(pl.Series(["a", "é", None])).startswith("c3b8e530f15bcb10")
    assert column_digest(pl.Series([[1.5], []])).startswith("6ca73ee35cc69645")


def test_any_changed_value_or_order_changes_the_digest() -> None:
    column = pl.Series([f"row {i}" for i in range(1000)])
    assert column_digest(column) != column_digest(column.reverse())
    assert column_digest(column) != column_digest(pl.Series([*column[:-1], "row 998"]))
