"""Soup: the mean of the weights of several runs, in each fold.

In:    runs of one architecture on one split of one table: other seeds, other hyperparameters.
Out:   a new entry; beside it the scores of the single runs, of the uniform and of the greedy soup.
Next:  the board shows whether it is better; it blends like any entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from batteries.combine.average import CHOSEN_ON, Means, finished, write_average
from batteries.combine.derive import LEARNED
from batteries.errors import DataError, UsageError, WeightsError
from batteries.experiment import Experiment, Metric
from batteries.files import digest_of
from batteries.prepare.folds import Folds
from batteries.prepare.table import test_table, training_table
from batteries.progress import Progress
from batteries.score.entry import INHERITED, Entry, find_entry
from batteries.shapes import Soups, read_record
from batteries.train.checkpoint import Checkpoint
from batteries.train.device import Device
from batteries.train.interrupt import Interrupts
from batteries.train.outcome import Predictor, checkpoints_of, finite
from batteries.train.record import Run, Tables, check_same

How = Literal["greedy", "uniform"]
_Picked = dict[int, dict[str, Checkpoint]]


@dataclass(frozen=True, kw_only=True)
class SoupOfFold:
    """What the soups of a fold score on its held-out rows, which also chose the checkpoints and the greedy members."""

    fold: int
    singles: Mapping[str, float]
    """Score of each run's best checkpoint alone."""
    uniform: float | None
    """Of all of them; None where the score is not finite."""
    greedy: float
    members: tuple[str, ...]
    """Of the greedy soup."""
    higher_is_better: bool

    @property
    def best(self) -> str:
        """The best single run."""
        return min(self.singles, key=lambda name: self._metric.order(self.singles[name]))

    @property
    def worst(self) -> str:
        """The worst single run."""
        return max(self.singles, key=lambda name: self._metric.order(self.singles[name]))

    @property
    def apart(self) -> bool:
        """Whether the uniform soup is below its worst member: the runs lie in different basins of the loss."""
        return self.uniform is None or self._metric.gain(self.uniform, self.singles[self.worst]) < 0

    @property
    def _metric(self) -> Metric:
        return Metric("score", higher_is_better=self.higher_is_better)


def soup(
    entries: Sequence[Entry],
    root: Path | str = "runs",
    *,
    how: How = "greedy",
    device: str = "auto",
    progress: bool = True,
) -> Entry:
    """Average the best checkpoints of several runs, fold by fold, and predict with the means.

    Uniform and greedy soup are both scored, `soup_scores` tells them, and the entry is the one asked for. Greedy:
    from the best single run on, the next best joins if the score of the fold does not fall; it never scores below
    the best single run there. That fold chose the checkpoints and the members, so the score is a little too good.
    Where the model tracks batch norm statistics, those of a mean are computed anew on the training rows. Model and
    data are made by the first run's experiment. Runs that were not fine-tuned from common weights mostly make no
    soup: see `SoupOfFold.apart`.

    Parameters
    ----------
    entries
        Two runs or more, with the same finished folds.
    how
        `greedy`, or `uniform`: all runs alike.

    Returns
    -------
    The new entry, or the one that was made of the same runs before.

    Raises
    ------
    UsageError
        Fewer than two entries, one that is no run, one named twice, or finished folds that differ.
    DataError
        Data, folds or metric of the runs differ; a weight is NaN or infinite.
    ResumeError
        Fields, stages, data or folds of a run changed since it was trained.
    WeightsError
        Names, shapes or types of the weights differ; the first difference is named.

    Notes
    -----
    Wortsman et al. 2022, Model soups, arXiv 2203.05482.

    Example
    -------
    >>> runs = [open_entry("runs", name) for name in ("digits-001", "digits-002")]  # doctest: +SKIP
    >>> soup(runs, how="uniform").name  # doctest: +SKIP
    'average-001'

    """
    root, runs = Path(root), _runs(entries, how)
    experiments = [entry.experiment() for entry in entries]
    folds = Folds.load(root / "folds.parquet")
    tables = Tables(training_table(experiments[0]), test_table(experiments[0]))
    for number, (run, experiment) in enumerate(zip(runs, experiments, strict=True)):
        own = Tables(training_table(experiment), test_table(experiment)) if number else tables
        check_same(run, experiment, folds, own)
    picked = _picked(runs, experiments)
    config = _config(runs, how, picked)
    if made := find_entry(root, config["identity"]):
        return made
    stage, parts, told = experiments[0].checked_stages()[-1], {}, []
    with Interrupts() as interrupts, Progress("soup", total=len(picked), show=progress) as bar:
        predictor = Predictor(experiments[0], Device.pick(device), stage, interrupts.check)
        pot = _Pot(Means(predictor, folds, tables), experiments[0].metric)
        for fold, members in picked.items():
            told.append(pot.scores(fold, members))
            chosen = told[-1].members if how == "greedy" else tuple(members)
            parts[fold] = pot.predicted(fold, [members[name] for name in chosen])
            bar.advance()
    learned = {"soups": [asdict(each) for each in told], "chosen_on": CHOSEN_ON}
    return write_average(root, folds, parts, _used(config, how, picked, told), learned=learned)


def soup_scores(entry: Entry) -> list[SoupOfFold]:
    """What the soups of each fold of an entry score. Raises UsageError when it is no soup."""
    if "soup" not in str(entry.config.get("how", "")) or not (entry.folder / LEARNED).exists():
        raise UsageError(f"{entry.name} is no soup; make one of two runs: batteries average RUN RUN")
    return [
        SoupOfFold(**{**each, "members": tuple(each["members"])})
        for each in read_record(entry.folder / LEARNED, Soups)["soups"]
    ]


