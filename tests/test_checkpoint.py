"""Checkpoints: last, best and few best; whole or not at all; refused when they are not what was written."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.serialization import get_crc32_options

from batteries.errors import CorruptError, NonFiniteError, ResourceError, ResumeError, UsageError
from batteries.experiment import Metric
from batteries.files import write_sealed
from batteries.train.checkpoint import Checkpoints
from batteries.train.checkpoint_file import read_checkpoint
from batteries.train.staging import Staging

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
    newest = {len(scores), max(1, len(scores) - 1), *finite[-1:]}  # also the newest scored one
    assert numbers(folder) == sorted({*best, *newest})


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
    with pytest.raises(ResumeError, match=r"has schema 99, this Batteries .* reads 1 and older"):
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


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"\x80\x02}q\x00.", b"{}", random.Random(0).randbytes(1000)],
    ids=["empty", "a zip's first bytes", "a pickle", "json", "noise"],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pt").write_bytes(content)
    (tmp_path / "folder.pt").mkdir()
    for name in ("x.pt", "folder.pt", "none.pt"):
        with pytest.raises(CorruptError, match=name):
            read_checkpoint(tmp_path / name)
    for path in (Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(CorruptError, match="no such file"):
            read_checkpoint(path)


# --- behind the training


def grown(size: int = 50_000) -> dict[str, Any]:
    """A state with what copies may get wrong: views, ties, strides, empties, half precision, tensors on their own."""
    base = torch.arange(float(size))
    image = torch.rand(2, 3, 5, 7).to(memory_format=torch.channels_last)
    model = OrderedDict(weight=base, tied=base, view=base[3:11:2], image=image, half=torch.rand(9).half())
    model._metadata = {"": {"version": 2}}  # type: ignore[attr-defined]
    odd = [torch.empty(0, 4), torch.tensor(3), torch.rand(3).expand(4, 3), torch.eye(3).to_sparse(), base.bfloat16()]
    plain = {"list": [1, (2.5, "text")], "none": None, "bytes": b"ab", "yes": True}
    return {"model": model, "optimizer": {"state": {0: {"odd": odd}}, "param_groups": [plain]}, "epoch": 3}


def flat(state: Any) -> list[Any]:
    if isinstance(state, dict):
        return [part for key, value in state.items() for part in (key, *flat(value))]
    if isinstance(state, list | tuple):
        return [type(state), *(part for value in state for part in flat(value))]
    return [state]


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal to the last bit, in kind, type, shape and strides."""
    first, second = flat(one), flat(other)
    if len(first) != len(second):
        return False
    for a, b in zip(first, second, strict=True):
        if isinstance(a, torch.Tensor):
            if not (a.dtype == b.dtype and a.layout == b.layout and torch.equal(a.to_dense(), b.to_dense())):
                return False
            if a.layout == torch.strided and a.stride() != b.stride():
                return False
        elif a != b or type(a) is not type(b):
            return False
    return True


def change(state: Any) -> None:
    """Change every value in place."""
    for value in flat(state):
        if isinstance(value, torch.Tensor) and value.layout == torch.strided and 0 not in value.stride():
            value.add_(1)


def test_the_file_is_the_state_at_the_time_of_the_call_whatever_happens_to_it_at_once(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, metric=AUC)
    for size in (50_000, 50_000, 12_000_000, 70_000):  # buffers used again, and of other sizes
        state, info = grown(size), {"scores": [1]}
        at_the_call = deepcopy(state)
        saving = checkpoints.save_soon(state, info=info)
        change(state)
        state["optimizer"]["param_groups"][0]["list"].append("late")
        info["scores"].append(2)
        checkpoint = saving.result()
        assert same(checkpoint.load(), at_the_call)
        assert not same(state, at_the_call)
        assert checkpoint.info == {"scores": [1]}
    assert len(checkpoints) == 2


