"""The log of a training: one JSON object a line, cut back to where a checkpoint stands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from batteries.errors import CorruptError
from batteries.train.log import MetricLog, read_metrics


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


def test_numbers_go_to_tensorboard_too(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricLog(tmp_path) as log:
        log.write(step=3, stage="head", **{"valid/auc": 0.75})
        log.write(step=4, **{"valid/auc": 0.875})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("valid/auc")] == [(3, 0.75), (4, 0.875)]
    assert events.Tags()["scalars"] == ["valid/auc"]