def greedy(members: Mapping[str, float], metric: Metric, score: Callable[[tuple[str, ...]], float]) -> tuple[str, ...]:
    """Return the names that make a greedy soup, in the order of `members`.

    Parameters
    ----------
    members
        Names to the scores of each alone; finite.
    score
        Of a soup of these names, two or more, in the order of `members`.

    >>> accuracy = Metric("accuracy", higher_is_better=True)
    >>> greedy({"a": 0.7, "b": 0.9, "c": 0.8}, accuracy, lambda names: {"bc": 0.92, "abc": 0.91}["".join(names)])
    ('b', 'c')
    """
    first, *others = sorted(members, key=lambda name: metric.order(members[name]))
    chosen: tuple[str, ...] = (first,)
    best = members[first]
    for name in others:
        more = tuple(each for each in members if each in (*chosen, name))
        value = score(more)
        if metric.gain(value, best) >= 0:  # the paper's rule: equal is enough; NaN is not
            chosen, best = more, value
    return chosen


@dataclass
class _Pot:
    """Soups of one fold after the other."""

    means: Means
    metric: Metric

    def scores(self, fold: int, members: Mapping[str, Checkpoint]) -> SoupOfFold:
        singles = {name: each.score for name, each in members.items() if each.score is not None}  # the best all are
        known: dict[tuple[str, ...], float] = {}

        def score(names: tuple[str, ...]) -> float:
            if names not in known:
                known[names] = self._score(fold, [members[name] for name in names])
            return known[names]

        try:
            uniform = finite(score(tuple(members)))
        except (WeightsError, DataError) as error:
            raise type(error)(f"fold {fold} of {', '.join(members)}: {error}") from error
        chosen = greedy(singles, self.metric, score)
        best = score(chosen) if len(chosen) > 1 else singles[chosen[0]]
        return SoupOfFold(
            fold=fold, singles=singles, uniform=uniform, greedy=best, members=chosen,
            higher_is_better=self.metric.higher_is_better,
        )  # fmt: skip

    def _score(self, fold: int, checkpoints: Sequence[Checkpoint]) -> float:
        means = replace(self.means, tables=Tables(self.means.tables.train, None))
        oof = means.predicted(fold, checkpoints)[0]
        assert oof.targets is not None
        return self.metric(oof.targets, oof.values)

    def predicted(self, fold: int, checkpoints: Sequence[Checkpoint]) -> Any:
        """A soup of one run is that run, to the last bit."""
        return self.means.predicted(fold, checkpoints, recompute=len(checkpoints) > 1)


def _runs(entries: Sequence[Entry], how: str) -> list[Run]:
    if how not in ("greedy", "uniform"):
        raise UsageError(f"soup: how must be 'greedy' or 'uniform', got {how!r}")
    if len(entries) < 2:
        raise UsageError(f"a soup is made of two runs or more, got {len(entries)}; of one run average its checkpoints")
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{twice[0]} is named twice; a soup takes each run once")
    runs = [Run.open(entry.folder) for entry in entries]
    first = runs[0]
    for run in runs[1:]:
        for key, what in (("data", "data"), ("metric", "metric"), ("columns", "columns"), ("folds", "folds")):
            if run.config[key] != first.config[key]:
                raise DataError(f"{run.name} and {first.name} have different {what}; train both on one split and table")
        if finished(run) != finished(first):
            raise UsageError(
                f"{first.name} has finished folds {finished(first)}, {run.name} {finished(run)}; a soup needs the same:"
                " batteries train --resume RUN"
            )
    return runs


def _picked(runs: Sequence[Run], experiments: Sequence[Experiment]) -> _Picked:
    """Of each fold the best checkpoint of the last stage of each run."""
    picked: _Picked = {}
    for fold in finished(runs[0]):
        picked[fold] = {}
        for run, experiment in zip(runs, experiments, strict=True):
            stage = experiment.checked_stages()[-1]
            if not (found := checkpoints_of(run, experiment, fold, stage).best()):
                raise WeightsError(f"{run.name} has no scored checkpoint of stage {stage.name!r}, fold {fold}")
            picked[fold][run.name] = found[0]
    return picked


def _config(runs: Sequence[Run], how: How, picked: _Picked) -> dict[str, Any]:
    offered = {
        str(fold): {name: checkpoint.sha256 for name, checkpoint in members.items()} for fold, members in picked.items()
    }
    config = {**{key: runs[0].config[key] for key in INHERITED}, "how": f"{how} soup"}
    identities = [run.config["identity"] for run in runs]
    return {**config, "identity": digest_of({**config, "runs": identities, "offered": offered})}


def _used(config: Mapping[str, Any], how: How, picked: _Picked, told: Sequence[SoupOfFold]) -> dict[str, Any]:
    """The config with what went into the pot: files by fold, and each run's mean share over the folds."""
    used = {each.fold: each.members if how == "greedy" else tuple(each.singles) for each in told}
    files = {str(fold): [f"{name}/{picked[fold][name].path.name}" for name in names] for fold, names in used.items()}
    members = {
        name: sum(1 / len(names) for names in used.values() if name in names) / len(used) for name in told[0].singles
    }
    return {**config, "members": members, "checkpoints": files, "chosen_on": CHOSEN_ON}
