"""Submission files: what is refused, with which words, and what is accepted, in tables; files of any tool written."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import batteries as bt
from batteries.cli.app import main
from batteries.combine.check_submission import check_submission
from batteries.combine.sample import Sample
from batteries.combine.submit_file import submit_file
from batteries.errors import CorruptError, DataError, UsageError
from goals import figure
from killing import HEAVY, _counted

NUMBERS = b"id,t\na,0.0\nb,0\nc,2.5\n"
PROBABILITIES = b"id,t\na,0.5\nb,0.5\nc,0.5\n"
CODES = b"id,t\na,0\nb,1\nc,2\n"
NAMES = b"id,t\na,cat\nb,dog\nc,cat\n"
TRUTH = b"id,t\na,True\nb,False\nc,True\n"
SHARES = b"id,cat,dog\na,0.5,0.5\nb,0.5,0.5\nc,0.5,0.5\n"
TEN = b"id,t\n" + b"".join(b"r%d,0.0\n" % i for i in range(10))

REFUSED: dict[str, tuple[bytes, bytes, str]] = {
    # what is wrong: the sample, the file, what is said
    "a NaN": (
        NUMBERS,
        b"id,t\na,1\nb,nan\nc,2\n",
        r"column 't': 1 of 3 values are NaN or infinite, such as nan \(first ids: \['b'\]\)",
    ),
    "an infinite number": (NUMBERS, b"id,t\na,inf\nb,-inf\nc,2\n", r"2 of 3 values are NaN or infinite.*\['a', 'b'\]"),
    "a number beyond float64": (NUMBERS, b"id,t\na,1e999\nb,1\nc,2\n", r"1 of 3 values are NaN or infinite.*\['a'\]"),
    "an empty cell": (
        NUMBERS,
        b"id,t\na,1\nb,\nc,2\n",
        r"column 't': 1 of 3 values are empty \(first ids: \['b'\]\). Next: fill",
    ),
    "an empty cell in quotes": (NUMBERS, b'id,t\na,1\nb,""\nc,2\n', r"1 of 3 values are empty.*\['b'\]"),
    "an empty label": (NAMES, b"id,t\na,cat\nb,\nc,dog\n", r"1 of 3 values are empty.*\['b'\]"),
    "a line that is too short": (NUMBERS, b"id,t\na,1\nb\nc,2\n", r"1 of 3 values are empty.*\['b'\]"),
    "a line that is too long": (NUMBERS, b"id,t\na,1\nb,2,3\nc,2\n", "cannot be read as CSV"),
    "all cells empty": (
        TEN,
        TEN.replace(b"0.0", b""),
        r"10 of 10 values are empty \(first ids: \['r0', 'r1', 'r2', 'r3', 'r4'\]\)",
    ),
    "an id there twice": (
        NUMBERS,
        b"id,t\na,1\nb,2\nb,2\nc,3\n",
        r"1 ids in column 'id' are there more than once \(first: \['b'\]\)",
    ),
    "an empty id": (NUMBERS, b"id,t\na,1\n,2\nc,3\n", "1 of 3 ids in column 'id' are empty"),
    "a row missing": (
        NUMBERS,
        b"id,t\na,1\nc,2\n",
        r"has 3 ids, .* 2: 1 are only in the sample \(first: \['b'\]\).*Predict them too",
    ),
    "a row too many": (
        NUMBERS,
        b"id,t\na,1\nb,2\nc,3\nd,4\n",
        r"0 are only in the sample .* 1 only in .*\['d'\]\).*download it again",
    ),
    "a stale sample": (TEN[:-28], TEN, r"has 6 ids, .* 10: .* 4 only in .*\['r6', 'r7', 'r8', 'r9'\]"),
    "ids of another set": (
        NUMBERS,
        b"id,t\nx,1\ny,2\nz,3\n",
        r"3 are only in the sample .* 3 only in .*Is it the sample of this competition",
    ),
    "ids that lost their zeros": (
        b"id,t\n001,0.0\n010,0.0\n",
        b"id,t\n1,1\n10,2\n",
        "They differ by leading zeros; read ids as texts",
    ),
    "ids that became decimals": (b"id,t\n1,0.0\n2,0.0\n", b"id,t\n1.0,1\n2.0,2\n", r"They differ by '\.0' at the end"),
    "ids in another case": (b"id,t\nAb,0.0\nc,0.0\n", b"id,t\nAB,1\nC,2\n", "They differ by letter case"),
    "ids with spaces": (NUMBERS, b"id,t\na ,1\n b,2\nc ,3\n", "They differ by spaces around them"),
    "ids of another Unicode form": (
        "id,t\n\u00e9,0.0\n".encode(),
        "id,t\ne\u0301,1\n".encode(),
        r"They differ by Unicode form \(NFC, NFD\)",
    ),
    "an id that a spreadsheet made a power": (
        b"id,t\n1e5,0.0\n7,0.0\n",
        b"id,t\n100000,1\n7,2\n",
        r"first: \['1e5'\].*first: \['100000'\]",
    ),
    "a column renamed": (
        NUMBERS,
        b"id,target\na,1\nb,2\nc,3\n",
        r"columns are id, target; .* asks for id, t \(1 missing: t, 1 too many: target\)",
    ),
    "a column in another case": (NUMBERS, b"id,T\na,1\nb,2\nc,3\n", "Next: rename 'T' to 't'"),
    "the column of ids renamed": (NUMBERS, b"Id,t\na,1\nb,2\nc,3\n", "Next: rename 'Id' to 'id'"),
    "a column too many": (NUMBERS, b"id,t,u\na,1,1\nb,2,1\nc,3,1\n", r"\(1 too many: u\)"),
    "the row numbers of pandas": (NUMBERS, b",id,t\n0,a,1\n1,b,2\n2,c,3\n", r"\(1 too many: \)"),
    "a column missing": (SHARES, b"id,cat\na,1\nb,0\nc,1\n", r"\(1 missing: dog\)"),
    "columns in another order": (
        SHARES,
        b"id,dog,cat\na,1,0\nb,0,1\nc,1,0\n",
        "columns are id, dog, cat; .* asks for id, cat, dog. Write them in that order",
    ),
    "a column twice": (NUMBERS, b"id,t,t\na,1,1\nb,2,1\nc,3,1\n", "column 't' is there more than once"),
    "texts for numbers": (
        NUMBERS,
        b"id,t\na,1\nb,two\nc,3\n",
        r"column 't': 1 of 3 values are no numbers, such as 'two' \(first ids: \['b'\]\)",
    ),
    "decimal commas": (NUMBERS, b'id,t\na,"1,5"\nb,2\nc,3\n', r"1 of 3 values are no numbers, such as '1,5'"),
    "booleans for numbers": (
        NUMBERS,
        b"id,t\na,True\nb,False\nc,True\n",
        "3 of 3 values are no numbers, such as 'True'",
    ),
    "probabilities for classes": (
        CODES,
        b"id,t\na,0.2\nb,0.9\nc,1\n",
        r"2 of 3 values are no whole numbers, such as 0\.2 .*choose the class",
    ),
    "probabilities for names": (
        NAMES,
        b"id,t\na,0.2\nb,0.9\nc,1\n",
        r"column 't' holds numbers such as '0\.2'; the sample's holds texts such as 'cat'",
    ),
    "probabilities for booleans": (
        TRUTH,
        b"id,t\na,0.2\nb,0.9\nc,1\n",
        "2 of 3 values are neither true nor false, such as '0.2' .* write False or True",
    ),
    "names for booleans": (
        TRUTH,
        b"id,t\na,yes\nb,no\nc,yes\n",
        "3 of 3 values are neither true nor false, such as 'yes'",
    ),
    "names for codes": (CODES, b"id,t\na,cat\nb,dog\nc,cat\n", "3 of 3 values are no numbers, such as 'cat'"),
    "log-odds for probabilities": (
        PROBABILITIES,
        b"id,t\na,-2.1\nb,0.3\nc,4\n",
        r"2 of 3 values are no probabilities, such as -2\.1 \(first ids: \['a', 'c'\]\)",
    ),
    "percents for shares": (
        SHARES,
        b"id,cat,dog\na,40,60\nb,0,100\nc,1,99\n",
        "column 'cat': 1 of 3 values are no probabilities, such as 40",
    ),
    "whole numbers that no 64 bits hold": (
        NUMBERS,
        b"id,t\na,1\nb,18446744073709551615\nc,3\n",
        r"1 of 3 values are whole numbers beyond 64 bits.*\['b'\]",
    ),
    "an empty file": (NUMBERS, b"", "is empty"),
    "a byte order mark alone": (NUMBERS, b"\xef\xbb\xbf", "is empty"),
    "names without rows": (NUMBERS, b"id,t\n", "has names of columns but no rows"),
    "blank lines alone": (NUMBERS, b"id,t\n\n\n", "has names of columns but no rows"),
    "no names": (NUMBERS, b"1,0.5\n2,0.5\n", "the first line holds numbers, not the names of columns: 1, 0.5"),
    "semicolons": (
        NUMBERS,
        b"id;t\na;1\nb;2\nc;3\n",
        "one column, 'id;t'; it is separated by semicolons; write it with commas",
    ),
    "tabs": (NUMBERS, b"id\tt\na\t1\n", "separated by tabs"),
    "bars": (NUMBERS, b"id|t\na|1\n", "separated by bars"),
    "one column": (NUMBERS, b"t\n1\n2\n3\n", "has one column, 't'; it needs ids and predictions"),
    "UTF-16": (NUMBERS, "id,t\na,1\n".encode("utf-16"), "is neither Parquet nor CSV in UTF-8"),
    "Latin-1": (NUMBERS, "id,t\n\u00e9,1\n".encode("latin-1"), "UTF-8|cannot be read as CSV"),
    "a zip archive": (
        NUMBERS,
        b"PK\x03\x04\x14\x00\x00\x00\x08\x00\xff\xfe\x00",
        "is neither Parquet nor CSV|has one column",
    ),
    "a quote that is not closed": (NUMBERS, b'id,t\na,1\n"b,2\nc,3\n', "cannot be read as CSV"),
    "lines that end as on an old Macintosh": (
        NUMBERS,
        b"id,t\ra,1\rb,2\rc,3\r",
        "its lines do not end as those of a CSV",
    ),
    "half a Parquet file": (NUMBERS, b"PAR1\x15\x04\x15", "cannot be read"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_malformed_file_is_refused_and_the_fault_is_named(what: str, tmp_path: Path) -> None:
    asked, sent, message = REFUSED[what]
    (tmp_path / "sample.csv").write_bytes(asked)
    (tmp_path / "sent.csv").write_bytes(sent)
    with pytest.raises(DataError, match=message) as found:
        check_submission(tmp_path / "sent.csv", tmp_path / "sample.csv")
    assert found.value.exit_code == 3
    assert "sent.csv" in str(found.value)


def test_at_least_forty_malformations_are_known() -> None:
    assert len(REFUSED) >= 40
    figure("G12", kinds_refused=len(REFUSED))


ACCEPTED: dict[str, tuple[bytes, bytes, bytes]] = {
    # what is sent: the sample, the file, what is written of it
    "numbers": (NUMBERS, b"id,t\na,1.5\nb,2.25\nc,-3\n", b"id,t\na,1.5\nb,2.25\nc,-3.0\n"),
    "another order": (NUMBERS, b"id,t\nc,3.5\na,1.5\nb,2.5\n", b"id,t\na,1.5\nb,2.5\nc,3.5\n"),
    "powers of ten": (NUMBERS, b"id,t\na,1e-7\nb,2E+3\nc,+3.5\n", b"id,t\na,1e-7\nb,2000.0\nc,3.5\n"),
    "spaces around numbers": (NUMBERS, b"id,t\na, 1.5\nb,2.5 \nc,3.5\n", b"id,t\na,1.5\nb,2.5\nc,3.5\n"),
    "all digits": (
        NUMBERS,
        b"id,t\na,0.30000000000000004\nb,5e-324\nc,1.7976931348623157e308\n",
        b"id,t\na,0.30000000000000004\nb,5e-324\nc,1.7976931348623157e+308\n",
    ),
    "numbers where the sample is filled with 0": (
        b"id,t\na,0\nb,0\n",
        b"id,t\na,0.25\nb,3\n",
        b"id,t\na,0.25\nb,3.0\n",
    ),
    "whole numbers where the sample is filled with 0": (
        b"id,t\na,0\nb,0\n",
        b"id,t\na,25\nb,3\n",
        b"id,t\na,25\nb,3\n",
    ),
    "probabilities": (PROBABILITIES, b"id,t\na,0\nb,1\nc,0.25\n", b"id,t\na,0.0\nb,1.0\nc,0.25\n"),
    "codes": (CODES, b"id,t\na,2\nb,2\nc,7\n", b"id,t\na,2\nb,2\nc,7\n"),
    "codes as decimals": (CODES, b"id,t\na,2.0\nb,2.0\nc,0.0\n", b"id,t\na,2\nb,2\nc,0\n"),
    "large whole numbers": (CODES, b"id,t\na,9007199254740993\nb,1\nc,2\n", b"id,t\na,9007199254740993\nb,1\nc,2\n"),
    "names": (NAMES, b"id,t\na,dog\nb,dog\nc,cat\n", b"id,t\na,dog\nb,dog\nc,cat\n"),
    "names in quotes": (
        NAMES,
        b'"id","t"\n"a","dog"\n"b","a, b"\n"c","""cat"""\n',
        b'id,t\na,dog\nb,"a, b"\nc,"""cat"""\n',
    ),
    "texts that may be empty": (b"id,t\na,1 2\nb,\nc,3 4\n", b"id,t\na,\nb,1 2\nc,x\n", b"id,t\na,\nb,1 2\nc,x\n"),
    "booleans": (TRUTH, b"id,t\na,False\nb,True\nc,True\n", b"id,t\na,False\nb,True\nc,True\n"),
    "booleans in another spelling": (TRUTH, b"id,t\na,false\nb,TRUE\nc,True\n", b"id,t\na,False\nb,True\nc,True\n"),
    "0 and 1 for booleans": (b"id,t\na,false\nb,false\n", b"id,t\na,0\nb,1\n", b"id,t\na,false\nb,true\n"),
    "0 and 1 as the sample has them": (b"id,t\na,0\nb,1\n", b"id,t\na,1\nb,0\n", b"id,t\na,1\nb,0\n"),
    "shares of classes": (
        SHARES,
        b"id,cat,dog\na,0.25,0.75\nb,1,0\nc,0.5,0.5\n",
        b"id,cat,dog\na,0.25,0.75\nb,1.0,0.0\nc,0.5,0.5\n",
    ),
    "a byte order mark": (NUMBERS, b"\xef\xbb\xbfid,t\na,1.5\nb,2.5\nc,3.5\n", b"id,t\na,1.5\nb,2.5\nc,3.5\n"),
    "a byte order mark in the sample": (
        b"\xef\xbb\xbf" + NUMBERS,
        b"id,t\na,1.5\nb,2.5\nc,3.5\n",
        b"id,t\na,1.5\nb,2.5\nc,3.5\n",
    ),
    "lines of Windows": (NUMBERS, b"id,t\r\na,1.5\r\nb,2.5\r\nc,3.5\r\n", b"id,t\na,1.5\nb,2.5\nc,3.5\n"),
    "no line end at the end": (NUMBERS, b"id,t\na,1.5\nb,2.5\nc,3.5", b"id,t\na,1.5\nb,2.5\nc,3.5\n"),
    "blank lines": (NUMBERS, b"id,t\na,1.5\n\nb,2.5\nc,3.5\n\n\n", b"id,t\na,1.5\nb,2.5\nc,3.5\n"),
    "one row": (b"id,t\na,0.0\n", b"id,t\na,1.5\n", b"id,t\na,1.5\n"),
    "ids that look like something else": (
        b"id,t\n007,0.0\n1e5,0.0\nNA,0.0\nnull,0.0\n9223372036854775808,0.0\nTrue,0.0\n",
        b"id,t\n1e5,1\nNA,2\n007,3\nnull,4\nTrue,5\n9223372036854775808,6\n",
        b"id,t\n007,3.0\n1e5,1.0\nNA,2.0\nnull,4.0\n9223372036854775808,6.0\nTrue,5.0\n",
    ),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_a_valid_file_is_accepted_and_written_as_the_sample_asks(what: str, tmp_path: Path) -> None:
    asked, sent, expected = ACCEPTED[what]
    (tmp_path / "sample.csv").write_bytes(asked)
    (tmp_path / "sent.csv").write_bytes(sent)
    checked = check_submission(tmp_path / "sent.csv", tmp_path / "sample.csv")
    made = submit_file(tmp_path / "sent.csv", tmp_path / "sample.csv", tmp_path / "out.csv")
    assert made.path.read_bytes() == expected
    assert len(checked.table) == len(made.table)
    check_submission(made.path, tmp_path / "sample.csv")


def test_at_least_twenty_valid_files_are_known() -> None:
    assert len(ACCEPTED) >= 20
    figure("G12", valid_accepted=len(ACCEPTED), false_alarms=0)


# --- samples that say nothing


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (b"id,t\na,\nb,\n", "sample.csv: column 't' is empty in every row; write an example into it"),
        (b"id,t\na,1\na,2\n", r"1 ids in its first column 'id' are there more than once \(first: \['a'\]\)"),
        (b"id,t\n,1\nb,2\n", "1 of 2 ids in column 'id' are empty"),
        (b"id\na\n", "has one column"),
        (b"", "is empty"),
    ],
)
def test_a_sample_that_does_not_say_what_is_asked_is_refused(sample: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_bytes(sample)
    with pytest.raises(DataError, match=message):
        Sample.read(tmp_path / "sample.csv")
    with pytest.raises(DataError, match=r"missing\.csv is not a file"):
        Sample.read("missing.csv")


# --- notes


def notes(asked: bytes, sent: bytes) -> str:
    return "; ".join(check_submission(pl.read_csv(sent, infer_schema=False), Sample.parse(asked, "sample.csv")).notes)


@pytest.mark.parametrize("first", ["=", "+", "-", "@", "\t", "\r"])
def test_ids_that_a_spreadsheet_would_run_are_kept_and_reported(first: str, tmp_path: Path) -> None:
    table = pl.DataFrame({"id": [f"{first}cmd|' /C calc'!A0", "b"], "t": [0.0, 0.0]})
    table.write_csv(tmp_path / "sample.csv")
    table.with_columns(t=pl.Series([1.5, 2.5])).write_csv(tmp_path / "sent.csv")
    made = submit_file(tmp_path / "sent.csv", tmp_path / "sample.csv", tmp_path / "out.csv")
    assert made.path.read_bytes() == (tmp_path / "sent.csv").read_bytes()
    assert "1 of 2 ids begin as a spreadsheet's formula does" in made.notes[0]


def test_what_is_worth_a_look_is_noted() -> None:
    assert notes(NUMBERS, b"id,t\na,2\nb,2\nc,2\n") == "column 't' is 2.0 in every row"
    assert notes(SHARES, b"id,cat,dog\na,1,0\nb,1,0\nc,1,0\n") == "columns cat, dog are the same in every row"
    assert "labels that the sample has not: bird" in notes(NAMES, b"id,t\na,bird\nb,dog\nc,cat\n")
    assert "add up to 1 in each row; in 1 of 3 rows here not" in notes(
        SHARES, b"id,cat,dog\na,0.2,0.2\nb,1,0\nc,0.5,0.5\n"
    )
    assert notes(NUMBERS, b"id,t\na,1\nb,2\nc,3\n") == ""


def test_a_sample_that_no_csv_can_hold_is_refused() -> None:
    with pytest.raises(DataError, match="the sample submission cannot be written as CSV"):
        Sample.of(pl.DataFrame({"id": ["a"], "t": [[0.5]]}))


def test_a_sample_that_spells_its_labels_otherwise_is_noted() -> None:
    sent = pl.DataFrame({"id": ["a", "b", "c"], "t": ["Cat", "Dog", "Dog"]})
    found = check_submission(sent, Sample.parse(NAMES, "sample.csv"), classes=["Cat", "Dog"])
    assert found.notes == ("the sample's 't' has labels that are none of the classes: cat, dog",)


def test_a_label_that_is_no_class_is_refused_where_classes_are_known() -> None:
    sent = pl.DataFrame({"id": ["a", "b", "c"], "t": ["cat", "bird", "dog"]})
    with pytest.raises(DataError, match=r"1 of 3 values are no class, such as 'bird' \(first ids: \['b'\]\).*cat, dog"):
        check_submission(sent, Sample.parse(NAMES, "sample.csv"), classes=["cat", "dog"])


# --- files of any tool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sample.csv").write_bytes(b"key,target\na,0\nb,0\nc,0\n")
    return tmp_path


def test_parquet_is_read_with_its_types(folder: Path) -> None:
    pl.DataFrame({"key": ["c", "a", "b"], "target": pl.Series([0.1, 0.2, 0.3], dtype=pl.Float32)}).write_parquet(
        "p.parquet"
    )
    made = submit_file("p.parquet", "sample.csv", "out.csv")
    assert made.path.read_text() == "key,target\na,0.2\nb,0.3\nc,0.1\n"  # the shortest digits of float32
    assert made.notes == ("rows were brought into the sample's order",)


def test_one_column_may_have_another_name_and_what_was_done_is_said(folder: Path) -> None:
    Path("p.csv").write_text("id,score\na,1.5\nb,2.5\nc,3.5\n")
    made = submit_file("p.csv", "sample.csv", "out.csv")
    assert made.path.read_text() == "key,target\na,1.5\nb,2.5\nc,3.5\n"
    assert made.notes == ("columns are written under the sample's names: 'id' as 'key', 'score' as 'target'",)


def test_further_columns_are_left_out_and_said(folder: Path) -> None:
    Path("p.csv").write_text("fold,key,target\n0,a,1.5\n1,b,2.5\n0,c,3.5\n")
    made = submit_file("p.csv", "sample.csv", "out.csv")
    assert made.path.read_text() == "key,target\na,1.5\nb,2.5\nc,3.5\n"
    assert made.notes == ("left out: fold",)


def test_of_a_file_of_ours_the_predictions_are_sent_never_the_truth_beside_them(folder: Path) -> None:
    Path("p.csv").write_text("id,target,prediction\na,1,0.5\nb,0,0.25\nc,1,0.75\n")
    made = submit_file("p.csv", "sample.csv", "out.csv")
    assert made.path.read_text() == "key,target\na,0.5\nb,0.25\nc,0.75\n"


def test_columns_that_could_be_meant_are_not_guessed(folder: Path) -> None:
    Path("p.csv").write_text("key,x,y\na,1,1\nb,2,2\nc,3,3\n")
    with pytest.raises(DataError, match=r"it is not clear which are meant\. Next: rename them as in the sample"):
        submit_file("p.csv", "sample.csv", "out.csv")
    assert not Path("out.csv").exists()


def test_of_probabilities_of_classes_the_most_probable_one_is_sent_where_one_column_is_asked(folder: Path) -> None:
    Path("named.csv").write_bytes(b"id,label\na,cat\nb,cat\nc,dog\n")
    Path("coded.csv").write_bytes(b"id,label\na,0\nb,0\nc,0\n")
    Path("ours.csv").write_text(
        "id,target,prediction_0,prediction_1,prediction_2\nb,0,0.5,0.3,0.2\na,1,0,0,1\nc,2,0,1,0\n"
    )
    Path("theirs.csv").write_text("id,dog,cat\na,0.4,0.6\nb,0.8,0.2\nc,0.9,0.1\n")
    made = submit_file("ours.csv", "named.csv", "1.csv", classes=["cat", "dog", "ox"])
    assert made.path.read_text() == "id,label\na,ox\nb,cat\nc,dog\n"
    assert made.notes == ("the most probable class of prediction_0, prediction_1, prediction_2 is written as 'label'",)
    made = submit_file("ours.csv", "coded.csv", "2.csv")
    assert made.path.read_text() == "id,label\na,2\nb,0\nc,1\n"
    made = submit_file("theirs.csv", "named.csv", "3.csv", classes=["cat", "dog"])
    assert made.path.read_text() == "id,label\na,cat\nb,dog\nc,dog\n"
    with pytest.raises(
        DataError, match=r"column 'label' of the sample holds texts; name the classes.* --classes cat,dog"
    ):
        submit_file("ours.csv", "named.csv", "4.csv")
    with pytest.raises(UsageError, match=r"3 columns of probabilities but 2 classes: cat, dog"):
        submit_file("ours.csv", "named.csv", "4.csv", classes=["cat", "dog"])


def test_columns_of_a_file_of_ours_are_taken_by_their_numbers_wherever_they_stand(folder: Path) -> None:
    Path("p.csv").write_text("id,prediction_10,prediction_1,prediction_0\na,0.5,0.25,0.125\nb,1,2,3\nc,4,5,6\n")
    Path("wide.csv").write_text("id,x,y,z\na,0,0,0\nb,0,0,0\nc,0,0,0\n")
    Path("named.csv").write_text("id,label\na,cat\nb,cat\nc,dog\n")
    assert submit_file("p.csv", "wide.csv", "1.csv").path.read_text().splitlines()[1] == "a,0.125,0.25,0.5"
    made = submit_file("p.csv", "named.csv", "2.csv", classes=["cat", "dog", "ox"])
    assert made.path.read_text() == "id,label\na,ox\nb,cat\nc,cat\n"


def test_columns_of_a_file_of_ours_go_to_the_classes_that_name_the_columns_of_the_sample(folder: Path) -> None:
    Path("p.csv").write_text("id,prediction_0,prediction_1\na,0.75,0.25\nb,0.5,0.5\nc,0,1\n")
    Path("wide.csv").write_text("id,cat,dog\na,0,0\nb,0,0\nc,0,0\n")
    made = submit_file("p.csv", "wide.csv", "out.csv", classes=["dog", "cat"])
    assert made.path.read_text() == "id,cat,dog\na,0.25,0.75\nb,0.5,0.5\nc,1.0,0.0\n"
    assert made.notes == (
        "columns are written under the sample's names: 'prediction_1' as 'cat', 'prediction_0' as 'dog'",
    )
    with pytest.raises(DataError, match=r"columns of the sample are \['cat', 'dog'\], the classes \['dog', 'ox'\]"):
        submit_file("p.csv", "wide.csv", "2.csv", classes=["dog", "ox"])


def test_of_two_classes_the_probability_of_the_second_is_sent_where_numbers_are_asked(folder: Path) -> None:
    Path("p.csv").write_text("id,prediction_0,prediction_1\na,0.75,0.25\nb,0.5,0.5\nc,0,1\n")
    made = submit_file("p.csv", "sample.csv", "out.csv")
    assert made.path.read_text() == "key,target\na,0.25\nb,0.5\nc,1.0\n"
    assert made.notes == ("prediction_1 is written as 'target'",)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("sample.csv", "sample.csv exists already; choose another name, nothing is overwritten"),
        ("out.parquet", "a submission is written as .csv"),
        ("nowhere/out.csv", "there is no folder nowhere; make it first"),
    ],
)
def test_where_a_file_cannot_be_written_nothing_is(out: str, message: str, folder: Path) -> None:
    Path("p.csv").write_text("key,target\na,1.5\nb,2.5\nc,3.5\n")
    with pytest.raises(UsageError, match=message):
        submit_file("p.csv", "sample.csv", out)
    assert sorted(path.name for path in folder.iterdir()) == ["p.csv", "sample.csv"]


def test_a_damaged_file_of_ours_is_refused(folder: Path) -> None:
    bt.Predictions(pl.Series(["a", "b", "c"]), pl.Series([0.1, 0.2, 0.3]).to_numpy()).save("p.parquet")
    data = bytearray(Path("p.parquet").read_bytes())
    data[len(data) // 3] ^= 1
    Path("p.parquet").write_bytes(data)
    with pytest.raises(CorruptError, match=r"p\.parquet: was changed or damaged"):
        submit_file("p.parquet", "sample.csv", "out.csv")


# Any text but surrogates, which UTF-8 has not; what often goes wrong is met often.
HARD = st.sampled_from(
    [
        "007",
        "1e5",
        "1E5",
        "NA",
        "nan",
        "null",
        "None",
        "",
        " ",
        "a,b",
        'quo"te',
        '"',
        '""',
        "'",
        "a\nb",
        "a\r\nb",
        "\r",
        "\t",
        "=1+1",
        "+1",
        "-1",
        "@x",
        "\u00e9",
        "e\u0301",
        "9223372036854775808",
        "-0",
        "1.0",
        "TRUE",
        "#",
        "\u2028",
        "\ufeffx",
        "\x00",
        "\\",
        "a;b",
    ]
)
IDS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    st.tuples(HARD, st.text("ab0 ", min_size=1, max_size=5)).map("".join),
)


@settings(max_examples=15)
@given(some=st.lists(IDS, min_size=1, max_size=60, unique=True), seed=st.integers(0, 99))
def test_a_thousand_ids_come_through_byte_for_byte(
    some: list[str], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ids = [*some, *(f"{some[i % len(some)]}#{i}" for i in range(1000 - len(some)))]
    folder = tmp_path_factory.mktemp("ids")
    asked = pl.DataFrame({"id": ids, "t": [0.0] * len(ids)})
    asked.write_csv(folder / "sample.csv")
    sent = asked.with_columns(t=pl.int_range(len(ids)).cast(pl.Float64)).sample(fraction=1, shuffle=True, seed=seed)
    sent.write_csv(folder / "sent.csv")
    out = folder / "out.csv"
    files = [str(folder / "sent.csv"), "--sample", str(folder / "sample.csv"), "--out", str(out)]
    assert main(["submit", *files, "--json"]) == 0
    back = pl.read_csv(BytesIO(out.read_bytes()), infer_schema=False)
    assert back["id"].to_list() == ids
    assert [float(text) for text in back["t"]] == list(range(len(ids)))


# --- the command


@pytest.fixture
def says(folder: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What the command prints, after it ended with `code`."""

    def run(line: str, code: int = 0) -> str:
        assert main(line.split()) == code
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        assert all(len(text) <= 80 for text in out.splitlines())
        return re.sub(r"\s+", " ", out + err)

    return run


