"""W1 to W9 of the catalogue: whatever stops a write, what was kept is kept, and the same command goes on.

Processes are killed, and the disk refuses, in earnest: at random moments, and at every act on a file in turn.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import acts
import pytest

import batteries as bt
from batteries.files import digest_file
from batteries.score.verify import verify
from batteries.train.checkpoint import Checkpoints
from goals import figure, times
from test_resume import STORMY, assert_same, outcome, stormy_in

pytestmark = pytest.mark.usefixtures("disk")
PARTS = 4
"""Into so many tests a long list of moments is divided, for processes side by side."""


@pytest.fixture(scope="module")
def whole(disk: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int, float]:
    """What a training ends with that nothing happened to, how many acts it takes, and how long."""
    for _ in range(2):  # the first one starts the fork server, which takes several times as long
        folder = stormy_in(tmp_path_factory.mktemp("whole"))
        began = time.monotonic()
        ended = acts.command(folder, "train", *STORMY)
        assert ended.code == 0, ended.text
    return outcome(folder), ended.acts, time.monotonic() - began


@pytest.fixture(scope="module")
def plainly(disk: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], int]:
    """The same of a training that saves at the end of epochs only, as by default: half the acts."""
    folder = stormy_in(tmp_path_factory.mktemp("plainly"), saving=False)
    ended = acts.command(folder, "train", *STORMY)
    assert ended.code == 0, ended.text
    return outcome(folder), ended.acts


def chosen(count: int, how_many: int) -> list[int]:
    """The acts 1 to `count`: all, or `how_many` drawn one from each of equal stretches."""
    if how_many >= count:
        return list(range(1, count + 1))
    draw = random.Random(how_many)
    return [1 + int(count * (place + draw.random()) / how_many) for place in range(how_many)]


def check_intact(folder: Path) -> None:
    """Every stage that has checkpoints has an intact one, by whatever name."""
    for stage in {path.parent for path in folder.rglob("checkpoint-*.json")}:
        kept = Checkpoints(stage, metric=bt.Metric.accuracy())
        assert kept.usable_last() is not None
        for checkpoint in kept.best(3):
            checkpoint.load()


# --- W1, G1: kill -9 at random moments


@pytest.mark.parametrize("part", range(PARTS))
def test_w1_killed_at_random_moments_again_and_again_it_ends_bit_for_bit_as_if_never_killed(
    tmp_path: Path, whole: tuple[dict[str, Any], int, float], part: int
) -> None:
    wanted, _, seconds = whole
    draw, kills, runs = random.Random(part), 0, 0
    while kills < times(200, 8) // PARTS:
        folder = stormy_in(tmp_path / str(runs))
        while True:
            process = acts.start(folder, acts._batteries, [str(folder), ["train", *STORMY]])
            process.join(draw.uniform(0.05, 1.1 * seconds))
            process.kill()
            process.join()
            if process.exitcode != -signal.SIGKILL:
                assert process.exitcode == 0
                break
            kills += 1
            check_intact(folder)
        assert_same(outcome(folder), wanted)
        runs += 1
        shutil.rmtree(folder)
    figure("G1", kills=kills, runs=runs, identical=runs)


# --- W2, G2: killed at every act on a file


@pytest.mark.parametrize("part", range(PARTS))
def test_w2_killed_at_any_act_on_a_file_a_training_ends_as_if_never_killed(
    tmp_path: Path, plainly: tuple[dict[str, Any], int], part: int
) -> None:
    wanted, count = plainly
    moments = chosen(count, times(10_000, 8))[part::PARTS]
    for at in moments:
        folder = stormy_in(tmp_path / str(at), saving=False)
        killed = acts.command(folder, "train", *STORMY, at=at)
        assert killed.code in (-signal.SIGKILL, 0)  # threads may need an act or two less
        check_intact(folder)
        again = acts.command(folder, "train", *STORMY)
        assert again.code == 0, f"killed at {at}: {again.text}"
        assert_same(outcome(folder), wanted)
        assert [finding for finding in verify(folder / "runs/toy-001") if finding.bad] == []
        shutil.rmtree(folder)
    figure("G2", training=len(moments), lost=0)


VERBS = {
    "split": ["split"],
    "average": ["average", "toy-001", "--best", "2"],
    "blend": ["blend", "toy-001", "toy-002", "--how", "rank"],
    "submit": ["submit", "toy-001"],
    "leaderboard": ["leaderboard", "submission-001", "0.9"],
    "test": ["test", "toy-001"],
    "report": ["report"],
}
"""Verbs that write, by what they write."""


@pytest.fixture(scope="module")
def trained(disk: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with folds, two runs and a submission."""
    folder = stormy_in(tmp_path_factory.mktemp("trained"), saving=False)
    for arguments in (["train"], ["train", "--set", "width=6"], ["submit", "toy-002"]):
        ended = acts.command(folder, *arguments)
        assert ended.code == 0, ended.text
    return folder


