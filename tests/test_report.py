"""The report and the study page: whole, self-contained, made from files alone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

import batteries as bt
from batteries.combine.calibrate import calibrate_entry
from batteries.combine.decide import decide_entry
from batteries.combine.reliability import calibration_error, reliability
from batteries.combine.stack import stack_entries
from batteries.errors import UsageError
from batteries.experiment.predictions import Predictions
from batteries.files import digest_of, write_sealed, write_text
from batteries.prepare.study import study
from batteries.report import plots
from batteries.report.combined import alike, combined
from batteries.report.evaluation import Outcome, confusion, hardest, outcome_of
from batteries.report.page import make_report, write_report, write_study_page
from batteries.report.runs import _pieces
from batteries.report.standing import board
from batteries.report.watch import changes
from batteries.score.agreement import Pair, agreement_of
from batteries.score.board import scores
from batteries.score.entry import Entry, open_entry, write_entry
from batteries.score.ledger import Ledger
from entries import entry_of, whole_config, whole_fold

ROWS = 120
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """A page read strictly: every tag closed by its own, ids unique, texts kept."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text()
        self.open: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.charts: list[str] = []
        self.feed(self.text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.ids.update([found["id"]] if found.get("id") else [])
        self.links += [str(found[name]) for name in ("href", "src") if name in found]
        if tag == "svg":
            assert found["role"] == "img"
            self.charts.append(str(found["aria-label"]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"line {self.getpos()[0]}"

    @property
    def sections(self) -> list[str]:
        return re.findall(r'<section id="(\w+)"', self.text)


def probabilities(targets: NDArray[np.int64], noise: float, seed: int, classes: int = 3) -> NDArray[np.float64]:
    scores = np.eye(classes)[targets] * 2 + np.random.default_rng(seed).normal(size=(len(targets), classes)) * noise
    exponents = np.exp(scores)
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def add(
    root: Path,
    kind: str,
    values: NDArray[Any],
    targets: NDArray[Any],
    *,
    valid: float,
    metric: tuple[str, bool] = ("accuracy", True),
    **more: Any,
) -> Entry:
    """Write an entry as training would and note its scores."""
    name, up = metric
    config = (
        whole_config(
            fields={"seed": 7},
            metric={"name": name, "higher_is_better": up},
            columns={"id": "id", "target": "label"},
            folds={"n": 2, "strategy": "Stratified(column='label', n=2, seed=0)", "digest": "d"},
            rows=len(targets),
            identity=digest_of([kind, valid]),
        )
        | more
    )
    ids = pl.Series("id", [f"row <{i}>" for i in range(len(targets))])
    oof = Predictions(ids, values, targets=targets, folds=np.arange(len(targets)) % 2)
    entry = write_entry(root, kind, config, oof, None)
    with Ledger(root) as ledger:
        ledger.add_entry(entry.config)
        ledger.add_score(entry.name, "oof", valid, metric=name, higher_is_better=up, noise=0.01)
        for fold in range(2):
            ledger.add_score(entry.name, "fold", valid, metric=name, higher_is_better=up, fold=fold)
    return entry


def add_run(root: Path, values: NDArray[Any], targets: NDArray[Any], *, valid: float, **more: Any) -> Entry:
    entry = add(root, "run", values, targets, valid=valid, **more)
    metric = entry.direction.name
    packages = {"torch": "2.11.0"}
    write_sealed(
        entry.folder / "provenance.json",
        {"python": "3.12.1", "system": "Linux", "packages": packages, "cpu": {"machine": "x86_64", "cores": 8},
         "gpu": ["NVIDIA H200"], "git": {"commit": "0123456789abcdef", "changed_files": [" M a.py"]}},
    )  # fmt: skip
    for fold in range(2):
        folder = entry.folder / f"fold{fold}"
        folder.mkdir()
        lines = [
            {"step": 10 * step, "stage": "head" if step < 3 else "all", "epoch": 1, "train/loss": 1 / step, "lr": 1e-3,
             f"valid/{metric}": None if step == 2 else 0.8, "valid/log_loss": 0.5}
            for step in range(1, 5)
        ]  # fmt: skip
        write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        write_sealed(folder / "fold.json", whole_fold(fold, scores={metric: valid + 0.01 * fold}))
    return entry


def add_long_log(run: Entry, *, lines: int) -> None:
    """A log as of long training: a line every 50 updates, one more at the end of each epoch, and the speed."""
    for fold in range(2):
        rows: list[dict[str, Any]] = []
        for number in range(1, lines + 1):
            stage = {"step": 50 * number, "stage": "head", "epoch": number // 100}
            rows.append({**stage, "step/loss": 1 + 1 / number, "lr": 1e-3 / number, "step/grad_norm": 2.0})
            if number % 100 == 0:
                rows.append({**stage, "train/loss": 99.0, "lr": 1e-3 / number, "valid/accuracy": 0.5})
        write_text(run.folder / f"fold{fold}" / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        speed = [
            {"step": step, "speed/samples_per_second": 1e4 * step, "speed/data_wait": 0.25, "memory/device_mb": 512}
            for step in (1, 2, 3)
        ]
        write_text(run.folder / f"fold{fold}" / "timings.jsonl", "".join(json.dumps(row) + "\n" for row in speed))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, an average, two blends, test scores, a submission with its leaderboard score, a study."""
    root = tmp_path_factory.mktemp("made") / "runs"
    targets = np.arange(ROWS) % 3
    first, second = probabilities(targets, 1.0, 0), probabilities(targets, 1.5, 1)
    runs = [add_run(root, first, targets, valid=0.9), add_run(root, second, targets, valid=0.8)]
    add(
        root,
        "average",
        first,
        targets,
        valid=0.88,
        of="run-001",
        how="best 2",
        checkpoints={"0": ["a", "b"], "1": ["c", "d"]},
    )
    members = {"run-001": 0.75, "run-002": 0.25}
    add(root, "blend", (first + second) / 2, targets, valid=0.91, how="mean", power=None, members=members)
    add(root, "blend", (first * second) ** 0.5, targets, valid=0.87, how="power", power=0.0, members=members)
    with Ledger(root) as ledger:
        for run, score in zip(runs, (0.91, 0.7), strict=True):
            ledger.add_score(run.name, "test", score, metric="accuracy", higher_is_better=True, noise=0.01)
        sha = "ab" * 32
        ledger.add_submission("submission-001", entry="run-001", file="submission.csv", sha256=sha, rows=30)
        ledger.add_score(
            "run-001", "public", 0.893, metric="accuracy", higher_is_better=True, submission="submission-001"
        )
    (root / "submission-001").mkdir()
    record = {"name": "submission-001", "entry": "run-001", "file": "submission.csv", "sha256": sha, "rows": 30}
    write_sealed(root / "submission-001" / "submission.json", record)
    write_study_page(study(Digits()), root)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of what was made, to read or to damage."""
    return Path(shutil.copytree(made, tmp_path / "project" / "runs"))


class Digits(bt.Experiment):
    metric = bt.Metric.accuracy()
    target = "label"
    classes = ("zero & null", "one", "two")

    def table(self) -> pl.DataFrame:
        pixels = np.random.default_rng(0).integers(0, 17, (60, 8, 8), dtype="uint8")
        labels = [self.classes[i % 3] for i in range(60)]
        return pl.DataFrame({"id": range(60), "label": labels, "pixels": pixels, "x": np.arange(60.0)})

    def test_table(self) -> pl.DataFrame:
        return self.table().drop("label").with_columns(pl.col("id") + 100)


def test_the_report_has_every_section_there_is_data_for(root: Path) -> None:
    page = Page(write_report(root))
    assert page.sections == ["board", "study", "closer", "blends", "runs", "submissions", "environment"]
    for part in (
        "<title>Report: project</title>", "blend-001", "0.91000", "± 0.010", "beyond noise", "power, p = 0",
        "4 checkpoints of 2 folds", "folds = bt.Stratified", "zero &amp; null", "row &lt;", "0.89300", "abababababab",
        "NVIDIA H200", "0123456789ab", "1 changed file", "Stratified(column=&#39;label&#39;",
    ):  # fmt: skip
        assert part in page.text, part


def test_charts_have_text_alternatives_that_name_what_they_show(root: Path) -> None:
    charts = Page(write_report(root)).charts
    for start in (
        "Validation accuracy against the test set for 2 entries",
        "Calibration of blend-001",
        "Training loss of run-001 over the updates, 2 folds",
        "Validation accuracy of run-002",
        "Learning rate of run-001",
        "accuracy of run-001: mean 0.90500 over 2 folds",
    ):
        assert any(label.startswith(start) for label in charts), (start, charts)


@pytest.mark.parametrize("page", ["report.html", "study/report.html"])
def test_pages_need_no_network_and_no_other_file(root: Path, page: str) -> None:
    write_report(root)
    read = Page(root / page)
    assert re.findall(r"https?:|@import|url\((?!#)", read.text) == []
    allowed = ("#", "data:image/png;base64,")
    outside = [link for link in read.links if not link.startswith(allowed)]
    assert outside in ([], ["study/report.html"])
    assert len(read.text) < 3_000_000
    assert [name for name, times in read.ids.items() if times > 1] == []
    assert {link[1:] for link in read.links if link.startswith("#")} <= set(read.ids)


def test_equal_runs_give_equal_pages(root: Path) -> None:
    first = write_report(root).read_bytes()
    assert write_report(root).read_bytes() == first


def test_charts_take_their_colours_from_the_page(root: Path) -> None:
    text = write_report(root).read_text()
    inside = "".join(re.findall(r"<svg.*?</svg>", text, re.DOTALL))
    assert "currentColor" in inside
    assert "var(--series-1)" in inside
    assert re.findall(r"#[0-9a-f]{6}\b", re.sub(r'"#\w+-\w+"', "", inside)) == []


def test_the_report_reads_no_torch_and_no_experiment(root: Path) -> None:
    (root.parent / "experiment.py").write_text("raise RuntimeError('imported')")
    code = f"import sys; from batteries.report.page import write_report; write_report({str(root)!r});"
    code += "sys.exit('torch' in sys.modules or 'experiment' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_study_alone_makes_a_report_of_one_section(tmp_path: Path) -> None:
    write_study_page(study(Digits()), tmp_path)
    assert Page(write_report(tmp_path)).sections == ["study"]


def test_an_empty_folder_says_what_to_do_first(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing to report yet.*batteries train"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_damaged_parts_are_named_and_the_rest_is_shown(root: Path) -> None:
    (root / "study" / "study.json").write_text("{")
    provenance = root / "run-001" / "provenance.json"
    provenance.write_text(provenance.read_text().replace("3.12.1", "3.12.2"))
    (root / "blend-001" / "oof.parquet").write_bytes(b"torn")
    page = Page(write_report(root))
    assert page.sections == ["board", "blends", "runs", "submissions", "environment"]
    for part in (
        "study.json: cannot be read",
        "provenance.json: was changed or damaged",
        "blend-001/oof.parquet",
    ):
        assert part in page.text, part


def test_regression_is_shown_as_predicted_against_true(tmp_path: Path) -> None:
    targets = np.random.default_rng(0).normal(size=3000)
    values = targets + np.random.default_rng(1).normal(size=3000) * 0.1
    values[42] += 100
    add_run(tmp_path, values, targets, valid=0.1, metric=("rmse", False))
    page = Page(write_report(tmp_path))
    assert "1,500 of 3,000 rows, drawn at random" in page.text
    assert "row &lt;42&gt;" in page.text
    assert "lower is better" in page.text
    assert not any(label.startswith("Calibration") for label in page.charts)


def test_many_classes_are_shown_by_their_commonest_mistakes(tmp_path: Path) -> None:
    targets = np.arange(300) % 30
    add_run(tmp_path, probabilities((targets + (targets == 4)) % 30, 0.1, 0, classes=30), targets, valid=0.9)
    text = write_report(tmp_path).read_text()
    assert "Confusion matrix" not in text
    assert re.search(r"<td>4</td><td>5</td><td[^>]*>10</td>", text)


def test_the_study_page_shows_a_strip_of_images_for_each_class(root: Path) -> None:
    page = Page(root / "study" / "report.html")
    assert page.sections == ["advice", "target", "images", "columns", "drift"]
    assert page.text.count("data:image/png;base64,") == 3
    assert 'alt="8 examples of zero &amp; null"' in page.text
    assert json.loads((root / "study" / "study.json").read_text())["target"]["names"] == list(Digits.classes)


def test_long_training_is_drawn_fine_and_stays_small(tmp_path: Path) -> None:
    targets = np.arange(ROWS) % 3
    run = add_run(tmp_path, probabilities(targets, 1.0, 0), targets, valid=0.9)
    short = len(write_report(tmp_path).read_text())
    add_long_log(run, lines=20_000)
    page = Page(write_report(tmp_path))
    assert len(page.text) - short < 150_000
    labels = [label for label in page.charts if label.endswith("finite values") or "mean of the last" in label]
    assert [label.split(" of run-001")[0] for label in labels] == [
        "Training loss", "Validation accuracy", "Learning rate", "Gradient norm"
    ]  # fmt: skip


def test_points_are_those_of_one_number_cut_where_a_stage_begins() -> None:
    between = [{"step": step, "stage": "head", "step/loss": 1.0, "lr": step / 100} for step in (50, 100, 150)]
    closing = {"step": 150, "stage": "head", "train/loss": 9.0, "lr": 1.5, "valid/auc": 0.5}
    begun = {"step": 170, "stage": "all", "step/loss": None}
    first, second = _pieces([*between, closing, begun], "step/loss")
    assert first == ([50.0, 100.0, 150.0], [1.0, 1.0, 1.0])
    assert second[0] == [170.0]
    assert np.isnan(second[1]).all()
    assert _pieces([*between, closing], "valid/auc") == [([150.0], [0.5])]
    assert _pieces([*between, closing], "lr") == [([50.0, 100.0, 150.0, 150.0], [0.5, 1.0, 1.5, 1.5])]


def test_a_stage_with_fewer_lines_than_epochs_shows_the_loss_of_its_epochs() -> None:
    """Its first stage is long, its second one has fewer updates than there are between two lines."""
    long = [{"step": step, "stage": "head", "step/loss": 1.0} for step in (50, 100, 150)]
    long.append({"step": 160, "stage": "head", "train/loss": 9.0})
    short = [{"step": 160 + 20 * epoch, "stage": "all", "train/loss": 1 / epoch} for epoch in (1, 2, 4)]
    short.insert(2, {"step": 210, "stage": "all", "step/loss": 5.0})
    first, second = _pieces([*long, *short], "step/loss", "train/loss")
    assert first == ([50.0, 100.0, 150.0], [1.0, 1.0, 1.0])
    assert second == ([180.0, 200.0, 240.0], [1.0, 0.5, 0.25])


def test_the_loss_of_a_short_run_is_drawn_though_one_line_of_the_log_came_between(tmp_path: Path) -> None:
    targets = np.arange(ROWS) % 3
    run = add_run(tmp_path, probabilities(targets, 1.0, 0), targets, valid=0.9)
    for path in run.folder.glob("fold*/metrics.jsonl"):
        line = json.dumps({"step": 15, "stage": "head", "epoch": 2, "step/loss": 7.0, "lr": 1e-3})
        write_text(path, "\n".join([*path.read_text().splitlines()[:1], line, *path.read_text().splitlines()[1:], ""]))
    label = next(label for label in Page(write_report(tmp_path)).charts if label.startswith("Training loss"))
    assert label == "Training loss of run-001 over the updates, 2 folds; mean of the last values 0.25000"


def test_thinned_curves_keep_their_mean_and_their_gaps() -> None:
    steps, values = list(range(1000)), [float(number) for number in range(1000)]
    thin = plots.thinned((steps, values), most=500)
    assert len(thin[0]) == len(thin[1]) == 500
    assert np.mean(thin[1]) == np.mean(values)
    values[7] = float("nan")
    assert np.flatnonzero(np.isnan(plots.thinned((steps, values), most=500)[1])).tolist() == [3]
    assert plots.thinned((steps[:500], values[:500]), most=500)[1] == values[:500]
    assert len(plots.thinned((steps[:501], values[:501]), most=500)[1]) == 251


@pytest.mark.parametrize("lines", [1, 5, 50])
def test_a_chart_does_not_grow_with_the_folds_and_stages_it_shows(lines: int) -> None:
    """A page of 12 runs with six such charts each stays below 3 MB."""
    steps = [float(step) for step in range(20_000)]
    values = np.random.default_rng(0).random(20_000).tolist()
    assert len(plots.curves([(fold, (steps, values)) for fold in range(lines)], "loss", y="loss")) < 40_000


def test_the_speed_of_training_is_said_where_it_was_measured(root: Path) -> None:
    assert "samples/s" not in write_report(root).read_text()
    add_long_log(open_entry(root, "run-001"), lines=100)
    text = write_report(root).read_text()
    said = "20,000 samples/s (median); 25% of the time waiting for data; at most 536.9 MB of device memory"
    assert text.count(said) == 1


def test_torn_timings_leave_the_curves(root: Path) -> None:
    add_long_log(open_entry(root, "run-001"), lines=100)
    (root / "run-001" / "fold0" / "timings.jsonl").write_text('{"step"\n{"step": 2}\n')
    page = Page(write_report(root))
    assert "timings.jsonl, line 1: is not JSON" in page.text
    assert any(label.startswith("Gradient norm of run-001") for label in page.charts)


def test_names_from_outside_are_escaped_in_charts_too() -> None:
    svg = plots.bars(["<b>", "$x_1$", "日本"], [1, 2, 3], 'a "quoted" <label>', x="rows")
    assert "&lt;b&gt;" in svg
    assert "$x_1$" in svg
    assert "日本" in svg
    assert 'aria-label="a &#34;quoted&#34; &lt;label&gt;"' in svg


def outcome(values: Sequence[Any], targets: Sequence[Any], **how: bool) -> Outcome | None:
    return outcome_of(
        Predictions(pl.Series("id", range(len(targets))), np.array(values), targets=np.array(targets)), **how
    )


def test_predictions_are_read_as_the_task_they_are_of() -> None:
    binary = outcome([0.2, 0.9], [0, 1])
    assert binary is not None
    assert (binary.task, binary.probabilities, binary.values.shape) == ("classes", True, (2, 2))
    logits = outcome([[3.0, -1.0], [0.0, 2.0]], [0, 1])
    assert logits is not None
    assert not logits.probabilities
    number = outcome([0.2, 1.9], [0.5, 1.5])
    assert number is not None
    assert number.task == "number"
    assert outcome([0.5, 1.0], [0, 1], ranks=True) is None
    assert outcome([[0.1, 0.2], [0.3, 0.4]], [[0.1, 0.2], [0.3, 0.4]]) is None


def test_entries_of_every_kind_are_listed_with_what_they_are_made_of(tmp_path: Path) -> None:
    targets, folds = np.arange(90) % 3, np.arange(90) // 30
    run = entry_of(tmp_path, "one-001", probabilities(targets, 3.0, seed=0), targets, folds)
    other = entry_of(tmp_path, "two-001", probabilities(targets, 3.0, seed=1), targets, folds)
    calibrated = calibrate_entry(run, tmp_path)[1]
    stacked = stack_entries([run, other], tmp_path, model="logistic")
    shown, total = combined([run, other, calibrated, stacked], [], lambda make, otherwise: make())
    assert total == 2
    assert [(each.name, each.how, [(m.name, m.weight) for m in each.members]) for each in shown] == [
        ("calibrated-001", "temperature", [("one-001", None)]),
        ("stack-001", "logistic", [("one-001", None), ("two-001", None)]),
    ]
    assert re.fullmatch(r"log loss [\d.]+ before, [\d.]+ after, on other rows", shown[0].note)


def test_a_decided_entry_says_what_its_rule_gains(tmp_path: Path) -> None:
    targets = np.arange(90) % 2
    run = entry_of(tmp_path, "toy-001", 0.1 + 0.2 * targets, targets, np.arange(90) // 30)
    decided = decide_entry(run, tmp_path, objective="f1")[1]
    (shown,), total = combined([run, decided], [], lambda make, otherwise: make())
    assert (total, shown.name, shown.how) == (1, "decided-001", "f1")
    assert shown.note == "f1 0.0000 without a rule, 1.0000 with it, on other rows"


def test_a_damaged_record_of_what_was_learned_leaves_the_blend_on_the_page(root: Path) -> None:
    (root / "blend-001" / "learned.json").write_text("{")
    page = Page(write_report(root))
    assert "blend-001/learned.json: " in page.text
    assert page.text.count('<th scope="row">blend-001</th>') >= 2
    assert "blends" in page.sections


def test_an_entry_with_hundreds_of_members_lists_a_few_and_counts_the_others(tmp_path: Path) -> None:
    targets = np.arange(90) % 3
    members = {f"toy-{number:03}": 1 / 300 for number in range(300)}
    blends = [
        entry_of(tmp_path, f"blend-{n:03}", probabilities(targets, 1.0, n), targets, targets, kind="blend", how="mean",
                 members=members)
        for n in range(3)
    ]  # fmt: skip
    shown, total = combined(blends, [], lambda make, otherwise: make())
    assert total == 3
    assert [(len(each.members), each.more) for each in shown] == [(8, 292)] * 3


def test_predictions_of_another_tool_are_an_entry_like_a_run_and_made_of_nothing(tmp_path: Path) -> None:
    targets = np.arange(90) % 3
    values = [probabilities(targets, 1.0, seed) for seed in range(2)]
    run = entry_of(tmp_path, "toy-001", values[0], targets, targets)
    outside = entry_of(tmp_path, "boosted", values[1], targets, targets, kind="imported")
    with Ledger(tmp_path) as ledger:
        for entry in (run, outside):
            ledger.add_entry(entry.config)
            ledger.add_score(entry.name, "oof", 0.5, metric="log_loss", higher_is_better=False)
    assert combined([run, outside], [], lambda make, otherwise: make()) == ([], 0)
    matrix = alike([run, outside], scores(tmp_path))
    assert matrix is not None
    expected = np.corrcoef(values[0].ravel(), values[1].ravel())[0, 1]
    assert matrix.cells == [["1", f"{expected:.4f}"], [f"{expected:.4f}", "1"]]


def test_labels_of_points_do_not_cover_each_other_and_the_strangest_point_keeps_its_own() -> None:
    told = [0.80, 0.81, 0.82, 0.83, 0.84, 0.85, 0.86, 0.87, 0.88, 0.89] * 4
    points = [(f"n{i}", score + 1e-4 * i, score) for i, score in enumerate(told)]
    points[7] = ("strange", 0.87, 0.5)
    noise = [None] * len(points)
    unlike = [name == "strange" for name, *_ in points]
    svg = plots.against(points, "chart", x="x", y="y", x_noise=noise, y_noise=noise, unlike=unlike)
    shown = re.findall(r">(n\d+|strange)</text>", svg)
    assert "strange" in shown
    assert 4 <= len(shown) <= 12
    alike = plots.against(
        [(f"n{i}", 0.5, 0.6) for i in range(9)], "chart", x="x", y="y", x_noise=[None] * 9, y_noise=[None] * 9
    )
    assert "n0, n1, n2, n3, …" in alike


def test_the_line_of_equal_scores_is_drawn_and_spoken_of_where_it_is_among_the_points() -> None:
    def caption(shift: float) -> str:
        pairs = [Pair(f"submission-{i:03}", "toy", i / 10, i / 10 + shift, "abc", 0.01) for i in range(1, 7)]
        return board([], [], [agreement_of(pairs, board="public", metric="auc")]).plots[0].caption

    assert "On the dashed line both scores agree" in caption(0.05)
    assert "dashed" not in caption(-2.0)
    assert "Every score here is below all of validation" in caption(-2.0)


def test_confusion_counts_true_down_and_predicted_across() -> None:
    found = outcome([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], [0, 1, 1])
    assert found is not None
    assert confusion(found).tolist() == [[1, 0], [1, 1]]
    assert hardest(found, 2) == [(1, 0.2), (2, 0.7)]


def test_probabilities_that_are_true_have_no_calibration_error() -> None:
    values, targets = [0.25] * 8 + [0.75] * 8, [0] * 6 + [1] * 2 + [1] * 6 + [0] * 2
    found = outcome(values, targets)
    assert found is not None
    bins = reliability(found.values, found.targets)
    assert [(each.stated, each.observed, each.rows) for each in bins] == [(0.25, 0.25, 8), (0.75, 0.75, 8)]
    assert calibration_error(bins) == 0.0
    assert all(each.deviation > 0 for each in bins)


def test_watching_sees_each_change_and_not_its_own_page(root: Path) -> None:
    def train(_: float) -> None:
        looks.append(len(looks))
        if len(looks) == 3:
            log = root / "run-001" / "fold0" / "metrics.jsonl"
            log.write_text(log.read_text() + '{"step": 99, "train/loss": 1.0}\n')
        if len(looks) == 5:
            raise KeyboardInterrupt

    def watch() -> None:
        made.extend(make_report(root, refresh=1.0).path for _ in changes(root, 1.0, sleep=train))

    looks: list[int] = []
    made: list[Path] = []
    with pytest.raises(KeyboardInterrupt):
        watch()
    assert len(made) == 2
    assert "location.reload" in (root / "report.html").read_text()
    assert "location.reload" not in write_report(root).read_text()


def test_only_a_dozen_of_many_runs_is_drawn_and_the_page_says_so(tmp_path: Path) -> None:
    targets = np.arange(ROWS) % 3
    for number in range(14):
        add_run(tmp_path, probabilities(targets, 1.0, number), targets, valid=0.5 + number / 100)
    made = make_report(tmp_path)
    assert (made.entries, made.curves) == (14, 12)
    assert "those of 2 others are left out" in made.path.read_text()
    assert made.bytes < 3_000_000


def test_the_hardest_rows_are_shown_as_images_where_the_table_is_given(tmp_path: Path) -> None:
    targets = np.arange(ROWS) % 3
    add_run(tmp_path, probabilities(targets, 1.0, 0), targets, valid=0.9)
    pixels = np.random.default_rng(0).integers(0, 17, (ROWS, 8, 8), dtype="uint8")
    table = pl.DataFrame({"id": [f"row <{i}>" for i in range(ROWS)], "pixels": pixels})
    page = Page(make_report(tmp_path, table=table).path)
    assert page.text.count('<td><img src="data:image/png;base64,') == 20


def test_several_labels_a_row_are_said_to_have_no_confusion(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, (ROWS, 4))
    add_run(tmp_path, np.random.default_rng(1).random((ROWS, 4)), labels, valid=0.9)
    assert "no confusion, calibration or residual" in write_report(tmp_path).read_text()


def test_a_submission_unlike_the_others_is_named_below_the_leaderboard_chart() -> None:
    told = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.1]
    pairs = [Pair(f"submission-{i:03}", "toy", (i + 1) / 10, score, "abc", 0.01) for i, score in enumerate(told)]
    (plot,) = board([], [], [agreement_of(pairs, board="public", metric="auc")]).plots
    assert "unlike the others: submission-006" in plot.caption
    assert plot.figures is not None
    assert [row[-1] for row in plot.figures.rows][-1] == "unlike the others"
