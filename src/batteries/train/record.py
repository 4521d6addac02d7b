"""Record: the folder of a run, and how a later start finds it again.

In:    an experiment, its folds, its tables.
Out:   `runs/digits-001/` with config.json and provenance.json.
Next:  `train.run` fills it; `score` and `report` read it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from batteries import shapes
from batteries.config import to_plain
from batteries.errors import ConfigError, CorruptError, DataError, NotSafeError, ResumeError, UsageError
from batteries.experiment import Experiment, Stage
from batteries.experiment.load import code_digest, experiment_name, fields_of, source_file
from batteries.experiment.predictions import column_digest
from batteries.files import digest_file, digest_of, inside, locked, new_folder, read_sealed, write_sealed
from batteries.prepare.environment import changed_versions, provenance
from batteries.prepare.folds import Folds
from batteries.shapes import check_shape, read_record

CONFIG = "config.json"
_NOTHING = "nothing"


@dataclass(frozen=True)
class Tables:
    """What an experiment trains on and predicts, read once."""

    train: pl.DataFrame
    test: pl.DataFrame | None

    def check_targets(self, experiment: Experiment) -> None:
        """Raise DataError for targets that cannot be trained on or scored, before anything is trained."""
        for method, table in (("table", self.train), ("test_table", self.test)):
            if table is not None and experiment.target in table.columns:
                try:
                    experiment.targets(table)
                except DataError as error:
                    raise DataError(f"{type(experiment).__name__}.{method}(): {error}") from error

    def digests(self) -> dict[str, str | None]:
        """Digest of every value of both tables."""
        return {"train": _table_digest(self.train), "test": None if self.test is None else _table_digest(self.test)}


def _table_digest(table: pl.DataFrame) -> str:
    return digest_of([(column.name, column_digest(column)) for column in table])


@dataclass(frozen=True)
class Run:
    """One experiment with one seed, in its folder, with all its folds."""

    folder: Path
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """`digits-001`."""
        return self.folder.name

    @property
    def num_folds(self) -> int:
        """Folds of the split, trained or not."""
        return int(self.config["folds"]["n"])

    def fold_folder(self, fold: int) -> Path:
        """Where a fold keeps its checkpoints, metrics and predictions."""
        return self.folder / f"fold{fold}"

    def stage_folder(self, fold: int, stage: str) -> Path:
        """Where a stage of a fold keeps its checkpoints."""
        return self.fold_folder(fold) / f"stage-{stage}"

    def finished_folds(self) -> list[int]:
        """Folds that are trained to the end."""
        return [fold for fold in range(self.num_folds) if (self.fold_folder(fold) / "fold.json").exists()]

    def fold_result(self, fold: int) -> dict[str, Any]:
        """Scores of a finished fold, and the checkpoint they are of."""
        return read_record(self.fold_folder(fold) / "fold.json", shapes.Fold)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """Open a run that exists. Raises UsageError when the folder holds none."""
        if not (folder / CONFIG).exists():
            raise UsageError(f"{folder} is not a run; runs there: {', '.join(_names(folder.parent)) or 'none'}")
        config = read_config(folder)
        if config["kind"] != "run":
            raise UsageError(
                f"{folder.name} is {_a(config['kind'])}, not a run; runs: {', '.join(_names(folder.parent))}"
            )
        return cls(folder, config)


def open_run(
    experiment: Experiment,
    folds: Folds,
    tables: Tables,
    root: Path,
    *,
    resume: str | None = None,
    prepared: Mapping[str, Any] | None = None,
) -> Run:
    """Return the run of exactly this experiment, code, data and folds: the one there is, or a new one.

    `resume` names a run to go on with although the experiment's code changed since; fields, stages,
    data and folds must be the same. `prepared` is what `prepare_environment` returned, for provenance.json.

    Raises
    ------
    ConfigError
        When a stage of a new run starts from a file that is not there.
    ResumeError
        When `resume` names a run that differs in more than code; every difference is listed.

    """
    config = config_of(experiment, folds, tables)
    if resume is not None:
        return _resumed(Run.open(inside(root, resume, "run")), config)

    def begin(folder: Path, name: str) -> None:
        write_sealed(folder / "provenance.json", provenance(root.resolve().parent, prepared=prepared))
        write_sealed(folder / CONFIG, {**config, "name": name})

    with locked(root, wait=True):  # of two first starts at once, the second finds the run of the first
        for run in reversed(all_runs(root)):
            if run.config["identity"] == config["identity"]:
                return run
        _check_starts(config)
        return Run.open(new_folder(root, experiment_name(experiment), begin))


def read_config(folder: Path) -> dict[str, Any]:
    """What a run, an average or a blend was made of. Raises ResumeError where a newer Batteries wrote it."""
    config = read_record(folder / CONFIG, shapes.Config)
    return check_shape(folder / CONFIG, config, shapes.RunConfig) if config["kind"] == "run" else config


def configs(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return the folder and config of everything in `root`, by name; those damaged or elsewhere are warned of."""
    found = []
    for path in sorted(root.glob(f"[!.]*/{CONFIG}")):
        try:
            found.append((path.parent, read_config(inside(root, path.parent.name))))
        except (CorruptError, NotSafeError, ResumeError) as error:
            warnings.warn(f"{error}; going on without it", stacklevel=2)
    return found


def all_runs(root: Path) -> list[Run]:
    """Return the runs in `root`, by name."""
    return [Run(folder, config) for folder, config in configs(root) if config["kind"] == "run"]


