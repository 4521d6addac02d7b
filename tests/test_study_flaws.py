"""The study names every flaw that was planted into real tables, and nothing in the originals."""

from __future__ import annotations

import gzip
import inspect
from collections.abc import Callable
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from batteries.prepare.duplicates import groups_of_pairs, near_texts
from batteries.prepare.study import Advice, Study
from batteries.prepare.study.adversarial import adversarial_of
from batteries.report.study import StudyReport, study

FASHION = Path("/usr/share/datasets/fashion-mnist")
needs_fashion = pytest.mark.skipif(not FASHION.exists(), reason="Debian's dataset-fashion-mnist is not installed")
Tables = tuple[pl.DataFrame, pl.DataFrame]


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def loaded(name: str) -> pl.DataFrame:
    from sklearn import datasets

    data = getattr(datasets, f"load_{name}")()
    if name == "digits":
        table = pl.DataFrame({"pixels": data.images.astype("uint8")})
    else:
        table = pl.DataFrame(data.data, schema=[str(column) for column in data.feature_names])
    table = table.with_columns(target=pl.Series(data.target)).with_row_index("id")
    return table.sample(fraction=1, shuffle=True, seed=0)


def halves(table: pl.DataFrame, share: float = 0.7) -> Tables:
    cut = int(len(table) * share)
    return table[:cut], table[cut:]


def look(train: pl.DataFrame, test: pl.DataFrame | None = None, **more: object) -> StudyReport:
    return study(train, test, target="target", show=False, **more)  # type: ignore[arg-type]


def about(found: Study, flaw: str) -> Advice:
    advice = [advice for advice in found.advice if advice.flaw == flaw]
    assert len(advice) == 1, found
    return advice[0]


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes", "digits"])
def test_nothing_is_wrong_with_the_originals(name: str) -> None:
    train, test = halves(loaded(name))
    assert look(train, test.drop("target")).flaws == ()


def test_copies_under_new_ids_are_named() -> None:
    train, test = halves(loaded("breast_cancer"))
    copies = train[:12].with_columns(pl.col("id") + 10_000)
    found = look(pl.concat([train, copies]).sample(fraction=1, shuffle=True, seed=1), test)
    assert found.flaws == ("duplicates",)
    assert "12 of 410 training rows repeat an earlier row" in about(found, "duplicates").why


def test_copies_in_a_table_of_few_values_are_told_from_accidents() -> None:
    iris = loaded("iris")
    copies = iris[:10].with_columns(pl.col("id") + 10_000)
    assert look(pl.concat([iris, copies])).flaws == ("duplicates",)
    assert look(iris).repeats == look(iris).repeats
    repeats = look(iris).repeats
    assert repeats is not None
    assert (repeats.repeated, repeats.by_accident) == (1, True), "two of Fisher's flowers are equal"


def test_rows_of_training_in_the_test_table_are_named() -> None:
    train, test = halves(loaded("wine"))
    test = pl.concat([test, train[:6].with_columns(pl.col("id") + 10_000)])
    found = look(train, test.drop("target"))
    assert found.flaws == ("shared with test",)
    assert "6 of 60 test rows equal a training row" in about(found, "shared with test").why


def test_ids_that_name_two_rows_are_named() -> None:
    table = loaded("wine")
    table = table.with_columns(pl.when(pl.col("id") < 4).then(50).otherwise("id").alias("id"))
    assert "4 of 178 rows have an id that occurred before" in about(look(table), "repeated ids").why


def visits() -> Tables:
    """Each patient of the diabetes table measured five times, the test table of other patients."""
    table = loaded("diabetes").with_columns(patient=pl.Series(random().permutation(9000)[:442] + 1000))
    repeated = pl.concat([table] * 5).drop("id").sample(fraction=1, shuffle=True, seed=0)
    features = [name for name in repeated.columns if name not in ("target", "patient")]
    noise = random(1).normal(size=(len(repeated), len(features))) * 0.004
    repeated = repeated.with_columns(
        *(pl.col(name) + pl.Series(noise[:, place]) for place, name in enumerate(features)),
        target=pl.col("target") + pl.Series(random(2).normal(size=len(repeated))),
    ).with_row_index("id")
    new = repeated["patient"].unique(maintain_order=True)[:100]
    inside = repeated["patient"].is_in(new.implode())
    return repeated.filter(~inside), repeated.filter(inside)


