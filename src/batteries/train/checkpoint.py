"""Checkpoint: a folder that holds the last, the best and a few best states of a training.

In:    a dict of tensors and plain values, and a score.
Out:   files that load only if they are what was written. Each checkpoint is a pair: `checkpoint-000007.pt`,
       and its record `checkpoint-000007.json` with digest, score and position, written last. `last.pt` and
       `best.pt` are hard links for people.
Next:  `train.run` resumes from `last`, predicts with `best`; averages are made of `best(k)`.
"""

from __future__ import annotations

import os
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from batteries.errors import CorruptError, NonFiniteError, ResourceError, ResumeError, UsageError
from batteries.experiment.metric import Metric
from batteries.files import digest_file, read_sealed, write_atomic, write_sealed

_SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """One saved state: where it is, how good, and what was noted with it."""

    path: Path
    number: int
    """Counts saves in the folder; later is higher, whatever the clock says."""
    score: float | None
    """None until the state was scored."""
    info: Mapping[str, Any]
    """What the caller noted: stage, epoch, step, ..."""
    sha256: str

    def load(self) -> dict[str, Any]:
        """Return the saved state on the CPU. Raises CorruptError unless the file is what was written."""
        return read_checkpoint(self.path, sha256=self.sha256)


@dataclass
class Checkpoints:
    """The checkpoints of one training in one folder: last, best, few best.

    Keeps the `keep` best by `metric` and the newest two, so that a damaged newest one loses one save
    at most. Every write is whole or not at all; the score travels with its direction.

    Example
    -------
    >>> checkpoints = Checkpoints("logs", metric=Metric("auc", higher_is_better=True))  # doctest: +SKIP
    >>> checkpoints.save({"model": model, "optimizer": optimizer}, score=0.91)  # doctest: +SKIP
    >>> state = checkpoints.last.load()  # doctest: +SKIP

    """

    folder: Path | str
    _: KW_ONLY
    metric: Metric
    keep: int = 3

    def __post_init__(self) -> None:
        if self.keep < 1:
            raise UsageError(f"Checkpoints: keep must be >= 1, got {self.keep}")
        self.folder = Path(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._all = self._read()

    def _read(self) -> list[Checkpoint]:
        found = []
        for path in sorted(Path(self.folder).glob("checkpoint-*.json")):
            try:
                record = read_sealed(path)
            except CorruptError as error:
                warnings.warn(f"{error}; going on without this checkpoint", stacklevel=4)
                continue
            _check_schema(path, record)
            self._check_metric(path, record["metric"])
            number, score = int(record["number"]), record["score"]
            found.append(Checkpoint(path.with_suffix(".pt"), number, score, record["info"], record["sha256"]))
        return found

    def _check_metric(self, path: Path, metric: Mapping[str, Any]) -> None:
        if metric != {"name": self.metric.name, "higher_is_better": self.metric.higher_is_better}:
            raise UsageError(
                f"{path}: was ranked by {metric['name']} (higher is better: {metric['higher_is_better']}), not by"
                f" {self.metric.name} ({self.metric.higher_is_better}); use the same metric or another folder"
            )

    def __len__(self) -> int:
        return len(self._all)

    @property
    def last(self) -> Checkpoint | None:
        """The newest checkpoint, or None."""
        return self._all[-1] if self._all else None

    def best(self, k: int = 1) -> list[Checkpoint]:
        """The `k` best scored checkpoints, best first; of equals the earlier one first."""
        scored = [c for c in self._all if c.score is not None and isfinite(c.score)]
        return sorted(scored, key=lambda c: (*self.metric.order(c.score), c.number))[:k]

    def save(
        self, state: Mapping[str, Any], *, score: float | None = None, info: Mapping[str, Any] | None = None
    ) -> Checkpoint:
        """Write a new checkpoint and forget those no longer needed.

        Parameters
        ----------
        state
            Names to tensors, plain values, or objects with `state_dict()` (model, optimizer, scheduler).
        score
            The validation score, if known yet; `score()` adds it later.
        info
            Plain values to find again without loading: epoch, step.

        Raises
        ------
        NonFiniteError
            When a weight is NaN or infinite; nothing is written.
        ResourceError
            When the disk refuses; older checkpoints are untouched.

        """
        plain = {name: _plain(value, name) for name, value in state.items()}
        if bad := _non_finite(plain.get("model")):
            raise NonFiniteError(
                f"weight {bad!r} is NaN or infinite; nothing was saved. Lower the learning rate or clip"
            )
        number = self._all[-1].number + 1 if self._all else 1
        path = Path(self.folder) / f"checkpoint-{number:06d}.pt"
        sha256 = write_atomic(path, lambda file: torch.save(plain, file))
        try:
            saved = self._record(Checkpoint(path, number, _number(score), dict(info or {}), sha256))
        except BaseException:
            if not path.with_suffix(".json").exists():  # without its record it is nothing, and the disk may be full
                path.unlink(missing_ok=True)
            raise
        self._all.append(saved)
        self.tidy()
        return saved

    def score(self, checkpoint: Checkpoint, score: float, *, info: Mapping[str, Any] | None = None) -> Checkpoint:
        """Add the score (and notes) of a checkpoint saved without one; only its small record is written."""
        numbers = [c.number for c in self._all]
        if checkpoint.number not in numbers:
            raise UsageError(
                f"{checkpoint.path} is no longer kept (the {self.keep} best and the newest two are); score it sooner"
            )
        scored = replace(checkpoint, score=_number(score), info={**checkpoint.info, **(info or {})})
        self._all[numbers.index(checkpoint.number)] = self._record(scored)
        self.tidy()
        return scored

    def usable_last(self) -> tuple[Checkpoint, dict[str, Any]] | None:
        """The newest checkpoint that is intact, and its state; damaged ones are named in a warning and forgotten.

        Raises CorruptError when there are checkpoints and all are damaged.
        """
        damaged = []
        while self._all:
            checkpoint = self._all[-1]
            try:
                return checkpoint, checkpoint.load()
            except CorruptError as error:
                warnings.warn(f"{error}; going back to the checkpoint before it", stacklevel=2)
                damaged.append(self._all.pop().path.name)
        if damaged:
            raise CorruptError(
                f"{self.folder}: no intact checkpoint is left (damaged: {', '.join(damaged)}); restore one from a"
                " copy, or move the folder away and run again to train this from its start"
            )
        return None

    def _record(self, checkpoint: Checkpoint) -> Checkpoint:
        record = {
            "schema": _SCHEMA,
            "number": checkpoint.number,
            "sha256": checkpoint.sha256,
            "score": checkpoint.score,
            "metric": {"name": self.metric.name, "higher_is_better": self.metric.higher_is_better},
            "info": dict(checkpoint.info),
        }
        write_sealed(checkpoint.path.with_suffix(".json"), {"file": checkpoint.path.name, **record})
        return checkpoint

    def tidy(self) -> None:
        """Link last and best, then delete what is neither among the best nor the newest two.

        `save` and `score` end with it; whoever goes on after a kill calls it once.
        """
        try:
            self._link("last.pt", self._all[-1])
            if best := self.best():
                self._link("best.pt", best[0])
            self._forget()
        except OSError as error:
            raise ResourceError(f"{self.folder}: cannot be written ({error}); all checkpoints are kept") from error

    def _forget(self) -> None:
        wanted = {c.number for c in [*self._all[-2:], *self.best(self.keep)]}
        for checkpoint in [c for c in self._all if c.number not in wanted]:
            checkpoint.path.with_suffix(".json").unlink(missing_ok=True)
            checkpoint.path.unlink(missing_ok=True)
        self._all = [c for c in self._all if c.number in wanted]
        recorded = {c.path for c in self._all}
        for orphan in Path(self.folder).glob("checkpoint-*.pt"):
            if orphan not in recorded and not orphan.with_suffix(".json").exists():
                orphan.unlink(missing_ok=True)
        for left in Path(self.folder).glob(".checkpoint-*.tmp"):  # of a process that was killed while writing
            left.unlink(missing_ok=True)

    def _link(self, name: str, checkpoint: Checkpoint) -> None:
        link = Path(self.folder) / name
        temporary = link.with_name(f".{name}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(checkpoint.path, temporary)
        except OSError:  # a file system without hard links
            os.symlink(checkpoint.path.name, temporary)
        try:
            os.replace(temporary, link)
        finally:
            temporary.unlink(missing_ok=True)  # rename keeps both names when they are the same file already


def has_checkpoints(folder: Path) -> bool:
    """Whether a training in `folder` got as far as its first checkpoint."""
    return any(folder.glob("checkpoint-*.json"))


def read_checkpoint(path: Path, *, sha256: str | None = None) -> dict[str, Any]:
    """Load a checkpoint or `state_dict` file on the CPU, executing nothing in it.

    The digest is compared first: with `sha256` if given, else with the record of a checkpoint of ours in its folder.

    Raises
    ------
    CorruptError
        When the file is missing, damaged, or no file of tensors and plain values.

    """
    if not path.is_file():
        raise CorruptError(f"{path}: there is no such file")
    if sha256 is None:
        sha256 = _recorded_digest(path)
    if sha256 is not None and digest_file(path) != sha256:
        raise CorruptError(f"{path}: was changed or damaged after it was written (its digest does not match)")
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise CorruptError(f"{path}: is not a file of weights ({reason})") from error
    if not isinstance(data, dict):
        raise CorruptError(f"{path}: holds {type(data).__name__}, not a dict of weights")
    return data


def _recorded_digest(path: Path) -> str | None:
    """The digest in the record of a checkpoint, also when `path` is a link to it such as `best.pt`."""
    for record in path.parent.glob("checkpoint-*.json"):
        file = record.with_suffix(".pt")
        if file.exists() and file.samefile(path):
            digest: str = read_sealed(record)["sha256"]
            return digest
    return None


def _check_schema(path: Path, record: Mapping[str, Any]) -> None:
    if record["schema"] != _SCHEMA:
        raise ResumeError(
            f"{path}: has schema {record['schema']}, this Batteries reads {_SCHEMA}; use the version that wrote it"
        )


def _plain(value: Any, name: str) -> Any:
    """The state of an object that has one, else the value as `torch.load(weights_only=True)` takes it back."""
    state_dict = getattr(value, "state_dict", None)
    if callable(state_dict):
        return state_dict()
    if value is None or isinstance(value, Tensor) or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        plain = {key: _plain(part, f"{name}.{key}") for key, part in value.items()}
        return plain if type(value) is dict else _same_kind(value, plain)
    if isinstance(value, list | tuple):
        return type(value)([_plain(part, name) for part in value]) if type(value) in (list, tuple) else list(value)
    raise UsageError(
        f"checkpoint: {name!r} holds {type(value).__name__}, which cannot be loaded safely;"
        " save tensors, arrays, numbers, texts, lists, dicts, or objects with state_dict()"
    )


def _same_kind(value: Mapping[Any, Any], plain: dict[Any, Any]) -> Mapping[Any, Any]:
    """A state dict keeps its class and its notes where nothing in it had to change."""
    return value if all(plain[key] is value[key] for key in plain) and type(value) is OrderedDict else plain


def _number(score: float | None) -> float | None:
    """A finite float, or None: JSON has no NaN, and NaN is never best."""
    return float(score) if score is not None and isfinite(score) else None


def _non_finite(weights: object) -> str | None:
    if not isinstance(weights, Mapping):
        return None
    floating = {n: t for n, t in weights.items() if isinstance(t, Tensor) and t.is_floating_point()}
    return next((name for name, tensor in floating.items() if not torch.isfinite(tensor).all()), None)
