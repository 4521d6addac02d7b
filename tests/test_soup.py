"""Soups and averages of chosen epochs: made of the files they name, scored on their folds, refused by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import batteries as bt
from batteries.cli.app import main
from batteries.combine.soup import SoupOfFold, greedy, soup, soup_scores
from batteries.errors import DataError, UsageError, WeightsError
from batteries.experiment import Metric
from batteries.files import read_sealed, write_sealed
from batteries.score.entry import open_entry
from batteries.score.verify import verify

ROOT = Path("runs")
HERE = Path(__file__).parent
ACCURACY = Metric("accuracy", higher_is_better=True)


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two seeds of the toy and a wider one."""
    folder = tmp_path_factory.mktemp("kitchen")
    shutil.copy(HERE / "toy.py", folder / "experiment.py")
    for change in ("seed=1", "seed=2", "width=12"):
        bt.train_run(bt.load_experiment(folder, overrides=[change]), folder / ROOT, progress=False)
    return folder


@pytest.fixture
def toys(kitchen: Path, tmp_path: Path) -> list[bt.Entry]:
    """Those runs, in the working folder."""
    shutil.copytree(kitchen, tmp_path, dirs_exist_ok=True)
    return [open_entry(ROOT, f"toy-00{number}") for number in (1, 2, 3)]


def scores_of(entry: bt.Entry) -> dict[int, float]:
    oof, metric = entry.oof(), entry.metric()
    return {fold: metric(oof.targets[oof.folds == fold], oof.values[oof.folds == fold]) for fold in (0, 1)}


def weights_of(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)["model"]


def weights_of_best(entry: bt.Entry) -> dict[str, torch.Tensor]:
    return weights_of(entry.folder / "fold0/stage-all/best.pt")


def parameters_equal(entry: bt.Entry, fold: int, mean: dict[str, torch.Tensor]) -> bool:
    found = weights_of(entry.folder / f"fold{fold}.pt")
    return all(torch.equal(found[name], mean[name]) for name in mean if "running" not in name)


def test_a_uniform_soup_is_the_mean_of_the_best_checkpoints_with_statistics_of_its_own(toys: list[bt.Entry]) -> None:
    made = soup(toys[:2], ROOT, how="uniform", progress=False)
    for fold in (0, 1):
        named = [name.split("/") for name in made.config["checkpoints"][str(fold)]]
        assert [run for run, _ in named] == ["toy-001", "toy-002"]
        placed = [ROOT / run / f"fold{fold}/stage-all" / file for run, file in named]
        assert all(file.read_bytes() == file.with_name("best.pt").read_bytes() for file in placed)
        mean = bt.average_checkpoints(placed)
        assert parameters_equal(made, fold, mean)
        found = weights_of(made.folder / f"fold{fold}.pt")
        assert not torch.equal(found["1.running_var"], mean["1.running_var"])
    assert scores_of(made) == {each.fold: each.uniform for each in soup_scores(made)}
    assert made.config["members"] == {"toy-001": 0.5, "toy-002": 0.5}
    assert (made.kind, made.config["how"], made.config["chosen_on"]) == (
        "average", "uniform soup", "the fold that scores it",
    )  # fmt: skip
    assert not [finding for finding in verify(made.folder) if finding.bad]
    assert bt.record(made, made.experiment(), ROOT) == made.metric()(made.oof().targets, made.oof().values)
    assert [row.name for row in bt.scores(ROOT)] == ["average-001"]


def test_a_greedy_soup_is_never_below_the_best_single_run_on_its_fold(toys: list[bt.Entry]) -> None:
    made = soup(toys[:2], ROOT, progress=False)
    for each in soup_scores(made):
        assert each.singles == {entry.name: scores_of(entry)[each.fold] for entry in toys[:2]}
        assert each.greedy >= max(each.singles.values())
        assert scores_of(made)[each.fold] == each.greedy
        if each.members == (each.best,):  # a soup of one run is that run
            rows = made.oof().folds == each.fold
            assert np.array_equal(made.oof().values[rows], open_entry(ROOT, each.best).oof().values[rows])
    assert sum(made.config["members"].values()) == pytest.approx(1)


def test_runs_that_were_fine_tuned_from_common_weights_make_a_soup(
    toys: list[bt.Entry], change: Callable[[str, str], None]
) -> None:
    torch.save(weights_of_best(toys[0]), "common.pt")
    change('bt.Stage("head", epochs=4', 'bt.Stage("head", start="common.pt", epochs=1')
    tuned = []
    for seed in (5, 6, 7):
        run = bt.train_run(bt.load_experiment(Path(), overrides=[f"seed={seed}", "lr=0.001"]), ROOT, progress=False)
        tuned.append(open_entry(ROOT, run.name))
    made = soup(tuned, ROOT, how="uniform", progress=False)
    assert [each.apart for each in soup_scores(made)] == [False, False]
    assert min(scores_of(made).values()) > 0.9


