"""Health: are the files those that were written, and is this machine fit for the work?

In:    the name of something in `runs/`, or nothing for all of it.
Out:   what is damaged, missing, left over; what of the machine may go wrong.
Next:  restore from a copy, recover the ledger, mend the machine.
"""

from __future__ import annotations

from typing import Annotated

import typer

from batteries.cli import show
from batteries.cli.options import ROOT, Json
from batteries.errors import CorruptError, ResourceError
from batteries.files import inside


def verify(
    run: Annotated[str, typer.Argument(help="A run, an average or a blend.")],
    json: Json = False,
) -> None:
    """Steps 1-4: are the files of a run those that were written?"""
    from batteries.train.verify import verify as check

    findings = check(inside(ROOT, run, "run"))
    found = [
        {"file": finding.file.as_posix(), "state": finding.state, "reason": finding.reason} for finding in findings
    ]
    intact = sum(finding.state == "intact" for finding in findings)
    if json:
        show.as_json({"run": run, "intact": intact, "findings": found})
    else:
        show.findings([finding for finding in findings if finding.state != "intact"])
        print(f"{run}: {intact} of {len(found)} files are intact")
    if bad := sum(finding.bad for finding in findings):
        raise CorruptError(
            f"{run}: damaged or missing files: {bad}. Restore them from a copy, or move {ROOT / run} away and"
            " train again"
        )


def doctor(json: Json = False) -> None:
    """Is this machine fit for the work? Packages, memory, disk, locks, GPU, clock."""
    from batteries.report.doctor import doctor as look

    checks = look(ROOT)
    if json:
        show.as_json([check.plain() for check in checks])
    else:
        show.checks(checks)
    if ill := [check for check in checks if check.state == "ill"]:
        raise ResourceError(f"{ill[0].name}: {ill[0].found}. Next: {ill[0].advice}")
