"""T1 to T11 and D1, D2 of the catalogue: signals, a clock that jumps, a suspended machine, ranks that die or hang.

What the rest of the rows ask for is tested beside the parts themselves: see catalogue.py.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import acts
import pytest

import killing
from batteries.score.ledger import Ledger
from goals import FULL, figure, times
from test_distributed import exact_toy, train_in
from test_launch import faulty_toy, train
from test_resume import STORMY, assert_same, outcome, stormy_in

PARTS = 2


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int, float]:
    """What a run ends with that nobody stopped, how many moments it has, and how long it takes."""
    folder = stormy_in(tmp_path_factory.mktemp("calm"))
    began = time.monotonic()
    code, printed = killing.train(folder, *STORMY)
    assert code == 0, printed
    return outcome(folder), int(printed.rpartition("moments: ")[2]), time.monotonic() - began


# --- T1, T2, G6


@pytest.mark.parametrize("part", range(PARTS))
def test_t1_t2_asked_to_stop_at_any_moment_it_saves_leaves_with_its_code_and_goes_on_bit_for_bit(
    tmp_path: Path, calm: tuple[dict[str, Any], int, float], part: int
) -> None:
    wanted, moments, _ = calm
    draw, stops = random.Random(part), times(60, 8) // PARTS
    for number in range(stops):
        folder = stormy_in(tmp_path / str(number))
        signum, code = ((signal.SIGTERM, 143), (signal.SIGINT, 130))[number % 2]
        share = 0.03 + 0.9 * (number + draw.random()) / stops  # every phase has its turn
        ended, printed = killing.train(folder, *STORMY, kill_at=1 + int(share * moments), signum=signum)
        assert ended == code, printed
        assert "all is saved" in printed
        assert "Traceback" not in printed
        ended, printed = killing.train(folder, *STORMY)
        assert ended == 0, printed
        assert_same(outcome(folder), wanted)
        shutil.rmtree(folder)
    figure("G6", moments=stops, saved=stops, identical=stops)


# --- T9


def _at_another_time(folder: str, seconds: int, arguments: list[str]) -> int:
    acts.set_clock(seconds)
    return acts._batteries(folder, arguments)


@pytest.mark.usefixtures("disk")
def test_t9_a_clock_that_jumps_changes_no_order_no_name_and_no_result(
    tmp_path: Path, calm: tuple[dict[str, Any], int, float]
) -> None:
    folder, year = stormy_in(tmp_path / "toy"), 365 * 86_400
    ended = acts.run(folder, _at_another_time, [str(folder), 0, ["train", *STORMY]], at=0, TOY_SIGNAL="SIGTERM:20")
    assert ended.code == 143, ended.text
    for jump, arguments, code in (
        (-year, ["train", *STORMY], 0),
        (year, ["train", *STORMY, "--set", "width=6"], 0),
        (-2 * year, ["submit", "toy-001"], 0),
        (3600, ["submit", "toy-002"], 0),
        (-3600, ["leaderboard", "submission-001", "0.5"], 0),
        (-7200, ["leaderboard", "submission-001", "0.6"], 0),
    ):
        ended = acts.run(folder, _at_another_time, [str(folder), jump, arguments])
        assert ended.code == code, ended.text
    shutil.rmtree(folder / "runs/toy-002")
    assert_same(outcome(folder), calm[0])
    with Ledger(folder / "runs") as ledger:
        told = [row["value"] for row in ledger.scores() if row["scope"] == "public"]
        assert [row["name"] for row in ledger.entries()] == ["toy-001", "toy-002"]
        assert [row["name"] for row in ledger.submissions()] == ["submission-001", "submission-002"]
    assert told == [0.5, 0.6]


# --- T11


def test_t11_a_suspended_process_keeps_its_lock_and_goes_on(
    tmp_path: Path, calm: tuple[dict[str, Any], int, float]
) -> None:
    folder = stormy_in(tmp_path)
    process = killing.start(folder, *STORMY, variable="SIGSTOP:9")
    assert process.pid is not None
    while Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "T":
        time.sleep(0.02)
    time.sleep(times(60, 1))
    code, printed = killing.train(folder, *STORMY)
    assert code == 8, printed
    assert f"process {process.pid}" in printed
    os.kill(process.pid, signal.SIGCONT)
    process.join(60)
    assert process.exitcode == 0
    assert_same(outcome(folder), calm[0])


# --- D1, D2, G9


often = pytest.mark.skipif(not FULL, reason="only under make faults; test_launch.py does it once")


@often
@pytest.mark.parametrize("fault", ["start:1", "save:0", "step:1", "evaluation:1", "between:0"])
def test_d1_a_killed_rank_ends_all_and_is_named(tmp_path: Path, fault: str) -> None:
    seconds = []
    for number in range(4):
        result = train(faulty_toy(tmp_path / str(number)), fault=f"{fault}:SIGKILL")
        assert result.code == 9
        assert f"error: rank {fault[-1]} of 2 was killed by SIGKILL" in result.text
        seconds.append(result.seconds)
    figure("G9", killed=len(seconds), orphans=0, slowest_killed_s=round(max(seconds), 1))


@often
@pytest.mark.parametrize("part", range(4))
def test_d2_a_rank_that_hangs_ends_all_after_the_timeout(tmp_path: Path, part: int) -> None:
    seconds = []
    for number in range(5):
        result = train(faulty_toy(tmp_path / str(number)), "--timeout", "5", fault="step:1:SIGSTOP")
        assert result.code == 9
        assert "error: rank 1 of 2 hung" in result.text
        seconds.append(result.seconds)
    figure("G9", hung=len(seconds), orphans=0, timeout_s=5, slowest_hung_s=round(max(seconds), 1))


# --- R6, G11


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("worlds", [(1, 1, 1, 1), (1, 2, 1, 2)])
def test_r2_r6_stopped_three_times_in_one_epoch_every_row_is_seen_once(
    tmp_path: Path, workers: int, worlds: tuple[int, ...]
) -> None:
    if workers and not FULL:
        pytest.skip("only under make faults: slow")
    folder, seen = exact_toy(tmp_path / "toy"), {"TOY_ROWS": str(tmp_path / "rows")}
    for world, stop in zip(worlds, ("SIGTERM:2", "SIGINT:2", "SIGTERM:2", ""), strict=True):
        codes, printed = train_in(folder, world, "--set", f"num_workers={workers}", TOY_SIGNAL=stop, **seen)
        assert set(codes) == {{"": 0, "SIGT": 143, "SIGI": 130}[stop[:4]]}, printed
    rows = Counter(int(row) for path in tmp_path.glob("rows*") for row in path.read_text().split())
    assert rows == dict.fromkeys(range(30), 2 * 6)  # two folds of 30 rows, six epochs each
    figure("G11", rows=sum(rows.values()), twice_or_never=0)
