"""Derive: an entry of another's rows with other values.

In:    an entry, what its predictions became, what was learned for that.
Out:   a new entry, or the one that was made so before.
Next:  the board scores it; it blends, stacks and submits like any entry.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from batteries.errors import DataError
from batteries.experiment.predictions import Predictions
from batteries.files import digest_of, write_sealed
from batteries.prepare.folds import ordered_column
from batteries.score.entry import INHERITED, Entry, find_entry, write_entry

LEARNED = "learned.json"
"""In the folder of an entry that was derived from another: what was fitted, and how good it is."""


def warn_of_later_rows(entry: Entry) -> None:
    """Say of folds in the order of time that what is fitted fold by fold is fitted on later rows too."""
    if when := ordered_column(entry.config["folds"].get("strategy", "")):
        warnings.warn(
            f"{entry.name}: folds are in the order of {when!r}, and what is fitted for one sees the later ones too; the"
            " score may be better than that of a model that cannot look ahead",
            stacklevel=3,
        )


def scored(entry: Entry) -> Predictions:
    """Return the out-of-fold predictions of an entry, complete and with targets and folds."""
    oof = entry.oof(complete=True)
    if oof.targets is None or oof.folds is None:
        raise DataError(f"{entry.name} carries no targets or folds with its out-of-fold predictions; train it again")
    return oof


def derive_entry(
    entry: Entry,
    root: Path | str,
    kind: str,
    *,
    settings: Mapping[str, Any],
    learned: Mapping[str, Any],
    make: Callable[[Predictions], NDArray[Any]],
    values: NDArray[Any],
) -> Entry:
    """Make an entry of another's rows with other values, or return the one that was made so before.

    `settings` tell it from others, `learned` is written beside them as learned.json. `values` are its
    out-of-fold predictions, in the order of the entry's; `make` gives those of the test table.
    """
    config = {**{key: entry.config[key] for key in INHERITED}, "of": entry.name, **settings}
    config["identity"] = digest_of({**config, "kind": kind, "entry": entry.config["identity"]})
    if made := find_entry(Path(root), config["identity"]):
        return made
    oof, test = scored(entry), entry.test()
    oof = Predictions(oof.ids, values, targets=oof.targets, folds=oof.folds, about=oof.about)
    if test is not None:
        test = Predictions(test.ids, make(test), targets=test.targets, about=test.about)
    return write_entry(Path(root), kind, config, oof, test, more=lambda folder: write_sealed(folder / LEARNED, learned))
