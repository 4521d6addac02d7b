"""Board: every entry with all its scores, best first.

In:    the run folders and the ledger.
Out:   rows; computed each time, never stored.
Next:  `batteries scores` and the report print them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from batteries.errors import BatteriesError, UsageError
from batteries.experiment import Experiment, Metric
from batteries.files import read_sealed
from batteries.score.entry import Entry, all_entries
from batteries.score.grouping import resampling
from batteries.score.ledger import Ledger
from batteries.score.noise import deviation


@dataclass(frozen=True)
class Row:
    """One entry on the board. Scores are None where there is none yet."""

    name: str
    kind: str
    run: str
    """The run itself, or the one an average is of; for a blend its first member."""
    experiment: str
    seed: int | None
    metric: str
    higher_is_better: bool
    valid: float | None
    """On all out-of-fold predictions at once."""
    noise: float | None
    """Standard deviation of `valid` over bootstrap samples of the rows, or of the groups that the folds keep."""
    fold_mean: float | None
    fold_deviation: float | None
    folds: str
    """`5/5`: folds with a score, of all."""
    split: str
    """Digest of the folds."""
    public: float | None
    private: float | None
    test: float | None
    gap: float | None
    """Test minus validation."""

    @property
    def group(self) -> tuple[str, bool, str]:
        """Rows of one group compare: the same metric on the same split."""
        return self.metric, self.higher_is_better, self.split

    @property
    def missing_folds(self) -> bool:
        """Whether folds are still to be trained."""
        done, of = self.folds.split("/")
        return done != of

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


def record(entry: Entry, experiment: Experiment, root: Path | str) -> float:
    """Enter an entry and its validation scores into the ledger; return the out-of-fold score.

    What is known already is not entered twice, so it can be called after every training.
    """
    oof, metric = entry.oof(), entry.metric_of(experiment)
    assert oof.targets is not None
    assert oof.folds is not None
    value = metric(oof.targets, oof.values)
    common: dict[str, Any] = {"metric": metric.name, "higher_is_better": metric.higher_is_better}
    with Ledger(root) as ledger:
        ledger.add_entry(entry.config)
        for fold in np.unique(oof.folds).tolist():
            rows = oof.folds == fold
            score = metric(oof.targets[rows], oof.values[rows])
            ledger.add_score(entry.name, "fold", score, fold=fold, rows=int(rows.sum()), **common)
        how = resampling(entry, oof.ids, experiment=experiment)
        noise = deviation(metric, oof.targets, oof.values, how=how)
        ledger.add_score(entry.name, "oof", value, rows=len(oof), noise=noise, **common)
    return value


def scores(root: Path | str = "runs") -> list[Row]:
    """Return the board of a folder of runs, best validation first, below them those with folds to be trained yet.

    Scores of different metrics or splits do not compare: rows of one metric on one split stand together,
    the group with the newest entry first. Nor do scores of other rows: one fold may be easier than all.

    Raises
    ------
    UsageError
        When there is no ledger yet, or nothing in it.

    """
    root = Path(root)
    if not Ledger.exists(root):
        raise UsageError(f"{root} has no ledger; batteries train makes it, or enters what is complete there already")
    with Ledger(root) as ledger:
        entries, events = ledger.entries(), ledger.scores()
    if not entries:
        raise UsageError(
            f"the ledger of {root} has no entries; train something first: batteries train, or enter what the folders"
            " hold: batteries ledger recover"
        )
    rows = [_row(entry, [e for e in events if e["entry"] == entry["name"]]) for entry in entries]
    newest = {row.group: place for place, row in enumerate(rows)}
    return sorted(rows, key=lambda row: (-newest[row.group], row.missing_folds, _direction(row).order(row.valid)))


def _direction(row: Row) -> Metric:
    return Metric(row.metric, higher_is_better=row.higher_is_better)


def _row(entry: dict[str, Any], events: Sequence[dict[str, Any]]) -> Row:
    own = [e for e in events if e["metric"] == entry["metric"]]
    newest = {(e["scope"], e["fold"]): e for e in own}  # later events replace earlier ones
    value = {scope: e["value"] for (scope, fold), e in newest.items() if fold is None}
    folds = [e["value"] for (scope, _), e in newest.items() if scope == "fold" and e["value"] is not None]
    valid, test = value.get("oof"), value.get("test")
    return Row(
        name=entry["name"],
        kind=entry["kind"],
        run=entry["config"].get("of") or next(iter(entry["config"].get("members", {})), entry["name"]),
        experiment=entry["experiment"],
        seed=entry["seed"],
        metric=entry["metric"],
        higher_is_better=entry["higher_is_better"],
        valid=valid,
        noise=newest[("oof", None)]["noise"] if ("oof", None) in newest else None,
        fold_mean=float(np.mean(folds)) if folds else None,
        fold_deviation=float(np.std(folds, ddof=1)) if len(folds) > 1 else None,
        folds=f"{len(folds)}/{entry['config']['folds']['n']}",
        split=entry["folds"],
        public=value.get("public"),
        private=value.get("private"),
        test=test,
        gap=None if test is None or valid is None else test - valid,
    )


def restore(root: Path | str = "runs") -> int:
    """Enter every entry and submission of the folders that the ledger lacks; return how many entries there are.

    An entry that cannot be scored, as its experiment's file was changed, is named in a warning.
    """
    root, done = Path(root), 0
    for entry in all_entries(root):
        try:
            record(entry, entry.experiment(), root)
            done += 1
        except BatteriesError as error:
            warnings.warn(f"{entry.name} is not entered: {error}", stacklevel=2)
    with Ledger(root) as ledger:
        known = {row["name"] for row in ledger.entries()}
        for made in submissions(root):
            if made["entry"] in known:
                about = {key: made[key] for key in ("name", "entry", "file", "sha256", "rows")}
                ledger.add_submission(**about, record=made)
    return done


def submissions(root: Path | str = "runs") -> list[dict[str, Any]]:
    """Every submission as its own record says: name, entry, file, SHA-256, rows."""
    return [read_sealed(path) for path in sorted(Path(root).glob("submission-*/submission.json"))]
