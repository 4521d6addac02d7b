"""Behind: work that is done behind the training, in order, and whose failure the training learns.

In:    functions.
Out:   futures; an error that is raised where the training looks next.
Next:  checkpoints write their files with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread, main_thread
from typing import TypeVar

_T = TypeVar("_T")


class Behind:
    """Does one thing after the other, each in a thread that ends with it; a process that ends finishes them first.

    For use by one thread.

    >>> behind = Behind()
    >>> behind.do(lambda: 1 + 1).result()
    2
    """

    def __init__(self) -> None:
        self._last: Future[object] | None = None
        self._process = os.getpid()
        self._failed: BaseException | None = None

    def do(self, work: Callable[[], _T]) -> Future[_T]:
        """Do `work` after what was asked for before; return at once."""
        before = self._under_way()
        future: Future[_T] = Future()
        future.set_running_or_notify_cancel()  # from here on it cannot be cancelled
        self._last, self._process = future, os.getpid()  # type: ignore[assignment]
        _start(Thread(target=self._do, args=(work, future, before), name="behind"))
        return future

    def _do(self, work: Callable[[], _T], future: Future[_T], before: Future[object] | None) -> None:
        try:
            if before is not None:
                before.exception()  # waits
            done = work()
        except BaseException as error:  # noqa: BLE001 - it is raised where the training can see it
            self._failed = self._failed or error
            future.set_exception(error)
        else:
            future.set_result(done)

    def _under_way(self) -> Future[object] | None:
        """What was asked for last; a forked child has nothing under way."""
        return self._last if self._process == os.getpid() else None

    def check(self) -> None:
        """Raise the first error that happened behind the training, once. Waits for nothing, costs nothing."""
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise error

    def settle(self) -> None:
        """Return when all is done, however it ended."""
        if (last := self._under_way()) is not None:
            last.exception()
        self._last = None

    def wait(self) -> None:
        """Return when all is done; raise the first error, once."""
        self.settle()
        self.check()


def _start(thread: Thread) -> None:
    """Start a thread; do its work here if none is to be had, or the interpreter is ending and waits for none."""
    try:
        if main_thread().is_alive():
            return thread.start()
    except RuntimeError:
        pass
    return thread.run()
