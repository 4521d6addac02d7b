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
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from copy import deepcopy
from dataclasses import KW_ONLY, dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from batteries.errors import CorruptError, NonFiniteError, UsageError
from batteries.experiment.metric import Metric
from batteries.files import refusing, write_atomic, write_sealed
from batteries.shapes import CheckpointRecord, read_record
from batteries.train.behind import Behind
from batteries.train.checkpoint_file import read_checkpoint
from batteries.train.staging import Staging, non_finite, plain_state, write_state


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

    Keeps the `keep` best by `metric`, the newest scored one, and the newest two, so that a damaged newest one loses
    one save at most. Every write is whole or not at all; the score travels with its direction.

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
        self._staging = Staging()
        self._behind = Behind()

    def _read(self) -> list[Checkpoint]:
        found = []
        for path in sorted(Path(self.folder).glob("checkpoint-*.json")):
            try:
                record = read_record(path, CheckpointRecord)
            except CorruptError as error:
                warnings.warn(f"{error}; going on without this checkpoint", stacklevel=4)
                continue
            self._check_metric(path, record["metric"])
            number, score = record["number"], record["score"]
            found.append(Checkpoint(path.with_suffix(".pt"), number, score, record["info"], record["sha256"]))
        return found

    def _check_metric(self, path: Path, metric: Mapping[str, Any]) -> None:
        if metric != {"name": self.metric.name, "higher_is_better": self.metric.higher_is_better}:
            raise UsageError(
                f"{path}: was ranked by {metric['name']} (higher is better: {metric['higher_is_better']}), not by"
                f" {self.metric.name} ({self.metric.higher_is_better}); use the same metric or another folder"
            )

    def __len__(self) -> int:
        self._behind.settle()
        return len(self._all)

    @property
    def last(self) -> Checkpoint | None:
        """The newest checkpoint, or None."""
        self._behind.settle()
        return self._all[-1] if self._all else None

    def all(self) -> list[Checkpoint]:
        """All that are kept, oldest first."""
        self._behind.settle()
        return list(self._all)

    def best(self, k: int = 1) -> list[Checkpoint]:
        """The `k` best scored checkpoints, best first; of equals the earlier one first."""
        self._behind.settle()
        return self._best(k)

    def _best(self, k: int = 1) -> list[Checkpoint]:
        scored = [c for c in self._all if c.score is not None and isfinite(c.score)]
        return sorted(scored, key=lambda c: (*self.metric.order(c.score), c.number))[:k]

    def save(
        self,
        state: Mapping[str, Any],
        *,
        score: float | None = None,
        info: Mapping[str, Any] | None = None,
        before: Callable[[], object] | None = None,
    ) -> Checkpoint:
        """Write a new checkpoint and forget those no longer needed; return when it is on the disk.

        Parameters
        ----------
        state
            Names to tensors, plain values, or objects with `state_dict()` (model, optimizer, scheduler).
        score
            The validation score, if known yet; `score()` adds it later.
        info
            Plain values to find again without loading: epoch, step.
        before
            Called first, such as to flush a log that the checkpoint refers to; when it fails, nothing is saved.

        Raises
        ------
        NonFiniteError
            When a weight is NaN or infinite; nothing is written.
        ResourceError
            When the disk refuses; older checkpoints are untouched.

        """
        plain = plain_state(state)
        self.wait()
        return self._save(plain, score, info, before)

    def save_soon(
        self,
        state: Mapping[str, Any],
        *,
        score: float | None = None,
        info: Mapping[str, Any] | None = None,
        before: Callable[[], object] | None = None,
    ) -> Future[Checkpoint]:
        """Copy the state and return; the copy is written behind the caller, as `save` writes it.

        What is saved is the state at the time of the call, whatever happens to it afterwards. When the save
        before is still being written, it is waited for: there is one copy in memory at most. `before` is
        called by the thread that writes. A result in the returned Future is on the disk. An error is in it
        too, and is raised by the next `check`, `save`, `save_soon`, `score` or `wait`, once. A process that ends
        finishes the write first. For use by one thread.

        Example
        -------
        >>> import torch
        >>> checkpoints = Checkpoints("logs/soon", metric=Metric("auc", higher_is_better=True))
        >>> weights = torch.zeros(2)
        >>> saving = checkpoints.save_soon({"weights": weights}, score=0.5)
        >>> _ = weights.add_(1)
        >>> saving.result().load()
        {'weights': tensor([0., 0.])}

        """
        plain = plain_state(state)
        self.wait()
        copied, notes = self._staging.copy(plain), deepcopy(dict(info or {}))

        def write() -> Checkpoint:
            self._staging.ready()
            return self._save(copied, score, notes, before)

        return self._behind.do(write)

    def check(self) -> None:
        """Raise the error of a save that failed behind the training, once. Waits for nothing, costs nothing."""
        self._behind.check()

    def wait(self) -> None:
        """Return when all is on the disk; raise the error of a save that failed, once."""
        self._behind.wait()

    def close(self) -> None:
        """Wait, and give back the memory of the copy; the next `save_soon` takes it anew."""
        self._behind.settle()
        self._staging.clear()
        self._behind.check()

    def _save(
        self,
        plain: dict[str, Any],
        score: float | None,
        info: Mapping[str, Any] | None,
        before: Callable[[], object] | None,
    ) -> Checkpoint:
        if before is not None:
            before()
        if bad := non_finite(plain.get("model")):
            raise NonFiniteError(
                f"weight {bad!r} is NaN or infinite; nothing was saved. Lower the learning rate or clip"
            )
        number = self._all[-1].number + 1 if self._all else 1
        path = Path(self.folder) / f"checkpoint-{number:06d}.pt"
        sha256 = write_atomic(path, lambda file: write_state(plain, file))
        try:
            saved = self._record(Checkpoint(path, number, _number(score), dict(info or {}), sha256))
        except BaseException:
            if not path.with_suffix(".json").exists():  # without its record it is nothing, and the disk may be full
                path.unlink(missing_ok=True)
            raise
        self._all.append(saved)
        self._tidy()
        return saved

    def score(self, checkpoint: Checkpoint, score: float, *, info: Mapping[str, Any] | None = None) -> Checkpoint:
        """Add the score (and notes) of a checkpoint saved without one; only its small record is written."""
        self.wait()
        return self._score(checkpoint, score, info)

    def score_soon(
        self,
        saving: Future[Checkpoint] | Checkpoint,
        score: float,
        *,
        info: Mapping[str, Any] | None = None,
        before: Callable[[], object] | None = None,
    ) -> Future[Checkpoint]:
        """Add the score of a checkpoint that `save_soon` is writing, once it is written; return at once."""

        def write() -> Checkpoint:
            if before is not None:
                before()
            return self._score(saving if isinstance(saving, Checkpoint) else saving.result(), score, info)

        return self._behind.do(write)

    def _score(self, checkpoint: Checkpoint, score: float, info: Mapping[str, Any] | None) -> Checkpoint:
        numbers = [c.number for c in self._all]
        if checkpoint.number not in numbers:
            raise UsageError(
                f"{checkpoint.path} is no longer kept (the {self.keep} best and the newest two are); score it sooner"
            )
        scored = replace(checkpoint, score=_number(score), info={**checkpoint.info, **(info or {})})
        self._all[numbers.index(checkpoint.number)] = self._record(scored)
        self._tidy()
        return scored

    def usable_last(self) -> tuple[Checkpoint, dict[str, Any]] | None:
        """The newest checkpoint that is intact, and its state; damaged ones are named in a warning and forgotten.

        Raises CorruptError when there are checkpoints and all are damaged.
        """
        self._behind.settle()
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
            "schema": CheckpointRecord.newest,
            "number": checkpoint.number,
            "sha256": checkpoint.sha256,
            "score": checkpoint.score,
            "metric": {"name": self.metric.name, "higher_is_better": self.metric.higher_is_better},
            "info": dict(checkpoint.info),
        }
        write_sealed(checkpoint.path.with_suffix(".json"), {"file": checkpoint.path.name, **record})
        return checkpoint

    def tidy(self) -> None:
        """Link last and best, then delete what is neither among the best nor the newest.

        `save` and `score` end with it; whoever goes on after a kill calls it once.
        """
        self._behind.settle()
        self._tidy()

    def _tidy(self) -> None:
        folder = Path(self.folder)
        with refusing(folder / "last.pt"):
            self._link("last.pt", self._all[-1])
        if best := self._best():
            with refusing(folder / "best.pt"):
                self._link("best.pt", best[0])
        with refusing(folder):
            self._forget()

    def _forget(self) -> None:
        scored = [c for c in self._all if c.score is not None]
        wanted = {c.number for c in [*self._all[-2:], *scored[-1:], *self._best(self.keep)]}
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


def _number(score: float | None) -> float | None:
    """A finite float, or None: JSON has no NaN, and NaN is never best."""
    return float(score) if score is not None and isfinite(score) else None
