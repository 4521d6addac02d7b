"""Errors: every way a user's call can fail, and the exit code of each.

In:    nothing.
Out:   one exception tree; `exit_code` is what the command line returns.
Next:  every other module raises from here; only `cli` turns them into messages.

    0 ok                      5 resume or weights do not fit
    1 a bug                   6 disk or memory ran out
    2 usage                   7 non-finite training
    3 invalid input           8 busy (lock, ledger, a service and its limits)
    4 corrupt or untrusted    9 another process of the training died, hangs or ended without a word
    130 Ctrl-C, 143 SIGTERM: stopped after a saved checkpoint
"""

from __future__ import annotations

from collections.abc import Sequence
from signal import Signals


def some(names: Sequence[object], most: int) -> str:
    """Return the first names as an error lists them.

    >>> some(["a", "b", "c"], 2)
    'a, b, ...'
    """
    return ", ".join(map(str, names[:most])) + (", ..." if len(names) > most else "")


class BatteriesError(Exception):
    """Root of all errors raised on purpose. The message names the thing, the values and the next action."""

    exit_code = 1


class UsageError(BatteriesError):
    """The call itself is wrong: an unknown name, a missing folder, contradicting options."""

    exit_code = 2


class ConfigError(UsageError):
    """A field of an experiment, a stage or a metric has a value that cannot work."""


class ExperimentError(UsageError):
    """The experiment file cannot be used: not found, not Python, a method missing, a method that fails."""


class DataError(BatteriesError):
    """A table, a prediction or a submission is not what it must be."""

    exit_code = 3


class FoldsError(DataError):
    """The folds do not fit the table, or would be overwritten by another split."""


class PredictionsError(DataError):
    """Predictions with missing, repeated or foreign rows, or with values that are not finite."""


class OutOfFoldError(PredictionsError):
    """Out-of-fold predictions that do not cover every row exactly once."""


class BlendError(DataError):
    """Members that cannot be combined, or weights that make no average."""


class SubmissionError(DataError):
    """A submission that the sample submission would refuse."""


class NotSafeError(DataError):
    """A name or path that would leave its folder."""


class CorruptError(BatteriesError):
    """A file is not the one that was written."""

    exit_code = 4


class ResumeError(BatteriesError):
    """A run cannot go on from what is on disk."""

    exit_code = 5


class WeightsError(BatteriesError):
    """Weights that do not fit the model."""

    exit_code = 5


class ResourceError(BatteriesError):
    """The disk or the memory ran out, or a file cannot be written."""

    exit_code = 6


class NonFiniteError(BatteriesError):
    """A loss, a gradient or every score of a stage is NaN or infinite."""

    exit_code = 7


class BusyError(BatteriesError):
    """Somebody else holds the run or the ledger; a service fails, or allows no more today."""

    exit_code = 8


class UnclearError(BusyError):
    """A service that was asked to do something once did not say whether it did."""


class PeerError(BatteriesError):
    """Another process of a distributed training died, or was silent for too long."""

    exit_code = 9


class Interrupted(BatteriesError):
    """Stopped by a signal, after everything worth keeping was saved."""

    def __init__(self, message: str, *, signum: int) -> None:
        super().__init__(message)
        self.signum = signum
        self.exit_code = 128 + signum

    @classmethod
    def by(cls, signum: int) -> Interrupted:
        """Return the error that a signal asks for."""
        return cls(f"stopped by {Signals(signum).name}", signum=signum)

    def __reduce__(self) -> tuple[object, ...]:
        return _interrupted, (str(self), self.signum)


def _interrupted(message: str, signum: int) -> Interrupted:
    return Interrupted(message, signum=signum)
