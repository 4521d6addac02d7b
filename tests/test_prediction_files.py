"""Files of any origin are read to the last byte of an id, or refused with the column, the count and the first ids."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batteries.errors import CorruptError, PredictionsError
from batteries.experiment import sealed
from batteries.experiment.prediction_files import PredictionFile, read_predictions
from batteries.experiment.predictions import Predictions
from batteries.experiment.sealed import check_seal, write_parts, write_table

NFC, NFD = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")

# Files that are taken: name, content, what is asked for, ids, values

TAKEN: list[tuple[str, bytes, dict[str, Any], list[Any], Any]] = [
    ("plain", b"id,p\n1,0.5\n2,0.25\n", {}, [1, 2], [0.5, 0.25]),
    ("no newline at the end", b"id,p\n1,0.5\n2,0.25", {}, [1, 2], [0.5, 0.25]),
    ("lines of Windows", b"id,p\r\n1,0.5\r\n2,0.25\r\n", {}, [1, 2], [0.5, 0.25]),
    ("byte order mark", b"\xef\xbb\xbfid,p\n1,0.5\n", {}, [1], [0.5]),
    ("leading zeros", b"id,p\n007,0.5\n7,0.25\n", {}, ["007", "7"], [0.5, 0.25]),
    ("numbers with exponents", b"id,p\n1e5,0.5\n100000,0.25\n", {}, ["1e5", "100000"], [0.5, 0.25]),
    ("NA and null", b"id,p\nNA,0.5\nnull,1\nNaN,0\n", {}, ["NA", "null", "NaN"], [0.5, 1, 0]),
    ("signs", b"id,p\n-1,0.5\n+1,0.25\n", {}, ["-1", "+1"], [0.5, 0.25]),
    ("negative ids", b"id,p\n-1,0.5\n1,0.25\n", {}, [-1, 1], [0.5, 0.25]),
    ("2^63 - 1", b"id,p\n9223372036854775807,1\n", {}, [2**63 - 1], [1]),
    ("2^63", b"id,p\n9223372036854775808,1\n1,0\n", {}, ["9223372036854775808", "1"], [1, 0]),
    ("spaces", b"id,p\n a,0.5\na ,1\na,0\n", {}, [" a", "a ", "a"], [0.5, 1, 0]),
    ("quotes", b'id,p\n"a,b",1\n"a""b",2\n"a\nb",3\n', {}, ["a,b", 'a"b', "a\nb"], [1, 2, 3]),
    ("two kinds of unicode", f"id,p\n{NFC},1\n{NFD},2\n".encode(), {}, [NFC, NFD], [1, 2]),
    ("upper and lower case", b"id,p\nA,1\na,2\n", {}, ["A", "a"], [1, 2]),
    ("formulas of spreadsheets", b"id,p\n=1+1,1\n@a,2\n", {}, ["=1+1", "@a"], [1, 2]),
    ("numbers as people write them", b"id,p\n1, 0.5\n2,1e-3 \n3,.5\n4,-7\n", {}, [1, 2, 3, 4], [0.5, 1e-3, 0.5, -7]),
    ("first column is the id", b"PassengerId,Survived\n892,0\n893,1\n", {}, [892, 893], [0, 1]),
    ("id elsewhere", b"p,id\n0.5,1\n", {}, [1], [0.5]),
    ("several columns", b"id,cat,dog\n1,0.25,0.75\n2,1,0\n", {}, [1, 2], [[0.25, 0.75], [1, 0]]),
    ("columns asked for", b"id,a,b,c\n1,x,0.5,2\n", {"columns": ["c", "b"]}, [1], [[2, 0.5]]),
    ("id asked for", b"id,key,p\nx,7,1\n", {"id": "key", "columns": ["p"]}, [7], [1]),
    ("our table as text", b"id,fold,target,prediction\n1,0,1,0.5\n", {}, [1], [0.5]),
    ("a target as prediction", b"id,target\n1,0.5\n", {}, [1], [0.5]),
    ("row numbers left out", b",id,p\n0,7,0.5\n", {"columns": ["p"]}, [7], [0.5]),
    ("a name of a number", b"id,0\n1,0.5\n", {}, [1], [0.5]),
]


@pytest.mark.parametrize(("name", "content", "asked", "ids", "values"), TAKEN, ids=[case[0] for case in TAKEN])
def test_valid_files_are_taken_to_the_byte(
    name: str, content: bytes, asked: dict[str, Any], ids: list[Any], values: Any
) -> None:
    Path("file.csv").write_bytes(content)
    read = read_predictions("file.csv", **asked)
    assert read.ids.to_list() == ids
    assert read.values.dtype == np.float64
    assert read.values.tolist() == values


# Files that are refused

REFUSED: list[tuple[bytes, dict[str, Any], str]] = [
    (b"", {}, "is empty; a CSV begins with a line of names"),
    (b"\n\n", {}, "is empty"),
    (b"id,p\n", {}, "has names of columns but no rows"),
    (b"id,p", {}, "has names of columns but no rows"),
    (b"id,p\r1,0.5\r", {}, "cannot be read|no rows"),
    (b"1,0.5\n2,0.25\n", {}, "first line holds numbers, not the names of columns: 1, 0.5"),
    (b"id\n1\n", {}, "has one column, 'id'; it needs ids and predictions"),
    (b"id;p\n1;0.5\n", {}, "has one column, 'id;p'; .* with commas"),
    (b"id\tp\n1\t0.5\n", {}, r"has one column, 'id\\tp'"),
    (b"id,p,p\n1,0.5,0.6\n", {}, "column 'p' is there more than once; rename it"),
    (b"id,p\n1,0.5,9\n", {}, "cannot be read"),
    (b"id,p\n1,0.5\n2,0,5\n", {}, "cannot be read"),
    (b"id,p,q\n1,0.5,1\n2,0,5,1\n", {"columns": ["p"]}, "cannot be read"),
    (b'id,p\n"1,0.5\n', {}, "cannot be read|no rows"),
    ("id,p\né,0.5\n".encode("latin1"), {}, "is neither Parquet nor CSV in UTF-8|cannot be read"),
    ("id,p\n1,0.5\n".encode("utf-16"), {}, "is neither Parquet nor CSV in UTF-8"),
    (b"\x1f\x8b\x08\x00abc\xff", {}, "is neither Parquet nor CSV in UTF-8"),
    (b"PAR1 and then nothing", {}, "cannot be read"),
    (b"PAR1", {}, "cannot be read"),
    (b"id,p\n1,0.5\n1,0.6\n2,1\n", {}, r"column 'id': 1 ids are predicted more than once \(first: \[1\]\)"),
    (b"id,p\na,1\nb,1\na,1\nb,1\n", {}, r"column 'id': 2 ids are predicted more than once \(first: \['a', 'b'\]\)"),
    (b"key,p\n1,0.5\n,0.6\n", {}, "column 'key': 1 of 2 ids are empty"),
    (b"id,p\n1,0.5\n\n2,0.6\n", {}, "column 'id': 1 of 3 ids are empty"),
    (b"id,p\n1,0.5\n2,\n3,\n", {}, r"column 'p': 2 of 3 values are empty \(first ids: \[2, 3\]\)"),
    (b"id,p\n1\n2,0.5\n", {}, r"column 'p': 1 of 2 values are empty \(first ids: \[1\]\)"),
    (b"id,p\n1,0.5\n2,nan\n", {}, r"column 'p': 1 of 2 values are NaN or infinite \(first ids: \[2\]\)"),
    (b"id,p\n1,NaN\n2,NaN\n", {}, r"column 'p': 2 of 2 values are NaN"),
    (b"id,p\n1,inf\n", {}, r"column 'p': 1 of 1 values are NaN or infinite"),
    (b"id,p\n1,-Infinity\n", {}, r"column 'p': 1 of 1 values are NaN or infinite"),
    (b"id,p\n1,1e400\n", {}, r"column 'p': 1 of 1 values are NaN or infinite"),
    (b"id,p\n1,NA\n", {}, r"column 'p': 1 of 1 values are no numbers, such as 'NA' \(first ids: \[1\]\)"),
    (b"id,p\n1,cat\n2,0.5\n", {}, r"column 'p': 1 of 2 values are no numbers, such as 'cat'"),
    (b"id,p,q\n1,1,True\n", {}, r"column 'q': 1 of 1 values are no numbers, such as 'True'"),
    (b'id,p\n1,"0,5"\n', {}, r"values are no numbers, such as '0,5'"),
    (b"id,p\n1,0x1F\n", {}, r"values are no numbers, such as '0x1F'"),
    (b"id,p\n1,1_000\n", {}, r"values are no numbers, such as '1_000'"),
    (b"id,p\n1,50%\n", {}, r"values are no numbers, such as '50%'"),
    (
        b"id,p,\n1,0.5,\n",
        {},
        "column '' seems to be the row number that pandas writes; write the file with index=False",
    ),
    (b",id,p\n0,7,0.5\n", {}, "column '' seems to be the row number"),
    (b"id,Unnamed: 0,p\n7,0,0.5\n", {}, "column 'Unnamed: 0' seems to be the row number"),
    (b"id,prediction,score\n1,0.5,0.6\n", {}, "are score predictions, too, beside prediction"),
    (b"id,p\n1,0.5\n", {"id": "key"}, "has no column 'key'; it has id, p"),
    (b"id,p\n1,0.5\n", {"columns": ["q"]}, "columns asked for are not there, or twice: 'q'; it has p"),
    (b"id,p\n1,0.5\n", {"columns": []}, r"columns asked for are not there, or twice: \[\]"),
    (b"id,p\n1,0.5\n", {"columns": ["p", "p"]}, r"columns asked for are not there, or twice: \['p', 'p'\]"),
    (b"id,p\n1,0.5\n", {"columns": ["id"]}, "columns asked for are not there, or twice: 'id'"),
]


@pytest.mark.parametrize(("content", "asked", "message"), REFUSED)
def test_malformed_files_are_refused(content: bytes, asked: dict[str, Any], message: str) -> None:
    Path("file.csv").write_bytes(content)
    with pytest.raises(PredictionsError, match=rf"^file\.csv.*({message})") as caught:
        read_predictions("file.csv", **asked)
    assert caught.value.exit_code == 3


def test_what_is_no_file_is_refused() -> None:
    Path("folder.csv").mkdir()
    for name in ("folder.csv", "gone.csv"):
        with pytest.raises(PredictionsError, match=f"{name} is not a file; give the path of a CSV or Parquet"):
            read_predictions(name)


# Parquet of others

ROWS = pl.DataFrame({"key": ["b", "a"], "x": [0.5, 0.25], "y": [1, 0]})


def test_a_parquet_file_of_others_is_taken_with_its_types() -> None:
    ROWS.write_parquet("file.parquet")
    read = read_predictions("file.parquet")
    assert read.ids.to_list() == ["b", "a"]
    assert read.values.tolist() == [[0.5, 1], [0.25, 0]]
    narrow = ROWS.cast({"x": pl.Float32}).select("x", pl.col("key").cast(pl.Categorical).alias("id"))
    narrow.write_parquet("narrow.parquet")
    read = read_predictions("narrow.parquet")
    assert (read.ids.dtype, read.values.dtype, read.values.shape) == (pl.String, np.float32, (2,))
    ROWS.select("key", "y").write_parquet("codes.parquet")
    assert read_predictions("codes.parquet").values.dtype == np.int64
    ROWS.select("key", pl.col("y") == 1).write_parquet("truth.parquet")
    assert read_predictions("truth.parquet").values.tolist() == [True, False]


def test_columns_of_ours_are_in_the_order_of_their_numbers() -> None:
    Path("p.csv").write_text("prediction_10,prediction_9,id\n0.5,0.25,a\n")
    assert read_predictions("p.csv").values.tolist() == [[0.25, 0.5]]


def test_texts_in_parquet_stay_texts() -> None:
    pl.DataFrame({"id": ["1", "2"], "p": [0.5, 1.0]}).write_parquet("file.parquet")
    assert read_predictions("file.parquet").ids.to_list() == ["1", "2"]


PARQUET: list[tuple[pl.DataFrame, str]] = [
    (ROWS.clear(), "has names of columns but no rows"),
    (ROWS.select("key"), "has one column, 'key'"),
    (ROWS.with_columns(key=pl.Series(["a", None])), "column 'key': 1 of 2 ids are empty"),
    (
        ROWS.with_columns(key=pl.Series(["a", "a"])),
        r"column 'key': 1 ids are predicted more than once \(first: \['a'\]",
    ),
    (ROWS.with_columns(key=pl.Series([1.0, 2.0])), "column 'key': ids must be whole numbers or texts, got Float64"),
    (ROWS.with_columns(x=pl.Series([None, 0.5])), r"column 'x': 1 of 2 values are empty \(first ids: \['b'\]\)"),
    (ROWS.with_columns(y=pl.Series([None, 1])), r"column 'y': 1 of 2 values are empty \(first ids: \['b'\]\)"),
    (ROWS.with_columns(x=pl.Series([0.5, float("nan")])), r"column 'x': 1 of 2 values are NaN or infinite .*\['a'\]"),
    (ROWS.with_columns(x=pl.Series(["0.5", "1"])), r"column 'x' holds String; predictions are numbers"),
    (ROWS.with_columns(x=pl.Series([[0.5], [1.0]])), r"column 'x' holds List\(Float64\); predictions are numbers"),
    (ROWS.with_columns(x=pl.Series([1, 2], dtype=pl.Int128)), "column 'x' holds Int128; predictions are numbers of 64"),
]


@pytest.mark.parametrize(("table", "message"), PARQUET)
def test_malformed_tables_are_refused(table: pl.DataFrame, message: str) -> None:
    table.write_parquet("file.parquet")
    with pytest.raises(PredictionsError, match=rf"^file\.parquet.*{message}"):
        read_predictions("file.parquet")


# Ours


def ours(n: int = 40) -> Predictions:
    rng = np.random.default_rng(0)
    ids, targets = pl.Series("id", [f"row {i}" for i in range(n)]), rng.integers(0, 2, n)
    return Predictions(ids, rng.random((n, 2)), targets=targets, folds=np.arange(n) % 3, about={"run": "toy-001"})


def test_our_files_are_read_with_all_they_hold() -> None:
    ours().save("p.parquet")
    read = read_predictions("p.parquet")
    assert read.frame().equals(ours().frame())
    assert read.about == {"run": "toy-001"}
    second = read_predictions("p.parquet", columns=["prediction_1"])
    assert second.values.tolist() == ours().values[:, 1].tolist()


def test_our_files_are_refused_when_a_byte_of_them_changed() -> None:
    ours().save("p.parquet")
    data = bytearray(Path("p.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    Path("p.parquet").write_bytes(data)
    for read in (read_predictions, PredictionFile.open):
        with pytest.raises(CorruptError, match=r"p\.parquet: was changed or damaged after it was written"):
            read("p.parquet")  # type: ignore[operator]


def test_a_file_of_a_later_version_is_not_guessed_at() -> None:
    write_table(Path("p.parquet"), ours().frame(), {"schema": "2", "about": "{}"})
    with pytest.raises(PredictionsError, match="was written by a newer Batteries"):
        PredictionFile.open("p.parquet")


# Parts


@pytest.mark.parametrize("size", [1, 7, 24, 1000])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_parts_are_the_whole_however_large_they_are(suffix: str, size: int) -> None:
    whole, path = ours(), Path(f"p.{suffix}")
    whole.frame().drop("fold", "target").write_csv(path) if suffix == "csv" else whole.save(path)
    file = PredictionFile.open(path)
    values = np.full((40, 2), np.nan)
    for rows, columns, part in file.parts(file.ids(), size):
        assert part.size <= max(size, 2)
        values[rows, columns] = part
    assert values.tobytes() == whole.values.tobytes()


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_faults_are_counted_over_all_parts(suffix: str) -> None:
    table = pl.DataFrame({"id": range(100), "p": [0.5] * 93 + [float("nan")] * 7})
    table.write_csv("p.csv") if suffix == "csv" else table.write_parquet("p.parquet")
    file = PredictionFile.open(f"p.{suffix}")
    message = r"column 'p': 7 of 100 values are NaN or infinite \(first ids: \[93, 94, 95, 96, 97\]\)"
    with pytest.raises(PredictionsError, match=message):
        list(file.parts(file.ids(), 2))


def test_a_file_that_changed_between_its_ids_and_its_values_is_refused() -> None:
    Path("p.csv").write_text("id,p\n1,0.5\n2,0.5\n")
    file = PredictionFile.open("p.csv")
    ids = file.ids()
    Path("p.csv").write_text("id,p\n1,0.5\n")
    with pytest.raises(PredictionsError, match="had 2 rows and has others now"):
        list(file.parts(ids, 10))


# Seals of large files


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_a_table_written_in_parts_has_the_bytes_of_the_whole(size: int) -> None:
    table = pl.DataFrame({"id": [f"row {i}" for i in range(70_000)], "p": np.random.default_rng(0).random(70_000)})
    table = table if size >= 1000 else table.head(50)
    write_table(Path("whole.parquet"), table, {"a": "b"})
    pieces = (table[start : start + size] for start in range(0, len(table), size))
    write_parts(Path("parts.parquet"), table.schema, pieces, {"a": "b"})
    assert Path("parts.parquet").read_bytes() == Path("whole.parquet").read_bytes()
    assert sorted(map(str, Path().iterdir())) == ["parts.parquet", "whole.parquet"]


@pytest.mark.parametrize("piece", [1, 50, 99, 1000])
def test_a_seal_is_found_wherever_pieces_of_the_file_are_cut(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write_table(Path("p.parquet"), ours().frame(), {"a": "b"})
    monkeypatch.setattr(sealed, "_PIECE", piece)
    assert check_seal(Path("p.parquet")) == {"a": "b"}


def test_a_file_of_others_has_no_seal() -> None:
    ROWS.write_parquet("file.parquet")
    assert check_seal(Path("file.parquet")) == {}


# Ids of any kind

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1, max_size=8)


@given(st.lists(texts | st.from_regex(r"\A[0+-]?[0-9]{1,20}\Z") | st.integers().map(str), min_size=1, unique=True))
@settings(max_examples=200)
def test_ids_survive_csv_to_the_byte(ids: list[str]) -> None:
    table = pl.DataFrame({"id": ids, "p": np.arange(len(ids)) / 8})
    table.write_csv("p.csv", quote_style="non_numeric")
    read = read_predictions("p.csv")
    assert read.ids.cast(pl.String).to_list() == ids
    assert read.values.tolist() == table["p"].to_list()