def fresh(trained: Path, folder: Path, verb: str) -> Path:
    """A copy to do `verb` in; for `split` without runs."""
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("runs") if verb == "split" else None)
    return folder


def artefacts(folder: Path) -> dict[str, str]:
    """Digests of the files that a verb's result is: no logs, nothing with a date in it."""
    found = [*folder.rglob("*.parquet"), *folder.rglob("*.csv"), *folder.rglob("*.pt")]
    return {str(path.relative_to(folder)): digest_file(path) for path in found if path.is_file()}


def made_again(trained: Path, folder: Path, verb: str) -> Iterator[tuple[int, Path, dict[str, str]]]:
    """Folders to try a verb in, one for each chosen act, with what the verb makes where nothing happens."""
    calm = fresh(trained, folder / "calm", verb)
    ended = acts.command(calm, *VERBS[verb])
    assert ended.code == 0, ended.text
    wanted = artefacts(calm)
    for at in chosen(ended.acts, times(10_000, 2)):
        yield at, fresh(trained, folder / str(at), verb), wanted
        shutil.rmtree(folder / str(at))


@pytest.mark.parametrize("verb", VERBS)
def test_w9_killed_at_any_act_on_a_file_a_verb_leaves_old_or_new_and_can_be_repeated(
    tmp_path: Path, trained: Path, verb: str
) -> None:
    before, tried = artefacts(trained), 0
    for at, folder, wanted in made_again(trained, tmp_path, verb):
        killed = acts.command(folder, *VERBS[verb], at=at)
        assert killed.code == -signal.SIGKILL
        left = artefacts(folder)
        if verb != "split":
            assert {name: left.get(name) for name in before} == before
        assert {name: digest for name, digest in left.items() if wanted.get(name) != digest and "/." not in name} == {}
        again = acts.command(folder, *VERBS[verb])
        assert again.code == 0, f"killed at {at}: {again.text}"
        assert set(wanted.values()) <= set(artefacts(folder).values())
        tried += 1
    figure("G2", **{verb: tried}, lost=0)


# --- W3: a power cut kept the name and lost the content


def test_w3_a_newest_checkpoint_torn_in_any_block_is_refused_and_the_one_before_is_used(
    tmp_path: Path, whole: tuple[dict[str, Any], int, float]
) -> None:
    folder = stormy_in(tmp_path / "torn")
    killed = acts.command(folder, "train", *STORMY, at=int(0.4 * whole[1]))
    assert killed.code == -signal.SIGKILL
    newest = max(folder.rglob("checkpoint-*.json"), key=lambda path: path.stat().st_mtime_ns).with_suffix(".pt")
    data, blocks = newest.read_bytes(), range(0, newest.stat().st_size, 4096)
    for start in blocks:
        for torn in (data[:start], data[:start] + b"\0" * min(4096, len(data) - start) + data[start + 4096 :]):
            newest.write_bytes(torn)
            with pytest.warns(UserWarning, match=f"{newest.name}.*going back to the checkpoint before it"):
                found = Checkpoints(newest.parent, metric=bt.Metric.accuracy()).usable_last()
            assert found is not None
            assert found[0].path != newest
    again = acts.command(folder, "train", *STORMY)
    assert again.code == 0, again.text
    assert again.text.count("warning: ") == 1
    assert_same(outcome(folder), whole[0])
    figure("G2", torn_blocks=2 * len(blocks), lost=0)


