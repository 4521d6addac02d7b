"""From a real run to a submission by way of calibration, decision and stack: files, board, ledger."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import batteries as bt
from batteries.combine.calibrate import calibrate_entry
from batteries.combine.decide import decide_entry
from batteries.combine.derive import LEARNED
from batteries.combine.stack import stack_entries
from batteries.errors import CorruptError, DataError, PredictionsError
from batteries.experiment import load_experiment
from batteries.files import read_sealed
from batteries.score.board import restore
from batteries.score.verify import verify
from batteries.train.run import train_run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs of the toy, and a third with a fold to train; not to be written to."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(Path(__file__).parent / "toy.py", folder / "experiment.py")
    for values, folds in (({}, None), ({"width": 2}, None), ({"width": 4}, [0])):
        experiment = load_experiment(folder, values=values)
        train_run(experiment, folder / "runs", device="cpu", progress=False, say=lambda _: None, folds=folds)
    return folder


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path / "runs"


def entries(root: Path, *names: str) -> list[bt.Entry]:
    return [bt.open_entry(root, name) for name in names]


def test_what_is_fitted_on_a_run_is_scored_submitted_and_found_again(root: Path) -> None:
    weak, strong = entries(root, "toy-002", "toy-001")
    experiment = strong.experiment()
    assert bt.record(weak, experiment, root) < bt.record(strong, experiment, root)
    result, calibrated = calibrate_entry(weak, root)
    assert result.accepted
    decision, decided = decide_entry(weak, root)
    assert decision.objective == "accuracy"
    stacked = stack_entries([weak, strong], root, model="logistic")
    made = [calibrated, decided, stacked]
    assert [entry.kind for entry in made] == ["calibrated", "decided", "stack"]
    scores = [bt.record(entry, experiment, root) for entry in made]
    assert scores[1] == decision.nested > decision.default
    assert scores[2] > 0.8
    rows = {row.name: row for row in bt.scores(root)}
    assert [rows[entry.name].valid for entry in made] == scores
    assert [rows[entry.name].run for entry in made] == ["toy-002", "toy-002", "toy-002"]
    assert not [finding for entry in made for finding in verify(entry.folder) if finding.bad]
    for entry in made:
        sent = bt.submit(entry, experiment, root)
        test = entry.test()
        assert test is not None
        assert sent.table["label"].to_list() == test.values.argmax(axis=1).tolist()
    (root / "ledger.db").unlink()
    assert restore(root) == 6
    again = {row.name: row.valid for row in bt.scores(root)}
    assert {name: again[name] for name in rows} == {name: row.valid for name, row in rows.items()}
    (root / "ledger.db").unlink()
    (root / "submission-001" / "submission.json").write_text("garbage")
    with pytest.warns(UserWarning, match=r"submission-001/submission\.json: cannot be read .*; going on without it"):
        assert restore(root) == 6


def test_derived_entries_blend_with_others(root: Path) -> None:
    weak, strong = entries(root, "toy-002", "toy-001")
    _, calibrated = calibrate_entry(weak, root)
    blend = bt.blend_entries([calibrated, strong], root, how="mean")
    expected = (calibrated.oof().values + strong.oof().align(calibrated.oof().ids).values) / 2
    np.testing.assert_allclose(blend.oof().values, expected, rtol=1e-12)


def test_a_change_of_what_was_learned_is_noticed(root: Path) -> None:
    _, calibrated = calibrate_entry(entries(root, "toy-002")[0], root)
    path = calibrated.folder / LEARNED
    learned = read_sealed(path)
    assert learned["nested"]["log_loss"] < learned["before"]["log_loss"]
    path.write_text(path.read_text().replace('"how": "temperature"', '"how": "platt"'))
    with pytest.raises(CorruptError, match="was changed or damaged after it was written"):
        read_sealed(path)
    assert [(finding.file.name, finding.state) for finding in verify(calibrated.folder) if finding.bad] == [
        (LEARNED, "damaged")
    ]
    path.unlink()
    assert [finding.state for finding in verify(calibrated.folder) if finding.bad] == ["missing"]


def test_a_run_with_a_fold_to_train_or_without_targets_is_refused(root: Path) -> None:
    half, whole = entries(root, "toy-003", "toy-001")
    for make in (calibrate_entry, decide_entry):
        with pytest.raises(PredictionsError, match="toy-003 predicts 30 of 60 training rows, 30 are missing"):
            make(half, root)
    with pytest.raises(PredictionsError, match="toy-003 predicts 30 of 60"):
        stack_entries([whole, half], root, model="logistic")
    oof = whole.oof()
    bt.Predictions(oof.ids, oof.values, about=oof.about).save(whole.folder / "oof.parquet")
    with pytest.raises(DataError, match="toy-001 carries no targets or folds with its out-of-fold predictions"):
        calibrate_entry(whole, root)
