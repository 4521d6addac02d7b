"""The board: ranks, gaps, the band of noise, what changed; sorted, filtered, in 80 columns."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import batteries as bt
from batteries.cli.app import main
from batteries.cli.board import age
from batteries.errors import UsageError
from batteries.score.ledger import Ledger
from batteries.score.origin import origins
from batteries.score.select import SORTS, select

ROOT = Path("runs")


def config(name: str, **changes: Any) -> dict[str, Any]:
    """The config.json of a made-up run of `name` without its number."""
    fields = {"seed": 0, "num_workers": 0, "lr": 0.1, **changes.pop("fields", {})}
    return {
        "name": name,
        "kind": "run",
        "experiment": {"name": name.rpartition("-")[0]},
        "fields": fields,
        "stages": [{"name": "all", "lr": fields["lr"]}],
        "columns": {"id": "id"},
        "data": {"train": "a"},
        "code": "c",
        "identity": f"id-{name}",
        "folds": {"digest": "abc", "n": 2},
        "metric": {"name": "auc", "higher_is_better": True},
        **changes,
    }


def add(ledger: Ledger, name: str, valid: float | None, /, **scores: Any) -> None:
    """An entry with its scores; `noise` is of the validation score, `folds` are scored folds."""
    about = config(name, **scores.pop("config", {}))
    ledger.add_entry(about)
    metric = {"metric": about["metric"]["name"], "higher_is_better": about["metric"]["higher_is_better"]}
    for fold in range(scores.pop("folds", 2)):
        ledger.add_score(name, "fold", (valid or 0) + fold / 100, fold=fold, **metric)
    if valid is not None:
        ledger.add_score(name, "oof", valid, noise=scores.pop("noise", 0.01), **metric)
    for scope, value in scores.items():
        ledger.add_score(name, scope, value, **metric)


def rows() -> dict[str, bt.score.board.Row]:
    return {row.name: row for row in bt.scores(ROOT)}


def test_every_score_is_ranked_among_those_that_have_it_and_equal_ones_share_a_place() -> None:
    with Ledger(ROOT) as ledger:
        add(ledger, "toy-001", 0.8, public=0.7, test=0.5)
        add(ledger, "toy-002", 0.9, public=0.6, test=0.5)
        add(ledger, "toy-003", 0.7, public=0.9, private=0.8, test=0.4)
        add(ledger, "toy-004", 0.95, folds=1)
    found = rows()
    assert [(name, row.rank_valid) for name, row in found.items()] == [
        *[("toy-002", 1), ("toy-001", 2), ("toy-003", 3)],
        ("toy-004", None),  # a fold alone may be easier than all
    ]
    assert [found[f"toy-00{n}"].rank_public for n in (1, 2, 3, 4)] == [2, 3, 1, None]
    assert [found[f"toy-00{n}"].rank_test for n in (1, 2, 3)] == [1, 1, 3]
    assert [found[f"toy-00{n}"].rank_private for n in (1, 3)] == [None, 1]


def test_ranks_follow_the_direction_and_stay_within_a_group() -> None:
    lower = {"metric": {"name": "rmse", "higher_is_better": False}}
    with Ledger(ROOT) as ledger:
        add(ledger, "toy-001", 0.8)
        add(ledger, "house-001", 3.0, config=lower, public=2.0)
        add(ledger, "house-002", 2.0, config=lower, public=4.0)
        add(ledger, "house-003", 1.0, config={**lower, "folds": {"digest": "other", "n": 2}})
    found = rows()
    assert [found[name].rank_valid for name in ("toy-001", "house-001", "house-002", "house-003")] == [1, 2, 1, 1]
    assert [found[name].rank_public for name in ("house-001", "house-002")] == [1, 2]


def test_gaps_are_differences_of_the_scores() -> None:
    with Ledger(ROOT) as ledger:
        add(ledger, "toy-001", 0.8, public=0.7, private=0.75, test=0.9)
        add(ledger, "toy-002", 0.8, private=0.7)
    found = rows()
    one = found["toy-001"]
    assert (one.gap, one.public_gap, one.private_gap) == pytest.approx((0.1, -0.1, 0.05))
    assert (found["toy-002"].public_gap, found["toy-002"].private_gap) == (None, None)


def test_entries_within_two_deviations_of_the_best_are_marked_level_with_it() -> None:
    with Ledger(ROOT) as ledger:
        add(ledger, "toy-001", 0.90, noise=0.01)
        add(ledger, "toy-002", 0.881, noise=0.01)
        add(ledger, "toy-003", 0.879, noise=0.05)
        add(ledger, "toy-004", 0.90, folds=1)
    assert [row.level for row in rows().values()] == [False, True, False, False]


def test_a_run_is_compared_with_the_one_before_it_of_its_experiment() -> None:
    with Ledger(ROOT) as ledger:
        add(ledger, "toy-001", 0.8)
        add(ledger, "other-001", 0.8, config={"fields": {"lr": 3.0}})
        add(ledger, "toy-002", 0.8, config={"fields": {"lr": 0.2, "num_workers": 4}})
        add(ledger, "toy-003", 0.8, config={"fields": {"lr": 0.2, "seed": 1}, "code": "d", "data": {"train": "b"}})
        add(ledger, "toy-004", 0.8, config={"fields": {"lr": 0.2, "seed": 1}, "stages": [], "code": "d"})
    assert [(row.parent, row.changed) for _, row in sorted(rows().items())] == [
        (None, ()),
        (None, ()),
        ("toy-001", ("lr 0.1 -> 0.2",)),
        ("toy-002", ("seed 0 -> 1", "data", "code")),
        ("toy-003", ("stages", "data")),
    ]


def test_what_was_made_of_others_names_them_and_is_no_parent_of_runs() -> None:
    made = {"kind": "blend", "how": "rank", "members": {"toy-001": 0.5, "toy-002": 0.5}}
    with Ledger(ROOT) as ledger:
        add(ledger, "toy-001", 0.8)
        add(ledger, "average-001", 0.8, config={"kind": "average", "of": "toy-001", "experiment": {"name": "toy"}})
        add(ledger, "toy-002", 0.8)
        add(ledger, "blend-001", 0.8, config=made)
    found = rows()
    assert (found["average-001"].parent, found["average-001"].changed) == ("toy-001", ("of toy-001",))
    assert (found["blend-001"].parent, found["blend-001"].changed) == (None, ("rank of toy-001, toy-002",))
    assert (found["toy-002"].parent, found["toy-002"].changed) == ("toy-001", ())
    assert (found["average-001"].fields["lr"], found["blend-001"].fields) == (0.1, {})


def test_a_long_value_that_changed_is_shortened() -> None:
    runs = [{"name": f"t-{n}", "kind": "run", "experiment": "t", "config": {"fields": {"to": n * 40}}} for n in "ab"]
    assert origins(runs)["t-b"].changed == (f"to {'a' * 21}... -> {'b' * 21}...",)


def test_rows_are_sorted_by_any_column_the_best_first_and_those_without_last() -> None:
    lower = {"metric": {"name": "rmse", "higher_is_better": False}}
    with Ledger(ROOT) as ledger:
        add(ledger, "toy-001", 0.9, noise=0.03, public=0.7, config=lower)
        add(ledger, "toy-002", 0.8, noise=0.02, public=0.9, config=lower)
        add(ledger, "toy-003", 0.7, noise=0.04, config=lower)
    every = bt.scores(ROOT)
    order = {by: [row.name[-1] for row in select(every, sort=by)] for by in SORTS}
    assert (order["public"], order["public_gap"]) == (["1", "2", "3"], ["1", "2", "3"])
    assert (order["valid"], order["noise"], order["name"]) == (["3", "2", "1"], ["2", "1", "3"], ["1", "2", "3"])
    assert order["age"] == ["3", "2", "1"]
    with pytest.raises(UsageError, match="--sort colour: there is no such column; columns: valid, fold_mean, public"):
        select(every, sort="colour")


def test_rows_are_filtered_by_words_and_by_fields_and_keep_their_ranks() -> None:
    with Ledger(ROOT) as ledger:
        add(ledger, "toy-001", 0.9)
        add(ledger, "toy-002", 0.8, config={"fields": {"lr": 0.002, "mode": "a b"}})
        add(ledger, "other-001", 0.7, config={"fields": {"seed": 7}})
    every = bt.scores(ROOT)

    def names(*keep: str, limit: int | None = None) -> list[str]:
        return [row.name for row in select(every, keep=keep, limit=limit)]

    assert names("TOY") == ["toy-001", "toy-002"]
    assert names("lr 0.1 ->") == ["toy-002"]
    assert names("lr=2e-3") == names("mode=A b") == names("toy", "lr=0.002") == ["toy-002"]
    assert (names("seed=7"), names("experiment=other"), names("lr=x")) == (["other-001"], ["other-001"], [])
    assert names(limit=2) == ["toy-001", "toy-002"]
    assert [row.rank_valid for row in select(every, keep=["other"])] == [3]
    with pytest.raises(UsageError, match="--filter colour=1: no entry has a field 'colour'; fields: at, changed"):
        names("colour=1")


def test_runs_of_one_recipe_with_several_seeds_are_summed_up(capfd: pytest.CaptureFixture[str]) -> None:
    with Ledger(ROOT) as ledger:
        for number, valid in enumerate((0.90, 0.92, 0.94), 1):
            add(ledger, f"toy-00{number}", valid, config={"fields": {"seed": number}})
        add(ledger, "toy-004", 0.5, config={"fields": {"lr": 0.3}})
        add(ledger, "toy-005", 0.1, folds=1, config={"fields": {"seed": 5}})
    assert main(["scores"]) == 0
    out = capfd.readouterr().out.replace("\n", " ")
    assert "3 seeds of one recipe (toy-003, toy-002, toy-001): valid 0.92000 ± 0.02000" in out
    assert out.count("seeds of one recipe") == 1
    recipes = [row.recipe for row in bt.scores(ROOT)]
    assert len(set(recipes)) == 2


@pytest.fixture
def full() -> None:
    """Entries with every score there is."""
    with Ledger(ROOT) as ledger:
        add(ledger, "a-rather-long-name-001", 0.9, public=0.7, private=0.8, test=0.6)
        changed = {"fields": {"lr": 0.2, "wide": "x" * 30}, "experiment": {"name": "a-rather-long-name"}}
        add(ledger, "a-rather-long-name-002", 0.8, public=0.6, private=0.7, test=0.5, config=changed)


@pytest.mark.usefixtures("full")
def test_the_board_fits_80_columns_and_shows_all_when_wide(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["scores"]) == 0
    narrow = capfd.readouterr().out
    assert max(map(len, narrow.splitlines())) <= 80
    assert "0.70000 #1" in narrow
    assert "more columns: --wide" in narrow
    assert "since parent" not in narrow
    assert main(["scores", "--wide"]) == 0
    wide = capfd.readouterr().out
    assert "--wide" not in wide
    for title in ("±folds", "public-valid", "private-public", "test-valid", "mean of folds", "seed", "since parent"):
        assert title in wide
    assert f"lr 0.1 -> 0.2, wide None -> {'x' * 21}..." in wide


def test_where_there_is_room_the_board_says_what_changed(capfd: pytest.CaptureFixture[str]) -> None:
    with Ledger(ROOT) as ledger:
        add(ledger, "toy-001", 0.9)
        add(ledger, "toy-002", 0.89, config={"fields": {"lr": 0.2, "words": "so many that there is no room"}})
    assert main(["scores"]) == 0
    out = capfd.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("toy-002"))
    assert "0.89000 ≈2" in line
    assert "lr 0.1 -> 0.2, words None" in line
    assert line.rstrip().endswith("…")
    assert max(map(len, out.splitlines())) <= 80
    assert "≈: within two s.d. of the best; is it worse? batteries compare" in out


@pytest.mark.usefixtures("full")
def test_the_command_sorts_filters_and_limits(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["scores", "--sort", "public", "--filter", "lr=0.2", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert [row["name"] for row in found] == ["a-rather-long-name-002"]
    assert (found[0]["rank_public"], found[0]["fields"]["lr"], found[0]["parent"]) == (2, 0.2, "a-rather-long-name-001")
    assert datetime.now(UTC) - datetime.fromisoformat(found[0]["at"]) < timedelta(hours=1)
    assert main(["scores", "--limit", "1"]) == 0
    assert "1 of 2 entries; ranks are among all" in capfd.readouterr().out
    assert main(["scores", "--filter", "nobody"]) == 0
    assert capfd.readouterr().out == "none of 2 entries fits --filter nobody\n"
    assert main(["scores", "--limit", "0"]) == 2
    assert main(["scores", "--sort", "colour"]) == 2
    assert "there is no such column" in capfd.readouterr().err


def test_ages_are_said_in_the_largest_unit_that_fits() -> None:
    now = datetime.now(UTC)
    ages = [timedelta(seconds=5), timedelta(minutes=3, seconds=9), timedelta(hours=5), timedelta(days=3)]
    assert [age((now - each).isoformat()) for each in ages] == ["5s", "3min", "5h", "3d"]
    assert age((now + timedelta(hours=1)).isoformat()) == "0s"  # the clock of another machine


def test_two_hundred_entries_are_shown_without_loading_what_only_training_needs() -> None:
    with Ledger(ROOT) as ledger:
        for number in range(1, 201):
            fields = {"lr": 0.1 + number % 7 / 100, "seed": number % 3}
            about = {"fields": fields, "folds": {"digest": "abc", "n": 0}}
            told = {} if number % 5 else {"public": 0.4 + number / 900}
            add(ledger, f"toy-{number:03}", 0.5 + number / 1000, folds=0, config=about, **told)
    code = "import sys; from batteries.cli.app import main; main(['scores'])"
    code += "; print(sorted({'torch', 'polars', 'scipy', 'sklearn', 'rich.table'} & sys.modules.keys()))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    lines = out.splitlines()
    assert lines[-1] == "[]"
    assert sum(re.match(r"toy-\d+  ", line) is not None for line in lines) == 200
    assert max(map(len, lines)) <= 80
    assert lines[2].startswith("toy-200")