def config_of(experiment: Experiment, folds: Folds, tables: Tables) -> dict[str, Any]:
    """Return all that decides a run's result, as plain data, and one digest of it: `identity`."""
    decides: dict[str, Any] = {
        "schema": shapes.Config.newest,
        "kind": "run",
        "experiment": {
            "name": experiment_name(experiment),
            "class": type(experiment).__name__,
            "file": source_file(type(experiment)).name,
        },
        "fields": fields_of(experiment),
        "stages": [_stage(stage) for stage in experiment.checked_stages()],
        "metric": {"name": experiment.metric.name, "higher_is_better": experiment.metric.higher_is_better},
        "also": [metric.name for metric in experiment.also],
        "columns": {"id": experiment.id, "target": experiment.target},
        "folds": folds.plain(),
        "data": tables.digests(),
        "code": code_digest(experiment),
    }
    identity = digest_of({**decides, "fields": _deciding(decides)})
    return {**decides, "rows": len(folds.covered), "identity": identity}


def _deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a result depends on; the number of workers is none of them."""
    return {name: value for name, value in config["fields"].items() if name != "num_workers"}


def _stage(stage: Stage) -> dict[str, Any]:
    """A stage as plain data; a file that it starts from is named by its content too."""
    plain: dict[str, Any] = to_plain(stage)
    if stage.start not in ("last", "best", "average") and Path(stage.start).is_file():
        plain["start_sha256"] = digest_file(Path(stage.start))
    return plain


def _check_starts(config: Mapping[str, Any]) -> None:
    """Refuse a file to start from that is not there, before an earlier stage has trained for hours."""
    for stage in config["stages"]:
        if stage["start"] not in ("last", "best", "average") and "start_sha256" not in stage:
            raise ConfigError(
                f"stage {stage['name']!r}: start={stage['start']!r}: there is no such file, seen from {Path.cwd()};"
                " give 'last', 'best', 'average' or a file of weights"
            )


def check_same(run: Run, experiment: Experiment, folds: Folds, tables: Tables) -> None:
    """Refuse fields, stages, data or folds that are not those the run was made with; warn of other code.

    Raises
    ------
    ResumeError
        Listing every difference.

    """
    _resumed(run, config_of(experiment, folds, tables))


def _resumed(run: Run, config: Mapping[str, Any]) -> Run:
    then, now = ({**each, "fields": _deciding(each)} for each in (run.config, config))
    if differences := list(_differences(then, now)):
        raise ResumeError(
            f"{run.name} was made with something else than is here now.\n  "
            + "\n  ".join(differences)
            + "\nPut it back, or train a new run: batteries train"
        )
    if run.config["code"] != config["code"]:
        warnings.warn(f"{run.name} was begun with other code than the experiment has now", stacklevel=2)
    return run


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """A line for everything that decides a result and is not what it was."""
    yield from _changed("fields", then["fields"], now["fields"])
    yield from _other_stages(then["stages"], now["stages"])
    for key in ("metric", "columns"):
        yield from _changed(key, then[key], now[key])
    named = [{key: folds[key] for key in ("n", "strategy")} for folds in (then["folds"], now["folds"])]
    yield from _changed("folds", *named)
    if then["folds"] != now["folds"] and named[0] == named[1]:
        yield "folds: other rows are held out together than then"
    for key, method in (("train", "table()"), ("test", "test_table()")):
        before, after = then["data"][key], now["data"][key]
        if before != after:
            told = "gave None then" if before is None else "gives None now" if after is None else None
            yield f"data: {method} {told or 'gives other rows or values than then'}"


def _other_stages(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    names = [[stage["name"] for stage in stages] for stages in (then, now)]
    if names[0] != names[1]:
        yield _line(f"stages: {', '.join(names[0])} then, {', '.join(names[1])} now")
        return
    for number, (before, after) in enumerate(zip(then, now, strict=True)):
        where = f"stages[{number}] {after['name']!r}"
        plain = [{key: value for key, value in stage.items() if key != "start_sha256"} for stage in (before, after)]
        yield from _changed(where, *plain)
        if before["start"] == after["start"] and before.get("start_sha256") != after.get("start_sha256"):
            yield _line(f"{where}: the file it starts from is another one than then: {after['start']}")
        if before["epochs"] != after["epochs"]:
            yield f"{where}: the schedule is over all its epochs, so with others it is another run"


def _changed(where: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for key in dict.fromkeys([*then, *now]):
        if (before := then.get(key, _NOTHING)) != (after := now.get(key, _NOTHING)):
            yield _line(f"{where}: {key} {_short(before)} then, {_short(after)} now")


def _short(value: object) -> str:
    text = value if value is _NOTHING else repr(value)
    return text if len(text) <= 44 else f"{text[:41]}..."


def _line(text: str) -> str:
    return text if len(text) <= 118 else f"{text[:115]}..."


def changed_since(run: Run, root: Path) -> list[str]:
    """Return what changed on this machine since a run was begun, and can change results; one text each."""
    try:
        then = read_sealed(run.folder / "provenance.json")
    except CorruptError:
        return []
    return changed_versions(then, provenance(root.resolve().parent))


def unfinished_namesakes(run: Run) -> list[str]:
    """Earlier runs of the same experiment that never finished, and so may be what the user meant to go on with."""
    return [
        other.name
        for other in all_runs(run.folder.parent)
        if other.config["experiment"] == run.config["experiment"]
        and other.name != run.name
        and len(other.finished_folds()) < other.num_folds
    ]


def _names(root: Path) -> list[str]:
    return [run.name for run in all_runs(root)]


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"
