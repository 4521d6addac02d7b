"""Page: the report of all runs, the page of a study, that of an augmentation, each one file that needs nothing else.

In:    a folder of runs; a Study; an Experiment.
Out:   runs/report.html; runs/study/report.html, study.json and augment.html.
Next:  open them in a browser, with or without a network.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from batteries.combine.blend import ORDERS
from batteries.errors import BatteriesError, CorruptError, UsageError
from batteries.experiment import Experiment
from batteries.files import write_text
from batteries.prepare.study import Study
from batteries.report import sections
from batteries.report.closer import CloserView, closer
from batteries.report.gallery import study_context
from batteries.report.runs import views
from batteries.report.view import FILTERS, counted
from batteries.score.board import Row, scores, submissions
from batteries.score.entry import Entry, all_entries, open_entry
from batteries.score.ledger import Ledger
from batteries.train.record import Run, all_runs

T = TypeVar("T")


def write_report(root: Path | str = "runs") -> Path:
    """Write `root/report.html`: the board, the runs, the best entry, blends, submissions, machines.

    Reads files only: neither PyTorch nor the experiment's code is needed. Parts that are damaged are
    named at the top of the page and left out.

    Raises
    ------
    UsageError
        When there is nothing to report yet.

    """
    root = Path(root)
    context = _gather(root)
    if not any(context[part] for part in ("board", "runs", "study")):
        raise UsageError(
            f"{root} holds nothing to report yet; look at the data: batteries study, or train: batteries train"
        )
    path = root / "report.html"
    write_text(path, render("report.html.j2", context))
    return path


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


def _gather(root: Path) -> dict[str, Any]:
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
    best = rows[0] if rows and rows[0].valid is not None else None
    kinds = Counter(row.kind for row in rows)
    return {
        "title": f"Report: {root.resolve().parent.name}",
        "updated": max((event["at"] for event in events), default="")[:16].replace("T", " "),
        "kinds": [counted(n, kind, kind if kind.endswith("ed") else None) for kind, n in kinds.items()],
        "best": best,
        "folds": best and next((e.config["folds"]["strategy"] for e in entries if e.name == best.name), None),
        "board": sections.board(rows, events) if rows else None,
        "closer": attempt(lambda: _closer(root, rows, entries, study), None),
        "runs": views(runs, attempt),
        "combined": sections.combined(entries, rows),
        "alike": attempt(lambda: sections.alike(entries, rows), None),
        "study": study,
        "submissions": sections.submitted(attempt(lambda: submissions(root), []), events),
        "machines": sections.machines(runs, attempt),
        "problems": problems,
    }


def _closer(root: Path, rows: Sequence[Row], entries: Sequence[Entry], study: Any) -> CloserView | None:
    """The best entry whose predictions keep their meaning; ranks are looked at only where there is nothing else."""
    ranks = {entry.name for entry in entries if entry.config.get("how") in ORDERS}
    order = sorted(rows, key=lambda row: row.name in ranks)
    return closer(open_entry(root, order[0].name), _class_names(study)) if order else None


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
    return environment.get_template(template).render(context)
