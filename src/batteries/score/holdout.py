"""Holdout: the metric on the test set, beside validation.

In:    entries whose test table has a target.
Out:   both scores, their gap, and whether noise explains it.
Next:  the ledger keeps the test score; the board shows it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from batteries.errors import DataError
from batteries.score.entry import Entry
from batteries.score.ledger import Ledger
from batteries.score.noise import deviation


@dataclass(frozen=True)
class Tested:
    """Validation and test of one entry."""

    name: str
    metric: str
    valid: float
    valid_noise: float
    test: float
    test_noise: float
    rows: int

    @property
    def gap(self) -> float:
        """Test minus validation."""
        return self.test - self.valid

    @property
    def explained(self) -> bool:
        """Whether the gap is within two standard deviations of its noise."""
        return abs(self.gap) <= 2 * float((self.valid_noise**2 + self.test_noise**2) ** 0.5)

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {**asdict(self), "gap": self.gap, "explained": self.explained}


def test(entry: Entry, root: Path | str = "runs") -> Tested:
    """Score an entry on the test set and note it in the ledger.

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
    tested = Tested(
        entry.name,
        metric.name,
        valid=metric(oof.targets, oof.values),
        valid_noise=deviation(metric, oof.targets, oof.values),
        test=metric(predictions.targets, predictions.values),
        test_noise=deviation(metric, predictions.targets, predictions.values),
        rows=len(predictions),
    )
    with Ledger(root) as ledger:
        ledger.add_entry(entry.config)
        ledger.add_score(
            entry.name,
            "test",
            tested.test,
            metric=metric.name,
            higher_is_better=metric.higher_is_better,
            rows=tested.rows,
            noise=tested.test_noise,
        )
    return tested
