"""Look: the parts of a study that open images and texts.

In:    what was given, and the facts so far.
Out:   fields of the Study.
Next:  the survey joins them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteries.prepare.chance import look_alikes
from batteries.prepare.duplicates import Fingerprints, fingerprints
from batteries.prepare.study.changes import changes_of
from batteries.prepare.study.drift import drift_of_values
from batteries.prepare.study.facts import Drift, Examples, Images, Role, Study, Target
from batteries.prepare.study.files import Read, describe_files, evenly, read_files, small_copies
from batteries.prepare.study.findings import Change, Files, Near
from batteries.prepare.study.given import Given
from batteries.prepare.study.images import (
    SHEET_CLASSES,
    SHEET_IMAGES,
    describe_images,
    examples_of,
    layout_of,
    moments,
    pixels_of,
)
from batteries.prepare.study.table import role_of
from batteries.prepare.study.texts import MOST_ROWS, describe_texts, is_prose, near_of

MOST_IMAGES = 60_000
"""Images of one table that are compared with each other."""


def roles_of(given: Given, table: pl.DataFrame) -> dict[str, Role]:
    """Say what every column holds."""
    return {column.name: _role(given, column) for column in table}


def _role(given: Given, column: pl.Series) -> Role:
    if column.name in (given.id, given.target):
        return "id" if column.name == given.id else "target"
    if column.name in given.images or layout_of(column.dtype) is not None:
        return "image"
    if column.name in given.text:
        return "text"
    role = role_of(column)
    return "text" if role == "category" and _is_text(column) else role


def _is_text(column: pl.Series) -> bool:
    """Sentences, even where every one occurs twice: more different ones than categories have."""
    return column.dtype == pl.String and column.n_unique() > max(50, len(column) // 20) and is_prose(column)


def class_codes(column: pl.Series, target: Target) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """Return the class of every row in the order of prediction columns, -1 for none, and the names of all."""
    if target.kind != "classes":
        return None, ()
    labels = tuple(one.label for one in target.classes)
    names = labels if column.dtype.is_integer() or target.names is None else target.names
    places = {name: place for place, name in enumerate(names)}
    texts = column.cast(pl.String).to_list()
    return np.array([places.get(text, -1) for text in texts], dtype=np.int64), names


@dataclass(frozen=True)
class _Seen:
    """Images of both tables, however they are stored."""

    rows: NDArray[np.int64]
    prints: Fingerprints
    test: Fingerprints | None


def look_at_pixels(given: Given, facts: Study) -> dict[str, Any]:
    """Columns of arrays."""
    train, test = given.train, given.test
    images: list[Images] = []
    near: list[Near] = []
    changes: list[Change] = []
    drift: list[Drift] = []
    examples: list[Examples] = []
    for name in given.features:
        found = describe_images(train, test, name, id=given.id, target=given.target)
        if found is None:
            continue
        images.append(found[0])
        brightness = found[1].brightness
        seen = _seen_pixels(train, test, name)
        others = None if test is None or name not in test.columns else pixels_of(test[name])
        if others is not None:
            drift += _brightness(name, brightness, moments(others).brightness)
        near.append(_near(given, facts, name, seen))
        changes += _changes(given, facts, name, seen)
        examples += examples_of(train, name, given.target, by_class=facts.target.kind == "classes")
    return _joined(facts, images=images, near=near, changes=changes, drift=drift, examples=examples)


def look_at_files(given: Given, facts: Study) -> dict[str, Any]:
    """Columns of paths."""
    files: list[Files] = []
    near: list[Near] = []
    changes: list[Change] = []
    drift: list[Drift] = []
    examples: list[Examples] = []
    sampled: list[tuple[str, int, int]] = []
    ids = given.train[given.id].cast(pl.String).to_list()
    for name in given.images:
        read = read_files(given.train, name, given.folder)
        there = given.test is not None and name in given.test.columns
        other = read_files(given.test, name, given.folder) if there and given.test is not None else None
        test_ids = given.test[given.id].cast(pl.String).to_list() if given.test is not None else []
        files.append(describe_files(name, read, other, ids, test_ids))
        looked, all_ = len(read.pictures) + len(read.unreadable), len(given.train) - given.train[name].null_count()
        sampled += [(f"files of {name}", looked, all_)] if looked < all_ else []
        if not read.pictures:
            continue
        seen = _Seen(read.rows, read.fingerprints(), other.fingerprints() if other else None)
        if other is not None:
            drift += _brightness(name, read.brightness(), other.brightness())
        near.append(_near(given, facts, name, seen))
        changes += _changes(given, facts, name, seen)
        examples += _small_examples(given, facts, name, read)
    return _joined(facts, files=files, near=near, changes=changes, drift=drift, examples=examples, sampled=sampled)


def look_at_texts(given: Given, facts: Study) -> dict[str, Any]:
    """Columns of sentences."""
    found, sampled = [], []
    codes, _ = class_codes(given.train[given.target], facts.target)
    for column in facts.train.columns:
        if column.role != "text" or not (column.name in given.text or is_prose(given.train[column.name])):
            continue
        rows = evenly(np.arange(len(given.train)), MOST_ROWS)
        texts, ids = given.train[column.name].gather(rows), given.train[given.id].gather(rows).cast(pl.String).to_list()
        others = None
        if given.test is not None and column.name in given.test.columns:
            others = given.test[column.name].gather(evenly(np.arange(len(given.test)), MOST_ROWS))
        sampled += [(f"texts of {column.name}", len(rows), len(given.train))] if len(rows) < len(given.train) else []
        found.append(describe_texts(texts, others, ids, None if codes is None else codes[rows]))
    return _joined(facts, texts=found, sampled=sampled)


def _joined(facts: Study, **more: list[Any]) -> dict[str, Any]:
    return {name: (*getattr(facts, name), *found) for name, found in more.items()}


def _seen_pixels(train: pl.DataFrame, test: pl.DataFrame | None, name: str) -> _Seen:
    rows = evenly(np.flatnonzero(train[name].is_not_null().to_numpy()), MOST_IMAGES)
    pixels = pixels_of(train[name].gather(rows))
    assert pixels is not None
    others = None
    if test is not None and name in test.columns and test[name].dtype == train[name].dtype:
        some = evenly(np.flatnonzero(test[name].is_not_null().to_numpy()), MOST_IMAGES)
        others = pixels_of(test[name].gather(some))
    return _Seen(rows, fingerprints(pixels), None if others is None else fingerprints(others))


def _near(given: Given, facts: Study, name: str, seen: _Seen) -> Near:
    both = seen.prints
    if seen.test is not None:
        both = Fingerprints(
            np.concatenate([both.hashes, seen.test.hashes]), np.concatenate([both.pictures, seen.test.pictures])
        )
    codes, _ = class_codes(given.train[given.target], facts.target)
    ids = given.train[given.id].gather(seen.rows).cast(pl.String).to_list()
    labels = None if codes is None else codes[seen.rows]
    pairs, accidents = look_alikes(both)
    return replace(near_of(name, pairs, ids, labels, with_test=seen.test is not None), accidents=accidents)


def _changes(given: Given, facts: Study, name: str, seen: _Seen) -> tuple[Change, ...]:
    codes, _ = class_codes(given.train[given.target], facts.target)
    return () if codes is None else changes_of(name, seen.prints.pictures, codes[seen.rows])


def _brightness(name: str, train: NDArray[np.float64], test: NDArray[np.float64]) -> list[Drift]:
    pair = (values[np.isfinite(values)] for values in (train, test))
    drift = drift_of_values(f"{name} (mean of each image)", *pair)
    return [] if drift is None else [drift]


def _small_examples(given: Given, facts: Study, name: str, read: Read) -> list[Examples]:
    """Spread evenly over the rows, of every class if there are few."""
    codes, names = class_codes(given.train[given.target], facts.target)
    everywhere = np.arange(len(read.pictures))
    groups = {"all rows": everywhere}
    if codes is not None and len(facts.target.classes) <= SHEET_CLASSES:
        own = codes[read.rows]
        groups = {names[code]: everywhere[own == code] for code in np.unique(own[own >= 0])}
    each = SHEET_IMAGES if len(groups) > 1 else 4 * SHEET_IMAGES
    side = max(max(picture.small.shape[:2]) for picture in read.pictures)
    chosen = {label: evenly(rows, each) for label, rows in groups.items() if len(rows)}
    return [
        Examples(column=name, label=label, pixels=small_copies([read.pictures[row] for row in rows], side))
        for label, rows in chosen.items()
    ]