def test_patients_of_several_rows_are_named_with_the_folds_they_need() -> None:
    train, test = visits()
    found = look(train, test.drop("target"))
    assert found.flaws == ("groups",)
    advice = about(found, "groups")
    assert advice.line == 'folds = bt.Grouped("patient", n=5)'
    assert "no test row is of a group that occurs in training" in advice.why
    assert found.adversarial is not None
    assert ("patient", "a group") in found.adversarial.excluded


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "diabetes"])
def test_a_column_made_of_the_target_is_named(name: str) -> None:
    table = loaded(name)
    target = table["target"].cast(pl.Float64).to_numpy()
    wrong = random(3).random(len(target)) < 0.01
    copied = np.where(wrong, random(4).permutation(target), target) * 2 + random(5).normal(size=len(target)) * 0.05
    found = look(table.with_columns(code=pl.Series(copied)))
    assert found.flaws == ("leak",)
    assert about(found, "leak").line == 'table = table.drop("code")'
    assert found.powers[0].column == "code"


def test_a_value_that_is_missing_where_the_target_is_one_leaks() -> None:
    table = loaded("breast_cancer").with_columns(
        pl.when(pl.col("target") == 1).then(None).otherwise("mean texture").alias("mean texture")
    )
    assert about(look(table), "leak").line == 'table = table.drop("mean texture")'


def test_a_test_column_that_drifted_is_named_first() -> None:
    train, test = halves(loaded("breast_cancer"))
    moved = test.with_columns(pl.col("mean smoothness") + train["mean smoothness"].std())
    found = look(train, moved.drop("target"))
    assert found.flaws == ("drift",)
    assert about(found, "drift").line.startswith('table = table.drop("mean smoothness"')
    assert found.adversarial is not None
    assert found.adversarial.auc > 0.85
    assert found.adversarial.columns[0].column == "mean smoothness"
    assert found.adversarial.p_value == 0.001
    assert next(drift for drift in found.drift if drift.clear).column == "mean smoothness"


def test_a_drift_that_no_single_column_shows_is_found_by_the_classifier() -> None:
    x = random(6).normal(size=(3000, 4))
    train, test = x[:2000].copy(), x[2000:]
    test[:, 1] = 0.9 * test[:, 0] + np.sqrt(1 - 0.9**2) * test[:, 1]
    tables = [pl.DataFrame(part, schema=["a", "b", "c", "d"]) for part in (train, test)]
    found = study(*tables, show=False)
    assert not any(drift.clear for drift in found.drift)
    assert found.flaws == ("drift",)
    assert found.adversarial is not None
    assert {one.column for one in found.adversarial.columns[:2]} == {"a", "b"}


def test_random_splits_are_told_apart_no_more_than_chance_allows() -> None:
    found = []
    wine = loaded("wine")
    columns = look(wine).train.columns
    for seed in range(15):
        train, test = halves(wine.sample(fraction=1, shuffle=True, seed=seed), 0.6)
        one = adversarial_of(train, test, columns, ())
        assert one is not None
        found.append(one)
    assert abs(np.mean([one.auc for one in found]) - 0.5) < 0.03
    inside = sum(one.band[0] <= np.mean(one.folds) <= one.band[1] for one in found)
    assert inside >= 12  # 14.25 expected; 11 or fewer in 0.5 % of such samples
    assert np.mean([one.p_value for one in found]) == pytest.approx(0.5, abs=0.25)
    assert not any(one.clear for one in found)


def test_the_auc_is_that_of_scikit_learn_on_the_same_labels() -> None:
    from scipy.stats import mannwhitneyu

    train, test = halves(loaded("wine"))
    facts = look(train, test).train.columns
    found = adversarial_of(train, test.with_columns(pl.col("ash") * 1.05), facts, ())
    assert found is not None
    assert np.mean(found.folds) == pytest.approx(found.auc, abs=0.05), "pooled and per fold tell the same"
    n, m = len(train), len(test)
    deviation = np.sqrt((n + m + 1) / (12 * n * m))  # of a Mann-Whitney AUC without ties, all rows pooled
    assert (found.band[1] - found.band[0]) / (2 * 1.96 * deviation) == pytest.approx(1, abs=0.2)
    assert mannwhitneyu(test["ash"] * 1.05, train["ash"]).pvalue < 0.05


def test_ids_dates_and_the_order_of_rows_are_not_shown_to_the_classifier() -> None:
    train, test = halves(loaded("wine"))
    start = date(2024, 1, 1)
    days = [start + timedelta(int(day)) for day in random().integers(0, 100, len(train) + len(test))]
    whole = pl.concat([train, test]).with_columns(day=pl.Series(days), line=pl.int_range(pl.len()))
    found = look(whole[: len(train)], whole[len(train) :])
    assert found.adversarial is not None
    assert dict(found.adversarial.excluded) == {
        "id": "id",
        "day": "a time",
        "line": "rises or falls with the place in the table",
    }
    assert not found.adversarial.clear


