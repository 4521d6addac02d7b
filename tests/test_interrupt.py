"""Interrupts: the first signal sets a flag, the second one acts, and the handlers go back."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from batteries.errors import Interrupted
from batteries.train.interrupt import Interrupts


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_told_at_the_next_check_with_its_exit_code(signum: signal.Signals, code: int) -> None:
    with Interrupts() as interrupts:
        interrupts.check()
        os.kill(os.getpid(), signum)
        with pytest.raises(Interrupted, match=f"stopped by {signum.name}") as caught:
            interrupts.check()
    assert caught.value.exit_code == code


def test_the_second_ctrl_c_acts_at_once() -> None:
    ignored = signal.signal(signal.SIGINT, signal.default_int_handler)  # as it is where tests run in the background
    with Interrupts(), pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the first one must not raise
        signal.raise_signal(signal.SIGINT)  # not os.kill: where there are threads, two of those may arrive as one
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, ignored)


def test_handlers_are_put_back_whatever_happens() -> None:
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyError), Interrupts():  # noqa: PT012 - what is inside is what is tested
        assert signal.getsignal(signal.SIGINT) != before[0]
        raise KeyError
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    found = []

    def work() -> None:
        with Interrupts() as interrupts:
            interrupts.check()
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    before = signal.getsignal(signal.SIGINT)
    thread.start()
    thread.join()
    assert found == [before]
