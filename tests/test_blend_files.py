"""Files blend as arrays do: to the same bytes, in any order of rows, and with a quarter of their size in memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import batteries as bt
from batteries.combine import blend_files as module
from batteries.combine.blend import blend_predictions
from batteries.combine.blend_files import blend_files
from batteries.errors import BlendError, PredictionsError, ResourceError
from batteries.experiment.prediction_files import read_predictions
from batteries.experiment.predictions import Predictions

N = 500
IDS = pl.Series("id", [f"row {i:04d}" for i in range(N)])


def members(columns: int | None = 3, *, of: int = 4) -> list[Predictions]:
    """Class probabilities of one table; all but the first in an order of their own."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(of):
        rows = np.arange(N) if number == 0 else rng.permutation(N)
        values = rng.random((N, columns or 1)).astype("float32").round(2 if number == 1 else 9)
        values = values / values.sum(axis=1, keepdims=True) if columns else values[:, 0]
        folds = (rows % 5).astype("int64")
        made.append(Predictions(IDS.gather(rows), values, targets=rows % 3, folds=folds, about={"run": str(number)}))
    return made


def saved(parts: list[Predictions], suffix: str = ".parquet") -> list[Path]:
    """One file each: as we save them, or as somebody's CSV."""
    paths = [Path(f"member{number}{suffix}") for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        if suffix == ".csv":
            part.frame().drop("fold", "target").write_csv(path)
        else:
            part.save(path)
    return paths


def in_memory(paths: list[Path], combine: bt.Blend, *, within_folds: bool = False) -> bytes:
    parts = [read_predictions(path) for path in paths]
    blend_predictions(parts, combine, within_folds=within_folds).save("whole.parquet")
    return Path("whole.parquet").read_bytes()


@pytest.mark.parametrize("part", [7, 640, 1 << 18])
@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("how", ["mean", "logit", "rank", "vote", "trimmed"])
def test_files_blend_to_the_bytes_of_the_blend_in_memory(
    how: Any, suffix: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    combine = bt.Blend(how=how, weights=(1, 1, 1, 1) if how == "trimmed" else (3, 1, 0, 2))
    paths = saved(members(), suffix)
    monkeypatch.setattr(module, "_PART", part)
    assert blend_files(paths, "streamed.parquet", combine) == Path("streamed.parquet")
    assert Path("streamed.parquet").read_bytes() == in_memory(paths, combine)
    assert sorted(p.name for p in Path().iterdir()) == sorted([*map(str, paths), "streamed.parquet", "whole.parquet"])


def test_one_column_blends_to_the_same_bytes_and_its_targets_are_kept() -> None:
    paths, combine = saved(members(None)), bt.Blend(how="power", weights=(1,) * 4)
    blend_files(paths, "streamed.parquet", combine)
    assert Path("streamed.parquet").read_bytes() == in_memory(paths, combine)
    blended, first = Predictions.load("streamed.parquet"), Predictions.load(paths[0])
    assert blended.values.shape == (N,)
    assert blended.targets is not None
    assert blended.targets.tolist() == first.targets.tolist()  # type: ignore[union-attr]
    assert blended.about == {"run": "0"}


def test_files_are_ranked_within_the_folds_of_the_first() -> None:
    paths, combine = saved(members()), bt.Blend(how="rank", weights=(1,) * 4)
    blend_files(paths, "streamed.parquet", combine, within_folds=True)
    assert Path("streamed.parquet").read_bytes() == in_memory(paths, combine, within_folds=True)
    foreign = saved(members(), ".csv")
    with pytest.raises(BlendError, match=r"member0\.csv knows no folds to rank within"):
        blend_files(foreign, "out.csv", combine, within_folds=True)


def test_a_csv_is_the_table_of_the_blend_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    paths, combine = saved(members()), bt.Blend(weights=(1,) * 4)
    monkeypatch.setattr(module, "_PART", 64)
    blend_files(paths, "out.csv", combine)
    whole = blend_predictions([Predictions.load(path) for path in paths], combine)
    assert Path("out.csv").read_text() == whole.frame().write_csv()


def test_columns_are_matched_by_name_and_one_alone_may_have_any() -> None:
    Path("a.csv").write_text("id,cat,dog\n1,0.2,0.8\n2,0.4,0.6\n")
    Path("b.csv").write_text("dog,id,cat\n0.6,2,0.4\n0.6,1,0.4\n")
    both = bt.Blend(weights=(1, 1))
    blend_files(["a.csv", "b.csv"], "out.parquet", both)
    np.testing.assert_allclose(Predictions.load("out.parquet").values, [[0.3, 0.7], [0.4, 0.6]])
    Path("one.csv").write_text("id,lgb\n1,0.2\n2,0.4\n")
    Path("two.csv").write_text("id,xgb\n2,0.6\n1,0.4\n")
    blend_files(["one.csv", "two.csv"], "out.csv", both)
    assert [round(value, 9) for value in read_predictions("out.csv").values.tolist()] == [0.3, 0.5]
    with pytest.raises(BlendError, match=r"one.csv has the columns lgb and a.csv cat, dog; name those to blend"):
        blend_files(["a.csv", "one.csv"], "out.csv", both)
    blend_files(["a.csv", "b.csv"], "out.csv", both, columns=["dog"])
    assert read_predictions("out.csv").values.round(9).tolist() == [0.7, 0.6]


def refused(error: type[Exception], message: str, paths: list[str], out: str = "out.csv", **given: Any) -> None:
    combine = given.pop("combine", bt.Blend(weights=(1,) * len(paths)))
    before = sorted(Path().iterdir())
    with pytest.raises(error, match=message):
        blend_files(paths, out, combine, **given)
    assert sorted(Path().iterdir()) == before, "nothing is left behind"


def test_what_cannot_be_blended_is_refused_and_leaves_nothing() -> None:
    Path("a.csv").write_text("id,p\n1,0.5\n2,0.25\n3,-1\n")
    Path("more.csv").write_text("id,p\n1,0.5\n2,0.25\n3,0\n4,1\n")
    Path("other.csv").write_text("id,p\n1,0.5\n2,0.25\n7,0\n")
    Path("text.csv").write_text("id,p\na,0.5\nb,0.25\nc,0\n")
    Path("nan.csv").write_text("id,p\n1,0.5\n2,nan\n3,0\n")
    refused(BlendError, "out.txt: a blend is written as .parquet or .csv", ["a.csv"], "out.txt")
    refused(BlendError, "1 files need 1 weights, got 2", ["a.csv"],
            combine=bt.Blend(weights=(1, 1)))  # fmt: skip
    refused(PredictionsError, r"more.csv: 1 predictions belong to no asked id \(first: \[4\]\)", ["a.csv", "more.csv"])
    refused(PredictionsError, r"a.csv: 1 of 4 ids have no prediction \(first: \[4\]\)", ["more.csv", "a.csv"])
    refused(PredictionsError, r"other.csv: 1 of 3 ids have no prediction \(first: \[3\]\)", ["a.csv", "other.csv"])
    refused(PredictionsError, "text.csv: ids are Int64 here and String there", ["a.csv", "text.csv"])
    refused(PredictionsError, r"nan.csv: column 'p': 1 of 3 values are NaN .*\[2\]", ["a.csv", "nan.csv"])
    refused(BlendError, "member 1 has 1 values that 'geometric' does not take, such as -1", ["a.csv"],
            combine=bt.Blend(how="geometric", weights=(1,)))  # fmt: skip
    refused(PredictionsError, "gone.csv is not a file", ["gone.csv"])


def test_a_disk_without_room_for_the_members_is_said_beforehand(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = saved(members())
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 35_999}))
    with pytest.raises(ResourceError, match="blending lays 36,000 bytes down beside the result, and 35,999 are free"):
        blend_files(paths, "out.parquet", bt.Blend(weights=(1,) * 4))


