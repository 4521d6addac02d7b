"""Interrupt: Ctrl-C and SIGTERM ask the loop to stop; they never stop it in the middle of a step.

In:    signals.
Out:   a flag that the loop reads after every update.
Next:  the run saves and leaves with exit code 130 or 143.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from batteries.errors import Interrupted

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """While open, the first SIGINT or SIGTERM sets a flag; the second acts as it would without us.

    >>> with Interrupts() as interrupts:
    ...     interrupts.check()
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {signum: signal.signal(signum, self._note) for signum in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _note(self, signum: int, frame: FrameType | None) -> None:
        self._signum = signum
        self._restore()

    def _restore(self) -> None:
        for signum, handler in self._before.items():
            signal.signal(signum, handler)
        self._before = {}

    @property
    def came(self) -> Interrupted | None:
        """What `check` raises, if a signal came."""
        return None if self._signum is None else Interrupted.by(self._signum)

    def check(self) -> None:
        """Raise Interrupted if a signal came."""
        if (stop := self.came) is not None:
            raise stop
