"""Guess: id, target, task and metric of a folder of data, each with the reason for it.

In:    a Layout; what the user said.
Out:   Guesses, all that an experiment file needs.
Next:  `generate` writes the file, the command prints the reasons.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import floor, log10

import polars as pl

from batteries.errors import DataError, UsageError, some
from batteries.prepare.folder.layout import Layout, class_folders
from batteries.prepare.folder.roles import Roles, roles_of
from batteries.prepare.folder.tables import Pictures, Reason, Tables, Task
from batteries.prepare.study.groups import KNOWN, groups_of

METRICS: dict[str, tuple[str, ...]] = {
    "binary": ("auc", "accuracy", "log_loss", "f1", "mcc"),
    "classes": ("accuracy", "log_loss", "f1", "auc", "mcc", "qwk"),
    "labels": ("auc",),
    "number": ("rmse", "mae"),
    "numbers": ("rmse", "mae"),
}
"""Metrics that judge a task; the first unless the sample speaks for another."""


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """All that an experiment file needs to be written."""

    layout: Layout
    id: str
    numbered: tuple[str, ...] = ()
    """The tables whose rows have no id of their own, only their numbers."""
    targets: tuple[str, ...]
    task: Task
    classes: tuple[str, ...] = ()
    """Names; none where the target is 0, 1, ... already."""
    metric: str
    folds: str
    texts: frozenset[str] = frozenset()
    """Columns to be read as they are written."""
    rows: int
    """Of training."""
    outputs: int = 1
    """Columns of predictions."""
    dropped: int = 0
    """Training rows without a target."""
    centre: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    """Of number targets, in round figures."""
    roles: Roles = field(default_factory=Roles)
    images: Pictures | None = None
    test_has_target: bool = False
    reasons: tuple[Reason, ...] = ()

    @property
    def kind(self) -> str:
        """Which kind of model the experiment has."""
        return "images" if self.images else "table"


def guess(layout: Layout, *, target: Sequence[str] = (), id: str | None = None, metric: str | None = None) -> Guesses:
    """Guess what an experiment on the files of a folder is; what the user says is taken as it is.

    Raises
    ------
    DataError
        When no target can be told, ids are repeated or do not fit, or there is one class only.
    UsageError
        When a column or metric that the user names is none.

    """
    if layout.train is None:
        return _of_folders(layout, metric)
    files = Tables.of(layout)
    found_id, id_why = files.id(id)
    targets, wide, target_why = files.targets(tuple(target), found_id)
    task, classes, task_why = files.task(targets, wide)
    metric, metric_why = _metric(task, metric, files.likes(targets, wide))
    named = found_id or ("id" if "id" not in files.columns("train") + files.columns("test") else "row")
    texts = files.texts(found_id, targets if classes else ())
    files = replace(files, reads=texts)
    train = files.head("train").drop_nulls(list(targets))
    pictures = files.images(found_id)
    folds, folds_why, group = _folds(files, train, named, targets, task)
    seen = [name for name in files.features(found_id, targets) if name != group]
    roles = Roles() if pictures else roles_of(train, seen)
    if group and not pictures:
        roles = replace(roles, left_out={**roles.left_out, group: "its values are others when predictions are made"})
    if not (pictures or any(names for _, names, _ in roles.kinds())):
        left = "; ".join(f"{name}: {why}" for name, why in list(roles.left_out.items())[:4]) or "none is left"
        raise DataError(f"{layout.train}: no column to predict {targets[0]!r} from ({left}), and no images of its rows")
    centre, scale = zip(*(_spread(train[name]) for name in targets), strict=True) if "number" in task else ((), ())
    reasons = [
        *files.reasons(),
        Reason("id", found_id or "row number", id_why),
        Reason("target", ", ".join(targets), target_why),
        Reason("task", task if task != "classes" else f"{files.count(targets[0])} classes", task_why),
        Reason("metric", f"{metric}, {_way(metric)}", metric_why),
        Reason("folds", folds, folds_why),
        *_input_reasons(pictures, roles),
    ]
    return Guesses(
        layout=layout, id=named, numbered=files.numbered(named), targets=targets, task=task, classes=classes,
        rows=files.rows(), outputs=files.count(targets[0]) if task == "classes" else len(targets),
        metric=metric, folds=folds, texts=texts, dropped=files.without(targets), centre=centre, scale=scale,
        roles=roles, images=pictures, test_has_target=files.tested(targets), reasons=tuple(reasons),
    )  # fmt: skip


def _of_folders(layout: Layout, metric: str | None) -> Guesses:
    """Images in one folder a class."""
    train, test, labelled = class_folders(layout)
    inside = [path.relative_to(layout.folder) for path in layout.images]
    labels = [path.parent.name for path in inside if len(path.parts) > 1 and (not train or path.parts[0] == train)]
    classes = tuple(sorted(set(labels)))
    task: Task = "binary" if len(classes) == 2 else "classes"
    metric, why = _metric(task, metric, "classes")
    least = min(map(labels.count, classes))
    folds = f'bt.Stratified("label", n={min(5, least)})' if least > 1 else f"bt.KFold(n={min(5, len(labels))})"
    reasons = (
        Reason("training", f"{train or '.'}/CLASS/", f"{len(labels):,} images in {len(classes)} folders"),
        *([Reason("test", f"{test}/", "with classes" if labelled else "without classes")] if test else []),
        Reason("id", "path", "of the image below the folder"),
        Reason("target", "label", "name of the folder an image lies in"),
        Reason("task", task if task == "binary" else f"{len(classes)} classes", some(classes, 5)),
        Reason("metric", f"{metric}, {_way(metric)}", why),
        Reason("folds", folds, f"the rarest class has {least} images"),
    )
    return Guesses(
        layout=layout, id="id", targets=("label",), task=task, classes=classes, metric=metric, folds=folds,
        rows=len(labels), outputs=len(classes) if task == "classes" else 1, images=Pictures("path", train, test),
        test_has_target=labelled, reasons=reasons,
    )  # fmt: skip


def _metric(task: Task, said: str | None, likes: str) -> tuple[str, str]:
    if said is not None:
        if said not in METRICS[task]:
            raise UsageError(f"--metric {said}: none for the task {task}; choose one of {', '.join(METRICS[task])}")
        return said, "you said so"
    if task == "binary" and likes == "classes":
        return "accuracy", "the sample holds classes, not probabilities"
    if task == "classes" and likes == "probabilities":
        return "log_loss", "the sample asks for a probability of each class"
    told = "the sample holds numbers between classes" if likes == "probabilities" and task == "binary" else ""
    return METRICS[task][0], told or f"usual for the task ({', '.join(METRICS[task])})"


def _way(metric: str) -> str:
    return "lower is better" if metric in ("log_loss", "rmse", "mae") else "higher is better"


def _folds(
    files: Tables, train: pl.DataFrame, id: str, targets: tuple[str, ...], task: Task
) -> tuple[str, str, str | None]:
    """The folds that the study would advise, why, and the column whose groups they keep together."""
    test = None if files.layout.test is None else files.head("test")
    if test is not None and (later := _later(files, train.schema, test.schema)):
        return f"bt.TimeOrdered({_quoted(later)}, n=5)", "all test rows come after training", None
    for group in groups_of(train, test, id=id, target=targets[0]):
        if not group.missing and (group.in_test is None or group.in_test <= KNOWN):
            share = "" if group.in_test is None else f", {group.in_test:.0%} of test rows among them"
            why = f"{group.groups:,} values{share}: hold out whole groups"
            return f"bt.Grouped({_quoted(group.column)}, n={min(5, group.groups)})", why, group.column
    return *_plain_folds(train, targets, task), None


def _later(files: Tables, train: pl.Schema, test: pl.Schema) -> str | None:
    """The column of time after whose last training row every test row comes."""
    for name, dtype in train.items():
        if dtype.is_temporal() and test.get(name) == dtype:
            known, asked = files.column("train", name), files.column("test", name)
            if not known.null_count() and known.n_unique() > 5 and asked.min() >= known.max():  # type: ignore[operator]
                return name
    return None


def _plain_folds(train: pl.DataFrame, targets: tuple[str, ...], task: Task) -> tuple[str, str]:
    if task in ("binary", "classes"):
        rarest = int(train[targets[0]].value_counts()["count"].to_numpy().min())
        if rarest > 1:
            return f"bt.Stratified({_quoted(targets[0])}, n={min(5, rarest)})", f"the rarest class has {rarest:,} rows"
        return f"bt.KFold(n={min(5, len(train))})", "a class has a single row, which cannot be in every fold"
    return f"bt.KFold(n={min(5, len(train))})", "no column binds rows together"


def _input_reasons(pictures: Pictures | None, roles: Roles) -> Iterator[Reason]:
    if pictures:
        yield Reason("images", pictures.train, f"the files that {pictures.column!r} names; other columns are left out")
    for what, names, why in roles.kinds():
        if names:
            yield Reason(what, some(names, 4), why)
    for why in dict.fromkeys(roles.left_out.values()):
        yield Reason("left out", some([name for name, its in roles.left_out.items() if its == why], 4), why)


def _spread(column: pl.Series) -> tuple[float, float]:
    """Mean and deviation in two figures: any numbers near them do."""
    mean, deviation = float(column.cast(pl.Float64).mean() or 0.0), float(column.cast(pl.Float64).std() or 0.0)  # type: ignore[arg-type]
    return _round(mean), _round(deviation) or 1.0


def _round(value: float) -> float:
    return 0.0 if value == 0 else round(value, 1 - floor(log10(abs(value))))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
