"""Layout: which files of a folder of data are what.

In:    a folder as a competition ships it, of images by class, or with one table.
Out:   the training table, the test table and the sample submission; the images.
Next:  `guess` looks into them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from batteries.errors import DataError, some
from batteries.experiment.sealed import UNREADABLE

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})
_TABLES = (".csv", ".csv.gz", ".parquet", ".tsv")
_TEST = ("test", "valid", "val", "validation")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What lies in a folder."""

    folder: Path
    train: Path | None = None
    """A table; None where the images say all."""
    test: Path | None = None
    sample: Path | None = None
    images: tuple[Path, ...] = field(default=(), repr=False)
    """All image files below the folder, sorted."""


def find_layout(folder: Path) -> Layout:
    """Find the files in `folder` and below. Raises DataError when there is nothing to learn from, or a choice."""
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}; give one with train.csv, one table, or images by class")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    tables = [path for path in files if path.name.lower().endswith(_TABLES)]
    images = tuple(path for path in files if path.suffix.lower() in IMAGES)
    named = {what: _named(tables, what) for what in ("train", "test")}
    named["sample"] = _named(tables, "sample") or _named(tables, "submission")
    if named["train"] is None and (rest := [path for path in tables if path not in named.values()]):
        if len(rest) > 1:
            raise DataError(
                f"{folder} has {len(rest)} tables ({some([path.name for path in rest], 4)}) and none is named train;"
                " rename one train.csv or train.parquet, or leave one only"
            )
        named["train"] = rest[0]
    if named["train"] is None and not images:
        held = some([path.name for path in files], 4) if files else "nothing"
        raise DataError(
            f"{folder} has no table and no images to learn from (it holds {held}); wanted: {', '.join(_TABLES)}"
        )
    return Layout(folder=folder, images=images, **named)


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _named(tables: list[Path], what: str) -> Path | None:
    """The table nearest to the folder itself whose name begins or ends with a word, in any case."""
    fits = [path for path in tables if stem_of(path).startswith(what) or stem_of(path).endswith(what)]
    fits.sort(key=lambda path: (len(path.parts), len(path.name), path.name))
    return fits[0] if fits else None


def stem_of(path: Path) -> str:
    """`train` of `Train.csv.gz`."""
    return path.name.lower().partition(".")[0]


def schema_of(path: Path) -> pl.Schema:
    """Names and types of the columns of a table; of a CSV from all its rows. Raises DataError for what is no table."""
    try:
        if _is_parquet(path):
            return pl.scan_parquet(path, glob=False).collect_schema()
        whole = pl.scan_csv(
            path, separator=_separator(path), infer_schema_length=None, try_parse_dates=True, glob=False
        )
        return whole.collect_schema()
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a table ({str(error).splitlines()[0]})") from error


def scan(path: Path, schema: pl.Schema, *, texts: frozenset[str] = frozenset()) -> pl.LazyFrame:
    """Read a table lazily; columns in `texts` as they are written."""
    if _is_parquet(path):
        return pl.scan_parquet(path, glob=False).with_columns(
            pl.col(name).cast(pl.String) for name in schema if name in texts
        )
    types = {name: pl.String() if name in texts else type for name, type in schema.items()}
    return pl.scan_csv(path, separator=_separator(path), schema=types, try_parse_dates=True, glob=False)


def _is_parquet(path: Path) -> bool:
    return path.name.lower().endswith(".parquet")


def _separator(path: Path) -> str:
    return "\t" if path.name.lower().endswith(".tsv") else ","


def class_folders(layout: Layout) -> tuple[str, str | None, bool]:
    """The part of the folder to train on (empty: all of it), that to test on, and whether that has classes too.

    Raises
    ------
    DataError
        When the images do not lie in one folder a class.

    """
    inside = [path.relative_to(layout.folder).parts for path in layout.images]
    tops = {parts[0].lower(): parts[0] for parts in inside if len(parts) > 1}
    train = tops.get("train") or tops.get("training") or ""
    test = next((tops[name] for name in _TEST if name in tops), None) if train else None
    classes = {parts[-2] for parts in _below(inside, train)}
    if len(classes) < 2:
        raise DataError(
            f"{layout.folder} has {len(inside):,} images in {len(classes)} folders of classes; put those of each class"
            " in a folder with its name, or add a train.csv with a column for them"
        )
    return train, test, test is not None and all(parts[-2] in classes for parts in _below(inside, test))


def _below(inside: list[tuple[str, ...]], part: str) -> Iterator[tuple[str, ...]]:
    """The paths in a part of the folder that have a folder of their own in it; all of them under a name for none."""
    for parts in inside:
        if parts[0] == part if part else len(parts) > 1:
            yield parts


def image_of(layout: Layout, names: list[str], part: str) -> str | None:
    """The pattern that makes image paths below the folder of names, such as `train/{}.png`; None if there is none."""
    wanted = set(names)
    patterns: Counter[str] = Counter()
    for path in layout.images:
        where = path.relative_to(layout.folder)
        for name, end in ((path.name, ""), (path.stem, path.suffix)):
            if name in wanted:
                patterns[(where.parent / "{}").as_posix() + end] += 1
        if where.as_posix() in wanted and len(where.parts) > 1:
            patterns["{}"] += 1
    fits = [pattern for pattern, count in patterns.items() if count >= 0.9 * len(wanted)]
    return max(fits, key=lambda pattern: (part in pattern.lower(), patterns[pattern]), default=None)
