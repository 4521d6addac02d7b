"""Benchmarks: the programs run, do the work, and say what they measured. Never how fast."""

from __future__ import annotations

import doctest
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
HAND = "hand-written loop"


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("side_by_side")


def ran(program: str, *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARKS / program), "--quick", "--threads", "1", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def measured(program: str, *cases: str) -> dict[str, Any]:
    report = json.loads(ran(program, "--json", *(word for case in cases for word in ("--only", case))))
    assert report["date"]
    assert report["cores"] >= 1
    assert report["versions"]["torch"]
    assert {case["case"] for case in report["cases"]} | set(report["missing"]) == set(cases)
    return report


def test_overhead_measures_our_loop_beside_the_one_by_hand() -> None:
    report = measured("overhead.py", HAND, "batteries")
    results = {(result["case"], result["mode"]): result for result in report["cases"]}
    for mode in ("lean", "typical"):
        ours = results["batteries", mode]
        assert 0 < ours["step_us"]["low"] <= ours["step_us"]["median"] <= ours["step_us"]["high"]
        assert ours["accuracy"] > 0.2, "ten classes: it learned"
    if HAND not in report["missing"]:  # tqdm is none of our dependencies
        assert results[HAND, "lean"]["ratio"] == 1
        assert results["batteries", "lean"]["ratio"] > 0


def test_fashion_measures_our_job_beside_the_floor_and_the_loop_by_hand() -> None:
    report = measured("fashion.py", "limit fp32", "hand-written", "batteries bf16")
    results = {result["case"]: result for result in report["cases"]}
    for result in results.values():
        assert 0 < result["train_s"]["median"] <= result["job_s"]["median"]
        assert result["ratio"] > 0
        assert result["faults_per_step"] >= 0
    assert results["limit fp32"]["ratio"] == 1
    assert results["limit fp32"]["accuracy"] is None
    assert min(results[name]["accuracy"]["low"] for name in ("hand-written", "batteries bf16")) > 0.5


def test_climbs_of_the_same_steps_end_at_the_same_auc() -> None:
    report = measured("climb.py", "hillclimbers", "scikit-learn loop", "batteries climb")
    results = {result["case"]: result for result in report["cases"]}
    ours, loop = results["batteries climb"], results["scikit-learn loop"]
    assert ours["auc"]["median"] == pytest.approx(loop["auc"]["median"], abs=1e-9)
    assert ours["tried"] == loop["tried"] > 5
    for result in results.values():
        assert 0 < result["climb_s"]["low"] <= result["climb_s"]["median"]
        assert result["memory"] is None or result["memory"] >= 1


def test_blend_measures_ours_beside_others_and_all_find_the_same() -> None:
    report = measured("blend.py", "batteries", "NumPy", "polars")
    results = {(result["case"], result["blend"]): result for result in report["cases"]}
    for (case, blend), result in results.items():
        assert 0 < result["seconds"]["low"] <= result["seconds"]["median"] <= result["seconds"]["high"]
        assert result["error"] < (1e-12 if case == "batteries" else 1e-3), (case, blend)
        assert result["memory"] >= 0
    for blend in ("mean", "power", "rank"):
        assert results["batteries", blend]["ratio"] == 1
    assert results["polars", "rank"]["error"] < 1e-12


def test_a_case_that_is_not_there_is_refused_by_name() -> None:
    command = [sys.executable, str(BENCHMARKS / "fashion.py"), "--only", "skorch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("there is no case 'skorch'; there are: limit fp32, limit bf16, hand-written")


def test_every_round_begins_with_another_case(side_by_side: ModuleType, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import json, sys\n"
        "values = dict(zip(sys.argv[1::2], sys.argv[2::2]))\n"
        "open(values['--log'], 'a').write(values['--job'] + values['--round'] + ' ')\n"
        "open(values['--result'], 'w').write(json.dumps({'round': int(values['--round'])}))\n"
    )
    log = tmp_path / "log"
    done = side_by_side.in_turn(str(program), ["a", "b", "c"], 3, iter(["--log", str(log)]))
    assert log.read_text() == "a0 b0 c0 b1 c1 a1 c2 a2 b2 "
    assert done["a"] == [{"round": 0}, {"round": 1}, {"round": 2}]


def test_a_case_that_fails_ends_the_program_with_what_it_printed(side_by_side: ModuleType, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit('no such thing')")
    with pytest.raises(SystemExit, match="no such thing\n\na ended with 1"):
        side_by_side.in_turn(str(program), ["a"], 1, [])


def test_a_ratio_is_taken_within_each_round(side_by_side: ModuleType) -> None:
    assert side_by_side.ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0]) == 3.0  # that of the medians is 4.0
    assert side_by_side.ratio([1.0], None) is None


