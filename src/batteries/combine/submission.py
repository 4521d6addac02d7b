"""Submission: a file for the leaderboard, checked before it costs a try.

In:    an entry with test predictions; the sample submission.
Out:   `runs/submission-001/submission.csv` and its record with the SHA-256.
Next:  `leaderboard` notes what it scored.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.combine.blend import ORDERS
from batteries.errors import SubmissionError
from batteries.experiment import Experiment
from batteries.experiment.metric import most_probable, nearest
from batteries.experiment.predictions import Predictions
from batteries.files import new_folder, write_atomic, write_sealed
from batteries.score.board import submissions
from batteries.score.entry import Entry
from batteries.score.ledger import Ledger

FILE = "submission.csv"
RECORD = "submission.json"
_OF_CLASSES = re.compile(r"accuracy|mcc|f\d+(\.\d+)?")
"""Names of metrics that judge classes, not probabilities; `qwk` judges ordered ones."""


@dataclass(frozen=True)
class Submission:
    """A checked file, and where it came from."""

    path: Path
    entry: str
    sha256: str
    table: pl.DataFrame

    @property
    def name(self) -> str:
        """`submission-001`."""
        return self.path.parent.name


def submit(entry: Entry, experiment: Experiment, root: Path | str = "runs") -> Submission:
    """Write the test predictions of an entry as the sample submission asks, and note the file in the ledger.

    Without a sample, the columns are the experiment's id and target. A file of the same entry and the
    same bytes is not made twice: the first is returned.

    Raises
    ------
    SubmissionError
        When the entry has no test predictions, or they do not fit the sample: ids, columns, types.

    """
    oof, predictions = entry.oof(), entry.test()
    if predictions is None:
        raise SubmissionError(f"{entry.name} has no test predictions: its experiment's test_table() returns None")
    if len(oof) < entry.rows:
        warnings.warn(f"{entry.name} is trained on some folds only; its test predictions are of those", stacklevel=2)
    ranks = entry.config.get("how") in ORDERS
    table = submission_table(predictions, experiment.sample_submission(), experiment, ranks=ranks)
    text = table.write_csv().encode()
    digest = sha256(text).hexdigest()
    for known in submissions(root):
        if known["entry"] == entry.name and known["sha256"] == digest:
            return _noted(Submission(Path(root) / known["name"] / FILE, entry.name, digest, table), entry)

    def fill(folder: Path, name: str) -> None:
        write_atomic(folder / FILE, lambda file: file.write(text))
        write_sealed(folder / RECORD, _record(name, entry, digest, len(table)))

    folder = new_folder(Path(root), "submission", fill)
    return _noted(Submission(folder / FILE, entry.name, digest, table), entry)


def _noted(made: Submission, entry: Entry) -> Submission:
    """Enter a submission into the ledger, unless it is there."""
    with Ledger(made.path.parent.parent) as ledger:
        ledger.add_entry(entry.config)
        ledger.add_submission(made.name, entry=entry.name, file=FILE, sha256=made.sha256, rows=len(made.table))
    return made


def _record(name: str, entry: Entry, digest: str, rows: int) -> dict[str, Any]:
    return {
        "name": name,
        "entry": entry.name,
        "file": FILE,
        "sha256": digest,
        "rows": rows,
        "members": entry.config.get("members", {entry.name: 1.0}),
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def submission_table(
    predictions: Predictions, sample: pl.DataFrame | None, experiment: Experiment, *, ranks: bool = False
) -> pl.DataFrame:
    """Return predictions in the columns, order and types of `sample`.

    Several columns take the columns of the predictions: by name where they are the experiment's `classes`, else
    in their order. One column of texts takes the most probable class by its name. One column of numbers takes
    the predictions as they are (of two classes, the probability of the second), but the most probable class
    where the metric judges classes (accuracy, f1, f2, ..., mcc) or there are more than two, and the nearest
    class where it judges ordered ones (qwk).

    Parameters
    ----------
    ranks
        Whether the predictions are ranks: an order, from which no class can be chosen.
    """
    if sample is None:
        sample = pl.DataFrame({experiment.id: predictions.ids, experiment.target: np.zeros(len(predictions))})
        sample = _typed_like(sample, experiment, predictions)
    asked, columns = _sample_parts(sample, predictions)
    values = predictions.align(asked).values
    names = sample.columns[1:]
    if columns > 1:
        filled = [pl.Series(name, values[:, place]) for name, place in _places(names, experiment).items()]
    else:
        filled = [_column(sample.to_series(1), values, experiment, ranks=ranks)]
    table = pl.DataFrame([asked, *filled])
    check_submission(table, sample)
    return table


def _typed_like(sample: pl.DataFrame, experiment: Experiment, predictions: Predictions) -> pl.DataFrame:
    if predictions.values.ndim == 2:
        return sample.with_columns(pl.col(experiment.target).cast(pl.String if experiment.classes else pl.Int64))
    return sample


def _sample_parts(sample: pl.DataFrame, predictions: Predictions) -> tuple[pl.Series, int]:
    """The sample's ids (its first column), and how many prediction columns it takes; refused unless both fit."""
    if sample.width < 2 or not len(sample):
        raise SubmissionError(
            f"the sample submission has {sample.width} columns and {len(sample)} rows; it needs ids and predictions"
        )
    asked, given = sample.to_series(0), predictions.ids
    if asked.dtype.is_integer() != given.dtype.is_integer():
        raise SubmissionError(
            f"ids of the sample are {asked.dtype}, ids of the predictions {given.dtype}; read both alike"
        )
    missing, extra = set(asked.to_list()) - set(given.to_list()), set(given.to_list()) - set(asked.to_list())
    if missing or extra:
        raise SubmissionError(
            f"the sample has {len(asked)} ids, the predictions {len(given)}: {len(missing)} are only in the sample"
            f" (first: {sorted(missing)[:5]}), {len(extra)} only in the predictions (first: {sorted(extra)[:5]})"
        )
    wanted, have = sample.width - 1, predictions.values.shape[1] if predictions.values.ndim == 2 else 1
    if wanted not in (1, have):
        raise SubmissionError(
            f"the sample has {wanted} prediction columns, the predictions {have}: {sample.columns[1:]}"
        )
    return asked, wanted