def test_the_same_soup_is_not_made_twice(toys: list[bt.Entry]) -> None:
    made = [soup(toys[:2], ROOT, how=how, progress=False).name for how in ("greedy", "uniform", "greedy", "uniform")]
    assert made == ["average-001", "average-002", "average-001", "average-002"]


def test_runs_that_make_no_soup_are_refused_by_name(toys: list[bt.Entry]) -> None:
    with pytest.raises(
        WeightsError,
        match=r"fold 0 of toy-001, toy-003: checkpoints 1 and 2 differ: '0.weight' is \(8, 2\) torch.float32 and"
        r" \(12, 2\) torch.float32",
    ):
        soup([toys[0], toys[2]], ROOT, progress=False)
    with pytest.raises(UsageError, match="made of two runs or more, got 1; of one run average its checkpoints"):
        soup(toys[:1], ROOT)
    with pytest.raises(UsageError, match="toy-001 is named twice"):
        soup([toys[0], toys[1], toys[0]], ROOT)
    with pytest.raises(UsageError, match="how must be 'greedy' or 'uniform', got 'lazy'"):
        soup(toys[:2], ROOT, how="lazy")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="toy-001 is no soup"):
        soup_scores(toys[0])
    (toys[1].folder / "fold1" / "fold.json").unlink()
    with pytest.raises(UsageError, match=r"toy-001 has finished folds \[0, 1\], toy-002 \[0\]"):
        soup(toys[:2], ROOT)
    average = bt.average(bt.Run.open(toys[0].folder), toys[0].experiment(), ROOT, best=2, progress=False)
    with pytest.raises(UsageError, match="average-001 is an average, not a run"):
        soup([toys[0], average], ROOT)


@pytest.mark.parametrize("key", ["data", "folds", "metric"])
def test_runs_of_other_data_folds_or_metric_make_no_soup(toys: list[bt.Entry], key: str) -> None:
    config = read_sealed(toys[1].folder / "config.json")
    write_sealed(toys[1].folder / "config.json", {**config, key: {**config[key], "other": 1}})
    with pytest.raises(DataError, match=f"toy-002 and toy-001 have different {key}; train both on one split"):
        soup([toys[0], open_entry(ROOT, "toy-002")], ROOT)


