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
    name: Annotated[str | None, typer.Argument(help="An entry or a submission; all there is by default.")] = None,
    json: Json = False,
) -> None:
    """Are the files those that were written? Runs, folds, ledger, submissions."""
    from batteries.score.verify import verify as check
    from batteries.score.verify import verify_all

    found = verify_all(ROOT) if name is None else check(inside(ROOT, name, "entry"))
    what = name or str(ROOT)
    intact = sum(finding.state == "intact" for finding in found)
    if json:
        listed = [{"file": each.file.as_posix(), "state": each.state, "reason": each.reason} for each in found]
        show.as_json({"name": what, "intact": intact, "findings": listed})
    else:
        show.findings([finding for finding in found if finding.state != "intact"])
        print(f"{what}: {intact} of {len(found)} files are intact")
    if bad := sum(finding.bad for finding in found):
        otherwise = f"or move {ROOT / name} away and train again" if name else "or the ledger: batteries ledger recover"
        raise CorruptError(f"{what}: damaged or missing files: {bad}. Restore them from a copy, {otherwise}")


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
