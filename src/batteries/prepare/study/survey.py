"""Survey: the whole study, from tables to advice.

In:    an Experiment, or tables and the names of their columns.
Out:   a Study.
Next:  `batteries study` prints the advice, `report` makes the page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.errors import UsageError
from batteries.experiment import Experiment
from batteries.prepare.study.adversarial import adversarial_of
from batteries.prepare.study.advice import advise
from batteries.prepare.study.associations import MOST_COLUMNS, associations_of
from batteries.prepare.study.drift import drift_of
from batteries.prepare.study.facts import Column, Study, Target
from batteries.prepare.study.files import evenly
from batteries.prepare.study.findings import Ids
from batteries.prepare.study.given import Given, given_by, given_tables
from batteries.prepare.study.groups import KNOWN, groups_of
from batteries.prepare.study.labels import doubtful_classes, doubtful_numbers
from batteries.prepare.study.look import class_codes, look_at_files, look_at_pixels, look_at_texts, roles_of
from batteries.prepare.study.power import power_of_order, powers_of
from batteries.prepare.study.repeats import repeats_of
from batteries.prepare.study.table import describe, describe_target
from batteries.progress import Progress

SAMPLE = 100_000
"""Rows that single columns are compared on; the counts of a table are of all its rows."""
_CLOSELY = 20_000  # rows that columns are looked at together with the target or each other


def study(
    train: Any,
    test: Any = None,
    *,
    target: str | None = None,
    id: str | None = None,
    images: str | Sequence[str] | None = None,
    text: str | Sequence[str] | None = None,
    folder: Path | str = ".",
    oof: NDArray[Any] | None = None,
    show: bool = True,
) -> Study:
    """Study a training table, or those of an Experiment: what it holds, what is wrong with it, what to write.

    Writes nothing. Columns of any type are accepted; what cannot be compared is left out. Large tables are sampled
    where a closer look needs it; `Study.sampled` says how many rows were looked at.

    Parameters
    ----------
    train, test
        Tables of polars or pandas, or paths of CSV or Parquet files; or an Experiment alone.
    target, id
        Names of their columns. Without a target nothing is said about it; without an id rows are numbered.
    images
        Columns that hold paths of image files; found by the ends of the names if not said. Columns of arrays are
        looked at in any case.
    text
        Columns to study as texts, beside those that look like sentences.
    folder
        Where relative paths of files begin.
    oof
        Out-of-fold predictions of the training rows in their order, shape (n, classes) or (n,): rows whose label they
        contradict are named.
    show
        Whether progress is shown.

    Raises
    ------
    DataError
        When a table cannot be read, has no rows, or lacks a column that was named.

    >>> found = study("train.csv", "test.csv", target="label")  # doctest: +SKIP
    >>> found.advice[0].line  # doctest: +SKIP
    'folds = bt.Stratified("label", n=5)'

    """
    if isinstance(train, Experiment):
        if any(value is not None for value in (test, target, id, images, text)):
            raise UsageError("an Experiment says itself what its tables, target, id and files are; give it alone")
        given = given_by(train, oof, Path(folder))
    else:
        given = given_tables(train, test, target=target, id=id, images=images, text=text, folder=Path(folder), oof=oof)
    with np.errstate(over="ignore", invalid="ignore"):  # of values near the largest; figures that are none are left out
        return _study(given, show=show)


Look = Callable[[Given, Study], dict[str, Any]]


def _study(given: Given, *, show: bool) -> Study:
    facts = _tables(given)
    looks: dict[str, Look] = {
        "rows": _rows,
        "images": look_at_pixels,
        "files": look_at_files,
        "texts": look_at_texts,
        "groups": _groups,
        "power": _powers,
        "associations": _associations,
        "drift": _drift,
        "adversarial": _adversarial,
        "labels": _labels,
    }
    with Progress("study", total=len(looks), show=show) as progress:
        for name, look in looks.items():
            progress.note(name)
            facts = replace(facts, **look(given, facts))
            progress.advance()
    return replace(facts, advice=advise(facts))


def _tables(given: Given) -> Study:
    roles = roles_of(given, given.train)
    train = describe(given.train.drop(given.made_up), roles)
    test = None
    if given.test is not None:
        others = given.test.drop(given.made_up, strict=False)
        test = describe(others, {**roles_of(given, others), **{n: r for n, r in roles.items() if n in others.columns}})
    return Study(
        experiment=given.name,
        metric=given.metric,
        folds=given.folds,
        classes=given.classes,
        train=train,
        test=test,
        target=_target(given),
        repeats=None,
    )


def _target(given: Given) -> Target:
    if given.target in given.made_up:
        return Target(name=given.target, kind="none", type="", missing=0)
    return describe_target(given.train[given.target], given.classes)


def _rows(given: Given, facts: Study) -> dict[str, Any]:
    """Equal rows, and ids that name two."""
    train, test = given.train, given.test
    repeats = repeats_of(train, given.features, train[given.id], train[given.target], test)
    if given.id in given.made_up:
        return {"repeats": repeats}
    ids = train[given.id]
    twice = ids.filter(ids.is_duplicated()).unique(maintain_order=True)
    shared = None
    if test is not None and test[given.id].dtype == ids.dtype:
        shared = int(test[given.id].is_in(ids.unique().implode()).sum())
    first = tuple(twice.head(5).cast(pl.String).to_list())
    return {
        "repeats": repeats,
        "ids": Ids(name=given.id, repeated=len(ids) - ids.n_unique(), shared=shared, first=first),
    }


def _groups(given: Given, facts: Study) -> dict[str, Any]:
    known = {column.name for column in facts.train.columns if column.role in ("number", "category", "text")}
    train = given.train.select(name for name in given.train.columns if name in known | {given.id, given.target})
    return {"groups": groups_of(train, given.test, id=given.id, target=given.target)}


def _powers(given: Given, facts: Study) -> dict[str, Any]:
    some = _some(given.train, _CLOSELY)
    new = {group.column for group in facts.groups if group.in_test is None or group.in_test <= KNOWN}
    names = [c.name for c in _features(facts) if c.name not in new and c.role != "text"]
    spread = given.train[given.target].gather(evenly(np.arange(len(given.train)), _CLOSELY))
    found = {"powers": powers_of(some, names, given.target), "order": power_of_order(spread)}
    return {**found, **_sampled(facts, "single columns", some, given.train)}


def _features(facts: Study) -> list[Column]:
    """Columns that models could use as they are."""
    return [c for c in facts.train.columns if c.role in ("number", "category", "text") and not c.constant]


def _associations(given: Given, facts: Study) -> dict[str, Any]:
    """Of the most telling columns if there are too many."""
    order = [one.column for one in facts.powers] or [c.name for c in _features(facts) if c.role != "text"]
    kept = set(order[: MOST_COLUMNS - 1])
    names = [c.name for c in facts.train.columns if c.name in kept or c.role == "target"]
    some = _some(given.train, _CLOSELY)
    return {"associations": associations_of(some, names), **_sampled(facts, "associations", some, given.train)}


def _drift(given: Given, facts: Study) -> dict[str, Any]:
    """Compare the columns that both tables have, groups aside, and the brightness of images (found with them)."""
    if given.test is None:
        return {}
    groups = {group.column for group in facts.groups}
    names = [
        c.name
        for c in facts.train.columns
        if c.name in given.test.columns and c.role not in ("id", "target", "image") and c.name not in groups
    ]
    train, test = (_some(_independent(table, facts), SAMPLE) for table in (given.train, given.test))
    found = drift_of(train, test, names, more=facts.drift)
    return {"drift": found, **_sampled(facts, "drift", train, given.train)}


def _independent(table: pl.DataFrame, facts: Study) -> pl.DataFrame:
    """One row of each group where the test table has groups of its own: rows of one are no evidence of many."""
    new = next((g.column for g in facts.groups if g.in_test is not None and g.in_test <= KNOWN), None)
    return table if new is None else table.unique(new, keep="first", maintain_order=True)


def _adversarial(given: Given, facts: Study) -> dict[str, Any]:
    if given.test is None:
        return {}
    train, test = (_independent(table, facts) for table in (given.train, given.test))
    found = adversarial_of(train, test, facts.train.columns, facts.groups)
    if found is None:
        return {}
    seen = ("adversarial validation", found.train_rows, len(given.train))
    return {
        "adversarial": found,
        **({"sampled": (*facts.sampled, seen)} if found.train_rows < len(given.train) else {}),
    }


def _labels(given: Given, facts: Study) -> dict[str, Any]:
    if given.oof is None or facts.target.kind not in ("classes", "number"):
        return {}
    known = given.train[given.target].is_not_null().to_numpy()
    there = known & np.isfinite(given.oof.reshape(len(given.oof), -1)).all(axis=1)
    rows, oof = given.train.filter(there), given.oof[there].astype(np.float64)
    ids = rows[given.id].cast(pl.String).to_list()
    if facts.target.kind == "number":
        truth = rows[given.target].cast(pl.Float64).to_numpy()
        finite = np.isfinite(truth).all() and oof.size == len(ids)
        return {"labels": doubtful_numbers(truth, oof.ravel(), ids) if finite else None}
    codes, names = class_codes(rows[given.target], facts.target)
    if oof.size == len(ids):  # the probability of the second class
        oof = np.stack([1 - oof.ravel(), oof.ravel()], axis=1)
    fits = oof.shape[1] == len(names) and len(oof) and oof.min() >= 0 and oof.max() <= 1
    if codes is None or not fits or (codes < 0).any():
        return {}
    return {"labels": doubtful_classes(codes, oof, ids, names)}


def _some(table: pl.DataFrame, most: int) -> pl.DataFrame:
    return table if len(table) <= most else table.sample(most, seed=0)


def _sampled(facts: Study, what: str, some: pl.DataFrame, table: pl.DataFrame) -> dict[str, Any]:
    return {} if len(some) == len(table) else {"sampled": (*facts.sampled, (what, len(some), len(table)))}
