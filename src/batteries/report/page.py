"""Page: the report of all runs, the page of a study, that of an augmentation, each one file that needs nothing else.

In:    a folder of runs; a Study; an Experiment.
Out:   runs/report.html; runs/study/report.html, study.json and augment.html.
Next:  open them in a browser, with or without a network.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from batteries.combine.blend import ORDERS
from batteries.errors import BatteriesError, CorruptError, UsageError
from batteries.experiment import Experiment
from batteries.files import write_text
from batteries.prepare.study import Study
from batteries.report import sections
from batteries.report.closer import CloserView, closer
from batteries.report.combined import alike, combined
from batteries.report.gallery import study_context, thumbnails
from batteries.report.runs import chosen, views
from batteries.report.standing import board
from batteries.report.view import FILTERS, counted
from batteries.score.agreement import Agreement, agreement
from batteries.score.board import Row, scores, submissions
from batteries.score.entry import Entry, all_entries, open_entry
from batteries.score.ledger import Ledger
from batteries.train.record import Run, all_runs

T = TypeVar("T")
_PARTS = ("board", "study", "closer", "combined", "runs", "submissions", "machines")


@dataclass(frozen=True)
class Made:
    """A report that was written, and what it holds."""

    path: Path
    bytes: int
    sections: list[str]
    entries: int
    """Rows of the board."""
    curves: int
    """Runs whose curves are drawn."""
    problems: list[str]
    """What could not be read and is left out."""

    def plain(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {**asdict(self), "path": str(self.path)}


def write_report(root: Path | str = "runs") -> Path:
    """Write `root/report.html`: the board, the runs, the best entry, blends, submissions, machines.

    Reads files only: neither PyTorch nor the experiment's code is needed. Parts that are damaged are
    named at the top of the page and left out.

    Raises
    ------
    UsageError
        When there is nothing to report yet.

    """
    return make_report(root).path


def make_report(root: Path | str = "runs", *, table: pl.DataFrame | None = None, refresh: float | None = None) -> Made:
    """Write the report and say what it holds.

    Parameters
    ----------
    root
        The folder of runs.
    table
        The training table, for the images of the hardest rows; without it they have none.
    refresh
        Seconds after which the page loads itself again; never by default.

    Raises
    ------
    UsageError
        When there is nothing to report yet.

    """
    root = Path(root)
    context = {**_gather(root, table), "refresh": refresh}
    if not any(context[part] for part in ("board", "runs", "study")):
        raise UsageError(
            f"{root} holds nothing to report yet; look at the data: batteries study, or train: batteries train"
        )
    path = root / "report.html"
    text = render("report.html.j2", context)
    write_text(path, text)
    shown = [part for part in _PARTS if context[part]]
    entries = context["board"].total if context["board"] else 0
    return Made(path, len(text.encode()), shown, entries, len(context["runs"]), context["problems"])


def write_study_page(study: Study, root: Path | str = "runs") -> Path:
    """Write `root/study/report.html` and, for the report and for programs, `root/study/study.json`."""
    folder = Path(root) / "study"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "study.json", json.dumps(study.plain(), indent=1, allow_nan=False, ensure_ascii=False) + "\n")
    path = folder / "report.html"
    write_text(path, render("study.html.j2", study_context(study)))
    return path


def write_augment_page(experiment: Experiment, root: Path | str = "runs") -> Path:
    """Write `root/study/augment.html`: samples before and after `experiment.augment`, as the training sees them.

    Raises UsageError when the experiment has no `augment`.
    """
    from batteries.report.augment_sheet import augment_context  # the only page that needs PyTorch

    context = augment_context(experiment)
    path = Path(root) / "study" / "augment.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, render("augment.html.j2", context))
    return path


def _gather(root: Path, table: pl.DataFrame | None) -> dict[str, Any]:
    problems: list[str] = []

    def attempt(make: Callable[[], T], otherwise: T) -> T:
        """What `make` returns; a part that cannot be read becomes a line on the page."""
        try:
            return make()
        except BatteriesError as error:
            if str(error) not in problems:
                problems.append(str(error))
            return otherwise

    nothing: tuple[list[Row], list[dict[str, Any]]] = ([], [])
    rows, events = attempt(lambda: _ledger(root), nothing)
    entries: list[Entry] = attempt(lambda: all_entries(root), [])
    runs: list[Run] = attempt(lambda: all_runs(root), [])
    study = attempt(lambda: _study(root), None)
    drawn = chosen(runs, {row.name: place for place, row in enumerate(rows)})
    sent: list[dict[str, Any]] = attempt(lambda: submissions(root), [])
    made_of, num_made = combined(entries, rows, attempt)
    damaged = len(problems)
    nearer = attempt(lambda: _closer(root, rows, entries, study, table), None)
    return {
        "title": f"Report: {root.resolve().parent.name}",
        "updated": max((event["at"] for event in events), default="")[:16].replace("T", " "),
        **_best(rows, entries),
        "board": board(rows, events, attempt(lambda: _agreements(root), [])) if rows else None,
        "closer": nearer,
        "undrawable": bool(rows) and nearer is None and len(problems) == damaged,
        "runs": views(drawn, attempt),
        "undrawn": len(runs) - len(drawn),
        "combined": made_of,
        "num_combined": num_made,
        "alike": attempt(lambda: alike(entries, rows), None),
        "study": study,
        "submissions": sections.submitted(sent, events, rows),
        "num_submissions": len(sent),
        "machines": sections.machines(runs, attempt),
        "problems": problems,
    }


def _best(rows: Sequence[Row], entries: Sequence[Entry]) -> dict[str, Any]:
    """The best entry with its folds, and how many entries of each kind there are."""
    best = rows[0] if rows and rows[0].valid is not None else None
    kinds = Counter(row.kind for row in rows)
    return {
        "best": best,
        "folds": best and next((e.config["folds"].get("strategy") for e in entries if e.name == best.name), None),
        "kinds": [counted(n, kind, kind if kind.endswith("ed") else None) for kind, n in kinds.items()],
    }


def _closer(root: Path, rows: Sequence[Row], entries: Sequence[Entry], study: Any, table: Any) -> CloserView | None:
    """The best entry whose predictions keep their meaning; ranks are looked at only where there is nothing else."""
    ranks = {entry.name for entry in entries if entry.config.get("how") in ORDERS}
    order = sorted(rows, key=lambda row: row.name in ranks)
    if not order:
        return None
    entry = open_entry(root, order[0].name)
    found = closer(entry, _class_names(study))
    if found is None or table is None:
        return found
    images = thumbnails(table, entry.config["columns"]["id"], [row["id"] for row in found.hardest])
    return replace(found, hardest=[{**row, "image": images.get(row["id"])} for row in found.hardest])


def _agreements(root: Path) -> list[Agreement]:
    """With the public and the private leaderboard, where there is anything to compare."""
    found = (agreement(root, board=part) for part in ("public", "private"))
    return [each for each in found if each is not None]


def _ledger(root: Path) -> tuple[list[Row], list[dict[str, Any]]]:
    if not Ledger.exists(root):
        return [], []
    with Ledger(root) as ledger:
        return scores(root), ledger.scores()


def _study(root: Path) -> dict[str, Any] | None:
    path = root / "study" / "study.json"
    if not path.exists():
        return None
    try:
        study: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {"advice": study["advice"], "target": study["target"]}
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{path}: cannot be read ({error}); make it again: batteries study") from error


def _class_names(study: dict[str, Any] | None) -> list[str] | None:
    return None if study is None else study["target"].get("names")


def render(template: str, context: dict[str, Any]) -> str:
    """Return a page of one of the templates."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("batteries.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment.get_template(template).render({"refresh": None, **context})
