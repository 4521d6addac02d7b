"""The parts of the study against references others wrote, and the call as a user makes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import batteries as bt
from batteries.errors import DataError, UsageError
from batteries.prepare.study.associations import associations_of, correlation_ratio, cramers_v
from batteries.prepare.study.changes import changes_of
from batteries.prepare.study.labels import confident_joint, doubtful_numbers
from batteries.prepare.study.power import power_of_order, powers_of
from batteries.prepare.study.texts import near_of, scripts_of
from batteries.report.study import study, study_of_runs


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def wine() -> pl.DataFrame:
    from sklearn.datasets import load_wine

    data = load_wine()
    return pl.DataFrame(data.data, schema=list(data.feature_names)).with_columns(kind=pl.Series(data.target))


def test_correlations_are_those_of_scipy() -> None:
    from scipy.stats import spearmanr

    table = wine().with_columns(pl.when(pl.col("ash") > 2.8).then(None).otherwise("ash").alias("ash"))
    found = associations_of(table, ["alcohol", "ash", "hue"])
    assert found is not None
    expected = np.abs(spearmanr(table.select("alcohol", "hue").to_numpy()).statistic)
    assert found.matrix[0][2] == pytest.approx(expected)
    assert found.matrix[2][0] == found.matrix[0][2]


def test_the_correlation_ratio_is_that_of_the_f_statistic() -> None:
    from scipy.stats import f_oneway

    table = wine()
    values, codes = table["alcohol"].to_numpy(), table["kind"].to_numpy()
    f = f_oneway(*(values[codes == code] for code in range(3))).statistic
    epsilon = 2 * (f - 1) / (2 * f + len(values) - 3)  # Kelley's epsilon squared by F with 2 and n - 3 degrees
    assert correlation_ratio(values, codes) ** 2 == pytest.approx(epsilon)


def test_cramers_v_is_that_of_scipy_for_many_rows_and_zero_for_independent_ones() -> None:
    from scipy.stats import contingency

    a = random().integers(0, 4, 200_000)
    b = np.where(random(1).random(len(a)) < 0.3, a % 3, random(2).integers(0, 3, len(a)))
    counts = np.histogram2d(a, b, (4, 3))[0].astype(int)
    assert cramers_v(a, b) == pytest.approx(contingency.association(counts, method="cramer"), abs=1e-3)
    assert (
        np.mean([cramers_v(random(s).integers(0, 4, 200), random(s + 99).integers(0, 5, 200)) for s in range(20)])
        < 0.05
    )


def test_columns_that_follow_each_other_are_twins() -> None:
    found = associations_of(wine().with_columns(double=pl.col("hue") * 2 + 1), ["ash", "hue", "double"])
    assert found is not None
    assert found.twins == (("hue", "double", pytest.approx(1.0)),)


def test_power_is_the_r_squared_of_a_copy_and_nothing_of_noise() -> None:
    y = random().normal(size=4000)
    table = pl.DataFrame(
        {
            "y": y,
            "noise": random(1).normal(size=4000),
            "half": y + random(2).normal(size=4000),
            "kind": np.where(y > 0, "up", "down"),
        }
    )
    powers = {one.column: one.power for one in powers_of(table, ["noise", "half", "kind"], "y")}
    assert powers["half"] == pytest.approx(0.5, abs=0.04)
    assert powers["kind"] == pytest.approx(2 / np.pi, abs=0.02)  # variance between the halves of a normal
    assert powers["noise"] < 0.01


def test_power_of_a_category_with_a_value_for_every_row_is_nothing() -> None:
    table = pl.DataFrame({"y": [0, 1] * 200, "name": [f"n{i}" for i in range(400)]})
    assert powers_of(table, ["name"], "y")[0].power == 0


def test_auc_of_a_column_alone_is_near_that_of_its_values() -> None:
    from sklearn.metrics import roc_auc_score

    y = random().integers(0, 2, 5000)
    x = y + random(1).normal(size=5000)
    found = powers_of(pl.DataFrame({"x": x, "y": y}), ["x"], "y")[0]
    assert found.auc == pytest.approx(roc_auc_score(y, x), abs=0.015)  # sixteen leaves are coarser


def test_rows_that_stand_in_the_order_of_their_target_are_told() -> None:
    sorted_, mixed = (power_of_order(wine()["kind"].sample(fraction=1, shuffle=mix, seed=0)) for mix in (False, True))
    assert sorted_ is not None
    assert mixed is not None
    assert sorted_.power > 0.8
    assert mixed.power < 0.1
    assert any("Shuffle" in advice.what for advice in study(wine(), target="kind", show=False).advice)


def test_the_confident_joint_counts_what_the_definition_counts() -> None:
    n, classes = 300, 4
    labels = random().integers(0, classes, n)
    probabilities = random(1).dirichlet(np.ones(classes), n)
    thresholds = [probabilities[labels == c, c].mean() for c in range(classes)]
    expected = np.zeros((classes, classes), dtype=int)
    for label, row in zip(labels, probabilities, strict=True):
        above = [c for c in range(classes) if row[c] >= thresholds[c]]
        if above:
            expected[label, max(above, key=lambda c: row[c])] += 1
    np.testing.assert_array_equal(confident_joint(labels, probabilities), expected)


def test_numbers_far_from_their_prediction_are_named() -> None:
    truth = random().normal(size=500)
    predicted = truth + random(1).normal(size=500) * 0.1
    truth[[7, 70]] += 30
    found = doubtful_numbers(truth, predicted, [str(i) for i in range(500)])
    assert found is not None
    assert {suspect.id for suspect in found.suspects} == {"7", "70"}
    assert not found.clear


def test_digits_may_not_be_flipped_and_discs_may() -> None:
    from sklearn.datasets import load_digits

    from batteries.prepare.duplicates import fingerprints

    digits = load_digits()
    assert not any(change.fits for change in changes_of("x", fingerprints(digits.images).pictures, digits.target))
    y, x = np.mgrid[:16, :16] - 7.5
    radius = random().uniform(2, 7, 300)
    discs = (x**2 + y**2 < radius[:, None, None] ** 2).astype(np.uint8)
    pictures = (255 * discs).reshape(300, -1)
    assert all(change.fits for change in changes_of("x", pictures, (radius > 4).astype(np.int64)))


def test_scripts_are_told_by_their_letters() -> None:
    assert scripts_of(["データを分割する"])[0][0] in ("Katakana", "Hiragana", "Han")
    assert scripts_of(["Прежде чем"]) == (("Cyrillic", 1.0),)
    assert scripts_of(["été 12"]) == (("Latin", 1.0),)
    assert scripts_of(["서울", "ไทย"])[0][0] in ("Hangul", "Thai")
    assert scripts_of(["123 !"]) == ()


def test_pairs_are_counted_by_groups_conflicts_and_test_rows() -> None:
    pairs = np.array([[0, 1], [1, 2], [3, 5], [2, 6]])
    found = near_of("c", pairs, ["a", "b", "c", "d", "e"], np.array([0, 0, 1, 0, 0]), with_test=True)
    assert (found.near, found.conflicting, found.shared, found.first) == (3, 3, 2, (("a", "b", "c"),))


def test_tables_may_be_files_frames_or_lazy(tmp_path: Path) -> None:
    table = wine()
    table.write_csv(tmp_path / "a.csv")
    table.write_csv(tmp_path / "a.tsv", separator="\t")
    table.write_parquet(tmp_path / "a.parquet")
    expected = study(table, target="kind", show=False)
    for source in (tmp_path / "a.csv", str(tmp_path / "a.tsv"), tmp_path / "a.parquet", table.lazy()):
        found = study(source, target="kind", show=False)
        assert found.figures["powers"] == expected.figures["powers"]
        assert found.train.rows == 178
    assert "row number" not in json.dumps(expected.figures["train"])


def test_pandas_is_accepted() -> None:
    pandas = pytest.importorskip("pandas")
    table = wine().with_columns(name=pl.Series(["a", None] * 89))
    frame = pandas.DataFrame({column.name: column.to_list() for column in table})
    frame["kind of"] = frame["name"].astype("category")
    frame["day"] = pandas.to_datetime("2024-01-01")
    found = study(frame, target="kind", show=False)
    assert found.column("name").missing == 89
    assert found.column("kind of").missing == 89
    assert found.column("day").role == "time"


def test_a_table_without_id_and_target_is_studied() -> None:
    table = wine().drop("kind").sample(fraction=1, shuffle=True, seed=0)
    found = study(table, table[:60], show=False)
    assert found.flaws == ("shared with test",)
    assert found.target.kind == "none"
    assert not any(line.line.startswith(("folds", "metric")) for line in found.advice)
    json.dumps(found.figures, allow_nan=False)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: study("none.csv"), "none.csv does not exist"),
        (lambda: study(wine(), target="no"), "the training table has no column 'no'; it has alcohol"),
        (lambda: study(wine(), id="no"), "no column 'no'"),
        (lambda: study(wine(), images="no"), "no column 'no'"),
        (lambda: study([1, 2]), "train must be a table of polars or pandas, .* got list"),
        (lambda: study(wine()[:0]), "train has no rows"),
        (lambda: study(wine(), wine()[:0]), "test has no rows"),
        (lambda: study(wine(), target="kind", oof=np.zeros(3)), "one row for each of the 178 training rows"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(call: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        call()  # type: ignore[operator]


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        study(tmp_path / "a.parquet")
    (tmp_path / "a.xlsx").write_bytes(b"no")
    with pytest.raises(DataError, match="neither CSV"):
        study(tmp_path / "a.xlsx")
    (tmp_path / "b.csv").write_bytes(b"")
    with pytest.raises(DataError, match=r"b\.csv cannot be read"):
        study(tmp_path / "b.csv")


def test_an_experiment_says_itself_what_its_columns_are() -> None:
    with pytest.raises(UsageError, match="give it alone"):
        study(bt.Experiment(), target="label")


def test_the_report_reads_well_in_a_terminal_and_in_a_notebook(tmp_path: Path) -> None:
    table = wine().with_columns(code=pl.col("kind") * 2.0)
    found = study(table.sample(fraction=1, shuffle=True, seed=0), target="kind", show=False)
    first, second, *_ = repr(found).splitlines()
    assert first == "Study of table: 178 rows x 15 columns, no test table; flaws: leak"
    assert second.startswith("- Ask whether this column is known")
    assert "<strong>Ask whether" in found._repr_html_()
    page = found.page(tmp_path / "pages" / "study.html").read_text()
    assert "What each column alone says about kind" in page
    assert "none found" not in page


def test_large_tables_are_sampled_and_it_is_said(tmp_path: Path) -> None:
    n = 150_000
    table = pl.DataFrame(
        {"x": random().normal(size=n), "z": random(1).normal(size=n), "y": random(2).integers(0, 2, n)}
    )
    found = study(table, table[:140_000].with_columns(pl.col("x") + 1e-9), target="y", show=False)
    assert found.flaws == ()
    looked = {what: (rows, whole) for what, rows, whole in found.sampled}
    assert looked["drift"] == (100_000, n)
    assert looked["single columns"] == (20_000, n)
    assert looked["adversarial validation"] == (10_000, n)
    assert "drift on 100,000 of 150,000 rows" in found.page(tmp_path / "a.html").read_text()


def test_labels_of_an_experiment_are_held_beside_its_best_run(
    toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from batteries.cli.app import main

    monkeypatch.chdir(toy_folder)
    experiment = bt.load_experiment(toy_folder, "experiment.py")
    assert study_of_runs(experiment, show=False).labels is None
    assert main(["train"]) == 0
    found = study_of_runs(experiment, show=False)
    assert found.labels is not None
    assert found.labels.rows == found.train.rows


def test_the_verb_prints_flaws_advice_and_the_page_and_writes_json(
    toy_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from batteries.cli.app import main

    monkeypatch.chdir(toy_folder)
    assert main(["study"]) == 0
    out = capfd.readouterr().out
    assert out.splitlines()[-1].startswith("no flaw found; ")
    assert out.splitlines()[-1].endswith("pieces of advice; the page: runs/study/report.html")
    written = json.loads((toy_folder / "runs" / "study" / "study.json").read_text())
    assert {"powers", "adversarial", "associations", "near", "texts", "labels", "sampled"} <= set(written)


@pytest.mark.parametrize("seed", range(12))
def test_tables_of_anything_are_studied_without_a_warning(seed: int, tmp_path: Path) -> None:
    r = random(seed)
    n = int(r.choice([1, 2, 25, 60, 150]))
    makers = [
        lambda: r.normal(size=n),
        lambda: r.choice([0.0, np.nan, np.inf, -np.inf, 1e308, -1e308, 1e-320], n),
        lambda: r.integers(-5, 5, n),
        lambda: r.choice(["a", "b", ""], n).tolist(),
        lambda: [None] * n,
        lambda: r.integers(0, 2, n).astype(bool),
        lambda: [f"the {x} quick brown {y} fox" for x, y in r.integers(0, 9, (n, 2))],
        lambda: r.integers(0, 256, (n, 8, 8)).astype("uint8"),
        lambda: np.zeros((n, 8, 8)),
        lambda: pl.Series(r.integers(0, 1000, n)).cast(pl.Date),
        lambda: r.integers(0, 2**63 - 1, n),
        lambda: pl.Series([None if x < 0.5 else x for x in r.random(n)], dtype=pl.Float64),
    ]
    table = pl.DataFrame({f"c{i}": pl.Series(makers[r.integers(len(makers))]()) for i in range(6)})
    test = table.sample(int(r.choice([1, 30, 80])), with_replacement=True, seed=seed)
    for target, oof in ((None, None), ("c0", None), ("c1", r.random(n)), ("c2", r.dirichlet([1, 1], n))):
        found = study(table, test, target=target, oof=oof, show=False)
        json.dumps(found.figures, allow_nan=False)
        found.page(tmp_path / "study.html")


def test_the_benchmark_runs_and_says_what_it_measured() -> None:
    program = Path(__file__).parent.parent / "benchmarks" / "study.py"
    command = [sys.executable, str(program), "--rows", "2000", "--columns", "12", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    report = json.loads(done.stdout)
    assert (report["rows"], report["columns"], report["flaws"]) == (2000, 12, [])
    assert report["seconds"] > 0
    assert report["memory"] >= 0


def test_a_study_loads_no_torch() -> None:
    code = "import sys; from batteries.report.study import study; import polars as pl;"
    code += "study(pl.DataFrame({'a': range(60), 'y': [0, 1] * 30}), target='y', show=False);"
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