def test_a_file_is_checked_and_written_without_any_run(says: Callable[..., str], folder: Path) -> None:
    Path("p.csv").write_text("key,target\nc,3.14159\na,1.41421\nb,2.71828\n")
    assert "p.csv: 3 rows fit sample.csv" in says("submit p.csv --sample sample.csv")
    said = says("submit p.csv --sample sample.csv --out out.csv --digits 3")
    assert "out.csv: 3 rows of p.csv, 3 significant digits: largest change 0.004, no new ties; SHA-256 " in said
    assert Path("out.csv").read_text() == "key,target\na,1.41\nb,2.72\nc,3.14\n"
    assert not Path("runs").exists()
    said = says("submit p.csv --sample sample.csv --against out.csv")
    assert "beside out.csv: 3 rows" in said
    assert "target 1.0000 1.0000 1.41421 2.42469 3.14159" in said


def test_what_is_checked_as_json_says_the_same(says: Callable[..., str], folder: Path) -> None:
    Path("p.csv").write_text("key,target\na,1.5\nb,2.5\nc,3.5\n")
    found = json.loads(says("submit p.csv --sample sample.csv --json"))
    assert found == {
        "file": "p.csv",
        "rows": 3,
        "first": [{"key": "a", "target": 1.5}, {"key": "b", "target": 2.5}, {"key": "c", "target": 3.5}],
        "notes": [],
        "distribution": [
            {
                **dict.fromkeys(("pearson", "spearman", "spread_before", "changed", "counts", "counts_before")),
                "column": "target",
                "spread": {"least": 1.5, "mean": 2.5, "most": 3.5},
            }
        ],
        "against": None,
    }
    made = json.loads(says("submit p.csv --sample sample.csv --out out.csv --json"))
    assert len(made["sha256"]) == 64


