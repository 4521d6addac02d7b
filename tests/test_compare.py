"""Comparison: known statistics, sensible words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from batteries.errors import DataError
from batteries.experiment import Metric
from batteries.experiment.predictions import Predictions
from batteries.improve.compare import compare, corrected_t
from batteries.score.entry import Entry
from batteries.score.noise import deviation, resampled


def entry(folder: Path, values: np.ndarray, targets: np.ndarray, *, folds: str = "same") -> Entry:
    """An entry of a made-up binary problem."""
    folder.mkdir()
    ids, fold = pl.Series("id", np.arange(len(values))), np.arange(len(values)) % 5
    Predictions(ids, values, targets=targets, folds=fold, about={}).save(folder / "oof.parquet")
    return Entry(folder, {"rows": len(values), "folds": {"digest": folds}, "kind": "run"})


def made_up(noise: float, seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    targets = np.arange(n) % 2
    return 0.5 + 0.2 * (targets - 0.5) + np.random.default_rng(seed).normal(0, noise, n), targets


def test_the_corrected_t_test_agrees_with_the_formula_worked_by_hand() -> None:
    differences = [0.01, 0.02, 0.015, 0.005, 0.01]
    variance = np.var(differences, ddof=1)
    t = np.mean(differences) / np.sqrt(variance * (1 / 5 + 1 / 4))
    assert corrected_t(differences, test_share=1 / 4) == pytest.approx(2 * stats.t.sf(t, 4), rel=1e-10)


def test_without_the_correction_it_is_scipys_paired_t_test() -> None:
    a, b = np.random.default_rng(0).normal(size=(2, 8))
    assert corrected_t(list(a - b), test_share=0.0) == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-10)


def test_no_difference_is_p_one_and_a_constant_difference_has_none() -> None:
    assert corrected_t([0.0] * 5, test_share=0.25) == 1.0
    assert corrected_t([0.5] * 5, test_share=0.25) is None
    with pytest.raises(DataError, match="3 or more folds, got 2"):
        corrected_t([0.1, 0.2], test_share=1.0)


def test_a_clearly_better_entry_is_called_better_in_either_direction(tmp_path: Path) -> None:
    noisy, targets = made_up(1.0, 1)
    clear, _ = made_up(0.05, 2)
    first, second = entry(tmp_path / "first", noisy, targets), entry(tmp_path / "second", clear, targets)
    for metric in (Metric.auc(), Metric.rmse()):
        result = compare(first, second, metric, draws=200)
        assert result.gain > 0
        assert result.low > 0
        assert result.chance == 1.0
        assert result.p_rows < 0.05
        assert "second is better than first" in result.sentence
        assert "first is worse than second" in compare(second, first, metric, draws=200).sentence


def test_equal_entries_cannot_be_told_apart(tmp_path: Path) -> None:
    values, targets = made_up(0.3, 1)
    result = compare(
        entry(tmp_path / "a", values, targets), entry(tmp_path / "b", values, targets), Metric.auc(), draws=100
    )
    assert (result.gain, result.p_rows, result.p_folds, result.chance) == (0.0, 1.0, 1.0, 0.5)
    assert "cannot be told apart" in result.sentence


def test_other_folds_are_refused(tmp_path: Path) -> None:
    values, targets = made_up(0.3, 1)
    with pytest.raises(DataError, match="trained on different folds"):
        compare(
            entry(tmp_path / "a", values, targets),
            entry(tmp_path / "b", values, targets, folds="x"),
            Metric.auc(),
            draws=9,
        )


def test_the_deviation_of_accuracy_is_the_binomial_one() -> None:
    targets = np.zeros(1000, dtype=int)
    predictions = (np.arange(1000) < 100).astype(float)  # 10 % wrong
    expected = np.sqrt(0.9 * 0.1 / 1000)
    assert deviation(Metric.accuracy(), targets, predictions, draws=2000) == pytest.approx(expected, rel=0.06)


def test_a_resample_with_one_class_is_not_a_score() -> None:
    scores = resampled(Metric.auc(), np.array([0, 1]), [np.array([0.1, 0.9])], draws=50)
    assert np.isnan(scores).any()
    assert set(scores[~np.isnan(scores)]) == {1.0}
