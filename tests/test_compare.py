"""Comparison: known statistics, sensible words, for two entries and for many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import batteries as bt
from batteries.errors import DataError, PredictionsError, UsageError
from batteries.experiment import Metric
from batteries.experiment.predictions import Predictions
from batteries.improve.best import best_of
from batteries.improve.compare import Verdict, compare
from batteries.improve.significance import corrected_t, holm
from batteries.prepare.folds import describe
from batteries.prepare.strategies import Grouped
from batteries.score.entry import Entry
from batteries.score.noise import resampled
from entries import whole_config


def entry(folder: Path, values: np.ndarray, targets: np.ndarray, *, folds: str = "same", **config: Any) -> Entry:
    """An entry of a made-up binary problem."""
    folder.mkdir(parents=True)
    ids, fold = pl.Series("id", np.arange(len(values))), np.arange(len(values)) % 5
    Predictions(ids, values, targets=targets, folds=fold, about={}).save(folder / "oof.parquet")
    return Entry(
        folder, {"rows": len(values), "folds": {"n": 5, "strategy": "", "digest": folds}, "kind": "run", **config}
    )


def made_up(noise: float, seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    targets = np.arange(n) // 5 % 2
    return 0.5 + 0.2 * (targets - 0.5) + np.random.default_rng(seed).normal(0, noise, n), targets


def several(folder: Path, *noises: float) -> list[Entry]:
    return [
        entry(folder / f"toy-{number:03}", *made_up(noise, number, n=300)) for number, noise in enumerate(noises, 1)
    ]


def judged(*entries: Entry, metric: Metric | None = None, draws: int = 500, **how: Any) -> Verdict:
    return compare(*entries, metric=metric or Metric.auc(), draws=draws, progress=False, **how)


def test_a_clearly_better_entry_is_called_better_in_either_direction(tmp_path: Path) -> None:
    noisy, targets = made_up(1.0, 1)
    clear, _ = made_up(0.05, 2)
    first, second = entry(tmp_path / "first", noisy, targets), entry(tmp_path / "second", clear, targets)
    for metric in (Metric.auc(), Metric.rmse()):
        verdict = judged(first, second, metric=metric)
        result = verdict.comparisons[0]
        assert result.gain > 0
        assert result.low > 0
        assert result.chance == 1.0
        assert result.p_rows < 0.05
        assert result.p_folds is not None
        assert result.p_folds < 0.05
        assert verdict.best is None
        assert verdict.sentence == result.sentence
        assert result.sentence.startswith("second is better than first: a gain of +0.")
        assert result.sentence.endswith("is larger than the noise of the rows.")
        assert "first is worse than second: a gain of -0." in judged(second, first, metric=metric).sentence


def test_equal_entries_cannot_be_told_apart(tmp_path: Path) -> None:
    values, targets = made_up(0.3, 1)
    result = judged(entry(tmp_path / "a", values, targets), entry(tmp_path / "b", values, targets)).comparisons[0]
    assert (result.gain, result.p_rows, result.p_folds, result.chance) == (0.0, 1.0, 1.0, 0.5)
    assert "cannot be told apart" in result.sentence


def test_the_interval_and_the_chance_are_those_of_the_resamples(tmp_path: Path) -> None:
    first, second = several(tmp_path, 0.3, 0.28)
    result = judged(first, second, seed=4).comparisons[0]
    a, b = first.oof(), second.oof()
    assert a.targets is not None
    drawn = resampled(Metric.auc(), a.targets, [a.values, b.values], draws=500, seed=4)
    differences = drawn[:, 1] - drawn[:, 0]
    assert (result.low, result.high) == tuple(np.quantile(differences, [0.025, 0.975]))
    assert result.chance == (differences > 0).mean() + (differences == 0).mean() / 2
    assert (result.draws, result.undefined, result.over) == (500, 0, "rows")


def test_the_test_over_folds_is_of_the_gain_of_each_fold_alone(tmp_path: Path) -> None:
    first, second = several(tmp_path, 0.3, 0.2)
    result = judged(first, second).comparisons[0]
    a, b, metric = first.oof(), second.oof(), Metric.auc()
    assert a.folds is not None
    gains = [
        metric(a.targets[rows], b.values[rows]) - metric(a.targets[rows], a.values[rows])  # type: ignore[index]
        for rows in (a.folds == fold for fold in range(5))
    ]
    assert result.folds == corrected_t(gains, test_share=1 / 4)


def test_of_several_entries_each_is_compared_with_the_first_and_p_is_corrected(tmp_path: Path) -> None:
    entries = several(tmp_path, 0.3, 0.29, 0.2, 0.31)
    verdict = judged(*entries)
    assert [(c.first, c.second) for c in verdict.comparisons] == [("toy-001", f"toy-00{n}") for n in (2, 3, 4)]
    raw = [c.p_rows for c in verdict.comparisons]
    assert [c.p_corrected for c in verdict.comparisons] == holm(raw)
    assert min(raw) < min(c.p_corrected for c in verdict.comparisons)
    pair = judged(entries[0], entries[2]).comparisons[0]
    assert pair.p_corrected == pair.p_rows


def test_what_is_real_alone_is_not_among_many(tmp_path: Path) -> None:
    """A p of about 0.02 stands alone and falls among five."""
    values, targets = made_up(0.3, 1, n=300)
    better = values + 0.02 * (targets - 0.5) + np.random.default_rng(3).normal(0, 0.05, 300)
    others = [values + np.random.default_rng(seed).normal(0, 0.05, 300) for seed in range(4, 8)]
    entries = [entry(tmp_path / f"toy-{n}", v, targets) for n, v in enumerate([values, better, *others])]
    alone, among = judged(*entries[:2], draws=4000).comparisons[0], judged(*entries, draws=4000).comparisons[0]
    assert alone.p_rows == among.p_rows
    assert 0.01 < alone.p_rows < 0.05
    assert (alone.real, among.real) == (True, False)
    assert "cannot be told apart" in among.sentence


def test_the_best_of_several_is_named_with_its_lead_and_those_level_with_it(tmp_path: Path) -> None:
    verdict = judged(*several(tmp_path, 0.3, 0.5, 0.29, 0.8))
    best = verdict.best
    assert best is not None
    assert best.entries == 4
    assert {best.name, best.second} == {"toy-001", "toy-003"}
    assert best.low < best.lead < best.high
    assert best.level == (best.second,)
    assert verdict.sentence.splitlines()[-1].startswith(f"{best.name} is the best of 4, +0.")


def test_the_best_of_many_equal_ones_is_too_good_by_what_its_rank_lets_expect(tmp_path: Path) -> None:
    """The largest of ten equal normal scores lies 1.539 deviations above their mean; on a lower-is-better one below."""
    random = np.random.default_rng(0)
    for metric, up in ((Metric.auc(), 1), (Metric.mae(), -1)):
        drawn = 0.5 + 0.01 * random.normal(size=(4000, 10))
        best = best_of(metric, list("abcdefghij"), [0.5] * 10, drawn)
        assert best.too_good == pytest.approx(0.01539, rel=0.03)
        assert len(best.level) == 9
        better = best_of(metric, list("ab"), [0.5, 0.5 + up * 0.1], drawn[:, :2] + up * np.array([0, 0.1]))
        assert (better.name, better.level) == ("b", ())
        assert better.too_good == pytest.approx(0.0, abs=0.001)
        assert "no other is level with it" in better.sentence


def test_resamples_of_one_class_are_left_out_and_counted(tmp_path: Path) -> None:
    """One row of 20 is of the second class: it is missing from (19 / 20)^20 = 36 of 100 resamples."""
    targets = (np.arange(20) == 7).astype(int)
    random = np.random.default_rng(0)
    result = judged(
        *(entry(tmp_path / name, targets + random.normal(size=20), targets) for name in "ab"), draws=2000
    ).comparisons[0]
    assert result.undefined / 2000 == pytest.approx(0.95**20, abs=0.03)
    assert result.draws + result.undefined == 2000
    assert result.folds is None


def test_rows_are_drawn_in_the_groups_that_the_folds_keep_together(toy_folder: Path) -> None:
    """The toy's three labels, as if they were groups."""
    strategy = describe(Grouped("label", n=3))
    made = {"experiment": {"file": "experiment.py"}, "fields": {}}
    table = bt.load_experiment(toy_folder).table()
    ids, random = table["id"], np.random.default_rng(0)
    entries = []
    for name in ("a", "b"):
        folder = toy_folder / "runs" / name
        folder.mkdir(parents=True)
        labels = table["label"].to_numpy()
        values = random.dirichlet(np.ones(3), 60)
        Predictions(ids, values, targets=labels, folds=labels).save(folder / "oof.parquet")
        folds = {"digest": "same", "strategy": strategy}
        entries.append(Entry(folder, {"rows": 60, "folds": folds, "kind": "run", **made}))
    result = judged(*entries, metric=Metric.log_loss())
    assert result.comparisons[0].over == "groups of label"
    assert "within the noise of the groups of label" in result.sentence
    assert judged(*entries, metric=Metric.log_loss(), block=5).comparisons[0].over == "blocks of 5 rows"
    with pytest.raises(UsageError, match="groups and blocks cannot be resampled at once"):
        judged(*entries, metric=Metric.log_loss(), block=5, groups="label")
    with pytest.raises(UsageError, match="the training table has no column 'colour'; it has id, x, y, label"):
        judged(*entries, metric=Metric.log_loss(), by="colour")
    by = judged(*entries, metric=Metric.log_loss(), by="x", groups="y").comparisons[0]
    assert (by.over, len(by.segments), sum(s.rows for s in by.segments)) == ("groups of y", 10, 60)


