"""The study: figures of any table, and advice that follows from them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import batteries as bt
from batteries.prepare.study import Advice, Study, study
from batteries.prepare.study.images import layout_of, moments
from batteries.prepare.study.repeats import repeats_of


@dataclass(kw_only=True)
class Tables(bt.Experiment):
    """Two tables and no model."""

    metric = bt.Metric.accuracy()
    target = "label"

    train: Any = None
    test: Any = None

    def table(self) -> pl.DataFrame:
        return self.train

    def test_table(self) -> pl.DataFrame | None:
        return self.test


def look(train: pl.DataFrame, test: pl.DataFrame | None = None, **names: Any) -> Study:
    return study(type("Own", (Tables,), names)(train=train, test=test))


def advice_with(found: Study, part: str) -> Advice:
    matching = [advice for advice in found.advice if part in advice.line]
    assert len(matching) == 1, [advice.line for advice in found.advice]
    return matching[0]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def digits() -> pl.DataFrame:
    from sklearn.datasets import load_digits

    data = load_digits()
    return pl.DataFrame({"label": data.target, "pixels": data.images.astype("uint8")}).with_row_index("id")


def numbers(n: int = 200) -> pl.DataFrame:
    return pl.DataFrame({"id": range(n), "x": random().normal(size=n), "label": [i % 2 for i in range(n)]})


def test_digits_get_strata_normalisation_and_a_word_on_duplicates() -> None:
    table = digits()
    found = look(table[:1437], table[1437:])
    assert advice_with(found, "folds =").line == 'folds = bt.Stratified("label", n=5)'
    pixels = table[:1437]["pixels"].to_numpy() / 16
    scale = advice_with(found, "pixels.float()")
    assert scale.line == f"images = (pixels.float() / 16 - {pixels.mean():.4f}) / {pixels.std():.4f}"
    assert "run from 0 to 16" in scale.why
    assert any("no duplicates: no image occurs twice among 1,437" in advice.why for advice in found.advice)
    assert [example.pixels.shape for example in found.examples] == [(8, 8, 8)] * 10


def test_figures_of_a_column_are_those_of_its_values() -> None:
    values = [1.0, 2.0, None, float("nan"), 2.0, float("inf")]
    found = look(pl.DataFrame({"id": range(6), "x": values, "label": [0, 1] * 3}))
    column = found.column("x")
    assert (column.minimum, column.mean, column.maximum) == (1.0, 5 / 3, 2.0)
    assert (column.missing, column.distinct, column.frequent) == (2, 5, "2.0")
    assert sum(column.histogram or ()) == 3


def test_a_study_is_json_without_nan_and_without_pixels() -> None:
    found = look(digits())
    text = json.dumps(found.plain(), allow_nan=False)
    assert "examples" not in found.plain()
    assert len(text) < 20_000


def odd(n: int = 6) -> pl.DataFrame:
    holes: list[Any] = [None] * n
    return pl.DataFrame(
        {
            "id": range(n),
            "label": [0.5, float("nan"), float("inf"), 1.0, None, 2.0],
            "nothing": holes,
            "list": [[1], [2], [1], None, [], [1]],
            "texts": pl.Series([["a"]] * n),
            "struct": [{"x": 1}] * n,
            "object": pl.Series([object()] * n, dtype=pl.Object),
            "date": [date(2020, 1, 1)] * n,
            "time": [time(1)] * n,
            "duration": [timedelta(1)] * n,
            "binary": [b"a"] * n,
            "category": pl.Series(["a", "b", None, "a", "a", "b"], dtype=pl.Categorical),
            "decimal": pl.Series(range(n)).cast(pl.Decimal(10, 2)),
            "huge": [1e308, -1e308, 0.0, 1.0, 2.0, 3.0],
            "unsigned": pl.Series([2**64 - 1] * n, dtype=pl.UInt64),
            "embedding": pl.Series(np.zeros((n, 3))),
            "no image": pl.Series(holes, dtype=pl.Array(pl.UInt8, (8, 8))),
            "torn image": pl.Series([None, [[1.0, None] + [0.0] * 6] * 8] * 3, dtype=pl.Array(pl.Float32, (8, 8))),
            "rows": [1, 2, 3, 4, 5, 6],
            "$value_1$": ["日本"] * n,
            "": [True] * n,
        }
    )


@pytest.mark.parametrize("target", odd().columns[1:])
def test_no_column_is_too_odd_as_a_feature_or_as_the_target(target: str) -> None:
    found = look(odd(), odd().with_columns(pl.col("id") + 100), target=target)
    json.dumps(found.plain(), allow_nan=False)


def test_one_row_is_enough() -> None:
    found = look(odd()[:1], odd()[:1].drop("label"))
    assert found.train.rows == 1
    assert not any(advice.line.startswith("folds") for advice in found.advice)


def test_equal_rows_are_counted_without_their_ids() -> None:
    table = numbers()
    twice = pl.concat([table, table[:3].with_columns(pl.col("id") + 1000)])
    found = look(twice, table[:7].with_columns(pl.col("id") + 5000))
    assert found.repeats is not None
    assert (found.repeats.repeated, found.repeats.conflicting, found.repeats.shared) == (3, 0, 7)
    assert found.repeats.first[0] == ("0", "1000")
    assert 'keep="first"' in advice_with(found, "unique").line
    assert "7 of 7 test rows equal a training row" in advice_with(found, "join").why


def test_equal_rows_with_different_targets_are_conflicts() -> None:
    table = numbers()
    other = table[:3].with_columns(pl.col("id") + 1000, label=1 - pl.col("label"))
    found = look(pl.concat([table, other]))
    assert found.repeats is not None
    assert (found.repeats.repeated, found.repeats.conflicting) == (3, 6)
    assert 'keep="none"' in advice_with(found, "unique").line


def test_rows_of_few_categories_repeat_by_chance_and_draw_no_advice() -> None:
    table = pl.DataFrame({"id": range(200), "a": random().integers(0, 3, 200), "label": [0, 1] * 100})
    found = look(table)
    assert found.repeats is not None
    assert found.repeats.repeated == 197
    assert found.repeats.expected > 190
    assert not any("repeat" in advice.why or "twice" in advice.why for advice in found.advice)


def test_equal_images_are_found_within_training_and_in_the_test_table() -> None:
    images = random().integers(0, 256, (40, 3, 6, 5), dtype="uint8")
    images[7] = images[3]
    table = pl.DataFrame({"id": range(40), "image": images, "label": [i % 2 for i in range(40)]})
    table = table.with_columns(pl.when(pl.col("id") == 7).then(0).otherwise("label").alias("label"))
    found = look(table, table[:2].with_columns(pl.col("id") + 100))
    repeats = found.images[0].repeats
    assert (repeats.repeated, repeats.conflicting, repeats.shared, repeats.first) == (1, 2, 2, (("3", "7"),))
    assert (found.images[0].layout, found.images[0].channels) == ("chw", 3)
    assert advice_with(found, "torch.tensor").line.count("[:, None, None]") == 2


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((8, 8), "hw"), ((3, 8, 9), "chw"), ((8, 9, 3), "hwc"), ((2, 3), None), ((5,), None), ((7, 8, 9), None)],
)
def test_shapes_say_which_arrays_are_images(shape: tuple[int, ...], layout: str | None) -> None:
    assert layout_of(pl.Array(pl.Float32, shape)) == layout


def test_moments_are_exact_far_from_zero_and_leave_out_what_is_no_number() -> None:
    pixels = 1e6 + random().normal(size=(50, 6, 7, 2))
    found = moments(pixels)
    np.testing.assert_allclose(found.deviation, pixels.std(axis=(0, 1, 2)), rtol=1e-9)  # shifted sums, float64
    holed = pixels.copy()
    holed[0, 0, 0, 0] = np.nan
    np.testing.assert_allclose(moments(holed).mean, np.nanmean(holed, axis=(0, 1, 2)), rtol=1e-12)


def patients(n: int = 400) -> pl.DataFrame:
    patient = random().integers(0, 40, n)
    label = (random(1).random(40)[patient] > 0.5).astype(int)
    return pl.DataFrame({"id": range(n), "patient": patient, "age": random(2).integers(20, 90, n), "label": label})


def test_a_group_that_binds_the_target_is_held_out_whole() -> None:
    table = patients()
    new = table.with_columns(pl.col("id") + 1000, pl.col("patient") + 100)
    found = look(table, new)
    folds = advice_with(found, "folds =")
    assert folds.line == 'folds = bt.Grouped("patient", n=5)'
    assert "share their class in 100% of pairs" in folds.why
    assert [group.column for group in found.groups] == ["patient"]


def test_a_group_that_the_test_table_knows_may_be_parted() -> None:
    table = patients()
    found = look(table, table.with_columns(pl.col("id") + 1000))
    folds = advice_with(found, "folds =")
    assert folds.line == 'folds = bt.Stratified("label", n=5)'
    assert "100% of the test rows are of known groups" in folds.why


def test_strata_are_as_many_as_the_rarest_class_allows() -> None:
    table = numbers().with_columns(label=pl.Series([2, 2, 2] + [0, 1] * 98 + [0]))
    assert advice_with(look(table), "folds =").line == 'folds = bt.Stratified("label", n=3)'
    single = numbers().with_columns(label=pl.Series([2] + [0, 1] * 99 + [0]))
    assert advice_with(look(single), "folds =").line == "folds = bt.KFold(n=5)"


def test_a_strategy_that_is_declared_already_is_confirmed() -> None:
    found = look(numbers(), folds=bt.Stratified("label", n=4))
    assert advice_with(found, "folds =").what.endswith("as the experiment does")
    assert not advice_with(look(numbers()), "folds =").what.endswith("as the experiment does")


def test_clear_drift_is_flagged_and_noise_is_not() -> None:
    train = pl.DataFrame(
        {"id": range(500), "label": [0, 1] * 250, "city": random(9).choice(["a", "b"], 500)}
    ).with_columns(pl.Series(f"x{i}", random(i).normal(size=500)) for i in range(8))
    test = train.drop("label").with_columns(
        pl.col("id") + 1000, pl.col("x3") + 1.0, pl.lit("a").alias("city"), pl.Series("x5", random(50).normal(size=500))
    )
    found = look(train, test)
    assert sorted(drift.column for drift in found.drift if drift.clear) == ["city", "x3"]
    assert advice_with(found, 'drop("').line == 'table = table.drop("city", "x3")'


def test_an_unbalanced_target_gets_another_metric_only_where_accuracy_ranks() -> None:
    table = numbers().with_columns(label=pl.Series([1] * 10 + [0] * 190))
    assert "scores an accuracy of 95.0%" in advice_with(look(table), "metric =").why
    assert not any("metric =" in advice.line for advice in look(table, metric=bt.Metric.auc()).advice)


def test_texts_as_target_ask_for_names_of_classes() -> None:
    table = numbers().with_columns(label=pl.Series(["no", "yes"] * 100))
    assert advice_with(look(table), "classes").line == 'classes = ("no", "yes")'
    assert look(table, classes=("yes", "no")).target.names == ("yes", "no")


def test_numbers_as_target_get_quantiles_and_a_logarithm_where_the_tail_is_long() -> None:
    table = numbers().with_columns(label=pl.Series(np.exp(2 * random().normal(size=200))))
    found = look(table)
    assert found.target.kind == "number"
    assert dict(found.target.quantiles)[0.5] == pytest.approx(table["label"].median())
    assert "log1p" in advice_with(found, "targets =").line
    assert advice_with(found, "folds =").line == "folds = bt.KFold(n=5)"


def test_constant_and_missing_columns_are_named() -> None:
    table = numbers().with_columns(pl.lit(1).alias("same"), pl.Series("hole", [None, None, 1.0, 1.0] * 50))
    found = look(table)
    assert found.train.constant == ("same",)
    assert advice_with(found, "drop").line == 'table = table.drop("same")'
    assert '"hole" 50.0%' in advice_with(found, "is_null").why


def test_a_table_without_features_has_nothing_to_repeat() -> None:
    assert look(numbers().drop("x")).repeats is None
    assert repeats_of(pl.DataFrame(), [], pl.Series([1]), pl.Series([1])) is None


def test_a_study_writes_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    look(numbers())
    assert list(tmp_path.iterdir()) == []
