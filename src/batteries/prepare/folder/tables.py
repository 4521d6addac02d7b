"""Tables: id, target and task of the tables of a folder, looked at lazily.

In:    a Layout.
Out:   names and kinds, each with the reason for it.
Next:  `guess` puts them together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from batteries.errors import DataError, UsageError, some
from batteries.prepare.folder.layout import Layout, image_of, scan, schema_of, stem_of

Task = Literal["binary", "classes", "labels", "number", "numbers"]
_TARGETS = ("target", "label", "class", "y", "category", "species", "outcome")
_MOST_CLASSES = 30
_ROWS = 100_000
"""Rows that are looked at to tell what columns hold."""


@dataclass(frozen=True)
class Reason:
    """One thing that was guessed, and why."""

    what: str
    guess: str
    why: str


@dataclass(frozen=True)
class Pictures:
    """Where the images of the rows lie: patterns below the folder, such as `train/{}.png`, or folders of classes."""

    column: str
    """Its values stand in the patterns."""
    train: str
    test: str | None


@dataclass(frozen=True)
class Tables:
    """The tables of a layout, looked at lazily."""

    layout: Layout
    schemas: Mapping[str, pl.Schema]
    """Of `train`, `test` and `sample`, those there are."""
    reads: frozenset[str] = frozenset()
    """Columns that are read as they are written."""

    @classmethod
    def of(cls, layout: Layout) -> Tables:
        """The tables of a layout; the types of their columns are found once."""
        paths = {"train": layout.train, "test": layout.test, "sample": layout.sample}
        return cls(layout, {part: schema_of(path) for part, path in paths.items() if path is not None})

    def lazy(self, part: str) -> pl.LazyFrame:
        """A table of the layout: `train`, `test` or `sample`."""
        return scan(getattr(self.layout, part), self.schemas[part], texts=self.reads)

    def head(self, part: str) -> pl.DataFrame:
        """Its first rows."""
        return self.lazy(part).head(_ROWS).collect()

    def columns(self, part: str) -> list[str]:
        """Names of its columns; none where there is no such table."""
        return list(self.schemas.get(part, ()))

    def column(self, part: str, name: str) -> pl.Series:
        """One whole column."""
        return self.lazy(part).select(name).collect().to_series()

    def id(self, said: str | None) -> tuple[str | None, str]:
        """The column that names rows, and why; None where none does."""
        train = self.columns("train")
        if not train:
            raise DataError(f"{self.layout.train}: has no columns")
        if said is not None:
            _among(said, train, "--id")
            self._check_unique(said)
            return said, "you said so"
        if (sample := self.columns("sample")) and sample[0] in train:
            self._check_unique(sample[0])
            return sample[0], "first column of the sample, another value in every training row"
        if sample and sample[0] in self.columns("test"):
            self._check_sample(sample[0])
            return sample[0], "first column of the sample; training rows have none and are numbered"
        for name in train:
            if name.lower() == "id" or name.lower().endswith(("_id", " id")) or name.endswith("Id"):
                column = self.column("train", name)
                both = self.layout.test is None or name in self.columns("test")
                if both and not column.null_count() and column.n_unique() == len(column):
                    return name, "named like one, another value in every row"
        return None, "no column has another value in every row and a name like id"

    def _check_unique(self, name: str) -> None:
        column = self.column("train", name)
        if column.n_unique() < len(column):
            twice = column.filter(column.is_duplicated()).unique(maintain_order=True)
            raise DataError(
                f"{self.layout.train}: {len(twice)} values of {name!r} occur more than once (first:"
                f" {twice.head(3).to_list()}); make them unique, or name another column: --id COLUMN"
            )
        for part in ("test", "sample"):
            if name not in self.columns(part) and part == "test" and self.layout.test:
                raise DataError(f"{self.layout.test}: has no id column {name!r}; name another: --id COLUMN")
        if self.layout.test and self.layout.sample and name in self.columns("sample"):
            self._check_sample(name)

    def _check_sample(self, name: str) -> None:
        asked = set(self.column("sample", name).cast(pl.String).to_list())
        given = set(self.column("test", name).cast(pl.String).to_list())
        if asked != given:
            raise DataError(
                f"{self.layout.sample} asks for {len(asked)} ids, {self.layout.test} has {len(given)},"
                f" {len(asked & given)} in both; the files are not of one competition, or --id names another column"
            )

    def targets(self, said: tuple[str, ...], id: str | None) -> tuple[tuple[str, ...], tuple[str, ...], str]:
        """The columns to predict; the sample's columns where they are the classes of one; and why."""
        train, test, sample = self.columns("train"), self.columns("test"), self.columns("sample")
        for name in said:
            _among(name, train, "--target")
        asked = tuple(name for name in sample[1:] if name in train and name not in test)
        free = [name for name in train if name not in test and name != id]
        if said:
            return said, self._classes_of(said[0], sample[1:]), "you said so"
        if asked:
            return asked, (), "in the sample and in training, not in test"
        for name in free if sample else ():
            if wide := self._classes_of(name, sample[1:]):
                return (name,), wide, "its values are the columns of the sample"
        if test and len(free) == 1:
            return (free[0],), (), "in training, not in test"
        likely = [name for name in free if name.lower() in _TARGETS]
        if likely:
            return (likely[-1],), (), "named like one"
        if not test and free:
            return (free[-1],), (), "the last column"
        raise DataError(
            f"{self.layout.folder}: no target found: training has {some(train, 8)}; test has {some(test, 8)};"
            " say which: --target COLUMN"
        )

    def _classes_of(self, name: str, columns: Sequence[str]) -> tuple[str, ...]:
        if len(columns) < 2:
            return ()
        values = set(self.column("train", name).drop_nulls().cast(pl.String).unique().to_list())
        return tuple(columns) if values == set(columns) else ()

    def task(self, targets: tuple[str, ...], wide: tuple[str, ...]) -> tuple[Task, tuple[str, ...], str]:
        """What kind of thing is predicted, the names of classes where codes need them, and why."""
        if len(targets) > 1:
            columns = [self.column("train", name).drop_nulls() for name in targets]
            if any(not (c.dtype.is_numeric() or c.dtype == pl.Boolean) for c in columns):
                raise DataError(f"{len(targets)} target columns hold texts; say which to learn: --target COLUMN")
            yes_no = all(set(column.unique().to_list()) <= {0, 1} for column in columns)
            return (
                ("labels" if yes_no else "numbers"),
                (),
                f"{len(targets)} columns of {'0 and 1' if yes_no else 'numbers'}",
            )
        values = self.column("train", targets[0]).drop_nulls()
        different = values.unique().sort()
        if not len(different):
            raise DataError(f"{self.layout.train}: column {targets[0]!r} has no values; the table needs rows with them")
        if len(different) < 2:
            raise DataError(f"column {targets[0]!r} has {len(different)} different values; there is nothing to learn")
        if wide:
            return "classes", wide, f"{len(wide)} columns in the sample"
        texts = values.dtype in (pl.String, pl.Boolean, pl.Categorical, pl.Enum)
        if not texts and not values.dtype.is_numeric():
            raise DataError(f"column {targets[0]!r} holds {values.dtype}, which is no target; --target COLUMN")
        if not texts and not (_whole(values) and len(different) <= _MOST_CLASSES):
            return "number", (), f"{len(different):,} different numbers"
        if not texts and len(different) > 2 and self._fractions(targets[0]):
            return "number", (), "the sample holds numbers between the values"
        if texts and len(different) > len(values) // 2:
            raise DataError(
                f"column {targets[0]!r} has {len(different):,} different texts in {len(values):,} rows; --target COLUMN"
            )
        plain = not texts and values.dtype.is_integer() and different.to_list() == list(range(len(different)))
        names = () if plain else self._names(targets[0], by_number=not texts)
        why = f"{len(different)} different values in {len(values):,} rows"
        return ("binary" if len(different) == 2 else "classes"), names, why

    def _names(self, target: str, *, by_number: bool) -> tuple[str, ...]:
        """Classes as the file writes them, in the order of their values."""
        written = replace(self, reads=frozenset({target})).column("train", target)
        return tuple(sorted(written.drop_nulls().unique().to_list(), key=float if by_number else None))

    def _fractions(self, target: str) -> bool:
        return target in self.columns("sample") and not _whole(self.column("sample", target))

    def likes(self, targets: tuple[str, ...], wide: tuple[str, ...]) -> str:
        """What the sample asks for: `probabilities`, `classes`, or nothing that can be told."""
        if self.layout.sample is None:
            return ""
        if wide:
            return "probabilities"
        name = targets[0] if targets[0] in self.columns("sample") else self.columns("sample")[-1]
        return "probabilities" if self.column("sample", name).dtype.is_float() else "classes"

    def texts(self, id: str | None, targets: tuple[str, ...]) -> frozenset[str]:
        """Columns to be read as they are written: classes with names, and ids that numbers would change."""
        names = set(targets)
        if id is not None and self._written_otherwise(id):
            names.add(id)
        return frozenset(names)

    def _written_otherwise(self, id: str) -> bool:
        for part in ("train", "test", "sample"):
            if id in self.columns(part):
                number = self.column(part, id)
                written = replace(self, reads=frozenset({id})).column(part, id)
                if not number.dtype.is_integer() or (number.cast(pl.String) != written).any():
                    return True
        return False

    def rows(self) -> int:
        """Training rows."""
        return int(self.lazy("train").select(pl.len()).collect().item())

    def numbered(self, id: str) -> tuple[str, ...]:
        """The tables that have no such column."""
        return tuple(part for part in ("train", "test") if (has := self.columns(part)) and id not in has)

    def without(self, targets: tuple[str, ...]) -> int:
        """Training rows that lack a target."""
        return int(self.lazy("train").select(pl.any_horizontal(pl.col(targets).is_null()).sum()).collect().item())

    def tested(self, targets: tuple[str, ...]) -> bool:
        """Whether the test table has the targets."""
        return set(targets) <= set(self.columns("test"))

    def count(self, target: str) -> int:
        """Classes there are."""
        return self.column("train", target).drop_nulls().n_unique()

    def features(self, id: str | None, targets: tuple[str, ...]) -> list[str]:
        """Columns that may be looked at to predict: those that test has too."""
        both = set(self.columns("test")) or set(self.columns("train"))
        return [name for name in self.columns("train") if name in both and name != id and name not in targets]

    def images(self, id: str | None) -> Pictures | None:
        """The images of the two tables, and the column that names them: the id, or one of texts."""
        train, test = self.columns("train"), self.columns("test")
        if not self.layout.images:
            return None
        texts = [name for name, type in self.head("train").schema.items() if type == pl.String and name != id]
        for name in ([id] if id in train else []) + texts:
            assert name is not None
            where = image_of(self.layout, self._written("train", name), "train")
            if where is not None and not test:
                return Pictures(name, where, None)
            if where is not None and name in test:
                held_out = image_of(self.layout, self._written("test", name), "test")
                return None if held_out is None else Pictures(name, where, held_out)
        return None

    def _written(self, part: str, name: str) -> list[str]:
        return self.column(part, name).drop_nulls().cast(pl.String).to_list()

    def reasons(self) -> Iterator[Reason]:
        """What each file was taken for."""
        for part, what in (("train", "training"), ("test", "test"), ("sample", "sample")):
            if (path := getattr(self.layout, part)) is not None:
                why = "by its name" if part in stem_of(path) or part == "sample" else "the only table"
                why += f"; columns: {len(self.columns(part))}"
                yield Reason(what, path.relative_to(self.layout.folder).as_posix(), why)


def _whole(values: pl.Series) -> bool:
    return values.dtype.is_integer() or bool((values == values.cast(pl.Float64).round()).all())


def _among(name: str, columns: Sequence[str], option: str) -> None:
    if name not in columns:
        raise UsageError(f"{option} {name}: the training table has no such column; it has {some(columns, 12)}")
