"""The test set: an interval, whether noise explains the gap, and how often it was looked at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import batteries as bt
from batteries.experiment.predictions import Predictions
from batteries.score import holdout
from batteries.score.entry import Entry
from batteries.score.holdout import test as check
from batteries.score.ledger import Ledger
from batteries.score.noise import resampled
from batteries.score.resample import Groups
from test_ledger import config

ROOT = Path("runs")


def entry(name: str, *, test_rows: int = 300, wrong: float = 0.1, seed: int = 0) -> Entry:
    """An entry of the toy whose probabilities are wrong on a share of the test rows, and on a tenth of the others."""
    folder = ROOT / name
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for file, rows, share in (("oof", 600, 0.1), ("test", test_rows, wrong)):
        targets = np.arange(rows) % 3
        codes = np.where(random.random(rows) < share, (targets + 1) % 3, targets)
        folds = np.arange(rows) % 2 if file == "oof" else None
        ids = pl.Series("id", np.arange(rows))
        Predictions(ids, np.eye(3)[codes], targets=targets, folds=folds).save(folder / f"{file}.parquet")
    metric = {"name": "accuracy", "higher_is_better": True}
    made = config(name, metric=metric, rows=600, experiment={"name": "toy", "file": "experiment.py"}, fields={})
    return Entry(folder, made)


def test_the_interval_is_that_of_resampled_test_rows(toy_folder: Path) -> None:
    one = entry("toy-001")
    found, test = check(one, ROOT), one.test()
    assert test is not None
    assert test.targets is not None
    scores = resampled(bt.Metric.accuracy(), test.targets, [test.values], draws=2000)[:, 0]
    assert (found.low, found.high) == tuple(np.quantile(scores, [0.025, 0.975]))
    assert found.low < found.test < found.high
    binomial = (found.test * (1 - found.test) / 300) ** 0.5
    assert found.test_noise == pytest.approx(binomial, rel=0.06)
    assert (found.rows, found.gap) == (300, found.test - found.valid)


def test_noise_explains_a_small_gap_and_not_a_large_one(toy_folder: Path) -> None:
    assert check(entry("toy-001"), ROOT).explained
    assert check(entry("toy-002", wrong=0.3), ROOT).explained is False
    some = {"name": "a", "metric": "auc", "test": 0.8, "valid": 0.9, "rows": 9, "looks": 1, "entries": ("a",)}
    unknown = holdout.Tested(**some, valid_noise=0.01, test_noise=float("nan"), low=float("nan"), high=float("nan"))  # type: ignore[arg-type]
    assert unknown.explained is None
    plain = json.loads(json.dumps(unknown.plain(), allow_nan=False))
    assert (plain["explained"], plain["low"], plain["test_noise"]) == (None, None, None)


def test_groups_of_test_rows_are_drawn_whole(toy_folder: Path) -> None:
    one = entry("toy-001")
    test = one.test()
    assert test is not None
    wrong = test.values.argmax(axis=1) != test.targets
    by_rows, by_groups = check(one, ROOT), check(one, ROOT, how=Groups(wrong, "patient"))
    assert by_groups.test_noise > 5 * by_rows.test_noise


def test_every_look_is_counted_and_the_second_entry_says_so(toy_folder: Path) -> None:
    first, second = entry("toy-001"), entry("toy-002", seed=1)
    looks = [check(each, ROOT) for each in (first, first, second, first)]
    assert [found.looks for found in looks] == [1, 2, 3, 4]
    assert [len(found.entries) for found in looks] == [1, 1, 2, 2]
    assert [found.warning is None for found in looks] == [True, True, False, False]
    assert looks[2].entries == ("toy-001", "toy-002")
    assert looks[2].warning == (
        "this test set was looked at 3 times, for 2 entries; to choose by it makes the score of the chosen one too"
        " good. Choose by validation"
    )
    with Ledger(ROOT) as ledger:
        assert [look["entry"] for look in ledger.looks()] == ["toy-001", "toy-001", "toy-002", "toy-001"]
        assert len([row for row in ledger.scores() if row["scope"] == "test"]) == 2


def test_another_test_set_is_counted_alone(toy_folder: Path) -> None:
    check(entry("toy-001"), ROOT)
    other = check(entry("toy-002", test_rows=299), ROOT)
    assert (other.looks, other.warning) == (1, None)
