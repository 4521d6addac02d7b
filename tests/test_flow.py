"""The whole flow on a toy, from the library: folds, two runs, out-of-fold, average, blends, submission, board."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import batteries as bt
from batteries.cli.app import main
from batteries.errors import BlendError, DataError, PredictionsError, UsageError, WeightsError
from batteries.files import digest_file
from batteries.score.ledger import Ledger

ROOT = Path("runs")


@pytest.fixture
def two_runs(toy_folder: Path) -> tuple[bt.Entry, bt.Entry]:
    """Two runs of the toy, entered into the ledger."""
    entries = []
    for width in (8, 12):
        experiment = bt.load_experiment(toy_folder, overrides=[f"width={width}"])
        run = bt.train_run(experiment, ROOT, progress=False)
        entry = bt.open_entry(ROOT, run.name)
        bt.record(entry, experiment, ROOT)
        entries.append(entry)
    return entries[0], entries[1]


def test_the_flow_runs_end_to_end(two_runs: tuple[bt.Entry, bt.Entry]) -> None:
    first, second = two_runs
    experiment = first.experiment()
    averaged = bt.average(bt.Run.open(first.folder), experiment, ROOT, best=2, progress=False)
    blended = bt.blend_entries([first, second, averaged], ROOT, how="power", power=2.0, weights=[2, 1, 1])
    for entry in (averaged, blended):
        bt.record(entry, experiment, ROOT)
    submission = bt.submit(blended, experiment, ROOT)
    assert bt.leaderboard(submission.name, 0.9, ROOT) == blended.name
    tested = bt.test(blended, ROOT)
    assert tested.rows == 30
    rows = {row.name: row for row in bt.scores(ROOT)}
    assert list(rows) == sorted(rows, key=lambda name: -(rows[name].valid or 0))
    assert {name: row.kind for name, row in rows.items()} == {
        **{"toy-001": "run", "toy-002": "run"},
        **{"average-001": "average", "blend-001": "blend"},
    }
    assert (rows["blend-001"].public, rows["blend-001"].test) == (0.9, tested.test)
    assert rows["toy-001"].folds == "2/2"
    assert rows["toy-001"].valid > 0.9  # type: ignore[operator]
    assert bt.write_report(ROOT).exists()


def test_out_of_fold_predictions_cover_every_row_once_and_score_as_the_board_says(
    two_runs: tuple[bt.Entry, ...],
) -> None:
    oof, experiment = two_runs[0].oof(complete=True), two_runs[0].experiment()
    assert oof.ids.to_list() == experiment.table()["id"].to_list()
    assert oof.targets is not None
    board = {row.name: row.valid for row in bt.scores(ROOT)}
    assert board["toy-001"] == experiment.metric(oof.targets, oof.values)


def test_test_predictions_are_the_mean_over_the_folds(two_runs: tuple[bt.Entry, ...]) -> None:
    folder = two_runs[0].folder
    parts = [bt.Predictions.load(folder / f"fold{fold}" / "test.parquet").values for fold in range(2)]
    test = two_runs[0].test()
    assert test is not None
    np.testing.assert_allclose(test.values, np.mean(parts, axis=0), rtol=1e-6)


def test_a_blend_is_the_formula_applied_to_both_sets_by_id(two_runs: tuple[bt.Entry, ...]) -> None:
    blended = bt.blend_entries(two_runs, ROOT, weights=[3, 1])
    for part in ("oof", "test"):
        a, b = (getattr(entry, part)() for entry in two_runs)
        expected = 0.75 * a.values.astype("float64") + 0.25 * b.align(a.ids).values
        np.testing.assert_allclose(getattr(blended, part)().values, expected, rtol=1e-12)
    assert blended.config["members"] == {"toy-001": 0.75, "toy-002": 0.25}


def test_the_same_blend_and_the_same_average_are_not_made_twice(two_runs: tuple[bt.Entry, ...]) -> None:
    run, experiment = bt.Run.open(two_runs[0].folder), two_runs[0].experiment()
    names = [bt.average(run, experiment, ROOT, best=2, progress=False).name for _ in range(2)]
    names += [bt.blend_entries(two_runs, ROOT, how=how).name for how in ("mean", "mean", "rank")]
    assert names == ["average-001", "average-001", "blend-001", "blend-001", "blend-002"]


def test_a_blend_of_other_options_is_another_entry_and_says_what_it_was_made_with(
    two_runs: tuple[bt.Entry, bt.Entry],
) -> None:
    with pytest.warns(UserWarning, match="values were clipped to 0.4 to 1 - 0.4"):
        clipped = bt.blend_entries(two_runs, ROOT, how="logit", clip=0.4)
    assert (clipped.config["how"], clipped.config["clip"], clipped.config["multilabel"]) == ("logit", 0.4, False)
    made = [
        clipped,
        bt.blend_entries(two_runs, ROOT, how="logit"),
        bt.blend_entries(two_runs, ROOT, how="power", power=3),
        bt.blend_entries(two_runs, ROOT, how="power", power=float("inf")),
        bt.blend_entries(two_runs, ROOT, how="mean_of_powers", power=3),
        bt.blend_entries(two_runs, ROOT, how="rank"),
        bt.blend_entries(two_runs, ROOT, how="rank", within_folds=True),
        bt.blend_entries(two_runs, ROOT, how="vote"),
    ]
    assert [entry.name for entry in made] == [f"blend-{number:03d}" for number in range(1, 9)]
    assert bt.blend_entries(two_runs, ROOT, how="rank", within_folds=True).name == "blend-007"
    for entry in made:
        bt.record(entry, entry.experiment(), ROOT)
    assert "power, p = inf" in bt.write_report(ROOT).read_text()
    whole, inside = made[5], made[6]
    assert inside.oof().values.max() == 1
    assert not np.array_equal(inside.oof().values, whole.oof().values)
    assert np.array_equal(inside.test().values, whole.test().values)  # type: ignore[union-attr]


def test_a_submission_is_the_sample_filled_in_and_its_digest_is_kept(two_runs: tuple[bt.Entry, ...]) -> None:
    experiment = two_runs[0].experiment()
    submission = bt.submit(two_runs[0], experiment, ROOT)
    table = pl.read_csv(submission.path)
    assert table["id"].to_list() == list(range(1000, 1030))
    assert table["label"].to_list() == [row.index(max(row)) for row in two_runs[0].test().values.tolist()]  # type: ignore[union-attr]
    assert digest_file(submission.path) == submission.sha256
    with bt.Ledger(ROOT) as ledger:
        assert ledger.submissions()[0]["sha256"] == submission.sha256
    assert bt.submit(two_runs[0], experiment, ROOT).name == "submission-001"


def test_one_fold_of_two_is_scored_and_said_to_be_partial(toy_folder: Path) -> None:
    experiment = bt.load_experiment(toy_folder)
    run = bt.train_run(experiment, ROOT, folds=[1], progress=False)
    entry = bt.open_entry(ROOT, run.name)
    bt.record(entry, experiment, ROOT)
    row = bt.scores(ROOT)[0]
    assert (row.folds, row.missing_folds, len(entry.oof())) == ("1/2", True, 30)
    with pytest.raises(
        PredictionsError, match="predicts 30 of 60 training rows, 30 are missing; train its other folds"
    ):
        entry.oof(complete=True)
    with pytest.raises(PredictionsError, match="30 are missing"):
        bt.blend_entries([entry], ROOT)
    bt.train_run(experiment, ROOT, progress=False)
    assert len(bt.open_entry(ROOT, run.name).oof(complete=True)) == 60


def test_a_run_with_folds_to_be_trained_yet_stands_below_those_that_are_complete(
    two_runs: tuple[bt.Entry, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    """Though one fold alone may score better than all do."""
    experiment = bt.load_experiment(two_runs[0].folder.parent.parent, overrides=["width=16"])
    for fold, place in ((0, 2), (1, 0)):
        bt.train_run(experiment, ROOT, folds=[fold], progress=False)
        bt.record(bt.open_entry(ROOT, "toy-003"), experiment, ROOT)
        with Ledger(ROOT) as ledger:  # as of rows that are easy
            ledger.add_score("toy-003", "oof", 1.5 + fold, metric="accuracy", higher_is_better=True)
        assert (bt.scores(ROOT)[place].name, bt.scores(ROOT)[place].folds) == ("toy-003", f"{fold + 1}/2")
        assert main(["scores"]) == 0
        shown = re.search(r"toy-003 +1/2 +1\.50000", capfd.readouterr().out)
        assert (shown is not None) is (fold == 0)


def test_the_ledger_can_be_written_again_from_the_folders(two_runs: tuple[bt.Entry, ...]) -> None:
    before = bt.scores(ROOT)
    (ROOT / "ledger.db").unlink()
    for entry in two_runs:
        bt.record(entry, entry.experiment(), ROOT)
    assert bt.scores(ROOT) == before


def test_what_does_not_belong_together_is_not_blended(two_runs: tuple[bt.Entry, ...]) -> None:
    with pytest.raises(BlendError, match="toy-001 is named twice; give it a larger weight"):
        bt.blend_entries([two_runs[0], two_runs[0]], ROOT)
    with pytest.raises(BlendError, match="2 members need 2 weights, got 3"):
        bt.blend_entries(two_runs, ROOT, weights=[1, 1, 1])
    other = bt.Entry(two_runs[1].folder, {**two_runs[1].config, "folds": {"digest": "x", "n": 2}})
    with pytest.raises(BlendError, match="toy-002 and toy-001 were trained on different folds"):
        bt.blend_entries([two_runs[0], other], ROOT)


def test_unknown_names_list_the_known_ones(two_runs: tuple[bt.Entry, ...]) -> None:
    with pytest.raises(UsageError, match="no 'toy-009' in runs; entries: toy-001, toy-002"):
        bt.open_entry(ROOT, "toy-009")
    with pytest.raises(UsageError, match="no submission 'submission-009'; submissions: none yet"):
        bt.leaderboard("submission-009", 0.5, ROOT)


def test_a_leaderboard_score_must_be_finite_and_later_ones_count(two_runs: tuple[bt.Entry, ...]) -> None:
    name = bt.submit(two_runs[0], two_runs[0].experiment(), ROOT).name
    with pytest.raises(DataError, match="must be a finite number, got nan"):
        bt.leaderboard(name, float("nan"), ROOT)
    for score in (0.7, 0.8):
        bt.leaderboard(name, score, ROOT)
    bt.leaderboard(name, 0.75, ROOT, private=True)
    row = next(row for row in bt.scores(ROOT) if row.name == "toy-001")
    assert (row.public, row.private) == (0.8, 0.75)


def test_averaging_more_checkpoints_than_a_stage_has_epochs_says_so(two_runs: tuple[bt.Entry, ...]) -> None:
    run, experiment = bt.Run.open(two_runs[0].folder), two_runs[0].experiment()
    with pytest.raises(WeightsError) as caught:
        bt.average(run, experiment, ROOT, progress=False)
    assert str(caught.value) == (
        "toy-001 has 2 scored checkpoints of fold 0, 3 are asked for; stage 'all' scored 2 epochs:"
        " train it for 3 epochs, or ask for --best 2"
    )
    with pytest.raises(WeightsError, match="scored 2 epochs and keep = 3: train it for 9 epochs and set keep = 9"):
        bt.average(run, experiment, ROOT, best=9, progress=False)


def test_averaging_more_checkpoints_than_are_kept_says_so(toy_folder: Path, change: Callable[[str, str], None]) -> None:
    change('bt.Stage("all", epochs=2', 'bt.Stage("all", epochs=8')
    experiment = bt.load_experiment(toy_folder)
    run = bt.train_run(experiment, ROOT, folds=[0], progress=False)
    with pytest.raises(WeightsError, match="of fold 0, 6 are asked for; keep = 3: set keep = 6 in the experiment, or"):
        bt.average(run, experiment, ROOT, best=6, progress=False)
