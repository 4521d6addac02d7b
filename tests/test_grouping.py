"""Grouping: the noise of rows that belong together is that of their groups, wherever it is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import batteries as bt
from batteries.errors import DataError, UsageError
from batteries.score import grouping
from batteries.score.grouping import column, grouped_by, resampling
from batteries.score.noise import deviation, resampled, spread
from batteries.score.resample import Blocks, Groups, Rows

ROOT = Path("runs")
Change = Callable[[str, str], None]


@pytest.fixture
def grouped(toy_folder: Path, change: Change) -> bt.Entry:
    """A run of the toy whose rows come ten a patient, out of six."""
    change(
        '{"id": np.arange(first, first + n), ', '{"id": np.arange(first, first + n), "patient": np.arange(n) // 10, '
    )
    change('bt.Stratified("label", n=2)', 'bt.Grouped("patient", n=2)')
    change("epochs=4", "epochs=1")
    experiment = bt.load_experiment(toy_folder)
    run = bt.train_run(experiment, ROOT, progress=False)
    bt.record(bt.open_entry(ROOT, run.name), experiment, ROOT)
    return bt.open_entry(ROOT, run.name)


def test_the_board_and_the_test_set_show_the_noise_of_the_groups(grouped: bt.Entry) -> None:
    oof, test, metric = grouped.oof(), grouped.test(), bt.Metric.accuracy()
    assert oof.targets is not None
    assert test is not None
    assert test.targets is not None
    noise = deviation(metric, oof.targets, oof.values, how=Groups(oof.ids.to_numpy() // 10))
    assert bt.scores(ROOT)[0].noise == noise
    assert noise != deviation(metric, oof.targets, oof.values)
    tested = bt.test(grouped, ROOT)
    assert tested.valid_noise == noise
    patients = Groups((test.ids.to_numpy() - 1000) // 10)
    assert tested.test_noise == spread(resampled(metric, test.targets, [test.values], draws=2000, how=patients)[:, 0])


def test_what_fitted_weights_gain_is_told_over_the_groups(grouped: bt.Entry) -> None:
    wide = bt.load_experiment(Path(), values={"width": 12})
    other = bt.open_entry(ROOT, bt.train_run(wide, ROOT, progress=False).name)
    metric, parts = bt.Metric.accuracy(), [grouped.oof(), other.oof()]
    estimate, _ = bt.fit_blend([grouped, other], ROOT, metric=metric, draws=200)
    targets, patients = parts[0].targets, Groups(parts[0].ids.to_numpy() // 10)
    assert targets is not None
    equal = np.mean([part.values.astype(np.float64) for part in parts], axis=0)
    drawn = resampled(metric, targets, [estimate.values, equal], draws=200, how=patients)
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975])
    assert (estimate.over_equal.low, estimate.over_equal.high) == (low, high)
    of_rows = resampled(metric, targets, [estimate.values, equal], draws=200)
    assert (low, high) != tuple(np.quantile(of_rows[:, 0] - of_rows[:, 1], [0.025, 0.975]))


def test_what_is_asked_for_goes_before_what_the_folds_keep(grouped: bt.Entry) -> None:
    ids = grouped.oof().ids
    assert grouped_by(grouped) == "patient"
    assert resampling(grouped, ids).unit == "groups of patient"
    assert grouping.test_resampling(grouped, pl.Series([1003, 1001])).unit == "groups of patient"
    assert resampling(grouped, ids, groups="label").unit == "groups of label"
    assert resampling(grouped, ids, block=4) == Blocks(4)
    with pytest.raises(UsageError, match="groups and blocks cannot be resampled at once; give one of them"):
        resampling(grouped, ids, groups="label", block=4)


def test_without_groups_rows_are_drawn(toy_folder: Path) -> None:
    entry = bt.Entry(toy_folder, {"folds": {"strategy": "Stratified(column='label', n=2, seed=0)"}})
    assert resampling(entry, pl.Series([1])) == grouping.test_resampling(entry, pl.Series([1])) == Rows()


def test_a_column_comes_in_the_order_of_the_ids_and_what_is_not_there_is_named(toy_folder: Path) -> None:
    experiment = bt.load_experiment(toy_folder)
    assert column(experiment, pl.Series([5, 0, 4]), "label").to_list() == [2, 0, 1]
    with pytest.raises(UsageError, match="the training table has no column 'colour'; it has id, x, y, label"):
        column(experiment, pl.Series([5]), "colour")
    with pytest.raises(DataError, match="the table lacks 1 of the 2 rows that are predicted"):
        column(experiment, pl.Series([5, 99]), "label")


def test_rows_without_a_group_are_refused(toy_folder: Path, change: Change) -> None:
    change('{"id": np.arange(first, first + n), ', '{"id": np.arange(first, first + n), "patient": [None] * n, ')
    entry = bt.Entry(toy_folder, {"folds": {}})
    with pytest.raises(DataError, match="2 of 2 rows have no 'patient' to be grouped by; fill the column"):
        resampling(entry, pl.Series([1, 2]), groups="patient", experiment=bt.load_experiment(toy_folder))
