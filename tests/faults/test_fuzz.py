"""Fuzzing: every parser of ours reads or refuses whatever it is given, soon, and does nothing else.

The corpora hold inputs that are good, that reached new code, or that crashed a parser once: parsers.py.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import acts
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsers import CORPUS, PARSERS, attempt, corpus, garbled

from batteries.files import read_sealed, write_sealed
from goals import figure, times
from test_resume import toy_in

SLOW = 2.0
"""Seconds within which an input is read or refused."""


def test_every_parser_has_a_corpus_and_every_corpus_a_parser() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == {name.replace(" ", "-") for name in PARSERS}


@pytest.mark.parametrize("parser", PARSERS)
def test_c5_every_input_kept_and_garbled_is_read_or_refused(tmp_path: Path, parser: str) -> None:
    kept, draw, slowest = corpus(parser), random.Random(parser), 0.0
    more = [garbled(draw.choice(kept), draw, PARSERS[parser].kind) for _ in range(times(2000, 20))]
    for data in (*kept, *more):
        began = time.perf_counter()
        attempt(parser, tmp_path, data)
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < SLOW
    figure("G5", fuzzed_inputs=len(kept) + len(more), crashes=0)


@given(st.text())
@pytest.mark.parametrize("parser", ["name", "value", "ledger line", "record"])
def test_c5_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, parser: str, text: str) -> None:
    attempt(parser, tmp_path_factory.getbasetemp(), text.encode(errors="surrogatepass"))


VERBS = {
    "toy-001/config.json": ("scores", "verify toy-001", "submit toy-001", "train --resume toy-001", "average toy-001"),
    "toy-001/fold0/fold.json": ("scores", "verify toy-001", "train --resume toy-001"),
    "toy-001/fold1/stage-all/checkpoint-*.json": ("verify toy-001", "average toy-001 --best 1"),
    "submission-001/submission.json": ("verify", "reproduce submission-001", "submit toy-001", "report"),
    "calibrated-001/learned.json": ("verify calibrated-001", "report"),
}
"""Records of a run's folder, and commands that read them."""


@pytest.fixture(scope="module")
def made(disk: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a submission and a calibrated entry."""
    folder = toy_in(tmp_path_factory.mktemp("made"))
    for arguments in (["train"], ["submit", "toy-001"], ["calibrate", "toy-001"]):
        ended = acts.command(folder, *arguments)
        assert ended.code == 0, ended.text
    return folder


@pytest.mark.parametrize("record", VERBS)
def test_c8_a_record_that_another_hand_made_is_never_a_bug_of_ours(tmp_path: Path, made: Path, record: str) -> None:
    """Its digest is right, its content is not."""
    draw, tried = random.Random(record), times(20, 1)
    for number in range(tried):
        folder = tmp_path / str(number)
        shutil.copytree(made, folder)
        path = max((folder / "runs").glob(record))
        plain = json.loads(garbled(json.dumps(read_sealed(path)).encode(), draw, "json"))
        if not isinstance(plain, dict):
            continue
        write_sealed(path, plain)
        for verb in VERBS[record]:
            ended = acts.command(folder, *verb.split())
            assert ended.code in (0, 2, 3, 4, 5), f"{verb}: {ended.code} {ended.text}\n{plain}"
        shutil.rmtree(folder)
    figure("G5", foreign_records_used=tried, crashes=0)