def test_spaces_around_a_label_on_the_command_line_are_no_part_of_it(folder: Path) -> None:
    Path("p.csv").write_text("key,target\na,cat\nb,hot dog\nc,cat\n")
    Path("labels.csv").write_text("key,target\na,cat\nb,cat\nc,cat\n")
    assert main(["submit", "p.csv", "--sample", "labels.csv", "--classes", "cat, hot dog"]) == 0


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("submit p.csv", 2, "what is asked of p.csv? Give the competition's sample: --sample sample_submission.csv"),
        ("submit p.csv --sample sample.csv --digits 3", 2, "--digits says how a file is written; say where: --out"),
        ("submit p.csv --sample sample.csv --out o.csv --digits 99", 2, "digits must be from 1 to 17, got 99"),
        ("submit p.csv --sample nowhere.csv", 3, "nowhere.csv is not a file"),
        ("submit p.csv --sample sample.csv --against x", 2, "there is no submission or file 'x'; submissions: none"),
        ("submit q.csv --sample sample.csv", 3, "q.csv is not a file"),
        ("submit digits-001 --out o.csv", 2, "--out and --classes are for files of predictions"),
        ("reproduce submission-001", 2, "there is no submission 'submission-001' in runs; submissions: none yet"),
        ("reproduce ../x", 3, "cannot be used as a file name"),
    ],
)
def test_wrong_arguments_give_one_message(
    line: str, code: int, message: str, says: Callable[..., str], folder: Path
) -> None:
    Path("p.csv").write_text("key,target\na,1.5\nb,2.5\nc,3.5\n")
    assert message in says(line, code)
    assert not list(folder.glob("o.csv"))


def _killed(folder: Path, kill_at: int | None) -> None:
    """Write a submission of p.csv; die before the n-th flush, rename or removal."""
    os.chdir(folder)
    count = _counted(kill_at, signal.SIGKILL)
    code = main(["submit", "p.csv", "--sample", "sample.csv", "--out", "out.csv", "--json"])
    (folder / "moments").write_text(str(count()))
    os._exit(code)


def test_killed_at_any_moment_the_file_is_there_whole_or_not_at_all(folder: Path) -> None:
    Path("p.csv").write_text("key,target\na,1.5\nb,2.5\nc,3.5\n")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    ends, moment = [], 0
    while not Path("moments").exists():
        moment += 1
        Path("out.csv").unlink(missing_ok=True)
        process = context.Process(target=_killed, args=(folder, moment))
        process.start()
        process.join(60)
        ends.append(process.exitcode)
        assert not Path("out.csv").exists() or Path("out.csv").read_text() == "key,target\na,1.5\nb,2.5\nc,3.5\n"
    assert ends[-1] == 0
    assert ends[:-1] == [-signal.SIGKILL] * (moment - 1)
    assert moment > 2