def _places(names: Sequence[str], experiment: Experiment) -> dict[str, int]:
    """Which column of the predictions each column of the sample takes."""
    classes = list(experiment.classes or ())
    if set(names) & set(classes):
        if set(names) != set(classes):
            raise SubmissionError(f"columns of the sample are {list(names)}, classes of the experiment {classes}")
        return {name: classes.index(name) for name in names}
    return {name: place for place, name in enumerate(names)}


def _column(like: pl.Series, values: NDArray[Any], experiment: Experiment, *, ranks: bool) -> pl.Series:
    several, ordered = values.ndim == 2 and values.shape[1] > 2, experiment.metric.name == "qwk"
    if like.dtype == pl.String or several or ordered or _OF_CLASSES.fullmatch(experiment.metric.name):
        if ranks and not several:
            raise SubmissionError("the predictions are ranks, which choose no class; submit another blend")
        codes = nearest(values) if ordered else most_probable(values)
        if like.dtype != pl.String:
            return pl.Series(like.name, codes)
        if not experiment.classes:
            raise SubmissionError(f"column {like.name!r} of the sample holds texts; add classes = (...)")
        codes = codes.clip(0, len(experiment.classes) - 1)  # a number may lie beyond the last class
        return pl.Series(like.name, [experiment.classes[code] for code in codes])
    return pl.Series(like.name, values[:, 1] if values.ndim == 2 else values)


def check_submission(table: pl.DataFrame, sample: pl.DataFrame) -> None:
    """Refuse a table that differs from the sample in columns, order, ids or types, or holds NaN.

    Raises
    ------
    SubmissionError
        Naming the column and the first ids.

    """
    if table.columns != sample.columns:
        raise SubmissionError(f"columns are {table.columns}, the sample asks for {sample.columns}")
    ids = table.to_series(0)
    if ids.to_list() != sample.to_series(0).to_list():
        raise SubmissionError(f"ids of column {ids.name!r} differ from the sample's, or come in another order")
    for name in table.columns[1:]:
        column, like = table[name], sample[name]
        if column.dtype.is_numeric() != like.dtype.is_numeric():
            raise SubmissionError(f"column {name!r} is {column.dtype}, the sample's is {like.dtype}")
        bad = column.is_null() | ~column.is_finite() if column.dtype.is_float() else column.is_null()
        if bad.any():
            raise SubmissionError(
                f"column {name!r} has {bad.sum()} empty, NaN or infinite values (first ids: {_first(ids, bad)})"
            )


def _first(ids: pl.Series, rows: pl.Series) -> Sequence[Any]:
    return ids.filter(rows).head(5).to_list()
