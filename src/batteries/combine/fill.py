"""Fill: predictions in the columns of the sample.

In:    predictions of an entry; the sample; what is predicted.
Out:   a checked table: numbers, probabilities of classes, or the classes themselves.
Next:  `submit` writes it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.combine.check_submission import Checked, check_submission, rows_of
from batteries.combine.sample import Asked, Sample
from batteries.errors import SubmissionError
from batteries.experiment import Experiment
from batteries.experiment.metric import most_probable, nearest
from batteries.experiment.predictions import Predictions

_OF_CLASSES = re.compile(r"accuracy|mcc|f\d+(\.\d+)?")
"""Names of metrics that judge classes, not probabilities; `qwk` judges ordered ones."""


@dataclass(frozen=True)
class Target:
    """What is predicted, as far as a submission depends on it."""

    id: str
    target: str
    """Names of columns, where there is no sample."""
    metric: str
    classes: tuple[str, ...] = ()
    """Names, in the order of the prediction columns."""
    ranks: bool = False
    """Whether predictions are an order, from which no class can be chosen."""

    @classmethod
    def of(cls, experiment: Experiment, *, ranks: bool = False) -> Self:
        """Take what an experiment says."""
        classes = tuple(experiment.classes or ())
        return cls(experiment.id, experiment.target, experiment.metric.name, classes, ranks)

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Self:
        """Take what `dataclasses.asdict` gave, from JSON."""
        return cls(**{**data, "classes": tuple(data["classes"])})

    @property
    def is_ordered(self) -> bool:
        """Whether classes have an order, and predictions may lie between them."""
        return self.metric == "qwk"

    def chooses(self, values: NDArray[Any]) -> bool:
        """Whether one class a row is sent, unless the sample has a column for each."""
        several = values.ndim == 2 and values.shape[1] > 2
        return several or self.is_ordered or _OF_CLASSES.fullmatch(self.metric) is not None


def fill_sample(predictions: Predictions, sample: Sample, target: Target) -> Checked:
    """Return predictions in the columns, rows and types of `sample`, checked.

    Several columns take the columns of the predictions: by name where they are `classes`, else in their order. One
    column of texts or booleans takes the most probable class. One column of numbers takes the predictions as they
    are (of two classes, the probability of the second), but the most probable class where the metric judges classes
    (accuracy, f1, f2, ..., mcc) or there are more than two, and the nearest class where it judges ordered ones (qwk).

    Raises
    ------
    SubmissionError
        When the predictions do not fit the sample: ids, number of columns, types.

    """
    values = predictions.values
    wanted, have = len(sample.asked), values.shape[1] if values.ndim == 2 else 1
    if wanted not in (1, have):
        raise SubmissionError(
            f"the sample has {wanted} prediction columns, the predictions {have}: {', '.join(sample.names)}"
        )
    rows = rows_of(predictions.ids.cast(pl.String), sample, "the predictions").to_numpy()
    values = values[rows].reshape(len(rows)) if have == 1 else values[rows]
    if wanted > 1:
        columns = [pl.Series(name, values[:, place]) for name, place in places(sample.names, target.classes).items()]
    else:
        columns = [_column(sample.asked[0], values, target)]
    return check_submission(pl.DataFrame([sample.ids, *columns]), sample, classes=target.classes)


def sample_without(predictions: Predictions, target: Target) -> Sample:
    """Return a sample where the competition gives none: the ids in their order and one column, the target."""
    of_classes = predictions.values.ndim == 2 or target.chooses(predictions.values)
    example: str | int | float = (target.classes[0] if target.classes else 0) if of_classes else 0.0
    table = pl.DataFrame({target.id: predictions.ids}).with_columns(pl.lit(example).alias(target.target))
    return Sample.of(table, "ids and target of the experiment")


def places(names: Sequence[str], classes: Sequence[str]) -> dict[str, int]:
    """Return which column of the predictions each column of the sample takes."""
    if len(names) > 1 and set(names) & set(classes):
        if set(names) != set(classes):
            raise SubmissionError(f"columns of the sample are {list(names)}, the classes {list(classes)}")
        return {name: classes.index(name) for name in names}
    return {name: place for place, name in enumerate(names)}


def _column(asked: Asked, values: NDArray[Any], target: Target) -> pl.Series:
    if not (asked.kind in ("text", "bool") or target.chooses(values)):
        return pl.Series(asked.name, values[:, 1] if values.ndim == 2 else values)
    if target.ranks and not (values.ndim == 2 and values.shape[1] > 2):
        raise SubmissionError("the predictions are ranks, which choose no class; submit another blend")
    codes = nearest(values) if target.is_ordered else most_probable(values)
    if asked.kind == "text" and not target.classes:
        raise SubmissionError(
            f"column {asked.name!r} of the sample holds texts; name the classes: classes = (...) in the"
            " experiment, --classes cat,dog for a file"
        )
    if asked.kind != "text" and asked.example not in target.classes:
        return pl.Series(asked.name, codes)
    codes = np.clip(codes, 0, len(target.classes) - 1)  # a number may lie beyond the last class
    return pl.Series(asked.name, [target.classes[code] for code in codes])