def test_a_case_without_its_package_is_left_out_and_named(side_by_side: ModuleType) -> None:
    cases = [side_by_side.Case("here", "json:loads", ("json",)), side_by_side.Case("not", "x:y", ("no_such.part",))]
    kept, missing = side_by_side.chosen(cases, None)
    assert [case.name for case in kept] == ["here"]
    assert missing == {"not": ["no_such"]}


def test_the_examples_of_side_by_side_are_true(side_by_side: ModuleType) -> None:
    assert doctest.testmod(side_by_side).failed == 0


def test_a_save_that_is_not_flushed_has_no_time_on_the_page(side_by_side: ModuleType) -> None:
    plain = {"case": "plain", "stall_s": side_by_side.summary([0.5, 0.7, 0.6]), "stall_ratio": 1.0}
    flushed = {"case": "flushed", **{f"{what}_s": side_by_side.summary([1.0]) for what in ("stall", "durable")}}
    page = import_module("page").saves({**side_by_side.setting(), "megabytes": 605, "cases": [plain, flushed]})
    assert page.startswith("## Saving a model with its optimizer\n\n2")
    assert "605 MB." in page
    assert "| plain | 0.60 | 0.50..0.70 | 1.00 | - | - | - |" in page
    assert "| flushed | 1.00 | 1.00..1.00 | - | 1.00 | 1.00..1.00 | - |" in page


def test_tables_fit_80_columns(side_by_side: ModuleType) -> None:
    overhead, fashion, blend = map(import_module, ("overhead", "fashion", "blend"))
    wide = {"median": 1234.0, "low": 1200.4, "high": 1300.4}
    both = [
        {"case": case.name, "mode": mode, "step_us": wide, "ratio": 12.34} for case in overhead.CASES for mode in "ab"
    ]
    header, rows = overhead.columns({"cases": both})
    assert max(map(len, side_by_side.table(header, rows).splitlines())) <= 80
    time = {"median": 11.123, "low": 11.012, "high": 11.456}
    blends = [
        {"case": case.name, "blend": kind, "seconds": time, "ratio": 123.45, "memory": 12.34, "error": 1e-16}
        for case in blend.CASES
        for kind in blend.BLENDS
    ]
    header, rows = blend.columns({"cases": blends})
    assert max(map(len, side_by_side.table(header, rows).splitlines())) <= 80
    time, share = {"median": 28.8, "low": 28.1, "high": 31.2}, {"median": 0.8912, "low": 0.8844, "high": 0.8923}
    jobs = [
        {"case": case.name, "job_s": time, "ratio": 1.234, "train_s": time, "accuracy": share, "faults_per_step": 12345}
        for case in fashion.CASES
    ]
    header, rows = fashion.columns({"cases": jobs})
    assert max(map(len, side_by_side.table(header, rows).splitlines())) <= 80
    assert side_by_side.table(header, rows, markdown=True).startswith("| case | job s |")
    climb = import_module("climb")
    climbs = [
        {
            "case": case.name,
            "climb_s": time,
            "ratio": 1.0,
            "tried": 1234,
            "tried_ms": 51.2,
            "auc": share,
            "memory": 1.18,
        }
        for case in climb.CASES
    ]
    header, rows = climb.columns({"cases": climbs})
    assert max(map(len, side_by_side.table(header, rows).splitlines())) <= 80


def test_the_bootstrap_measures_our_resamples_beside_a_loop_that_agrees() -> None:
    sizes = ["--rows", "400", "--draws", "400", "--few", "400", "--rounds", "1"]
    command = [sys.executable, str(BENCHMARKS / "bootstrap.py"), *sizes, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report = json.loads(done.stdout)
    ours, loop = report["cases"]
    assert (ours["case"], loop["case"], loop["ratio"]) == ("batteries", "scikit-learn loop", 1.0)
    assert ours["seconds"]["median"] > 0
    assert ours["peak_mb"]["median"] > 0
    one, other = (case["deviation"]["median"] for case in (ours, loop))
    assert abs(one / other - 1) < 5 * (1 / 400) ** 0.5  # each is known to 1 / sqrt(2 * 400)
