"""Board: every entry with all its scores, best first.

In:    the run folders and the ledger.
Out:   rows; computed each time, never stored.
Next:  `batteries scores` and the report print them.
"""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batteries.errors import BatteriesError, CorruptError, UsageError
from batteries.score.ledger import Ledger
from batteries.score.origin import Origin, origins, recipe
from batteries.shapes import SubmissionRecord, read_record

if TYPE_CHECKING:  # reading the board needs neither tables nor predictions, whose imports take most of its time
    from batteries.experiment import Experiment
    from batteries.score.entry import Entry

RANKED = ("valid", "public", "private", "test")
"""Scores that entries of one group are ranked on."""


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
    public_gap: float | None
    """Public leaderboard minus validation."""
    private_gap: float | None
    """Private leaderboard minus public."""
    at: str = field(compare=False)
    """When it was made, in ISO 8601."""
    fields: dict[str, Any]
    """The hyperparameters; none of what several were combined into."""
    recipe: str | None
    """The same for runs that differ in their seed alone; None for what is no run."""
    parent: str | None
    changed: tuple[str, ...]
    """What is not as in the parent: `lr 0.004 -> 0.002`, `code`."""
    rank_valid: int | None = None
    """Place in its group, 1 for the best; None while folds are to be trained yet."""
    rank_public: int | None = None
    rank_private: int | None = None
    rank_test: int | None = None
    level: bool = False
    """Whether its validation is within two standard deviations, over the rows, of the group's best."""

    @property
    def group(self) -> tuple[str, bool, str]:
        """Rows of one group compare: the same metric on the same split."""
        return self.metric, self.higher_is_better, self.split

    @property
    def missing_folds(self) -> bool:
        """Whether folds are still to be trained."""
        done, of = self.folds.split("/")
        return done != of

    def upward(self, score: str) -> float:
        """A score as a sort key, the best first; 0 where there is none."""
        value = float(getattr(self, score) or 0.0)
        return -value if self.higher_is_better else value

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)


def record(entry: Entry, experiment: Experiment, root: Path | str) -> float:
    """Enter an entry and its validation scores into the ledger; return the out-of-fold score.

    What is known already is not entered twice, so it can be called after every training.
    """
    from batteries.score.grouping import resampling
    from batteries.score.noise import deviation

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
    own, origin = defaultdict(list), origins(entries)
    for event in events:
        own[event["entry"]].append(event)
    rows = [_row(entry, own[entry["name"]], origin[entry["name"]]) for entry in entries]
    newest = {row.group: place for place, row in enumerate(rows)}
    groups = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    return [row for group in sorted(groups, key=lambda group: -newest[group]) for row in _placed(groups[group])]


def _placed(rows: Sequence[Row]) -> list[Row]:
    """Rows of one group, the best first, with their ranks and whether they are level with the best."""
    ordered = sorted(rows, key=lambda row: (row.missing_folds, row.valid is None, row.upward("valid")))
    best = ordered[0]
    ranks = {f"rank_{score}": _ranks(ordered, score) for score in RANKED}
    placed = []
    for row in ordered:
        found: dict[str, Any] = {name: of.get(row.name) for name, of in ranks.items()}
        level = row is not best and not row.missing_folds and _level(row, best)
        placed.append(replace(row, **found, level=level))
    return placed


def _ranks(rows: Sequence[Row], score: str) -> dict[str, int]:
    """The place of each row that has the score; equal ones share the better place."""
    there = [row for row in rows if getattr(row, score) is not None and not (score == "valid" and row.missing_folds)]
    places = sorted(row.upward(score) for row in there)
    return {row.name: 1 + bisect_left(places, row.upward(score)) for row in there}


def _level(row: Row, best: Row) -> bool:
    """A quick rule from what is stored; `compare` resamples the same rows for both, and so can tell more apart."""
    if row.valid is None or best.valid is None or best.noise is None:
        return False
    return abs(row.valid - best.valid) <= 2 * best.noise


def _row(entry: dict[str, Any], events: Sequence[dict[str, Any]], origin: Origin) -> Row:
    own = [e for e in events if e["metric"] == entry["metric"]]
    newest = {(e["scope"], e["fold"]): e for e in own}  # later events replace earlier ones
    value = {scope: e["value"] for (scope, fold), e in newest.items() if fold is None}
    folds = [e["value"] for (scope, _), e in newest.items() if scope == "fold" and e["value"] is not None]
    valid, test, public, private = (value.get(scope) for scope in ("oof", "test", "public", "private"))
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
        public=public,
        private=private,
        test=test,
        gap=_minus(test, valid),
        public_gap=_minus(public, valid),
        private_gap=_minus(private, public),
        at=entry["config"].get("made") or entry["at"],
        fields={} if "members" in entry["config"] else dict(entry["config"]["fields"]),
        recipe=recipe(entry["config"]),
        parent=origin.parent,
        changed=origin.changed,
    )


def _minus(score: float | None, other: float | None) -> float | None:
    return None if score is None or other is None else score - other


def restore(root: Path | str = "runs") -> int:
    """Enter every entry and submission of the folders that the ledger lacks; return how many entries there are.

    An entry that cannot be scored, as its experiment's file was changed, is named in a warning.
    """
    from batteries.score.entry import all_entries

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
    """Every submission as its own record says: name, entry, file, SHA-256, rows; those damaged are warned of."""
    found = []
    for path in sorted(Path(root).glob("submission-*/submission.json")):
        try:
            found.append(read_record(path, SubmissionRecord))
        except CorruptError as error:
            warnings.warn(f"{error}; going on without it", stacklevel=2)
    return found
