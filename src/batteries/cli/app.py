"""App: the command `batteries`, its verbs in the order of the flow.

In:    arguments.
Out:   an exit code: 0, or that of the error (see errors.py).
Next:  every verb calls one function of the library and prints what it returns.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from batteries.cli.combining import average, blend
from batteries.cli.deriving import calibrate, decide, pseudo, stack
from batteries.cli.health import doctor, verify
from batteries.cli.ledger import ledger
from batteries.cli.options import Call
from batteries.cli.prepare import new, split, study
from batteries.cli.scoring import compare, leaderboard, report, scores, test
from batteries.cli.submitting import reproduce, submit
from batteries.cli.training import train
from batteries.errors import BatteriesError, Interrupted, PeerError, UsageError
from batteries.files import room
from batteries.prepare.cores import share_cores
from batteries.train.launch import by_us, failed


class _InFlow(TyperGroup):
    """The verbs in the order of the flow, and after them the groups of verbs, which typer puts first."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: isinstance(self.commands[name], TyperGroup))


app = typer.Typer(
    name="batteries",
    cls=_InFlow,
    help="The whole experiment flow: study, folds, training, scores, blends, submissions, report.",
    epilog="Verbs are listed in the order of the flow. Start with: batteries demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def everything(
    context: typer.Context,
    folder: Annotated[Path, typer.Option("-C", "--folder", help="The experiment folder; here by default.")] = Path(),
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Work in the experiment folder, so that its relative paths hold."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}; make one: batteries new NAME")
    context.with_resource(chdir(folder))


def demo(
    folder: Annotated[Path, typer.Argument(help="Where to make the experiment folder.")] = Path("demo"),
) -> None:
    """Walk the whole flow on real handwritten digits."""
    from batteries.cli.demo import walk

    walk(folder, lambda arguments: _run(arguments, standalone_mode=False))


_VERBS: tuple[Callable[..., None], ...] = (
    *(new, study, split, train, verify, scores, average, blend, stack, calibrate, decide, pseudo, submit),
    *(reproduce, leaderboard, test, compare, report, doctor, demo),
)
for verb in _VERBS:
    app.command(context_settings={"ignore_unknown_options": verb is leaderboard})(verb)  # a score may be -0.5
app.add_typer(ledger)


def _run(arguments: Sequence[str], **how: Any) -> None:
    app(list(arguments), obj=Call(tuple(arguments), Path.cwd()), **how)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code. Errors are one message on standard error, never a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    share_cores()
    warnings.showwarning = _show_warning
    try:
        _run(given)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        return _ended(code, "")
    except Exception as error:
        if "--debug" in given and not by_us():
            raise
        code, text = _explained(error, given)
        return _ended(code, traceback.format_exc() if "--debug" in given else text)
    return 0


def _ended(code: int, text: str) -> int:
    """Say why the command failed; one of several processes ends here, as its peers may be gone or wait for it."""
    if not by_us():
        _complain(text)
        return code
    if code:
        if failed(text.replace(f"rank {_rank()}: ", "", 1)):
            _complain(text)
        for child in multiprocessing.active_children():
            child.terminate()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _complain(text: str) -> None:
    if text:
        print(text, file=sys.stderr)


def _explained(error: Exception, given: Sequence[str]) -> tuple[int, str]:
    """The exit code of an error and what to say of it; nothing where another process says it."""
    rank, told = _rank(), getattr(error, "told", False)
    where = f"rank {rank}: " if rank and not isinstance(error, PeerError) else ""
    if not isinstance(error, BatteriesError):
        code, text = _of_others(error, given, told=told)
        kind = "error" if code != 1 else "error (a bug in Batteries)"
        return code, "" if told else f"{kind}: {where}{text}\nFor the traceback: batteries --debug ..."
    if isinstance(error, Interrupted):
        return error.exit_code, "" if rank else str(error)
    if told or (isinstance(error, PeerError) and by_us()):
        return error.exit_code, ""
    return error.exit_code, f"error: {where}{error}"


def _of_others(error: Exception, given: Sequence[str], *, told: bool) -> tuple[int, str]:
    """Exit code and text of an error that Batteries did not raise itself."""
    from batteries.experiment.load import culprit

    place = next((given[i + 1] for i, word in enumerate(given[:-1]) if word in ("-C", "--folder")), ".")
    text, users = culprit(error, Path(place))
    if isinstance(error, OSError) and error.filename is not None and not users:
        text = _refused(error)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        return 2, text
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    users = users or told  # its traceback stayed in the other process; our own errors rarely travel
    return (6 if memory or (isinstance(error, OSError) and not users) else 2 if users else 1), text


def _refused(error: OSError) -> str:
    """What to do about a file or folder that the system refuses."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "free some space" if full else "make it readable and writable, or work in a folder of yours (-C FOLDER)"
    free = f" ({room(Path())})" if full else ""
    return f"{error.filename}: {error.strerror}{free}; what was there is untouched. Next: {advice}, and run again"


def _rank() -> int:
    """The number of this process among those that torchrun, or `train --ddp`, started."""
    return int(os.environ.get("RANK", "0")) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def _show_warning(message: Warning | str, category: type[Warning], *rest: object, **more: object) -> None:
    where = f"rank {_rank()}: " if _rank() else ""
    print(f"warning: {where}{message}", file=sys.stderr)
