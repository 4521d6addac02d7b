"""The log of a training: one JSON object a line, cut back to where a checkpoint stands."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from batteries.errors import ConfigError, CorruptError, ResourceError
from batteries.train.log import MetricLog, read_metrics


class Kept:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, dict[str, float]]] = []
        self.closed = 0

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.seen.append((step, dict(values)))

    def close(self) -> None:
        self.closed += 1


class Failing(Kept):
    """A tracker whose server went away, or that cannot say goodbye."""

    def __init__(self, *, at: str) -> None:
        super().__init__()
        self.at = at

    def write(self, step: int, values: Mapping[str, float]) -> None:
        super().write(step, values)
        if self.at == "write":
            raise ConnectionError("no route")

    def close(self) -> None:
        raise ConnectionError("no goodbye")


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_lines_are_appended_and_read_back(tmp_path: Path) -> None:
    with MetricLog(tmp_path / "logs", tensorboard=False) as log:
        log.write(step=1, stage="head", loss=0.5)
    with MetricLog(tmp_path / "logs", tensorboard=False) as log:
        log.write(step=2, loss=0.25, lr=None)
    assert read_metrics(tmp_path / "logs" / "metrics.jsonl") == [
        {"step": 1, "stage": "head", "loss": 0.5},
        {"step": 2, "loss": 0.25, "lr": None},
    ]


def test_what_is_not_finite_is_null_in_strict_json(tmp_path: Path) -> None:
    with MetricLog(tmp_path, tensorboard=False) as log:
        log.write(step=1, a=float("nan"), b=float("inf"), c=-0.0)
    assert json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=pytest.fail) == {
        "step": 1,
        "a": None,
        "b": None,
        "c": 0.0,
    }


def test_a_log_opened_at_a_position_forgets_what_came_after(tmp_path: Path) -> None:
    with MetricLog(tmp_path, tensorboard=False) as log:
        log.write(step=1)
        position = log.position()
        log.write(step=2)
    with MetricLog(tmp_path, position=position, tensorboard=False) as log:
        assert log.position() == position
        log.write(step=3)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 3]


def test_a_log_that_lost_lines_is_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(CorruptError, match=r"metrics.jsonl lost lines that were written"):
        MetricLog(tmp_path, position=500)


def test_a_half_written_last_line_is_left_out_and_a_broken_one_before_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1}]
    path.write_text('{"step"\n{"step": 2}\n')
    with pytest.raises(CorruptError, match="line 1: is not JSON"):
        read_metrics(path)
    assert read_metrics(tmp_path / "none.jsonl") == []


def test_a_line_that_a_crash_tore_is_cut_when_the_log_is_opened_again(tmp_path: Path) -> None:
    for name in ("metrics.jsonl", "timings.jsonl"):
        (tmp_path / name).write_text('{"step": 1}\n{"step": 2, "lo' + "o" * 10_000)
    with MetricLog(tmp_path, tensorboard=False) as log:
        log.write(step=2)
        log.measure(step=2)
    for name in ("metrics.jsonl", "timings.jsonl"):
        assert (tmp_path / name).read_text() == '{"step": 1}\n{"step": 2}\n'


def test_a_file_of_one_torn_line_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"st')
    with MetricLog(tmp_path, tensorboard=False) as log:
        assert log.position() == 0


def test_the_position_counts_every_byte_and_needs_no_disk(tmp_path: Path) -> None:
    with MetricLog(tmp_path, tensorboard=False) as log:
        for step in range(3):
            log.write(step=step, name="ä", **{"train/loss": float("nan")})
            assert log.position() == (tmp_path / "metrics.jsonl").stat().st_size
    assert log.position() == (tmp_path / "metrics.jsonl").stat().st_size


def test_another_thread_may_wait_for_the_disk_also_after_the_end(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def sync(log: MetricLog) -> None:
        try:
            for _ in range(20):
                log.sync()
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    with MetricLog(tmp_path, tensorboard=False) as log:
        thread = threading.Thread(target=sync, args=(log,))
        thread.start()
        for step in range(50):
            log.write(step=step)
    thread.join()
    log.sync()
    assert failed == []
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 50


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is one of Linux")
def test_a_full_disk_is_said_and_stops(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    log = MetricLog(tmp_path, position=0, tensorboard=False)
    with pytest.raises(ResourceError, match=r"metrics.jsonl: no space left \("):
        log.write(step=1)
    with pytest.raises(ResourceError):
        log.close()


def test_speed_goes_to_its_own_file_so_that_metrics_stay_equal(tmp_path: Path) -> None:
    kept = Kept()
    with MetricLog(tmp_path, trackers=[kept]) as log:
        log.write(step=50, **{"train/loss": 0.5})
        log.measure(step=50, **{"speed/samples_per_second": 1000, "speed/data_wait": 0.25})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 50, "train/loss": 0.5}]
    speed = {"speed/samples_per_second": 1000, "speed/data_wait": 0.25}
    assert read_metrics(tmp_path / "timings.jsonl") == [{"step": 50, **speed}]
    assert scalars(tmp_path, "speed/data_wait") == [(50, 0.25)]
    assert kept.seen == [(50, {"train/loss": 0.5}), (50, speed)]


def test_without_measurements_there_is_no_file_of_them(tmp_path: Path) -> None:
    with MetricLog(tmp_path, tensorboard=False) as log:
        log.write(step=1)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_numbers_go_to_tensorboard_too(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        log.write(step=3, stage="head", **{"valid/auc": 0.75})
        log.write(step=4, **{"valid/auc": 0.875})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert scalars(tmp_path, "valid/auc") == [(3, 0.75), (4, 0.875)]
    assert events.Tags()["scalars"] == ["valid/auc"]


def test_tensorboard_hides_the_lines_that_were_cut(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        for step in (50, 100):
            log.write(step=step, loss=step)
        position = log.position()
        for step in (150, 200):
            log.write(step=step, loss=-step)
    with MetricLog(tmp_path, position=position) as log:
        log.write(step=160, loss=160)  # the first line need not stand where the first cut one stood
    assert scalars(tmp_path, "loss") == [(50, 50), (100, 100), (160, 160)]


def test_tensorboard_shows_every_stage_of_a_run_that_was_never_killed(tmp_path: Path) -> None:
    position = None
    for step in (1, 2, 3):
        with MetricLog(tmp_path, position=position) as log:
            log.write(step=step, loss=step)
            position = log.position()
    assert sorted(scalars(tmp_path, "loss")) == [(1, 1), (2, 2), (3, 3)]


def test_trackers_hear_numbers_only_and_are_closed_with_the_log(tmp_path: Path) -> None:
    kept = Kept()
    with MetricLog(tmp_path, tensorboard=False, trackers=[kept]) as log:
        log.write(step=1, stage="head", epoch=2, lr=None, loss=0.5)
    assert kept.seen == [(1, {"epoch": 2.0, "loss": 0.5})]
    assert kept.closed == 1


def test_what_has_not_the_methods_of_a_tracker_is_refused_at_once(tmp_path: Path) -> None:
    class Loudly:
        def log(self, step: int, values: Any) -> None: ...

    with pytest.raises(ConfigError, match=r"tracker Loudly has no write\(\); give it write\(step, values\) and close"):
        MetricLog(tmp_path, trackers=[Loudly()])  # type: ignore[list-item]
    assert not (tmp_path / "metrics.jsonl").exists()


def test_a_tracker_that_fails_is_named_once_and_training_goes_on(tmp_path: Path) -> None:
    failing, kept = Failing(at="write"), Kept()
    with MetricLog(tmp_path, tensorboard=False, trackers=[failing, kept]) as log:
        with pytest.warns(UserWarning, match=r"^Failing failed \(ConnectionError: no route\); it is left out"):
            log.write(step=1, loss=0.5)
        log.write(step=2, loss=0.25)
    assert [step for step, _ in failing.seen] == [1]
    assert [step for step, _ in kept.seen] == [1, 2]
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]


def test_a_tracker_that_cannot_close_keeps_no_other_from_closing(tmp_path: Path) -> None:
    kept = Kept()
    log = MetricLog(tmp_path, tensorboard=False, trackers=[Failing(at="close"), kept])
    with pytest.warns(UserWarning, match="Failing failed .*no goodbye"):
        log.close()
    assert kept.closed == 1


def test_tensorboard_that_fails_loses_no_line(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file is in the way")
    with MetricLog(tmp_path) as log:
        with pytest.warns(UserWarning, match=r"TensorBoard failed"):
            log.write(step=1, loss=0.5)
        log.write(step=2, loss=0.25)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]


def test_a_tensorboard_folder_removed_while_training_loses_no_line(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        log.write(step=1, loss=0.5)
        shutil.rmtree(tmp_path / "tensorboard")
        log.write(step=2, loss=0.25)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]


def test_tensorboard_on_a_full_disk_is_left_out_and_keeps_what_it_had(tmp_path: Path) -> None:
    with MetricLog(tmp_path) as log:
        log.write(step=1, loss=0.5)
        board = log._trackers[0]
        board._records._writer.close()  # type: ignore[attr-defined]
        board._records._writer = open("/dev/full", "wb", buffering=0)  # type: ignore[attr-defined]  # noqa: SIM115
        with pytest.warns(
            UserWarning, match=r"TensorBoard failed \(OSError: .*No space left on device\); it is left out"
        ):
            log.write(step=2, loss=0.25)
        log.write(step=3, loss=0.2)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [1]
