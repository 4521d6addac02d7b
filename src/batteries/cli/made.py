"""Made: say what a new entry scored, beside what it was made of.

In:    an entry that was just made, and its parts.
Out:   a line, or JSON; the entry is in the ledger.
Next:  `scores` shows it among the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from batteries.cli import show
from batteries.cli.options import ROOT

if TYPE_CHECKING:
    from batteries.score.entry import Entry


def made(entry: Entry, parts: Sequence[Entry], *, json: bool, **more: Any) -> None:
    """Enter an entry into the ledger and say its score; `more` goes into the JSON."""
    from batteries.score.board import record

    experiment = entry.experiment()
    metric, valid = entry.metric_of(experiment), record(entry, experiment, ROOT)
    scores = {}
    for part in parts:
        oof = part.oof()
        assert oof.targets is not None
        scores[part.name] = metric(oof.targets, oof.values)
    if json:
        show.as_json({"entry": entry.name, "metric": metric.name, "valid": valid, "parts": scores, **more})
        return
    of = ", ".join(f"{name} {score:.5f}" for name, score in scores.items())
    print(f"{entry.name}: {metric.name} {valid:.5f} from {of}; {entry.folder}")
