"""Submissions: what the sample asks, or a refusal that names column and ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pytest

import batteries as bt
from batteries.combine.check_submission import check_submission
from batteries.combine.fill import Target, fill_sample, sample_without
from batteries.combine.sample import Sample
from batteries.combine.written import write_cells
from batteries.errors import SubmissionError, UsageError
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


def submission_table(
    given: Predictions, sample: pl.DataFrame | None, experiment: bt.Experiment, *, ranks: bool = False
) -> pl.DataFrame:
    """The predictions of an experiment in the columns of the sample."""
    target = Target.of(experiment, ranks=ranks)
    asked = sample_without(given, target) if sample is None else Sample.of(sample)
    return fill_sample(given, asked, target).table


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
    with pytest.raises(SubmissionError, match=r"sample are \['dog', 'bird'\], the classes"):
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


def test_one_column_of_booleans_takes_the_most_probable_class_as_the_sample_spells_it() -> None:
    sample = Sample.parse(b"id,t\na,TRUE\nb,FALSE\nc,TRUE\n", "sample.csv")
    table = fill_sample(predictions([0.9, 0.2, 0.5]), sample, Target.of(Numbered())).table
    assert write_cells(table, sample).data == b"id,t\na,FALSE\nb,TRUE\nc,TRUE\n"


def test_names_that_are_numbers_are_sent_as_names() -> None:
    @dataclass(kw_only=True)
    class Digit(bt.Experiment):
        metric = bt.Metric.accuracy()
        classes = ("3", "5")

    sample = pl.DataFrame({"id": ["a", "b", "c"], "digit": ["3", "5", "3"]})
    assert submission_table(predictions(PROBABILITIES), sample, Digit())["digit"].to_list() == [3, 5, 5]


def test_one_column_of_shape_n_1_is_one_number_a_row() -> None:
    sample = pl.DataFrame({"id": ["a", "b", "c"], "t": [0.0] * 3})
    assert submission_table(predictions([[1.5], [2.5], [3.5]]), sample, Numbered())["t"].to_list() == [2.5, 1.5, 3.5]


def test_whole_ids_of_a_table_are_those_of_the_file() -> None:
    sample = Sample.parse(b"id,t\n2,0\n1,0\n", "sample.csv")
    given = Predictions(pl.Series([1, 2]), np.array([0.5, 1.5]))
    assert fill_sample(given, sample, Target.of(Numbered())).table.rows() == [("2", 1.5), ("1", 0.5)]
    zeros = Sample.parse(b"id,t\n01,0\n02,0\n", "sample.csv")
    with pytest.raises(SubmissionError, match="differ by leading zeros; read ids as texts"):
        fill_sample(given, zeros, Target.of(Numbered()))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (
            pl.DataFrame({"id": ["a", "b"], "t": [0.0, 0.0]}),
            r"has 2 ids, the predictions 3: 0 are only in the sample .* 1 only in the predictions \(first: \['c'\]\)",
        ),
        (pl.DataFrame({"id": list("abcd"), "t": [0.0] * 4}), r"1 are only in the sample \(first: \['d'\]\)"),
        (pl.DataFrame({"id": [1, 2, 3], "t": [0.0] * 3}), r"3 are only in the sample \(first: \['1', '2', '3'\]\)"),
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
        ({"id": ["a", "b"], "y": [1.0, 2.0]}, r"columns are id, y; the sample .* asks for id, t \(1 missing: t"),
        ({"t": [1.0, 2.0], "id": ["a", "b"]}, "Write them in that order"),
        ({"id": ["a", "b"], "t": ["x", "2"]}, r"column 't': 1 of 2 values are no numbers, such as 'x'"),
        ({"id": ["a", "b"], "t": [1.0, float("nan")]}, r"1 of 2 values are NaN .*\(first ids: \['b'\]\)"),
        ({"id": ["a", "b"], "t": [None, 1.0]}, r"1 of 2 values are empty \(first ids: \['a'\]\)"),
        ({"id": [0.5, 1.5], "t": [0.0, 1.0]}, "ids in column 'id' are Float64"),
        ({"id": ["a", "b"], "t": [[1.0], [2.0]]}, "column 't' holds List"),
    ],
)
def test_a_table_that_the_sample_would_refuse_is_refused(table: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(SubmissionError, match=message):
        check_submission(pl.DataFrame(table), pl.DataFrame({"id": ["a", "b"], "t": [0.0, 0.0]}))


def test_a_shuffled_submission_is_the_same_bytes_once_written() -> None:
    sample = Sample.of(pl.DataFrame({"id": list("abcde"), "t": [0.0] * 5}))
    table = pl.DataFrame({"id": list("abcde"), "t": [0.1, 0.2, 0.3, 0.4, 0.7]})
    shuffled = check_submission(table.sample(fraction=1, shuffle=True, seed=3), sample)
    assert write_cells(shuffled.table, sample).data == write_cells(check_submission(table, sample).table, sample).data
    assert shuffled.notes == ("rows come in another order than the sample's; leaderboards join them by id",)


# --- how numbers are written


SAMPLE = Sample.of(pl.DataFrame({"id": ["a", "b", "c"], "t": [0.0] * 3}))


def written(values: list[float], *, digits: int | None = None) -> Any:
    return write_cells(pl.DataFrame({"id": ["a", "b", "c"], "t": values}), SAMPLE, digits=digits)


def test_the_shortest_digits_read_back_as_the_same_bits() -> None:
    random = np.random.default_rng(0)
    for values in (random.normal(size=3), 10.0 ** random.uniform(-300, 300, 3), np.nextafter([0.1, 0.2, 0.3], 1)):
        made = written(values.tolist())
        back = pl.read_csv(made.data, infer_schema=False)["t"]
        assert [float(text) for text in back] == values.tolist()
        assert made.sentence == "written with the shortest digits that read back exactly"


def test_digits_are_significant_ones_and_what_they_change_is_said() -> None:
    made = written([123.456, 0.000123456, 1 / 3], digits=3)
    assert [float(text) for text in pl.read_csv(made.data, infer_schema=False)["t"]] == [123.0, 0.000123, 0.333]
    assert made.sentence == "3 significant digits: largest change 0.5, no new ties"


def test_probabilities_that_rounding_makes_certain_are_counted() -> None:
    made = written([0.99996, 0.5, 1.0], digits=3)
    assert made.table["t"].to_list() == [1.0, 0.5, 1.0]
    assert made.sentence.endswith("; 1 probabilities become exactly 0 or 1, which a log loss punishes")


def test_ties_that_rounding_makes_are_counted_and_those_there_were_are_not() -> None:
    assert written([0.1234, 0.1236, 0.9], digits=2).tied == 2
    assert "2 rows become tied" in written([0.1234, 0.1236, 0.9], digits=2).sentence
    assert written([0.5, 0.5, 0.9], digits=2).tied == 0


@pytest.mark.parametrize("digits", [0, 18])
def test_digits_that_a_number_does_not_have_are_refused(digits: int) -> None:
    with pytest.raises(UsageError, match=f"digits must be from 1 to 17, got {digits}"):
        written([1.0, 2.0, 3.0], digits=digits)
