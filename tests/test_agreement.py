"""Agreement of validation and leaderboard: SciPy's correlation, an interval that covers, words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from batteries.score.agreement import LEAST, Agreement, Pair, agreement, agreement_of, interval
from batteries.score.ledger import Ledger
from test_ledger import config


def pairs(valid: np.ndarray, told: np.ndarray, *, noise: float | None = None, split: str = "abc") -> list[Pair]:
    return [
        Pair(f"submission-{n:03}", f"toy-{n:03}", float(v), float(t), split, noise)
        for n, (v, t) in enumerate(zip(valid, told, strict=True), 1)
    ]


def judged(found: list[Pair]) -> Agreement:
    return agreement_of(found, board="public", metric="auc")


def test_the_correlation_is_scipys() -> None:
    random = np.random.default_rng(0)
    valid, told = random.normal(size=(2, 12)).round(1)
    assert judged(pairs(valid, told)).correlation == pytest.approx(stats.spearmanr(valid, told).statistic, rel=1e-12)


def test_the_interval_is_fishers_with_the_error_of_bonett_and_wright() -> None:
    for r, n in ((0.5, 20), (-0.3, 7), (0.0, 5)):
        error = np.sqrt((1 + r * r / 2) / (n - 3))
        expected = np.tanh(np.arctanh(r) + stats.norm.ppf([0.025, 0.975]) * error)
        assert interval(r, n) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_the_interval_covers_the_true_correlation_in_95_of_100_cases(rho: float) -> None:
    """Of a bivariate normal, Spearman's correlation is 6 / pi arcsin(rho / 2)."""
    random, true, times = np.random.default_rng(3), 6 / np.pi * np.arcsin(rho / 2), 1000
    inside = 0
    for _ in range(times):
        x, y = random.normal(size=(2, 20))
        found = judged(pairs(x, rho * x + np.sqrt(1 - rho**2) * y))
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= true <= found.high
    assert 0.93 <= inside / times <= 0.97


def test_a_perfect_order_of_a_few_is_no_certainty() -> None:
    found = judged(pairs(np.arange(6.0), np.arange(6.0)))
    assert (found.correlation, found.high) == (1.0, 1.0)
    assert found.low is not None
    assert 0 < found.low < 0.8
    turned = judged(pairs(np.arange(6.0), -np.arange(6.0)))
    assert (turned.correlation, turned.low) == (-1.0, -1.0)
    assert turned.high == pytest.approx(-found.low)
    assert "look for a leak or a drift" in turned.sentence


def test_below_five_pairs_there_is_no_correlation_but_a_word() -> None:
    found = judged(pairs(np.arange(4.0), np.arange(4.0)))
    assert (LEAST, found.correlation) == (5, None)
    assert found.sentence == (
        "validation and public leaderboard over 4 submissions: no correlation (too few, 5 say something)"
    )
    assert "over 1 submission:" in judged(pairs(np.zeros(1), np.zeros(1))).sentence


def test_scores_that_never_change_have_no_correlation() -> None:
    assert "one of the two scores never changes" in judged(pairs(np.full(6, 0.9), np.arange(6.0))).sentence


def test_a_submission_unlike_the_others_is_named_unless_noise_explains_it() -> None:
    random = np.random.default_rng(0)
    valid = np.linspace(0.8, 0.9, 12)
    told = valid - 0.01 + random.normal(0, 0.001, 12)
    assert judged(pairs(valid, told)).outliers == []
    told[4] -= 0.03
    found = judged(pairs(valid, told))
    assert found.outliers == ["submission-005"]
    assert found.sentence.endswith("unlike the others: submission-005")
    assert judged(pairs(valid, told, noise=0.02)).outliers == []


def test_on_a_line_only_what_is_off_it_is_an_outlier() -> None:
    told = np.arange(8) / 10
    assert judged(pairs(np.arange(8) / 10, told)).outliers == []
    told = told.copy()
    told[2] += 0.001
    assert judged(pairs(np.arange(8) / 10, told)).outliers == ["submission-003"]


def test_submissions_that_were_validated_on_other_folds_are_flagged() -> None:
    found = pairs(np.arange(6.0), np.arange(6.0))
    found[1] = Pair("submission-002", "toy-002", 1.0, 1.0, "other", None)
    told = judged(found)
    assert told.other_folds == ["submission-002"]
    assert told.sentence.endswith("validated on other folds: submission-002")


def add(ledger: Ledger, number: int, valid: float, told: float | None, **changes: object) -> None:
    name = f"toy-{number:03}"
    ledger.add_entry(config(name, **changes))
    metric = {"metric": "auc", "higher_is_better": True, **changes.get("metric_of_scores", {})}  # type: ignore[dict-item]
    ledger.add_score(name, "oof", valid, noise=0.001, **metric)  # type: ignore[arg-type]
    ledger.add_submission(f"submission-{number:03}", entry=name, file="x.csv", sha256=f"{number}", rows=9)
    if told is not None:
        ledger.add_score(name, "public", told, submission=f"submission-{number:03}", **metric)  # type: ignore[arg-type]


def test_the_newest_scores_of_every_submission_in_the_ledger_count(tmp_path: Path) -> None:
    with Ledger(tmp_path) as ledger:
        for number in range(1, 8):
            add(ledger, number, number / 10, number / 20)
        add(ledger, 8, 0.9, None)
        add(ledger, 9, float("nan"), 0.5)
        ledger.add_score("toy-003", "public", 0.9, metric="auc", higher_is_better=True, submission="submission-003")
        ledger.add_score("toy-003", "oof", 0.95, metric="auc", higher_is_better=True)
    found = agreement(tmp_path)
    assert found is not None
    assert [pair.submission for pair in found.pairs] == [f"submission-{n:03}" for n in range(1, 8)]
    assert (found.pairs[2].valid, found.pairs[2].board, found.pairs[0].noise) == (0.95, 0.9, 0.001)
    assert found.correlation == 1.0
    assert agreement(tmp_path, board="private") is None
    assert json.loads(json.dumps(found.plain()))["sentence"] == found.sentence


def test_of_several_metrics_that_of_the_newest_submission_counts(tmp_path: Path) -> None:
    other = {"metric": {"name": "rmse", "higher_is_better": False}}
    scores = {"metric_of_scores": {"metric": "rmse", "higher_is_better": False}}
    with Ledger(tmp_path) as ledger:
        add(ledger, 1, 0.9, 0.8)
        add(ledger, 2, 3.0, 4.0, **other, **scores)
    found = agreement(tmp_path)
    assert found is not None
    assert (found.metric, len(found.pairs)) == ("rmse", 1)


def test_without_a_ledger_or_a_submission_there_is_nothing_to_agree(tmp_path: Path) -> None:
    assert agreement(tmp_path) is None
    assert not (tmp_path / "ledger.db").exists()
    Ledger(tmp_path).close()
    assert agreement(tmp_path) is None