def test_a_test_table_of_later_days_asks_for_folds_in_the_order_of_time() -> None:
    table = loaded("diabetes")
    days = [date(2024, 1, 1) + timedelta(row // 4) for row in range(len(table))]
    train, test = halves(table.with_columns(day=pl.Series(days)))
    lines = [advice.line for advice in look(train, test).advice]
    assert 'folds = bt.TimeOrdered("day", n=5)' in lines


def mislabelled(share: float) -> tuple[pl.DataFrame, NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.model_selection import cross_val_predict

    table = loaded("digits")
    target = table["target"].to_numpy()
    wrong = random(7).permutation(len(target))[: int(share * len(target))]
    given = target.copy()
    given[wrong] = (target[wrong] + random(8).integers(1, 10, len(wrong))) % 10
    x = table["pixels"].to_numpy().reshape(len(table), -1)
    forest = RandomForestClassifier(60, random_state=0)
    oof = cross_val_predict(forest, x, given, cv=3, method="predict_proba")
    return table.with_columns(target=pl.Series(given)), oof, wrong


def test_rows_with_a_wrong_label_are_named() -> None:
    table, oof, wrong = mislabelled(0.05)
    found = look(table, oof=oof)
    assert found.flaws == ("labels",)
    assert found.labels is not None
    planted = set(table["id"].cast(pl.String).gather(wrong).to_list())
    first = [suspect.id for suspect in found.labels.suspects[: len(wrong) // 2]]
    assert np.mean([id in planted for id in first]) > 0.95


def test_right_labels_are_not_doubted() -> None:
    table, oof, _ = mislabelled(0)
    assert look(table, oof=oof).flaws == ()


def clothes(n: int = 240) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    with (
        gzip.open(FASHION / "t10k-images-idx3-ubyte.gz") as images,
        gzip.open(FASHION / "t10k-labels-idx1-ubyte.gz") as labels,
    ):
        pixels = np.frombuffer(images.read(), np.uint8, offset=16).reshape(-1, 28, 28)
        return pixels[:n], np.frombuffer(labels.read(), np.uint8, offset=8)[:n]


@pytest.fixture
def files(tmp_path: Path) -> Tables:
    """Images of clothes as PNG files in the working folder."""
    pixels, labels = clothes()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    table = pl.DataFrame({"file": [f"{n}.png" for n in range(len(pixels))], "target": labels.astype(np.int64)})
    return halves(table.with_row_index("id"))


@needs_fashion
def test_nothing_is_wrong_with_the_clothes(files: Tables) -> None:
    train, test = files
    found = look(train, test.drop("target"))
    assert found.flaws == ()
    assert found.files[0].sizes == (("28 x 28", 240),)
    pixels = clothes()[0][: len(train)] / 255
    assert found.files[0].mean == pytest.approx((pixels.mean(),))
    assert found.files[0].deviation == pytest.approx((pixels.std(),))
    scale = next(advice for advice in found.advice if "centre" in advice.what)
    assert scale.line == f"images = (images / 255 - {pixels.mean():.4f}) / {pixels.std():.4f}"


@needs_fashion
def test_images_cut_short_are_named_and_the_others_studied(files: Tables, tmp_path: Path) -> None:
    train, test = files
    for number in (3, 70, 200):
        path = tmp_path / f"{number}.png"
        path.write_bytes(path.read_bytes()[:150])
    (tmp_path / "9.png").unlink()
    found = look(train, test.drop("target"))
    assert found.flaws == ("unreadable files",)
    assert [id for id, _, _ in found.files[0].unreadable] == ["3", "9", "70", "200"]
    advice = about(found, "unreadable files")
    assert "4 of 240 files" in advice.why
    assert advice.line == 'table = table.filter(~pl.col("id").is_in([3, 9, 70, 200]))'
    assert found.near[0].rows == len(train) - 3


def compressed(image: Image.Image) -> Image.Image:
    buffer = BytesIO()
    ImageEnhance.Brightness(image.resize((56, 56))).enhance(0.9).save(buffer, "JPEG", quality=85)
    return Image.open(BytesIO(buffer.getvalue()))


@needs_fashion
def test_images_saved_again_are_near_duplicates_within_across_and_against_their_label(
    files: Tables, tmp_path: Path
) -> None:
    train, test = files
    for number, original in ((500, 10), (501, 11), (600, 12)):
        compressed(Image.open(tmp_path / f"{original}.png")).save(tmp_path / f"{number}.jpg")
    labels = [train["target"][10], (train["target"][11] + 1) % 10]
    again = pl.DataFrame({"id": [500, 501], "file": ["500.jpg", "501.jpg"], "target": labels}, schema=train.schema)
    unseen = pl.DataFrame({"id": [600], "file": ["600.jpg"]}, schema=test.drop("target").schema)
    found = look(pl.concat([train, again]), pl.concat([test.drop("target"), unseen]))
    assert found.flaws == ("near-duplicates", "shared with test")
    assert (found.near[0].near, found.near[0].conflicting, found.near[0].shared) == (4, 2, 1)
    assert found.near[0].first == (("10", "500"), ("11", "501"))


@needs_fashion
def test_darker_test_images_are_named() -> None:
    pixels, labels = clothes(600)
    table = pl.DataFrame({"id": range(600), "image": pixels, "target": labels.astype(np.int64)})
    dark = table[400:].with_columns(pl.Series("image", pixels[400:] // 2))
    assert look(table[:400], table[400:]).flaws == ()
    assert "image (mean of each image)" in about(look(table[:400], dark), "drift").why


def docstrings() -> pl.DataFrame:
    """What the standard library says of its functions, one class a module."""
    import argparse
    import collections
    import datetime
    import pathlib
    import shutil
    import subprocess
    import tarfile
    import zipfile

    rows: list[tuple[str, str]] = []
    for module in (argparse, collections, datetime, pathlib, shutil, subprocess, tarfile, zipfile):
        rows += [(text, module.__name__) for text in _texts(module)]
    table = pl.DataFrame(rows, schema=["text", "target"], orient="row")
    twins = groups_of_pairs(len(table), near_texts(table["text"].to_list()))  # inherited ones are there twice
    table = table.with_columns(twin=pl.Series(twins)).unique("twin", maintain_order=True).drop("twin")
    return table.with_row_index("id").sample(fraction=1, shuffle=True, seed=0)


def _texts(module: ModuleType) -> list[str]:
    things = [thing for _, thing in inspect.getmembers(module) if getattr(thing, "__module__", "") == module.__name__]
    inside = [one for thing in things if inspect.isclass(thing) for _, one in inspect.getmembers(thing)]
    texts = {inspect.getdoc(thing) or "" for thing in [*things, *inside]}
    return sorted(text for text in texts if len(text.split()) > 12)


def test_texts_that_were_changed_a_little_are_near_duplicates() -> None:
    table = docstrings()
    train, test = halves(table)
    clean = look(train, test.drop("target"))
    long = train.filter(pl.col("text").str.len_chars() > 200)[:8]
    changed = long.with_columns(pl.col("text") + " Again.", pl.col("id") + 10_000, target=pl.lit("elsewhere"))
    found = look(pl.concat([train, changed]), test.drop("target"))
    assert clean.flaws == ()
    assert found.flaws == ("near-duplicates",)
    assert (found.texts[0].near, found.texts[0].conflicting, found.texts[0].shared) == (16, 16, 0)
    assert found.texts[0].scripts[0][0] == "Latin"


def test_a_number_that_stands_for_a_missing_one_is_named() -> None:
    table = loaded("wine").with_columns(pl.when(pl.col("id") % 10 == 0).then(-999.0).otherwise("ash").alias("ash"))
    lines = [advice.line for advice in look(table).advice]
    assert 'table = table.with_columns(pl.col("ash").replace(-999, None))' in lines


PLANTS: dict[str, Callable[[Tables], Tables]] = {
    "duplicates": lambda t: (pl.concat([t[0], t[0][:9].with_columns(pl.col("id") + 5000)]), t[1]),
    "leak": lambda t: (t[0].with_columns(code=pl.col("target") * 3.0), t[1].with_columns(code=pl.col("target") * 3.0)),
    "drift": lambda t: (t[0], t[1].with_columns(pl.col("alcohol") + 2)),
}


@pytest.mark.parametrize("flaw", PLANTS)
def test_each_flaw_is_the_only_one_named_and_all_together_are_all_named(flaw: str) -> None:
    tables = halves(loaded("wine"))
    assert look(*PLANTS[flaw](tables)).flaws == (flaw,)
    for plant in PLANTS.values():
        tables = plant(tables)
    assert set(look(*tables).flaws) == set(PLANTS)