LIMITED = """
import os, resource, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # threads have stacks, which count
import numpy as np
import polars as pl
import batteries as bt
from batteries.combine.blend_files import blend_files

def blend(names, out):
    for how in ("rank", "power"):
        blend_files(names, f"{out}-{how}.parquet", bt.Blend(how=how, weights=(1,) * len(names)))

allowed, *names = sys.argv[1:]
blend([names[0], names[0]], "first")  # libraries, threads and their stacks are there before the limit is
with open("/proc/self/status") as status:
    data = next(int(line.split()[1]) for line in status if line.startswith("VmData:")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (data + int(allowed),) * 2)
blend(names, "streamed")
try:
    np.ones(int(allowed) // 4)  # twice as many bytes
except MemoryError:
    print("the limit holds")
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits of memory are set and read as Linux does")
def test_files_of_four_times_the_memory_blend_to_the_same_bytes() -> None:
    rng, n, columns, count = np.random.default_rng(0), 100_000, 16, 40
    ids = pl.Series("id", np.arange(n))
    paths = [Path(f"member{number}.parquet") for number in range(count)]
    for number, path in enumerate(paths):
        part = Predictions(ids if number != 5 else ids.reverse(), rng.random((n, columns), dtype=np.float32))
        part.frame().write_parquet(path, compression="uncompressed") if number else part.save(path)
    allowed = sum(path.stat().st_size for path in paths) // 4
    command = [sys.executable, "-c", LIMITED, str(allowed), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "the limit holds\n"), done.stderr[-2000:]
    parts = [read_predictions(path) for path in paths]
    for how in ("rank", "power"):
        blend_predictions(parts, bt.Blend(how=how, weights=(1,) * count)).save("whole.parquet")  # type: ignore[arg-type]
        assert Path("whole.parquet").read_bytes() == Path(f"streamed-{how}.parquet").read_bytes()
