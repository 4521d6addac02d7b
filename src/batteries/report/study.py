"""Study: the study as a user calls it, with its page.

In:    an Experiment, or tables and the names of their columns.
Out:   a StudyReport: figures, advice, a page to write, a summary that a notebook shows.
Next:  the user changes the experiment.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from markupsafe import Markup
from numpy.typing import NDArray

from batteries.errors import PredictionsError
from batteries.experiment import Experiment
from batteries.files import write_text
from batteries.prepare.study import Study
from batteries.prepare.study import study as look
from batteries.prepare.table import training_table
from batteries.report.gallery import study_context
from batteries.report.page import render
from batteries.score.board import scores
from batteries.score.entry import open_entry


class StudyReport(Study):
    """A Study that can show itself."""

    def page(self, path: Path | str = "study.html") -> Path:
        """Write the page, one file that needs no other, and return its path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, render("study.html.j2", study_context(self)))
        return path

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        head, *_ = repr(self).splitlines()
        item = Markup("<li><strong>{}</strong>: {}{}</li>")
        code = Markup("<br><code>{}</code>")
        items = [item.format(a.what, a.why, code.format(a.line) if a.line else "") for a in self.advice]
        return Markup("<p>{}</p><ul>{}</ul>").format(head, Markup("").join(items))


def study(
    train: Any,
    test: Any = None,
    *,
    target: str | None = None,
    id: str | None = None,
    images: str | Sequence[str] | None = None,
    text: str | Sequence[str] | None = None,
    folder: Path | str = ".",
    oof: NDArray[Any] | None = None,
    show: bool = True,
) -> StudyReport:
    """Study a training table, or those of an Experiment: what it holds, what is wrong with it, what to write.

    All arguments are those of `batteries.prepare.study.study`: tables of polars or pandas, or paths of CSV or Parquet
    files; an Experiment alone. `figures` is all that was found as JSON-ready data, `advice` what follows from it,
    `flaws` the names of what is wrong, `page(path)` writes a page with plots.

    >>> found = study("train.csv", "test.csv", target="label")  # doctest: +SKIP
    >>> found.page("study.html")  # doctest: +SKIP

    """
    found = look(train, test, target=target, id=id, images=images, text=text, folder=folder, oof=oof, show=show)
    return StudyReport(**{field.name: getattr(found, field.name) for field in fields(found)})


def study_of_runs(experiment: Experiment, root: Path | str = "runs", *, show: bool = True) -> StudyReport:
    """Study an experiment, and its labels by the best entry in `root` that predicts every training row."""
    root = Path(root)
    return study(experiment, oof=_best_predictions(experiment, root), show=show)


def _best_predictions(experiment: Experiment, root: Path) -> NDArray[Any] | None:
    """In the order of the training table; None where no entry has them, or the table changed since."""
    if not (root / "ledger.db").exists():
        return None
    ids = training_table(experiment)[experiment.id]
    for row in scores(root):
        if not row.missing_folds and row.valid is not None:
            with suppress(PredictionsError):
                return open_entry(root, row.name).oof().align(ids).values
    return None
