"""Checkpoints: last, best and few best; whole or not at all; refused when they are not what was written."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from batteries.errors import CorruptError, NonFiniteError, ResourceError, ResumeError, UsageError
from batteries.experiment import Metric
from batteries.files import write_sealed
from batteries.train.checkpoint import Checkpoints, read_checkpoint

AUC = Metric("auc", higher_is_better=True)
LOSS = Metric("loss", higher_is_better=False)
NAN = float("nan")


def weights(number: float = 0.0) -> dict[str, Any]:
    return {"model": {"w": torch.full((4,), float(number))}, "epoch": int(number)}


def saved(folder: Path, scores: list[float | None], *, metric: Metric = AUC, keep: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(folder, metric=metric, keep=keep)
    for number, score in enumerate(scores, 1):
        checkpoints.save(weights(number), score=score)
    return checkpoints


def numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem.rpartition("-")[2]) for path in folder.glob("checkpoint-*.pt"))


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("metric", "scores", "best"),
    [
        (AUC, [0.1, 0.9, 0.5, 0.7], [2, 4]),
        (LOSS, [0.1, 0.9, 0.5, 0.7], [1, 3]),
        (AUC, [0.5, 0.5, 0.5, 0.1], [1, 2]),
        (LOSS, [0.5, 0.5, 0.5, 0.9], [1, 2]),
        (AUC, [NAN, 0.2, 0.3, 0.1], [3, 2]),
        (LOSS, [NAN, 0.2, 0.3, 0.1], [4, 2]),
        (AUC, [0.2, NAN, float("inf"), 0.1], [1, 4]),
        (LOSS, [0.2, NAN, -float("inf"), None], [1]),
        (AUC, [NAN, NAN, None], []),
        (LOSS, [-3.0, -5.0, 0.0], [2, 1]),
    ],
)
def test_the_best_are_those_of_the_metric_earlier_first_and_nan_never(
    tmp_path: Path, metric: Metric, scores: list[float | None], best: list[int]
) -> None:
    checkpoints = saved(tmp_path, scores, metric=metric)
    for opened in (checkpoints, Checkpoints(tmp_path, metric=metric, keep=2)):
        assert [checkpoint.number for checkpoint in opened.best(2)] == best
        assert opened.last is not None
        assert opened.last.number == len(scores)
        assert opened.last.load()["epoch"] == len(scores)
        assert [int(c.load()["epoch"]) for c in opened.best(2)] == best


def test_the_few_best_and_the_newest_two_stay_on_disk(tmp_path: Path) -> None:
    saved(tmp_path, [0.9, 0.1, 0.8, 0.2, 0.3, 0.4])
    assert numbers(tmp_path) == [1, 3, 5, 6]
    assert len(Checkpoints(tmp_path, metric=AUC)) == 4
    assert sorted(path.stem for path in tmp_path.glob("*.json")) == [f"checkpoint-{n:06d}" for n in (1, 3, 5, 6)]


@given(
    scores=st.lists(st.none() | st.floats(width=16), min_size=1, max_size=12),
    higher=st.booleans(),
    keep=st.integers(1, 4),
)
def test_what_is_kept_is_what_a_sort_of_all_scores_would_keep(
    tmp_path_factory: pytest.TempPathFactory, scores: list[float | None], higher: bool, keep: int
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    checkpoints = Checkpoints(folder, metric=Metric("m", higher_is_better=higher), keep=keep)
    for score in scores:
        checkpoints.save({}, score=score)
    finite = [n for n, score in enumerate(scores, 1) if score is not None and abs(score) < float("inf")]
    best = sorted(finite, key=lambda n: ((-1 if higher else 1) * (scores[n - 1] or 0.0), n))[:keep]
    assert [checkpoint.number for checkpoint in checkpoints.best(keep)] == best
    assert numbers(folder) == sorted({*best, len(scores), max(1, len(scores) - 1)})


def test_last_and_best_are_links_to_the_files_themselves(tmp_path: Path) -> None:
    saved(tmp_path, [0.3, 0.9, 0.5])
    assert (tmp_path / "last.pt").samefile(tmp_path / "checkpoint-000003.pt")
    assert (tmp_path / "best.pt").samefile(tmp_path / "checkpoint-000002.pt")


def test_a_score_can_come_later_and_its_notes_stay_with_it(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, metric=AUC)
    first = checkpoints.save(weights(1), info={"epoch": 1})
    assert checkpoints.best() == []
    checkpoints.save(weights(2), score=0.4)
    checkpoints.score(first, 0.7, info={"seen": True})
    best = Checkpoints(tmp_path, metric=AUC).best()[0]
    assert (best.number, best.score, dict(best.info)) == (1, 0.7, {"epoch": 1, "seen": True})
    assert checkpoints.score(first, 0.1).score == 0.1
    assert checkpoints.best()[0].number == 2


def test_scoring_a_checkpoint_that_is_gone_says_so(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, metric=AUC, keep=1)
    first = checkpoints.save(weights(1))
    for number in (2, 3):
        checkpoints.save(weights(number), score=0.5)
    with pytest.raises(UsageError, match=r"checkpoint-000001.pt is no longer kept"):
        checkpoints.score(first, 0.9)


def test_models_and_optimizers_are_saved_by_their_state(tmp_path: Path) -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = Checkpoints("logs", metric=AUC).save({"model": model, "optimizer": optimizer, "epoch": 3}, score=0.5).load()
    other = nn.Linear(3, 1)
    other.load_state_dict(state["model"])
    again = torch.optim.AdamW(other.parameters())
    again.load_state_dict(state["optimizer"])
    assert torch.equal(other.weight, model.weight)
    assert torch.equal(again.state[other.weight]["exp_avg"], optimizer.state[model.weight]["exp_avg"])
    assert (again.param_groups[0]["lr"], state["epoch"]) == (0.1, 3)


@pytest.mark.parametrize("bad", [NAN, float("inf")])
def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, bad: float) -> None:
    checkpoints = saved(tmp_path, [0.5])
    before = listing(tmp_path)
    model = nn.Linear(2, 1)
    nn.init.constant_(model.bias, bad)
    with pytest.raises(NonFiniteError, match=r"weight 'bias' is NaN or infinite; nothing was saved"):
        checkpoints.save({"model": model}, score=0.9)
    assert listing(tmp_path) == before


def test_another_metric_or_direction_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, [0.5])
    for metric in (LOSS, Metric("auc", higher_is_better=False)):
        with pytest.raises(UsageError, match=r"was ranked by auc \(higher is better: True\), not by"):
            Checkpoints(tmp_path, metric=metric)
    with pytest.raises(UsageError, match="keep must be >= 1, got 0"):
        Checkpoints(tmp_path, metric=AUC, keep=0)


def test_a_record_of_a_newer_version_is_not_guessed_at(tmp_path: Path) -> None:
    saved(tmp_path, [0.5])
    path = tmp_path / "checkpoint-000001.json"
    record = json.loads(path.read_text())
    del record["seal"]
    write_sealed(path, {**record, "schema": 99})
    with pytest.raises(ResumeError, match="has schema 99, this Batteries reads 1"):
        Checkpoints(tmp_path, metric=AUC)


# --- damage


def damages(size: int, count: int) -> list[Callable[[bytes], bytes]]:
    """Single bits flipped and ends cut off, at places spread over a file of `size` bytes."""
    draw = random.Random(7)

    def flip(place: int, bit: int) -> Callable[[bytes], bytes]:
        return lambda data: data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]

    flips = [flip(draw.randrange(size), draw.randrange(8)) for _ in range(count)]
    return flips + [lambda data, n=n: data[:n] for n in (0, 1, size // 2, size - 1, *draw.sample(range(size), count))]  # type: ignore[misc]


def test_no_flipped_bit_and_no_cut_of_a_checkpoint_loads(tmp_path: Path) -> None:
    checkpoint = saved(tmp_path, [0.5]).best()[0]
    whole = checkpoint.path.read_bytes()
    for damage in damages(len(whole), 150):
        checkpoint.path.write_bytes(damage(whole))
        with pytest.raises(CorruptError, match="changed or damaged after it was written"):
            checkpoint.load()
        for name in (checkpoint.path.name, "best.pt", "last.pt"):
            with pytest.raises(CorruptError, match=f"{name}: was changed or damaged"):
                read_checkpoint(tmp_path / name)
    checkpoint.path.write_bytes(whole)
    assert checkpoint.load()["epoch"] == 1


def test_no_flipped_bit_and_no_cut_of_a_record_is_believed(tmp_path: Path) -> None:
    saved(tmp_path, [0.5, 0.25])
    path = tmp_path / "checkpoint-000002.json"
    whole = path.read_bytes()
    meaning = json.loads(whole)
    for damage in damages(len(whole), 250):
        path.write_bytes(damage(whole))
        try:
            with pytest.warns(UserWarning, match="going on without this checkpoint"):
                opened = Checkpoints(tmp_path, metric=AUC)
        except pytest.fail.Exception:  # such as 1e-05 become 1E-05: other bytes, the same record
            assert json.loads(path.read_bytes()) == meaning
        else:
            assert opened.last is not None
            assert opened.last.number == 1


def test_the_one_before_is_used_when_the_newest_is_damaged(tmp_path: Path) -> None:
    saved(tmp_path, [0.5, 0.25, 0.125])
    newest = tmp_path / "checkpoint-000003.pt"
    newest.write_bytes(newest.read_bytes()[:-1])
    checkpoints = Checkpoints(tmp_path, metric=AUC, keep=2)
    with pytest.warns(UserWarning, match=r"checkpoint-000003.pt: .* going back to the checkpoint before it"):
        found = checkpoints.usable_last()
    assert found is not None
    assert (found[0].number, found[1]["epoch"]) == (2, 2)
    checkpoints.save(weights(3), score=0.1)
    assert Checkpoints(tmp_path, metric=AUC).last.load()["epoch"] == 3  # type: ignore[union-attr]


def test_a_missing_file_counts_as_damaged_and_when_none_is_left_that_is_said(tmp_path: Path) -> None:
    saved(tmp_path, [0.5, 0.25])
    for path in tmp_path.glob("checkpoint-*.pt"):
        path.unlink()
    with (
        pytest.warns(UserWarning, match="there is no such file"),
        pytest.raises(CorruptError, match=r"no intact checkpoint is left \(damaged: checkpoint-000002.pt, .*; restore"),
    ):
        Checkpoints(tmp_path, metric=AUC).usable_last()
    assert Checkpoints(tmp_path / "new", metric=AUC).usable_last() is None


class Evil:
    """Pickled, it asks whoever loads it to make a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def test_a_malicious_file_is_refused_and_nothing_in_it_runs(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.save({"model": {"w": Evil(canary)}}, tmp_path / "evil.pt")
    with pytest.raises(CorruptError, match=r"evil.pt: is not a file of weights"):
        read_checkpoint(tmp_path / "evil.pt")
    assert not canary.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02}q\x00.", b"{}", os.urandom(1000)])
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    (tmp_path / "folder.pt").mkdir()
    for name in ("x.pt", "folder.pt", "none.pt"):
        with pytest.raises(CorruptError, match=name):
            read_checkpoint(tmp_path / name)
    for path in (Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(CorruptError, match="no such file"):
            read_checkpoint(path)


# --- a disk that refuses


class Refusal:
    """One function of the operating system that fails when it is called for the n-th time."""

    def __init__(self, name: str, code: int, moment: int) -> None:
        self.real, self.code, self.moment = getattr(os, name), code, moment
        self.calls = 0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        self.calls += 1
        if self.calls == self.moment:
            raise OSError(self.code, os.strerror(self.code))
        return self.real(*arguments, **named)


@pytest.mark.parametrize("name", ["fsync", "replace", "unlink"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_refuses_at_any_moment_leaves_the_old_checkpoints_and_nothing_half_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    for moment in range(1, 20):
        folder = tmp_path / str(moment)
        checkpoints = saved(folder, [0.5, 0.7, 0.6], keep=1)
        refusal, noticed = Refusal(name, code, moment), False
        with monkeypatch.context() as patched:
            patched.setattr(os, name, refusal)
            try:
                checkpoints.save(weights(4), score=0.8)
            except ResourceError as error:
                noticed = str(folder) in str(error)
        assert noticed == (refusal.calls >= moment)
        assert not list(folder.glob(".*.tmp")) or name == "unlink"
        for opened in (checkpoints, Checkpoints(folder, metric=AUC, keep=1)):
            kept = [checkpoint.number for checkpoint in opened._all]
            assert [checkpoint.load()["epoch"] for checkpoint in opened._all] == kept
            assert kept[-2:] in ([2, 3], [3, 4])
            assert [checkpoint.number for checkpoint in opened.best(1)] == [
                max(kept, key=[0, 0.5, 0.7, 0.6, 0.8].__getitem__)
            ]
        checkpoints.save(weights(9), score=0.9)
        assert Checkpoints(folder, metric=AUC).best()[0].load()["epoch"] == 9
        if not noticed:
            return
    pytest.fail("the moments have no end")


def test_a_file_of_ours_that_a_killed_process_left_half_written_is_removed_at_the_next_save(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint-000007.pt.999.tmp").write_bytes(b"half")
    (tmp_path / "checkpoint-000007.pt").write_bytes(b"whole, but its record was never written")
    (tmp_path / "notes.txt").write_text("not ours")
    saved(tmp_path, [0.5])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.pt",
        "checkpoint-000001.json",
        "checkpoint-000001.pt",
        "last.pt",
        "notes.txt",
    ]