def test_a_metric_without_a_counted_form_is_computed_whole_on_a_thousand_resamples_at_most(tmp_path: Path) -> None:
    plain = Metric("plain", Metric.mae().fn, higher_is_better=False)
    first, second = several(tmp_path, 0.3, 0.2)
    slow = judged(first, second, metric=plain, draws=5000).comparisons[0]
    fast = judged(first, second, metric=Metric.mae(), draws=1000).comparisons[0]
    assert slow.draws == 1000
    assert (slow.low, slow.high) == pytest.approx((fast.low, fast.high), rel=1e-9)


def test_several_seeds_of_both_recipes_add_their_noise(tmp_path: Path) -> None:
    groups: dict[str, list[Entry]] = {"narrow": [], "wide": []}
    for place, (width, group) in enumerate(groups.items()):
        for seed in range(3):
            name, rows = f"{width}-{seed}", 300
            config = whole_config(name, fields={"width": width, "seed": seed}, identity=str(seed), rows=rows)
            del config["folds"]  # as all here
            values, targets = made_up(0.3 - 0.05 * place, 10 * place + seed, n=rows)
            made = entry(tmp_path / name, values, targets, **config)
            bt.files.write_sealed(made.folder / "config.json", made.config)  # type: ignore[attr-defined]
            group.append(made)
    result = judged(groups["narrow"][0], groups["wide"][1]).comparisons[0]
    found = result.seeds
    assert found is not None
    assert (len(found.first), len(found.second)) == (3, 3)
    metric = Metric.auc()
    scores = [[metric(e.oof().targets, e.oof().values) for e in group] for group in groups.values()]  # type: ignore[arg-type]
    assert found.gain == pytest.approx(np.mean(scores[1]) - np.mean(scores[0]), rel=1e-12)
    rows = (result.high - result.low) / 2 / 1.96
    both = sum(np.var(group, ddof=1) / 3 for group in scores)
    assert found.deviation == pytest.approx(np.sqrt(rows**2 + both), rel=0.1)
    assert found.high - found.low == pytest.approx(2 * 1.959964 * found.deviation, rel=1e-6)
    assert "Over 3 and 3 seeds the mean gain is +0." in judged(groups["narrow"][0], groups["wide"][1]).sentence
    assert judged(groups["narrow"][0], groups["narrow"][1]).comparisons[0].seeds is None


