"""Survey: the whole study, from an experiment's tables to advice.

In:    an Experiment.
Out:   a Study.
Next:  `batteries study` prints the advice, `report` makes the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl

from batteries.experiment import Experiment
from batteries.experiment.load import experiment_name
from batteries.prepare.folds import describe as describe_folds
from batteries.prepare.study.advice import advise
from batteries.prepare.study.drift import drift_of
from batteries.prepare.study.facts import Drift, Examples, Role, Study
from batteries.prepare.study.groups import groups_of
from batteries.prepare.study.images import Moments, describe_images, examples_of, moments, pixels_of
from batteries.prepare.study.repeats import keys_of, repeats_of
from batteries.prepare.study.table import describe, describe_target, role_of
from batteries.prepare.table import test_table, training_table


def study(experiment: Experiment) -> Study:
    """Study the tables of an experiment: columns, target, repeated rows, images, groups, drift; and advise.

    Reads the tables and nothing else, and writes nothing. Columns of any type are accepted; what
    cannot be compared or counted is left out.

    >>> study(experiment).advice[0].line  # doctest: +SKIP
    'folds = bt.Stratified("label", n=5)'
    """
    train, test = training_table(experiment), test_table(experiment)
    id, target = experiment.id, experiment.target
    found = {
        name: images
        for name in train.columns
        if name not in (id, target) and (images := describe_images(train, test, name, id=id, target=target))
    }
    roles = _roles(train, experiment, dict.fromkeys(found, "image"))
    features = [name for name, role in roles.items() if role not in ("id", "target")]
    what = describe_target(train[target], experiment.classes)
    facts = Study(
        experiment=experiment_name(experiment),
        metric=experiment.metric.name,
        folds=None if experiment.folds is None else describe_folds(experiment.folds),
        classes=experiment.classes,
        train=describe(train, roles),
        test=None if test is None else describe(test, _roles(test, experiment, roles)),
        target=what,
        repeats=repeats_of(keys_of(train, features), train[id], train[target], _test_keys(test, features)),
        images=tuple(images for images, _ in found.values()),
        groups=groups_of(train, test, id=id, target=target),
        examples=_examples(train, list(found), target, by_class=what.kind == "classes"),
    )
    facts = replace(facts, drift=_drift(facts, train, test, {name: figures for name, (_, figures) in found.items()}))
    return replace(facts, advice=advise(facts))


def _roles(table: pl.DataFrame, experiment: Experiment, known: Mapping[str, Role]) -> dict[str, Role]:
    fixed: dict[str, Role] = {**known, experiment.id: "id", experiment.target: "target"}
    return {column.name: fixed.get(column.name) or role_of(column) for column in table}


def _test_keys(test: pl.DataFrame | None, features: list[str]) -> pl.DataFrame | None:
    known = test is not None and set(features) <= set(test.columns)
    return keys_of(test, features) if known and test is not None else None


def _examples(train: pl.DataFrame, columns: list[str], target: str, *, by_class: bool) -> tuple[Examples, ...]:
    return tuple(example for name in columns for example in examples_of(train, name, target, by_class=by_class))


def _drift(
    facts: Study, train: pl.DataFrame, test: pl.DataFrame | None, images: dict[str, Moments]
) -> tuple[Drift, ...]:
    """Compare the columns that both tables have, groups aside, and the brightness of images."""
    if test is None:
        return ()
    groups = {group.column for group in facts.groups}
    both = [c.name for c in facts.train.columns if c.name in test.columns and c.role not in ("id", "target", "image")]
    brightness = {}
    for name, figures in images.items():
        pixels = pixels_of(test[name]) if name in test.columns else None
        if pixels is not None:
            means = (figures.brightness, moments(pixels).brightness)
            brightness[f"{name} (mean of each image)"] = (
                means[0][np.isfinite(means[0])],
                means[1][np.isfinite(means[1])],
            )
    return drift_of(train, test, [name for name in both if name not in groups], more=brightness)
