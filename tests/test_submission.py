"""Submissions: what the sample asks, or a refusal that names column and ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest

import batteries as bt
from batteries.combine.submission import check_submission, submission_table
from batteries.errors import SubmissionError
from batteries.experiment.predictions import Predictions


@dataclass(kw_only=True)
class Named(bt.Experiment):
    metric = bt.Metric.accuracy()
    target = "species"
    classes = ("cat", "dog")


@dataclass(kw_only=True)
class Numbered(bt.Experiment):
    metric = bt.Metric.rmse()


def predictions(values: Any, ids: Any = ("b", "a", "c")) -> Predictions:
    return Predictions(pl.Series("id", list(ids)), np.asarray(values, dtype="float64"))


PROBABILITIES = [[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]]


def test_one_text_column_takes_the_name_of_the_most_probable_class_in_the_samples_order() -> None:
    sample = pl.DataFrame({"id": ["a", "b", "c"], "species": ["cat"] * 3})
    table = submission_table(predictions(PROBABILITIES), sample, Named())
    assert table.rows() == [("a", "cat"), ("b", "dog"), ("c", "dog")]


def test_one_whole_number_column_takes_the_code_of_the_class() -> None:
    sample = pl.DataFrame({"id": ["a", "b", "c"], "species": [0, 0, 0]})
    assert submission_table(predictions(PROBABILITIES), sample, Named())["species"].to_list() == [0, 1, 1]


def test_columns_named_as_the_classes_are_filled_by_name() -> None:
    sample = pl.DataFrame({"id": ["a", "b", "c"], "dog": [0.5] * 3, "cat": [0.5] * 3})
    assert submission_table(predictions(PROBABILITIES), sample, Named()).row(0) == ("a", 0.2, 0.8)
    with pytest.raises(SubmissionError, match=r"sample are \['dog', 'bird'\], classes of the experiment"):
        submission_table(predictions(PROBABILITIES), sample.rename({"cat": "bird"}), Named())


def test_one_column_of_two_probabilities_takes_the_second_unless_the_metric_judges_classes() -> None:
    sample = pl.DataFrame({"id": ["b", "a", "c"], "target": [0.5] * 3})
    assert submission_table(predictions(PROBABILITIES), sample, Numbered())["target"].to_list() == [0.9, 0.2, 0.6]
    assert submission_table(predictions(PROBABILITIES), sample, Named())["target"].to_list() == [1, 0, 1]


@dataclass(kw_only=True)
class Graded(bt.Experiment):
    metric = bt.Metric.qwk()
    target = "grade"
    classes = ("none", "mild", "severe")


def test_numbers_of_ordered_classes_become_the_nearest() -> None:
    numbers, ids = [0.49, 1.5, 7.0, -2.0], ["b", "a", "c", "d"]
    names = pl.DataFrame({"id": ids, "grade": ["none"] * 4})
    table = submission_table(predictions(numbers, ids), names, Graded())
    assert table["grade"].to_list() == ["none", "severe", "severe", "none"]
    codes = pl.DataFrame({"id": ids[:2], "grade": [0, 0]})
    assert submission_table(predictions(numbers[:2], ids[:2]), codes, Graded())["grade"].to_list() == [0, 2]
    probabilities = np.eye(3)[[0, 2, 2, 1]]
    assert submission_table(predictions(probabilities, ids), names, Graded())["grade"][3] == "mild"


@pytest.mark.parametrize("metric", [bt.Metric.mcc(), bt.Metric.fbeta(2), bt.Metric.fbeta(0.5), bt.Metric.f1()])
def test_metrics_that_judge_classes_are_sent_classes(metric: bt.Metric) -> None:
    @dataclass(kw_only=True)
    class Judged(bt.Experiment):
        pass

    Judged.metric = metric
    sample = pl.DataFrame({"id": ["b", "a", "c"], "target": [0] * 3})
    assert submission_table(predictions([0.2, 0.7, 0.5]), sample, Judged())["target"].to_list() == [0, 1, 1]


def test_no_class_is_chosen_from_ranks() -> None:
    sample = pl.DataFrame({"id": ["b", "a", "c"], "species": ["cat"] * 3})
    with pytest.raises(SubmissionError, match="the predictions are ranks, which choose no class"):
        submission_table(predictions([0.3, 0.6, 1.0]), sample, Named(), ranks=True)


def test_several_columns_take_the_probabilities() -> None:
    sample = pl.DataFrame({"id": ["a", "b", "c"], "cat": [0.5] * 3, "dog": [0.5] * 3})
    table = submission_table(predictions(PROBABILITIES), sample, Named())
    assert table.columns == ["id", "cat", "dog"]
    assert table.row(0) == ("a", 0.8, 0.2)


def test_a_regression_keeps_every_digit_also_where_the_sample_is_filled_with_whole_zeros() -> None:
    values = [0.1 + 0.2, 2.5, -1.25]
    floats = pl.DataFrame({"id": ["b", "a", "c"], "target": [0.0] * 3})
    table = submission_table(predictions(values), floats, Numbered())
    assert pl.read_csv(table.write_csv().encode())["target"].to_list() == values
    counts = floats.cast({"target": pl.Int64})
    assert submission_table(predictions(values), counts, Numbered())["target"].to_list() == values


def test_without_a_sample_the_columns_are_id_and_target() -> None:
    assert submission_table(predictions([1.5, 2.5, 3.5]), None, Numbered()).rows() == [
        ("b", 1.5),
        ("a", 2.5),
        ("c", 3.5),
    ]
    assert submission_table(predictions(PROBABILITIES), None, Named())["species"].to_list() == ["dog", "cat", "dog"]


def test_hard_ids_survive_the_file_byte_for_byte() -> None:
    ids = ["007", "1e5", " padded ", "a,b", 'quo"te', "NA", "é", "e\u0301", "line\nbreak", "=1+1"]
    table = submission_table(predictions(np.arange(10.0), ids), None, Numbered())
    back = pl.read_csv(table.write_csv().encode(), schema_overrides={"id": pl.String})
    assert back["id"].to_list() == ids


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (
            pl.DataFrame({"id": ["a", "b"], "t": [0.0, 0.0]}),
            r"2 ids, the predictions 3: 0 are only in the sample .* 1 only",
        ),
        (pl.DataFrame({"id": list("abcd"), "t": [0.0] * 4}), r"1 are only in the sample \(first: \['d'\]\)"),
        (pl.DataFrame({"id": [1, 2, 3], "t": [0.0] * 3}), "ids of the sample are Int64, ids of the predictions String"),
        (pl.DataFrame({"id": ["a", "b", "c"]}), "has 1 columns and 3 rows"),
        (
            pl.DataFrame({"id": ["a", "b", "c"], "x": [0.0] * 3, "y": [0.0] * 3, "z": [0.0] * 3}),
            "has 3 prediction columns",
        ),
    ],
)
def test_predictions_that_do_not_fit_the_sample_are_refused(sample: pl.DataFrame, message: str) -> None:
    with pytest.raises(SubmissionError, match=message):
        submission_table(predictions(PROBABILITIES), sample, Numbered())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"id": ["a", "b"], "y": [1.0, 2.0]}, r"columns are \['id', 'y'\], the sample asks for \['id', 't'\]"),
        ({"t": [1.0, 2.0], "id": ["a", "b"]}, "columns are"),
        ({"id": ["b", "a"], "t": [1.0, 2.0]}, "ids of column 'id' differ from the sample's, or come in another order"),
        ({"id": ["a", "b"], "t": ["1", "2"]}, "column 't' is String, the sample's is Float64"),
        (
            {"id": ["a", "b"], "t": [1.0, float("nan")]},
            r"column 't' has 1 empty, NaN or infinite values \(first ids: \['b'\]\)",
        ),
        ({"id": ["a", "b"], "t": [None, 1.0]}, r"first ids: \['a'\]"),
    ],
)
def test_a_table_that_the_sample_would_refuse_is_refused(table: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(SubmissionError, match=message):
        check_submission(pl.DataFrame(table), pl.DataFrame({"id": ["a", "b"], "t": [0.0, 0.0]}))