def test_what_does_not_compare_is_refused(tmp_path: Path) -> None:
    values, targets = made_up(0.3, 1)
    a = entry(tmp_path / "a", values, targets)
    with pytest.raises(DataError, match="a and b were trained on different folds"):
        judged(a, entry(tmp_path / "b", values, targets, folds="x"))
    with pytest.raises(UsageError, match="needs two entries or more, got a"):
        judged(a)
    with pytest.raises(UsageError, match="a is named twice"):
        judged(a, a)
    with pytest.raises(DataError, match="a and c have other targets for the same rows"):
        judged(a, entry(tmp_path / "c", values, 1 - targets))
    with pytest.raises(PredictionsError, match="predicts 399 of 400 training rows"):
        judged(a, entry(tmp_path / "d", values[1:], targets[1:], rows=400))
    with pytest.raises(UsageError, match="needs 100 draws or more, 2,000 for a good one; got 9"):
        judged(a, entry(tmp_path / "e", values, targets), draws=9)


def test_a_verdict_is_plain_data(tmp_path: Path) -> None:
    plain = json.loads(json.dumps(judged(*several(tmp_path, 0.3, 0.2, 0.25)).plain(), allow_nan=False))
    assert set(plain) == {"metric", "sentence", "comparisons", "best", "by"}
    assert plain["by"] == "target"
    assert {"gain", "low", "high", "chance", "p_rows", "p_corrected", "p_folds", "sentence", "segments"} <= set(
        plain["comparisons"][0]
    )
