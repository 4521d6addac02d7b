"""Progress: a bar in a terminal or a notebook, a line now and then in a log file.

In:    how much there is to do.
Out:   nothing but what a person sees, on standard error.
Next:  anything that may take more than two seconds reports through it.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType

_BAR_EVERY = 0.1
_LINE_EVERY = 5.0  # the first; each pause is twice the one before, up to
_LONGEST_PAUSE = 60.0


class Progress:
    """Count work done; cheap enough for every step of a training loop.

    >>> with Progress("folds", total=5, show=False) as progress:
    ...     progress.advance()
    """

    def __init__(self, title: str, *, total: int, show: bool = True) -> None:
        self.total = total
        self._title, self._show = title, show
        self._done, self._note = 0, ""
        self._next, self._pause = 0.0, _LINE_EVERY
        self._bar: _Bar | None = None

    def __enter__(self) -> Progress:
        if self._show and ((sys.stderr is not None and sys.stderr.isatty()) or _in_notebook()):
            self._bar = _Bar(self._title)
        self._next = time.monotonic() + (_BAR_EVERY if self._bar else self._pause)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.update(self._done, self.total, self._note)
            self._bar.close()

    def advance(self, amount: int = 1) -> None:
        """Say that `amount` more is done."""
        self._done += amount
        if self._show and time.monotonic() >= self._next:
            self._draw()

    def note(self, text: str) -> None:
        """Show a word on where the work is."""
        self._note = text

    def _draw(self) -> None:
        if self._bar:
            self._bar.update(self._done, self.total, self._note)
            self._next = time.monotonic() + _BAR_EVERY
        else:
            share = 100 * self._done // max(1, self.total)
            print(f"{self._title}: {share}% {self._note}", file=sys.stderr, flush=True)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            self._next = time.monotonic() + self._pause


class _Bar:
    """rich's progress bar; gone when the work is done, so that only results stay on the screen."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Rich
        from rich.table import Column

        one_line = Column(no_wrap=True, overflow="ellipsis")
        self._rich = Rich(
            TextColumn("{task.description}"),
            BarColumn(12),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", table_column=one_line),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # else lines meant for a file would go to the screen
        )
        self._task = self._rich.add_task(title, total=None, note="")
        self._rich.start()

    def update(self, done: int, total: int, note: str) -> None:
        self._rich.update(self._task, completed=done, total=total, note=note)

    def close(self) -> None:
        self._rich.stop()


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"