def test_a_model_and_its_optimizer_can_go_on_training_at_once(tmp_path: Path) -> None:
    model = nn.Linear(300, 300)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoints = Checkpoints(tmp_path, metric=AUC)
    for _ in range(3):
        model(torch.ones(2, 300)).sum().backward()
        optimizer.step()
        expected = deepcopy({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
        saving = checkpoints.save_soon({"model": model, "optimizer": optimizer})
        optimizer.step()
        assert same(saving.result().load(), expected)


def test_a_file_written_behind_is_the_file_written_at_once_and_opens_with_stock_tools(tmp_path: Path) -> None:
    checkpoints, state = Checkpoints(tmp_path, metric=AUC, keep=2), grown()
    at_once, behind = checkpoints.save(state, score=0.5), checkpoints.save_soon(state, score=0.6).result()
    loaded = torch.load(behind.path, weights_only=True)
    assert same(loaded, torch.load(at_once.path, weights_only=True))
    assert loaded["model"]["tied"].data_ptr() == loaded["model"]["weight"].data_ptr()
    assert loaded["model"]["view"].untyped_storage().data_ptr() == loaded["model"]["weight"].data_ptr()
    assert loaded["model"]._metadata == {"": {"version": 2}}
    assert same(loaded, torch.load(behind.path, weights_only=True, mmap=True))
    assert "data.pkl" in {name.rpartition("/")[2] for name in zipfile.ZipFile(behind.path).namelist()}
    assert get_crc32_options(), "what others save has its checksums"
    assert abs(at_once.path.stat().st_size - behind.path.stat().st_size) < 1000


def test_the_memory_of_a_copy_is_used_for_the_next_one_and_given_back_at_the_end() -> None:
    staging, weights = Staging(), {"a": torch.ones(5), "b": torch.zeros(3, 3)}
    first = {name: tensor.data_ptr() for name, tensor in staging.copy(weights).items()}
    again = {name: tensor.data_ptr() for name, tensor in staging.copy(weights).items()}
    assert first == again
    staging.clear()
    assert staging._buffers == []


def test_a_copy_can_be_made_in_inference_mode_and_again_outside() -> None:
    staging, weight = Staging(), torch.ones(5)
    with torch.inference_mode():
        staging.copy({"w": weight, "inside": torch.ones(5)})
    copy = staging.copy({"w": weight, "inside": nn.Parameter(torch.ones(5))})
    assert torch.equal(copy["w"], weight)
    assert not copy["inside"].requires_grad


def test_a_save_that_fails_behind_the_training_is_raised_once_at_the_next_update(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, [0.5])
    before = listing(tmp_path)
    saving = checkpoints.save_soon({"model": {"w": torch.tensor([NAN])}})
    error = saving.exception()
    with pytest.raises(NonFiniteError, match="weight 'w' is NaN or infinite") as raised:
        checkpoints.check()
    assert raised.value is error
    checkpoints.check()
    checkpoints.wait()
    assert listing(tmp_path) == before
    assert checkpoints.save(weights(2), score=0.6).number == 2


@pytest.mark.parametrize("call", ["save", "save_soon", "score", "wait", "close"])
def test_an_error_that_nobody_saw_is_raised_by_whatever_is_done_next(tmp_path: Path, call: str) -> None:
    checkpoints = saved(tmp_path, [0.5])
    first = checkpoints.best()[0]
    arguments: dict[str, tuple[Any, ...]] = {"save": (weights(2),), "save_soon": (weights(2),), "score": (first, 0.9)}
    checkpoints.save_soon({"model": {"w": torch.tensor([NAN])}})
    assert [c.number for c in checkpoints.best()] == [1]  # looking at what there is raises nothing
    with pytest.raises(NonFiniteError):
        getattr(checkpoints, call)(*arguments.get(call, ()))
    assert len(checkpoints) == 1
    getattr(checkpoints, call)(*arguments.get(call, ()))
    checkpoints.wait()


def test_what_is_called_before_a_save_comes_first_and_stops_it_when_it_fails(tmp_path: Path) -> None:
    checkpoints, seen = Checkpoints(tmp_path, metric=AUC), []

    def refuse() -> None:
        raise ResourceError("the log cannot be written")

    checkpoints.save_soon(weights(1), before=lambda: seen.append(listing(tmp_path))).result()
    checkpoints.save(weights(2), before=lambda: seen.append(len(listing(tmp_path))))
    assert seen == [{}, 3]
    before = listing(tmp_path)
    with pytest.raises(ResourceError, match="the log cannot"):
        checkpoints.save(weights(3), before=refuse)
    checkpoints.save_soon(weights(3), before=refuse)
    with pytest.raises(ResourceError, match="the log cannot"):
        checkpoints.wait()
    assert listing(tmp_path) == before


def test_whoever_asks_waits_for_the_write_under_way(tmp_path: Path) -> None:
    gate = threading.Event()
    asked: list[Callable[[Checkpoints], Any]] = [
        lambda c: [b.number for b in c.best()],
        lambda c: c.last and [c.last.number],
        lambda c: [len(c)],
        lambda c: c.usable_last() and [1],
        lambda c: c.tidy() or [1],
        lambda c: c.wait() or [1],
        lambda c: [c.save(weights(2)).number - 1],
        lambda c: [c.save_soon(weights(2)).result().number - 1],
    ]
    for place, ask in enumerate(asked):
        gate.clear()
        checkpoints = Checkpoints(tmp_path / str(place), metric=AUC)
        saving = checkpoints.save_soon(weights(1), score=0.5, before=gate.wait)
        checkpoints.check()
        assert not saving.done()
        assert not saving.cancel()
        threading.Timer(0.05, gate.set).start()
        assert ask(checkpoints) == [1]
        assert saving.done()


ENDING = """
import sys, torch
from batteries.experiment import Metric
from batteries.train.checkpoint import Checkpoints
import time
checkpoints = Checkpoints("logs", metric=Metric("auc", higher_is_better=True))
checkpoints.save_soon({"w": torch.ones(1000)}, score=0.5, before=lambda: time.sleep(0.3))
"""


@pytest.mark.parametrize("end", ["", "sys.exit(0)", "raise ValueError"])
def test_a_process_that_ends_finishes_the_write_first(end: str) -> None:
    ended = subprocess.run([sys.executable, "-c", ENDING + end], timeout=60, capture_output=True)
    assert ended.returncode == (end == "raise ValueError")
    found = Checkpoints("logs", metric=AUC).usable_last()
    assert found is not None
    assert torch.equal(found[1]["w"], torch.ones(1000))


def test_a_save_while_the_interpreter_ends_is_written_too() -> None:
    late = ENDING + "import atexit; atexit.register(lambda: checkpoints.save_soon({'w': torch.zeros(1)}))"
    assert subprocess.run([sys.executable, "-c", late], timeout=60).returncode == 0
    assert len(Checkpoints("logs", metric=AUC)) == 2


def test_a_forked_child_saves_on_its_own_while_the_parent_is_still_writing(tmp_path: Path) -> None:
    gate = threading.Event()
    checkpoints = Checkpoints(tmp_path, metric=AUC)
    checkpoints.save(weights(1))
    saving = checkpoints.save_soon(weights(2), before=gate.wait)
    checkpoints.folder = tmp_path / "child"
    checkpoints.folder.mkdir()
    if (child := os.fork()) == 0:
        ok = len(checkpoints) == 1 and checkpoints.save_soon(weights(5)).result().number == 2
        os._exit(0 if ok else 1)
    checkpoints.folder = tmp_path
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.set()
    assert saving.result().load()["epoch"] == 2
    assert read_checkpoint(tmp_path / "child" / "last.pt")["epoch"] == 5


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