@given(
    singles=st.lists(st.integers(0, 4), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    higher_is_better=st.booleans(),
)
def test_greedy_takes_whoever_does_not_make_it_worse_best_first(
    singles: list[int], seed: int, higher_is_better: bool
) -> None:
    metric = Metric("score", higher_is_better=higher_is_better)
    members, asked = {f"run-{number}": float(value) for number, value in enumerate(singles)}, []

    def score(names: tuple[str, ...]) -> float:
        asked.append(names)
        value = np.random.default_rng([seed, *(int(name[-1]) for name in names)]).integers(0, 5)
        return float("nan") if value == 4 else float(value)

    chosen = greedy(members, metric, score)
    assert list(chosen) == [name for name in members if name in chosen]
    assert len(asked) == len(members) - 1
    best = sorted(members.values(), reverse=higher_is_better)[0]
    if len(chosen) > 1:
        assert metric.gain(score(chosen), best) >= 0
    else:
        assert members[chosen[0]] == best


def test_equal_is_enough_to_join_and_nan_is_not() -> None:
    members = {"a": 0.7, "b": 0.9}
    assert greedy(members, ACCURACY, lambda names: 0.9) == ("a", "b")
    assert greedy(members, ACCURACY, lambda names: 0.89) == ("b",)
    assert greedy(members, ACCURACY, lambda names: float("nan")) == ("b",)


@pytest.mark.parametrize(
    ("uniform", "higher_is_better", "apart"),
    [(0.69, True, True), (0.7, True, False), (0.69, False, False), (0.91, False, True), (None, True, True)],
)
def test_a_soup_below_its_worst_member_is_of_different_basins(
    uniform: float | None, higher_is_better: bool, apart: bool
) -> None:
    found = SoupOfFold(
        fold=0, singles={"a": 0.7, "b": 0.9}, uniform=uniform, greedy=0.9, members=("b",),
        higher_is_better=higher_is_better,
    )  # fmt: skip
    assert found.apart is apart
    assert (found.best, found.worst) == (("b", "a") if higher_is_better else ("a", "b"))


def test_the_last_epochs_and_given_ones_are_averaged(toys: list[bt.Entry]) -> None:
    run, experiment = bt.Run.open(toys[0].folder), toys[0].experiment()
    options: list[dict[str, Any]] = [{"last": 2}, {"epochs": [2, 1]}, {"epochs": [2]}, {"last": 1}, {"best": 2}]
    made = [bt.average(run, experiment, ROOT, **each, progress=False) for each in options]
    assert [entry.config["how"] for entry in made] == ["last 2", "epochs 1, 2", "epochs 2", "last 1", "best 2"]
    assert len({entry.name for entry in made}) == 5
    assert ["chosen_on" in entry.config for entry in made] == [False] * 4 + [True]
    folder = run.stage_folder(0, "all")
    both = [folder / f"checkpoint-{number:06d}.pt" for number in (1, 2)]
    assert [read_sealed(file.with_suffix(".json"))["info"]["epoch"] for file in both] == [1, 2]
    for entry, files in zip(made, (both, both, both[1:], both[1:]), strict=False):
        assert parameters_equal(entry, 0, bt.average_checkpoints(files))
    assert bt.average(run, experiment, ROOT, last=2, progress=False).name == made[0].name


def test_epochs_that_are_not_kept_are_named_with_those_that_are(
    toy_folder: Path, change: Callable[[str, str], None]
) -> None:
    change('bt.Stage("all", epochs=2', 'bt.Stage("all", epochs=8')
    experiment = bt.load_experiment(toy_folder)
    run = bt.train_run(experiment, ROOT, folds=[0], progress=False)
    with pytest.raises(WeightsError) as caught:
        bt.average(run, experiment, ROOT, last=8, progress=False)
    told = re.fullmatch(
        r"toy-001 has no checkpoint of epoch (.*) of stage 'all' in fold 0: of 8 epochs it keeps (.*); set keep = 8 in"
        r" the experiment and train again, or ask for those that every fold keeps: --epochs (.*)",
        str(caught.value),
    )
    assert told
    gone, kept, advice = ([int(number) for number in part.split(",")] for part in told.groups())
    assert sorted([*gone, *kept]) == list(range(1, 9))
    assert advice == kept
    assert bt.average(run, experiment, ROOT, epochs=kept, progress=False).config["how"] == f"epochs {told[2]}"
    with pytest.raises(WeightsError, match=r"no checkpoint of epoch 9 of stage.*; train it longer, or ask for those"):
        bt.average(run, experiment, ROOT, epochs=[8, 9], progress=False)
    with pytest.raises(WeightsError, match="trained 8 epochs of stage 'all' in fold 0, the last 9 are asked for"):
        bt.average(run, experiment, ROOT, last=9, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best": 2, "last": 2}, "give best, last or epochs, one of them; got best and last"),
        ({"best": 0}, "best must be >= 1, got 0"),
        ({"last": 0}, "last must be >= 1, got 0"),
        ({"epochs": []}, "epochs must be different numbers >= 1, got none"),
        ({"epochs": [2, 2]}, "epochs must be different numbers >= 1, got 2, 2"),
        ({"epochs": [0, 1]}, "epochs must be different numbers >= 1, got 0, 1"),
    ],
)
def test_a_choice_that_is_none_is_refused(toys: list[bt.Entry], options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        bt.average(bt.Run.open(toys[0].folder), toys[0].experiment(), ROOT, **options)


def test_the_command_tells_single_uniform_and_greedy(toys: list[bt.Entry], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["average", "toy-001", "toy-002", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["entry"], len(told["soups"])) == ("average-001", 2)
    assert main(["average", "toy-001", "toy-002", "--soup", "uniform"]) == 0
    out = capfd.readouterr().out
    assert re.search(r"fold +worst single +best single +uniform +greedy +greedy takes", out)
    assert "average-002: accuracy" in out
    apart = [str(each["fold"]) for each in told["soups"] if each["apart"]]
    assert ("the uniform soup is worse than its worst member" in " ".join(out.split())) is bool(apart)
    assert f"In fold {', '.join(apart)} the" in out or not apart
    assert main(["average", "toy-001", "--epochs", "1,2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["entry"] == "average-003"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("toy-001 toy-002 --last 2", "--last is for one run; a soup takes the best checkpoint of each of several"),
        ("toy-001 --soup uniform", "--soup is for several runs: batteries average RUN RUN"),
        ("toy-001 --epochs 1,b", "--epochs '1,b': write whole numbers with commas between them"),
        ("toy-001 --best 2 --last 2", "give best, last or epochs, one of them; got best and last"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    toys: list[bt.Entry], line: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["average", *line.split()]) == 2
    assert message in capfd.readouterr().err
