"""Real tables and images with planted flaws: who names what, the study or the split check, and who keeps quiet.

The originals are whole real data; each plant puts one flaw in. `NAMES` is the contract: what the study says (`flaws`),
and what the split check says (`leaks`) of the folds that one would deal without knowing.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn import datasets
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_predict

import batteries as bt
from batteries.cli.app import main
from batteries.prepare.chance import look_alikes
from batteries.prepare.duplicates import PICTURE_LIKENESS, fingerprints, likeness_of, near_images
from batteries.prepare.folds import make_folds
from batteries.prepare.split_check import check_split
from batteries.prepare.strategies import KFold
from batteries.report.study import StudyReport


@dataclass(frozen=True)
class Data:
    """What a user has: two tables, perhaps predictions of a first model, and what is known of groups and time."""

    train: pl.DataFrame
    test: pl.DataFrame
    oof: NDArray[np.float64] | None = None
    groups: tuple[str, ...] = ()
    time: str | None = None


def studied(data: Data) -> StudyReport:
    return bt.study(data.train, data.test.drop("target"), target="target", id="id", oof=data.oof, show=False)


def leaks(data: Data) -> tuple[str, ...]:
    folds = make_folds(data.train, KFold(), target="target")
    found = check_split(data.train, folds, groups=data.groups, time=data.time, show=False)
    return tuple(leak.kind for leak in found.leaks)


def parted(table: pl.DataFrame, share: float = 0.7) -> Data:
    table = table.sample(fraction=1, shuffle=True, seed=2).with_row_index("id").cast({"id": pl.Int64})
    cut = int(share * len(table))
    return Data(table[:cut], table[cut:])


def cells() -> Data:
    """Breast cancer: 569 rows of 30 measurements."""
    data = datasets.load_breast_cancer()
    return parted(pl.DataFrame(data.data, schema=list(data.feature_names)).with_columns(target=pl.Series(data.target)))


def patients() -> Data:
    """Diabetes: 442 patients, a number to foretell."""
    data = datasets.load_diabetes()
    return parted(pl.DataFrame(data.data, schema=data.feature_names).with_columns(target=pl.Series(data.target)))


def digits() -> Data:
    data = datasets.load_digits()
    table = pl.DataFrame({"image": data.images.astype("uint8"), "target": data.target})
    return predicted(parted(table))


def predicted(data: Data) -> Data:
    """With out-of-fold predictions of a first model."""
    x, labels = data.train["image"].to_numpy().reshape(len(data.train), -1), data.train["target"].to_numpy()
    forest = RandomForestClassifier(60, random_state=0)
    return replace(data, oof=cross_val_predict(forest, x, labels, cv=3, method="predict_proba"))


def files() -> Data:
    """Two photographs that scikit-learn ships, cut into 192 files of 64 x 64 that do not overlap."""
    names, labels = [], []
    for label, photograph in enumerate(datasets.load_sample_images().images):
        for top in range(0, 384, 48):
            for left in range(0, 576, 48):
                name = f"{label}-{top}-{left}.png"
                Image.fromarray(photograph[top : top + 48, left : left + 48]).save(name)
                names.append(name)
                labels.append(label)
    return parted(pl.DataFrame({"file": names, "target": labels}))


def appended(data: Data, more: pl.DataFrame) -> Data:
    rows = more.with_columns(id=pl.int_range(10_000, 10_000 + len(more), dtype=pl.Int64))
    return replace(data, train=pl.concat([data.train, rows.select(data.train.columns)]))


def copies(data: Data) -> Data:
    return appended(data, data.train[:12])


def copies_in_test(data: Data) -> Data:
    seen = data.train[:9].with_columns(id=pl.int_range(20_000, 20_009, dtype=pl.Int64))
    return replace(data, test=pl.concat([data.test, seen]))


def same_ids(data: Data) -> Data:
    twice = pl.when(pl.int_range(pl.len()) < 3).then(data.train["id"][5]).otherwise("id").alias("id")
    return replace(data, train=data.train.with_columns(twice))


def visits(data: Data) -> Data:
    """Every patient measured four times; the test table is of other patients."""

    def repeated(table: pl.DataFrame, first: int) -> pl.DataFrame:
        random = np.random.default_rng(first)
        some = pl.concat([table.with_columns(patient=pl.Series(random.permutation(len(table)) + first))] * 4)
        noise = [pl.col(name) + pl.Series(random.normal(size=len(some)) * 0.004) for name in "age bmi bp s1 s5".split()]
        return some.with_columns(*noise).sample(fraction=1, shuffle=True, seed=0).drop("id").with_row_index("id")

    train, test = repeated(data.train, 1000), repeated(data.test, 5000)
    return replace(data, train=train, test=test, groups=("patient",))


def later(data: Data) -> Data:
    """A table that grew by the day; the test table begins where training ends."""
    start = date(2024, 1, 1)
    days = [pl.Series("day", [start + timedelta(first + row // 3) for row in range(len(table))])
            for first, table in ((0, data.train), (200, data.test))]  # fmt: skip
    return replace(data, train=data.train.with_columns(days[0]), test=data.test.with_columns(days[1]), time="day")


def leaking(data: Data) -> Data:
    random = np.random.default_rng(3)

    def leak(table: pl.DataFrame) -> pl.DataFrame:
        values = table["target"].cast(pl.Float64).to_numpy()
        return table.with_columns(code=pl.Series(values * (1 + random.normal(size=len(values)) * 0.02)))

    return replace(data, train=leak(data.train), test=leak(data.test))


def drifted(data: Data) -> Data:
    column = data.train.columns[3]
    return replace(data, test=data.test.with_columns(pl.col(column) + 1.5 * pl.col(column).std()))


def darker(data: Data) -> Data:
    return replace(data, test=data.test.with_columns(pl.Series("image", data.test["image"].to_numpy() // 2)))


def mislabelled(data: Data) -> Data:
    random = np.random.default_rng(7)
    target = data.train["target"].to_numpy().copy()
    wrong = random.permutation(len(target))[: len(target) // 20]
    target[wrong] = (target[wrong] + random.integers(1, 10, len(wrong))) % 10
    return predicted(replace(data, train=data.train.with_columns(target=pl.Series(target))))


def brighter(data: Data) -> Data:
    """Images once more, a shade brighter."""
    again = data.train[:20]
    shade = again.with_columns(pl.Series("image", again["image"].to_numpy() + 1))
    return appended(replace(data, oof=None), shade)


def truncated(data: Data) -> Data:
    for name in data.train["file"].head(5):
        Path(name).write_bytes(Path(name).read_bytes()[:400])
    return data


def saved_again(data: Data) -> Data:
    """Files once more, larger and as JPEG."""
    names = data.train["file"].head(8).to_list()
    for name in names:
        buffer = BytesIO()
        Image.open(name).resize((96, 96), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        Path(f"{name}.jpg").write_bytes(buffer.getvalue())
    return appended(data, data.train[:8].with_columns(pl.col("file") + ".jpg"))


FASHION = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")
ORIGINALS: dict[str, Callable[[], Data]] = {"cells": cells, "patients": patients, "digits": digits, "files": files}
NAMES: list[tuple[str, Callable[[Data], Data], tuple[str, ...], tuple[str, ...]]] = [
    # original, plant, what the study names, what the split check names
    ("cells", copies, ("duplicates",), ("duplicates",)),
    ("patients", copies, ("duplicates",), ("duplicates",)),
    ("cells", copies_in_test, ("shared with test",), ()),
    ("cells", same_ids, ("repeated ids",), ()),
    ("patients", visits, ("groups",), ("groups",)),
    ("patients", later, (), ("time",)),
    ("cells", leaking, ("leak",), ()),
    ("patients", leaking, ("leak",), ()),
    ("cells", drifted, ("drift",), ()),
    ("patients", drifted, ("drift",), ()),
    ("digits", mislabelled, ("labels",), ()),
    ("digits", darker, ("drift",), ()),
    ("digits", brighter, ("near-duplicates",), ("near-duplicates",)),
    ("files", truncated, ("unreadable files",), ()),
    ("files", saved_again, ("near-duplicates",), ("near-duplicates",)),
]


@pytest.mark.parametrize("name", ORIGINALS)
def test_both_keep_quiet_on_the_originals(name: str) -> None:
    data = ORIGINALS[name]()
    found = studied(data)
    assert (found.flaws, leaks(data)) == ((), ())
    if found.adversarial is not None:
        assert found.adversarial.band[0] - 0.05 < found.adversarial.auc < found.adversarial.band[1] + 0.05


@pytest.mark.parametrize(("name", "plant", "by_study", "by_split"), NAMES)
def test_every_planted_flaw_is_named_and_nothing_else(
    name: str, plant: Callable[[Data], Data], by_study: tuple[str, ...], by_split: tuple[str, ...]
) -> None:
    data = plant(ORIGINALS[name]())
    found = studied(data)
    assert found.flaws == by_study, found
    if plant is not same_ids:  # the split refuses ids that name two rows before it looks for anything
        assert leaks(data) == by_split


def test_the_drifted_column_is_named_first_and_told_by_the_classifier() -> None:
    data = drifted(cells())
    found = studied(data)
    assert found.adversarial is not None
    assert found.adversarial.auc > 0.9
    assert found.adversarial.columns[0].column == data.train.columns[3]
    assert found.drift[0].column == data.train.columns[3]


def test_later_rows_are_advised_to_be_held_out_in_the_order_of_time() -> None:
    assert 'folds = bt.TimeOrdered("day", n=5)' in [advice.line for advice in studied(later(patients())).advice]


def test_a_strong_column_whose_rest_others_explain_is_no_leak() -> None:
    data = datasets.load_diabetes(scaled=False)
    random = np.random.default_rng(0)
    weight, colour = random.gamma(4, 1, 600), random.integers(0, 4, 600)
    price = weight * (3 + colour) + random.normal(size=600) * 0.2
    table = pl.DataFrame({"weight": weight, "clarity": random.integers(0, 3, 600), "colour": colour, "target": price})
    natural = bt.study(table, target="target", show=False)
    copied = bt.study(table.with_columns(code=pl.col("target") * 2 + data.target[0]), target="target", show=False)
    assert (natural.flaws, copied.flaws) == ((), ("leak",))
    assert natural.powers[0].power > 0.6


def test_one_column_that_drifts_is_dropped_without_those_that_help_to_tell() -> None:
    found = studied(drifted(leaking(visits(patients()))))
    (line,) = [advice.line for advice in found.advice if advice.flaw == "drift"]
    assert line == 'table = table.drop("bmi")'


@pytest.mark.skipif(not FASHION.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_images_that_look_alike_among_many_are_told_from_copies() -> None:
    with gzip.open(FASHION) as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28)[:8000]
    prints = fingerprints(pixels)
    wide = near_images(prints, likeness=0.992)
    near = int((likeness_of(prints, wide) >= PICTURE_LIKENESS).sum())
    assert near > 0, "there are some"
    assert (len(look_alikes(prints)[0]), look_alikes(prints)[1]) == (0, near)
    again = fingerprints(np.concatenate([pixels, pixels[:80] // 2 + 60]))
    found, left_out = look_alikes(again)
    assert left_out == 0
    planted = {(row, 8000 + row) for row in range(80)}
    assert len(planted & {tuple(pair) for pair in found.tolist()}) >= 78


EXPERIMENT = """
import polars as pl
import torch
from sklearn.datasets import load_wine
import batteries as bt