# --- W4, W5, G4: a disk that is full, broken, read-only, over its quota

REFUSALS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EACCES, errno.EDQUOT)


def check_refusal(ended: acts.Ended, folder: Path, why: str) -> None:
    """Exit code 6 and one message that names a file and the reason; no traceback, nothing half-written."""
    assert ended.code == 6, f"{why}: {ended.code} {ended.text}"
    assert "Traceback" not in ended.text, why
    message = ended.text[ended.text.rindex("error: ") :]
    assert "runs" in message or str(folder) in message, f"{why}: {message}"


@pytest.mark.parametrize("part", range(PARTS))
def test_w4_a_disk_that_refuses_any_act_ends_a_training_with_6_and_the_same_command_goes_on(
    tmp_path: Path, plainly: tuple[dict[str, Any], int], part: int
) -> None:
    wanted, count = plainly
    survived = refused = 0
    for at in chosen(count, times(10_000, 8))[part::PARTS]:
        code = REFUSALS[at % len(REFUSALS)]
        why = f"{errno.errorcode[code]} at {at}"
        folder = stormy_in(tmp_path / str(at), saving=False)
        ended = acts.command(folder, "train", *STORMY, at=at, errno=code, lasting=code == errno.ENOSPC)
        if ended.code != 0:  # a line of TensorBoard, or a file to be deleted, can be done without
            check_refusal(ended, folder, why)
            assert code not in (errno.ENOSPC, errno.EDQUOT) or "bytes free" in ended.text, f"{why}: {ended.text}"
            refused += 1
            check_intact(folder)
            again = acts.command(folder, "train", *STORMY)
            assert again.code == 0, f"{why}: {again.text}"
        else:
            survived += 1
        assert_same(outcome(folder), wanted)
        shutil.rmtree(folder)
    figure("G4", refused=refused, done_without=survived, damaged=0)


@pytest.mark.parametrize("verb", VERBS)
def test_w5_a_disk_that_refuses_any_act_of_a_verb_damages_nothing_and_it_can_be_repeated(
    tmp_path: Path, trained: Path, verb: str
) -> None:
    before, tried = artefacts(trained), 0
    for at, folder, wanted in made_again(trained, tmp_path, verb):
        code = REFUSALS[at % len(REFUSALS)]
        ended = acts.command(folder, *VERBS[verb], at=at, errno=code)
        if ended.code != 0:
            check_refusal(ended, folder, f"{verb}, {errno.errorcode[code]} at {at}")
        left = artefacts(folder)
        if verb != "split":
            assert {name: left.get(name) for name in before} == before
        assert {name: digest for name, digest in left.items() if wanted.get(name) != digest} == {}
        again = acts.command(folder, *VERBS[verb])
        assert again.code == 0, again.text
        tried += 1
    figure("G4", **{verb: tried}, damaged=0)


def test_w4_a_disk_that_is_really_full_says_how_many_bytes_are_free(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    small = tmp_path / "small"
    small.mkdir()
    if os.system(f"mount -t tmpfs -o size=200k tmpfs '{small}' 2> /dev/null"):
        pytest.skip("mounting is not allowed here")
    try:
        ended = acts.command(stormy_in(small / "toy"), "train", *STORMY)
        assert ended.code == 6, ended.text
        assert "no space left" in ended.text
        assert "bytes free" in ended.text
        check_intact(small)
    finally:
        os.system(f"umount -l '{small}'")
