"""Real data as people have it: folders of tables and images, made from what scikit-learn and Batteries ship."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image
from sklearn.datasets import load_diabetes, load_digits, load_wine


def wine(folder: Path) -> Path:
    """A competition: three cultivars by name, ids with zeros before them, a column with holes, one of categories."""
    folder.mkdir()
    data = load_wine()
    names = [name.replace("/", "_") for name in data.feature_names]
    table = pl.DataFrame(dict(zip(names, data.data.T, strict=True))).with_columns(
        bottle=pl.Series([f"{row:04}" for row in range(178)]),
        colour=pl.Series(np.where(data.data[:, 9] > 5, "deep", "light")),
        cultivar=pl.Series([f"class_{name}" for name in data.target]),
        ash=pl.when(pl.int_range(178) % 9 == 0).then(None).otherwise(pl.Series(data.data[:, 2])),
    )
    held_out = pl.int_range(178) % 4 == 0
    table.filter(~held_out).write_csv(folder / "Train.csv")
    test = table.filter(held_out).drop("cultivar")
    test.write_csv(folder / "Test.csv")
    test.select("bottle", cultivar=pl.lit("class_0")).write_csv(folder / "sample_submission.csv")
    return folder


def diabetes(folder: Path) -> Path:
    """One Parquet file; the last column is a number."""
    folder.mkdir()
    data = load_diabetes(scaled=False)
    table = pl.DataFrame(dict(zip(data.feature_names, data.data.T, strict=True))).with_columns(progress=data.target)
    table.write_parquet(folder / "patients.parquet")
    return folder


def digits_by_class(folder: Path, *, rows: int = 250) -> Path:
    """train/0/12.png, ...; test/ without classes."""
    data = load_digits()
    for row, (image, label) in enumerate(zip(data.images[:rows], data.target[:rows], strict=True)):
        place = folder / "test" if row % 5 == 0 else folder / "train" / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(place / f"{row}.png")
    return folder


def digits_by_id(folder: Path, *, rows: int = 400) -> Path:
    """train.csv with ids and a 0/1 label, images train/ID.png and test/ID.png, a sample of 0.5."""
    data = load_digits()
    names = [f"{row:05}" for row in range(rows)]
    for row, image in enumerate(data.images[:rows]):
        place = folder / ("test" if row % 5 == 0 else "train")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(place / f"{names[row]}.png")
    table = pl.DataFrame({"image_id": names, "is_round": np.isin(data.target[:rows], [0, 6, 8, 9]).astype(int)})
    held_out = pl.int_range(rows) % 5 == 0
    table.filter(~held_out).write_csv(folder / "train.csv")
    test = table.filter(held_out).select("image_id")
    test.write_csv(folder / "test.csv")
    test.with_columns(is_round=pl.lit(0.5)).write_csv(folder / "sample_submission.csv")
    return folder


def digits_labels(folder: Path) -> Path:
    """Several labels a row: what the figure on each image of digits is, all as columns of 0 and 1."""
    folder.mkdir()
    pixels, figures = load_digits(return_X_y=True)
    pixels, figures = pixels[:600], figures[:600]
    table = pl.DataFrame(pixels.astype(np.int64), schema=[f"p{place}" for place in range(64)]).with_columns(
        Id=pl.int_range(len(pixels)),
        even=pl.Series((figures % 2 == 0).astype(int)),
        large=pl.Series((figures > 4).astype(int)),
        round=pl.Series(np.isin(figures, [0, 6, 8, 9]).astype(int)),
    )
    held_out = pl.int_range(len(table)) % 4 == 0
    labels = ["even", "large", "round"]
    table.filter(~held_out).write_parquet(folder / "train.parquet")
    test = table.filter(held_out).drop(labels)
    test.write_parquet(folder / "test.parquet")
    test.select("Id", *(pl.lit(0.5).alias(name) for name in labels)).write_csv(folder / "sampleSubmission.csv")
    return folder


def docstrings(folder: Path) -> Path:
    """Texts: first paragraphs of docstrings of two libraries, one CSV file."""
    import sys

    import batteries.prepare

    template = Path(batteries.prepare.__file__).parent / "templates" / "text"
    sys.path.insert(0, str(template))
    try:
        import docstrings as source

        source.LIBRARIES = ("numpy", "polars")
        table = source.docstrings(test=True)
    finally:
        sys.path.remove(str(template))
        sys.modules.pop("docstrings", None)
    folder.mkdir()
    table.select("text", "library").write_csv(folder / "docs.csv")
    return folder
