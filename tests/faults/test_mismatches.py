"""R1 to R7, C7 and C8 of the catalogue, goal G10: what changed since is refused or announced, never believed."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import acts
import pytest

import killing
from batteries.files import read_sealed, write_sealed
from goals import FULL, figure
from test_resume import assert_same, outcome, stormy_in

pytestmark = pytest.mark.usefixtures("disk")
BEGUN = ("--set", "accumulate=3", "--set", "batch_size=4")


@pytest.fixture(scope="module")
def begun(disk: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose run was stopped in its first fold."""
    folder = stormy_in(tmp_path_factory.mktemp("begun"))
    code, printed = killing.train(folder, *BEGUN, variable="SIGTERM:30")
    assert code == 143, printed
    return folder


@pytest.fixture(scope="module")
def whole(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What that run ends with."""
    folder = tmp_path_factory.mktemp("whole") / "toy"
    shutil.copytree(begun, folder)
    ended = acts.command(folder, "train", *BEGUN)
    assert ended.code == 0, ended.text
    return outcome(folder)


Change = Callable[[Path], object]


def code(old: str, new: str) -> Change:
    """Another text in the experiment's file."""

    def change(folder: Path) -> None:
        path = folder / "experiment.py"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def record(pattern: str, **changed: Any) -> Change:
    """Other values in a sealed record, with a seal that fits."""

    def change(folder: Path) -> None:
        for path in folder.glob(pattern):
            write_sealed(path, {**read_sealed(path), **changed})

    return change


def file(pattern: str, do: Callable[[Path], object]) -> Change:
    """Something done to files."""

    def change(folder: Path) -> None:
        found = [path for path in folder.glob(pattern) if not path.is_symlink()]
        assert found
        for path in found:
            do(path)

    return change


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


REFUSED: dict[str, tuple[Change, str]] = {
    "a new field": (code("width: int = 8", "width: int = 8\n    depth: int = 1"), "depth nothing then, 1 now"),
    "a lost field": (code("    average: str | None = None\n", "    average = None\n"), "has no field 'average'"),
    "a learning rate": (code("lr=self.lr,", "lr=2 * self.lr,"), "lr 0.05 then, 0.1 now"),
    "epochs": (code("epochs=4", "epochs=5"), "epochs 4 then, 5 now"),
    "a schedule": (code('schedule="one-cycle"', 'schedule="cosine"'), "schedule"),
    "clipping": (code("clip=0.5", "clip=0.6"), "clip 0.5 then, 0.6 now"),
    "a stage's name": (code('bt.Stage("all"', 'bt.Stage("tail"'), "stages: head, all then, head, tail now"),
    "a stage less": (code('            bt.Stage("all"', '        ][:1] + 0 * [\n            bt.Stage("all"'), "stages"),
    "where a stage starts": (code('start="best"', 'start="last"'), "start 'best' then, 'last' now"),
    "the metric": (code("metric = bt.Metric.accuracy()", "metric = bt.Metric.auc()"), "'accuracy' then, 'auc' now"),
    "the number of folds": (code('"label", n=2', '"label", n=3'), "Stratified"),
    "the strategy": (code('bt.Stratified("label", n=2)', "bt.KFold(n=2)"), "KFold"),
    "the seed of the split": (code('"label", n=2', '"label", n=2, seed=1'), "seed=1"),
    "a row less": (code("return rows(60)", "return rows(60)[:59]"), "59 now"),
    "a row more": (code("return rows(60)", "return rows(63)"), "63 now"),
    "rows in another order": (code("return rows(60)", "return rows(60).reverse()"), "changed"),
    "one label": (
        code("return rows(60)", "return rows(60).with_columns(label=pl.max_horizontal('label', pl.col('id') == 6))"),
        "label",
    ),
    "one value": (
        code("return rows(60)", "return rows(60).with_columns(x=pl.when(pl.col('id') == 7).then(0.0).otherwise('x'))"),
        "table()",
    ),
    "a column more": (code("return rows(60)", "return rows(60).with_columns(z=pl.lit(1))"), "table()"),
    "other ids": (code("return rows(60)", "return rows(60).with_columns(pl.col('id') + 1)"), "ids changed"),
    "ids of another type": (code("return rows(60)", "return rows(60).with_columns(pl.col('id').cast(str))"), "ids"),
    "test rows": (code("return rows(30, first=1000)", "return rows(31, first=1000)"), "test_table()"),
    "a test value": (
        code("return rows(30, first=1000)", "return rows(30, first=1000).with_columns(pl.col('x') + 1e-9)"),
        "test_table()",
    ),
    "no test table": (code("return rows(30, first=1000)", "return None"), "test_table() gives None now"),
    "wider layers": (code("nn.Linear(2, self.width)", "nn.Linear(2, 2 * self.width)"), "weight"),
    "no layer": (code("nn.Dropout(0.1), ", "nn.Dropout(0.1), nn.Linear(self.width, self.width), "), "Missing"),
    "a layer of another kind": (code("nn.BatchNorm1d(self.width)", "nn.Identity()"), "1."),
    "the schema of the run": (record("runs/toy-001/config.json", schema=99), "99"),
    "the schema of checkpoints": (record("runs/toy-001/fold0/*/checkpoint-*.json", schema=99), "schema 99"),
    "the metric of checkpoints": (
        record("runs/toy-001/fold0/*/checkpoint-*.json", metric={"name": "auc", "higher_is_better": True}),
        "auc",
    ),
    "a changed config": (file("runs/toy-001/config.json", _flip), "config.json"),
    "damaged folds": (file("runs/folds.parquet", _flip), "folds.parquet"),
    "all checkpoints damaged": (file("runs/toy-001/fold0/stage-head/checkpoint-*.pt", _flip), "no intact checkpoint"),
    "lost metrics": (file("runs/toy-001/fold0/metrics.jsonl", lambda path: path.write_bytes(b"")), "metrics.jsonl"),
    "an average instead of a run": (record("runs/toy-001/config.json", kind="average"), "not a run"),
}  # fmt: skip
"""What is changed under a run that goes on, and a word of what is said."""


@pytest.mark.parametrize("what", REFUSED)
def test_r3_r4_c8_what_decides_the_result_is_refused_when_it_changed(tmp_path: Path, begun: Path, what: str) -> None:
    change, word = REFUSED[what]
    folder = tmp_path / "toy"
    shutil.copytree(begun, folder)
    change(folder)
    ended = acts.command(folder, "train", "--resume", "toy-001")
    assert ended.code in (2, 3, 4, 5), ended.text
    assert "Traceback" not in ended.text
    assert word in ended.text, ended.text
    figure("G10", refused=1, silent=0)


ANNOUNCED: dict[str, tuple[Change, str]] = {
    "code": (code("0.1 * random.uniform(2)", "0.2 * random.uniform(2)"), "was begun with other code"),
    "another metric": (code("also = (bt.Metric.log_loss(),)", "also = ()"), "was begun with other code"),
    "the default of a field": (code("width: int = 8", "width: int = 9"), "was begun with other code"),
    "a version of a library": (
        lambda folder: _versions(folder, torch="2.12.0"),
        "goes on under",
    ),
    "the newest checkpoint damaged": (
        lambda folder: _flip(max(folder.glob("runs/toy-001/fold0/stage-head/checkpoint-*.pt"))),
        "going back to the checkpoint before it",
    ),
    "the newest checkpoint lost": (
        lambda folder: max(folder.glob("runs/toy-001/fold0/stage-head/checkpoint-*.pt")).unlink(),
        "going back to the checkpoint before it",
    ),
    "the newest record damaged": (
        lambda folder: _flip(max(folder.glob("runs/toy-001/fold0/stage-head/checkpoint-*.json"))),
        "going on without this checkpoint",
    ),
}  # fmt: skip


def _versions(folder: Path, **other: str) -> None:
    path = folder / "runs/toy-001/provenance.json"
    about = read_sealed(path)
    about["packages"] = {**about["packages"], **other}
    write_sealed(path, about)


@pytest.mark.parametrize("what", ANNOUNCED)
def test_r5_r7_what_may_change_is_said_and_the_run_goes_on(
    tmp_path: Path, begun: Path, whole: dict[str, Any], what: str
) -> None:
    change, word = ANNOUNCED[what]
    folder = tmp_path / "toy"
    shutil.copytree(begun, folder)
    change(folder)
    ended = acts.command(folder, "train", "--resume", "toy-001")
    assert ended.code == 0, ended.text
    assert word in ended.text, ended.text
    if what not in ("code", "another metric"):
        assert_same(outcome(folder), whole)
    figure("G10", announced=1, silent=0)


def test_r6_resumed_at_the_end_and_when_complete_nothing_is_repeated(tmp_path: Path, begun: Path) -> None:
    folder = tmp_path / "toy"
    shutil.copytree(begun, folder)
    assert acts.command(folder, "train", *BEGUN).code == 0
    before = outcome(folder)
    again = acts.command(folder, "train", *BEGUN)
    assert (again.code, "toy-001 is already complete" in again.text) == (0, True)
    assert_same(outcome(folder), before)


LOST = {
    "last.pt": "runs/toy-001/fold0/stage-*/last.pt",
    "best.pt": "runs/toy-001/fold0/stage-*/best.pt",
    "train.log": "runs/toy-001/train.log",
    "tensorboard": "runs/toy-001/fold0/tensorboard",
    "timings": "runs/toy-001/fold0/timings.jsonl",
    "the ledger": "runs/ledger.db",
    "the lock": "runs/toy-001/.lock",
}


@pytest.mark.parametrize("what", LOST if FULL else ["last.pt", "tensorboard"])
def test_r7_what_can_be_made_again_is_made_again(tmp_path: Path, begun: Path, whole: dict[str, Any], what: str) -> None:
    folder = tmp_path / "toy"
    shutil.copytree(begun, folder, symlinks=True)
    for path in folder.glob(LOST[what]):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    ended = acts.command(folder, "train", *BEGUN)
    assert ended.code == 0, ended.text
    assert not re.search("error|Traceback", ended.text)
    assert_same(outcome(folder), whole)
    figure("G10", made_again=1, silent=0)
