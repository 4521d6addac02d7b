"""Agreement: do validation and leaderboard put entries in the same order?

In:    the ledger: validation scores, submissions, what the leaderboard said of them.
Out:   a rank correlation with its interval; the submissions that fit least, and those of other folds.
Next:  `batteries scores` says whether this validation can be trusted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import atanh, sqrt, tanh
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batteries.score.ledger import Ledger

LEAST = 5
"""Below so many pairs a correlation says nothing."""
_FAR = 3.5  # robust standard deviations; Iglewicz & Hoaglin 1993, How to Detect and Handle Outliers


@dataclass(frozen=True)
class Pair:
    """One submission with its validation and its leaderboard score."""

    submission: str
    entry: str
    valid: float
    board: float
    split: str
    """Digest of the folds that validated it."""
    noise: float | None
    """Standard deviation of `valid` over resampled rows."""
    other_folds: bool = False
    """Whether its folds are not those of most submissions, so that its validation score does not compare."""
    outlier: bool = False
    """Whether its leaderboard score is far from what validation lets expect."""


@dataclass(frozen=True)
class Agreement:
    """How well validation foretells one leaderboard."""

    board: str
    """`public` or `private`."""
    metric: str
    pairs: tuple[Pair, ...]
    """All submissions with both scores, oldest first."""
    correlation: float | None
    """Spearman's, over all pairs; None for fewer than 5, or where one of the scores is always the same."""
    low: float | None
    """Lower end of its 95 % interval."""
    high: float | None

    @property
    def outliers(self) -> list[str]:
        """Submissions whose leaderboard score is not what validation lets expect."""
        return [pair.submission for pair in self.pairs if pair.outlier]

    @property
    def other_folds(self) -> list[str]:
        """Submissions that were validated on other folds than most."""
        return [pair.submission for pair in self.pairs if pair.other_folds]

    @property
    def sentence(self) -> str:
        """The answer in words."""
        n = len(self.pairs)
        head = f"validation and {self.board} leaderboard over {n} submission{'s' * (n != 1)}"
        if self.correlation is None or self.low is None or self.high is None:
            why = f"too few, {LEAST} say something" if n < LEAST else "one of the two scores never changes"
            text = f"{head}: no correlation ({why})"
        else:
            figure = f"Spearman {self.correlation:.2f}, 95 % {self.low:.2f} to {self.high:.2f}"
            text = f"{head}: {figure}; {_verdict(self.low, self.high)}"
        for what, names in (("unlike the others", self.outliers), ("validated on other folds", self.other_folds)):
            text += f"; {what}: {', '.join(names)}" if names else ""
        return text

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {**asdict(self), "sentence": self.sentence}


def _verdict(low: float, high: float) -> str:
    if low > 0.5:
        return "trust it"
    if low > 0:
        return "they agree somewhat"
    return "they disagree: look for a leak or a drift" if high < 0 else "not enough to tell"


def agreement(root: Path | str = "runs", *, board: str = "public") -> Agreement | None:
    """Compare validation with a leaderboard over all submissions; None where no submission has both scores.

    Submissions of several metrics: those of the metric of the newest one. A submission's newest leaderboard
    score counts, and its entry's newest validation score.

    Parameters
    ----------
    root
        The folder of runs with its ledger.
    board
        `public` or `private`.

    Notes
    -----
    The interval is Fisher's with the standard error of Bonett & Wright 2000, Psychometrika 65:23-28. Outliers
    are more than 3.5 robust standard deviations, and two of the rows' noise, from the line of Theil and Sen.

    """
    root = Path(root)
    if not Ledger.exists(root):
        return None
    with Ledger(root) as ledger:
        entries = {row["name"]: row for row in ledger.entries()}
        sent, events = ledger.submissions(), ledger.scores()
    newest = {(e["entry"], e["scope"], e["metric"], e["submission"]): e for e in events if e["fold"] is None}
    found = []
    for row in sent:
        entry = entries[row["entry"]]
        metric = entry["metric"]
        valid, told = (
            newest.get((entry["name"], scope, metric, name)) for scope, name in (("oof", None), (board, row["name"]))
        )
        if valid and told and valid["value"] is not None and told["value"] is not None:
            pair = Pair(row["name"], entry["name"], valid["value"], told["value"], entry["folds"], valid["noise"])
            found.append((metric, pair))
    if not found:
        return None
    metric = found[-1][0]
    return agreement_of([pair for name, pair in found if name == metric], board=board, metric=metric)


def agreement_of(pairs: Sequence[Pair], *, board: str, metric: str) -> Agreement:
    """Correlate pairs of scores, mark those of other folds than most and those that fit least.

    >>> same = [Pair(f"submission-{i}", "toy", i / 10, i / 10, "abc", None) for i in range(6)]
    >>> agreement_of(same, board="public", metric="auc").correlation
    1.0
    """
    usual = Counter(pair.split for pair in pairs).most_common(1)[0][0]
    marked = [replace(pair, other_folds=pair.split != usual) for pair in pairs]
    valid, told = (np.array([getattr(pair, name) for pair in pairs]) for name in ("valid", "board"))
    if len(pairs) < LEAST or np.ptp(valid) == 0 or np.ptp(told) == 0:
        return Agreement(board, metric, tuple(marked), None, None, None)
    from scipy.stats import spearmanr  # half a second, which a board of few submissions need not take

    found = float(spearmanr(valid, told).statistic)
    far = _outliers(valid, told, np.array([pair.noise or 0.0 for pair in pairs]))
    marked = [replace(pair, outlier=bool(out)) for pair, out in zip(marked, far, strict=True)]
    return Agreement(board, metric, tuple(marked), found, *interval(found, len(pairs)))


def interval(correlation: float, n: int) -> tuple[float, float]:
    """95 % interval of Spearman's correlation over n >= 4 pairs.

    Of a perfect order, which has no Fisher interval, the other end is that of one swap of neighbours.

    >>> [round(end, 3) for end in interval(0.5, 20)]
    [0.045, 0.783]
    """
    nearly = 1 - 12 / (n * (n * n - 1))
    inner = max(-nearly, min(nearly, correlation))
    half = 1.959963984540054 * sqrt((1 + inner**2 / 2) / (n - 3))
    low, high = tanh(atanh(inner) - half), tanh(atanh(inner) + half)
    return (-1.0 if correlation <= -1 else low), (1.0 if correlation >= 1 else high)


def _outliers(valid: NDArray[Any], told: NDArray[Any], noise: NDArray[Any]) -> NDArray[np.bool_]:
    from scipy.stats import theilslopes

    slope = float(theilslopes(told, valid).slope)
    apart = told - slope * valid
    apart = np.abs(apart - np.median(apart))
    rounding = 1e-9 * np.abs(told).max()  # where most lie on the line exactly
    allowed = np.maximum(_FAR * 1.4826 * np.median(apart), 2 * abs(slope) * noise)
    return np.asarray(apart > np.maximum(allowed, rounding))
