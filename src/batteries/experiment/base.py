"""Experiment: what the user writes. Fields are hyperparameters; methods say what is trained.

In:    one class in one Python file.
Out:   a picklable object whose fields name a run.
Next:  `prepare` reads its tables, `train` its model and stages.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from batteries.config import check_values
from batteries.errors import ConfigError, DataError
from batteries.experiment.metric import Metric
from batteries.experiment.stage import Stage

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn


class Batch(NamedTuple):
    """Some samples: inputs and targets as the dataset gives them, and each one's row."""

    inputs: Any
    targets: Any
    """None where the table has no target."""
    rows: Tensor
    """int64, shape (n,): the position of each sample in the table given to `dataset`."""
    draws: Tensor | None = None
    """int64, shape (n,): how often the row came before in this epoch; None where no row comes twice."""

    @property
    def size(self) -> int:
        """Number of samples."""
        return len(self.rows)


@dataclass(kw_only=True)
class Experiment:
    """What is trained, on what, and how well it does.

    Subclass it in a file of its own, decorate with `@dataclass(kw_only=True)`, give `metric`, and write
    `table`, `dataset`, `model` and `loss`. Everything else has a default.
    """

    seed: int = 42
    """The one seed; every use of randomness derives its own from it."""
    batch_size: int = 64
    num_workers: int = 0
    """Loader processes for a torch Dataset; tensors need none."""

    metric: ClassVar[Metric]
    """The score that ranks checkpoints, runs and blends."""
    also: ClassVar[tuple[Metric, ...]] = ()
    """Other scores to log beside it."""
    folds: ClassVar[Any] = None
    """How rows are held out: `KFold`, `Stratified`, `Grouped`, `TimeOrdered`, ...; None chooses by the target."""
    id: ClassVar[str] = "id"
    """Column of the tables that names a row."""
    target: ClassVar[str] = "target"
    """Column of the tables that is to be predicted."""
    classes: ClassVar[tuple[str, ...] | None] = None
    """Names of the classes, in the order of the prediction columns, where the target column holds names."""
    keep: ClassVar[int] = 3
    """How many best checkpoints of a stage stay on disk, beside the newest two and the newest scored one."""
    log_every: ClassVar[int] = 50
    """Updates between two lines of the metric log within an epoch; 0 for none."""
    save_every: ClassVar[float] = 600.0
    """Seconds between two checkpoints within an epoch."""
    timeout: ClassVar[float] = 300.0
    """Seconds to wait for a batch from loader processes before they count as hung."""

    def __post_init__(self) -> None:
        for field, least in (("batch_size", 1), ("num_workers", 0)):
            value = getattr(self, field)
            if not isinstance(value, int) or value < least:
                raise ConfigError(f"{type(self).__name__}.{field} must be a whole number >= {least}, got {value!r}")

    def table(self) -> pl.DataFrame | pl.LazyFrame:
        """Return the training table: one row a sample, with the id and target columns and anything else."""
        raise NotImplementedError

    def test_table(self) -> pl.DataFrame | pl.LazyFrame | None:
        """Return the table to predict, or None; with a target column it is a test set."""
        return None

    def sample_submission(self) -> pl.DataFrame | None:
        """Return the competition's sample submission, or None; submissions are checked against it."""
        return None

    def dataset(self, rows: pl.DataFrame, *, training: bool) -> Any:
        """Return the samples of `rows`, in their order: tensors or arrays `(inputs, targets)`, or a torch Dataset.

        Tensors, NumPy arrays, memory maps, rows of `decoded` images and dicts of them are fastest: whole batches
        are taken from them at once. Rows without a target give `inputs` alone. An IterableDataset is one pass over
        the rows.
        """
        raise NotImplementedError

    def model(self) -> nn.Module:
        """Return a new model. The seed is set just before, so the same run gives the same weights."""
        raise NotImplementedError

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Return the mean loss over the batch, a scalar."""
        raise NotImplementedError

    def stages(self) -> list[Stage]:
        """Return the stages, in order; each starts from the one before."""
        return [Stage("train", epochs=10)]

    def training_step(self, model: nn.Module, batch: Batch) -> Tensor | dict[str, Any]:
        """Return the mean loss of one batch, or a dict with it as `loss` and other means over the batch to log."""
        return self.loss(model(batch.inputs), batch.targets)

    def predict_step(self, model: nn.Module, inputs: Any) -> Tensor:
        """Return what is stored and scored: shape (n,) or (n, columns). Classifiers: probabilities.

        In a stage with `bf16` or `fp16`, outputs of the model have about three digits; call `.float()` on
        them before any arithmetic that needs more, such as scaling back a regression target.
        """
        outputs: Tensor = model(inputs)
        return outputs

    def augment(self, batch: Batch, random: Any) -> Batch:
        """Return the training batch changed at random, drawing only from `random` (a `SampleRandom`)."""
        return batch

    def collate(self, samples: list[Any]) -> Any:
        """Join the samples of a torch Dataset into one batch; the default is PyTorch's."""
        from torch.utils.data import default_collate

        return default_collate(samples)

    def optimizer(self, parameters: list[dict[str, Any]], stage: Stage) -> torch.optim.Optimizer:
        """Return the optimizer over parameter groups (decayed and not); AdamW, fused, unless overridden."""
        import torch

        return torch.optim.AdamW(parameters, lr=stage.lr, fused=True)

    def sampler(self, rows: pl.DataFrame) -> Any:
        """Return the order in which training rows are seen: `Weighted`, `Balanced`, `ByLength`; None shuffles them."""
        return None

    def trackers(self, run: str, folder: Path) -> list[Any]:
        """Return what else logs the metrics of a fold, such as `WandB("project", name=run, folder=folder)`."""
        return []

    def targets(self, rows: pl.DataFrame) -> NDArray[Any]:
        """Return the target column as numbers: as it is, or as positions in `classes`.

        Raises
        ------
        DataError
            When the column holds texts and `classes` is not given, or a text is not among them; when a
            target is empty or NaN.

        """
        import polars as pl

        column = rows[self.target]
        if column.null_count():
            raise DataError(f"target column {self.target!r} has {column.null_count()} empty values; fill or drop them")
        if column.dtype.is_nested():
            return _rectangle(column)
        if column.dtype.is_decimal():
            column = column.cast(pl.Float64)
        if column.dtype.is_float() and (nan := int(column.is_nan().sum())):
            raise DataError(f"target column {self.target!r} has {nan} NaN values; fill or drop them")
        if column.dtype.is_numeric() or column.dtype == pl.Boolean:
            values: NDArray[Any] = column.to_numpy()
            return values.astype("int64") if values.dtype == bool else values
        return self._codes(column.cast(pl.String).to_list())

    def _codes(self, names: list[str]) -> NDArray[Any]:
        import numpy as np

        if self.classes is None:
            found = tuple(sorted(set(names)))
            raise DataError(
                f"target column {self.target!r} holds texts; add to {type(self).__name__}: classes = {found[:20]!r}"
            )
        codes = {name: code for code, name in enumerate(self.classes)}
        if unknown := sorted(set(names) - set(codes)):
            raise DataError(f"target column {self.target!r} holds {unknown[:5]!r}, not among classes {self.classes!r}")
        return np.array([codes[name] for name in names], dtype=np.int64)

    def checked_stages(self) -> list[Stage]:
        """Return `stages()`, refused when empty or when two have one name."""
        stages = self.stages()
        if not isinstance(stages, list | tuple) or not stages or not all(isinstance(s, Stage) for s in stages):
            got = "a Stage; put it in a list" if isinstance(stages, Stage) else repr(stages)
            raise ConfigError(f"{type(self).__name__}.stages must return a list of at least one Stage, got {got}")
        names = [stage.name for stage in stages]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ConfigError(f"{type(self).__name__}.stages has two stages named {sorted(twice)[0]!r}; rename one")
        for stage in stages:
            self.at(stage)
        return list(stages)

    def at(self, stage: Stage) -> Self:
        """Return the experiment with the fields that it has in `stage`."""
        if not stage.fields:
            return self
        try:
            return replace(self, **check_values(type(self), stage.fields))
        except ConfigError as error:
            raise ConfigError(f"stage {stage.name!r}, fields: {error}") from error


def _rectangle(column: pl.Series) -> NDArray[Any]:
    """Lists of one length as an array of shape (n, length)."""
    import numpy as np
    import polars as pl

    if column.dtype.base_type() == pl.List:
        lengths = sorted(set(column.list.len().to_list()))
        if len(lengths) > 1:
            raise DataError(
                f"target column {column.name!r} holds lists of {lengths[0]} to {lengths[-1]} values, not one length"
            )
        return np.array(column.to_list())
    values: NDArray[Any] = column.to_numpy()
    return values
