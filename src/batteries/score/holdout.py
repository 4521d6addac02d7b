"""Holdout: the metric on the test set, beside validation.

In:    entries whose test table has a target.
Out:   both scores, an interval, their gap, whether noise explains it, and how often the test set was looked at.
Next:  the ledger keeps the test score; the board shows it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from batteries.errors import DataError
from batteries.experiment.predictions import Predictions, column_digest
from batteries.files import digest_of
from batteries.score.entry import Entry
from batteries.score.grouping import resampling, test_resampling
from batteries.score.ledger import Ledger
from batteries.score.noise import deviation, resampled, spread
from batteries.score.resample import Resampling


@dataclass(frozen=True)
class Tested:
    """Validation and test of one entry."""

    name: str
    metric: str
    valid: float
    valid_noise: float
    test: float
    test_noise: float
    low: float
    """Lower end of the 95 % percentile interval of `test` over resampled test rows."""
    high: float
    rows: int
    looks: int
    """How often this test set was looked at, this time included."""
    entries: tuple[str, ...]
    """Of which entries, in the order of the first look."""

    @property
    def gap(self) -> float:
        """Test minus validation."""
        return self.test - self.valid

    @property
    def explained(self) -> bool | None:
        """Whether the gap is within two standard deviations of its noise; None where that is not known."""
        noise = float(np.hypot(self.valid_noise, self.test_noise))
        return abs(self.gap) <= 2 * noise if isfinite(noise) else None

    @property
    def warning(self) -> str | None:
        """What to say when the test set has served for more than one entry; None the first time."""
        if len(self.entries) < 2:
            return None
        return (
            f"this test set was looked at {self.looks} times, for {len(self.entries)} entries; to choose by it makes"
            " the score of the chosen one too good. Choose by validation"
        )

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        told = {**asdict(self), "gap": self.gap, "explained": self.explained, "warning": self.warning}
        return {key: None if isinstance(value, float) and not isfinite(value) else value for key, value in told.items()}


def test(entry: Entry, root: Path | str = "runs", *, draws: int | None = None, how: Resampling | None = None) -> Tested:
    """Score an entry on the test set, note the score and the look in the ledger.

    Validation is of models that saw all folds but one, the test score of the mean of all these models; a
    test score that is a little better than validation is what to expect.

    Parameters
    ----------
    entry, root
        What to score, and the folder whose ledger notes it.
    draws
        Bootstrap samples of the test rows: 2,000, or 200 where the metric has no `counted` form.
    how
        How test rows are drawn: by default as rows, or in the groups that the folds keep together where the
        test table has their column.

    Raises
    ------
    DataError
        When the entry has no test predictions, or the test table no target.

    """
    predictions, oof, metric = entry.test(), entry.oof(), entry.metric()
    if predictions is None:
        raise DataError(f"{entry.name} has no test predictions: its experiment's test_table() returns None")
    if predictions.targets is None:
        raise DataError(f"the test table of {entry.name} has no target column; only a submission can tell its score")
    assert oof.targets is not None
    draws = draws or (200 if metric.counted is None else 2000)
    how = how or test_resampling(entry, predictions.ids)
    scores = resampled(metric, predictions.targets, [predictions.values], draws=draws, how=how)[:, 0]
    low, high = np.nanquantile(scores, [0.025, 0.975]) if np.isfinite(scores).any() else (float("nan"),) * 2
    value, noise = metric(predictions.targets, predictions.values), spread(scores)
    with Ledger(root) as ledger:
        ledger.add_entry(entry.config)
        common: dict[str, Any] = {"metric": metric.name, "higher_is_better": metric.higher_is_better}
        ledger.add_score(entry.name, "test", value, rows=len(predictions), noise=noise, **common)
        looks = ledger.add_look(entry.name, data=_digest(predictions))
    return Tested(
        entry.name,
        metric.name,
        valid=metric(oof.targets, oof.values),
        valid_noise=deviation(metric, oof.targets, oof.values, how=resampling(entry, oof.ids)),
        test=value,
        test_noise=noise,
        low=float(low),
        high=float(high),
        rows=len(predictions),
        looks=len(looks),
        entries=tuple(dict.fromkeys(look["entry"] for look in looks)),
    )


def _digest(predictions: Predictions) -> str:
    """Names a test set by its ids and targets, whoever predicts them."""
    assert predictions.targets is not None
    return digest_of([column_digest(predictions.ids), column_digest(pl.Series(predictions.targets))])