class Wine(bt.Experiment):
    metric = bt.Metric.accuracy()
    batch_size = 64
    {folds}

    def table(self):
        data = load_wine()
        table = pl.DataFrame({{"target": data.target, **{{f"x{{i}}": x for i, x in enumerate(data.data.T)}}}})
        return pl.concat([table, table[:{copies}]]).with_row_index("id")

    def dataset(self, rows, *, training):
        return rows.select("^x.*$").to_torch(dtype=pl.Float32), torch.from_numpy(self.targets(rows))

    def model(self):
        return torch.nn.Sequential(torch.nn.BatchNorm1d(13), torch.nn.Linear(13, 3))

    def loss(self, outputs, targets):
        return torch.nn.functional.cross_entropy(outputs, targets)

    def predict_step(self, model, inputs):
        return model(inputs).softmax(dim=1)

    def stages(self):
        return [bt.Stage("only", epochs=1, lr=0.01)]
"""


@pytest.mark.parametrize("copied", [0, 6])
def test_training_on_folds_that_nobody_checked_says_at_once_whether_they_leak(
    copied: int, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("experiment.py").write_text(EXPERIMENT.format(folds="folds = bt.KFold(n=3)", copies=copied))
    assert main(["train", "--fold", "0"]) == 0
    said = "the folds that were just made leak: duplicates: "
    assert (said in capfd.readouterr().out) == bool(copied)
    assert main(["train", "--fold", "1"]) == 0
    assert said not in capfd.readouterr().out, "said once"


def test_flaws_that_come_together_are_all_named() -> None:
    data = copies(drifted(leaking(patients())))
    assert set(studied(data).flaws) >= {"duplicates", "leak", "drift"}
    assert leaks(data) == ("duplicates",)


@pytest.mark.parametrize(
    ("plant", "folds"), [(visits, 'bt.Grouped("patient", n=5)'), (later, 'bt.TimeOrdered("day", n=5)')]
)
def test_a_new_folder_study_and_split_agree_on_groups_and_time(
    plant: Callable[[Data], Data], folds: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = plant(patients())
    Path("data").mkdir()
    data.train.write_csv("data/train.csv")
    data.test.drop("target").write_csv("data/test.csv")
    assert main(["new", "planted", "--from", "data"]) == 0
    monkeypatch.chdir("planted")
    text = Path("experiment.py").read_text()
    assert f"    folds = {folds}" in text
    lists = text[text.index("# What columns hold") : text.index("def read(")]
    assert "patient" not in lists, "a group that no test row shares is no feature"
    capfd.readouterr()
    assert main(["study", "--json"]) == 0
    advice = json.loads(capfd.readouterr().out)["advice"]
    assert [each["flaw"] for each in advice if each["flaw"]] == []
    assert any(each["line"] == f"folds = {folds}" and "as the experiment does" in each["what"] for each in advice)
    assert main(["split"]) == 0
    assert capfd.readouterr().out.rstrip().endswith("nothing leaks")
