"""Exchange: the ledger as a file for other tools, and back.

In:    a ledger; a file that was exported.
Out:   one table of scores as Parquet or CSV; every table as JSON, which another ledger takes in.
Next:  a notebook, a spreadsheet, the ledger of another folder.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

import batteries
from batteries.errors import CorruptError, ResumeError, UsageError
from batteries.files import read_sealed, write_atomic, write_sealed
from batteries.score.ledger import Ledger
from batteries.score.migrations import brought_forward
from batteries.score.schema import SCHEMA, TABLES, check_row, plain
from batteries.shapes import Export, Remembered, check_shape

_SCORES = {
    "number": pl.Int64,
    "entry": pl.String,
    "kind": pl.String,
    "experiment": pl.String,
    "seed": pl.Int64,
    "identity": pl.String,
    "folds": pl.String,
    "scope": pl.String,
    "fold": pl.Int64,
    "metric": pl.String,
    "higher_is_better": pl.Boolean,
    "value": pl.Float64,
    "finite": pl.Boolean,
    "rows": pl.Int64,
    "noise": pl.Float64,
    "submission": pl.String,
    "sha256": pl.String,
    "at": pl.String,
}
_FORMULA = r"^[=+\-@\t\r]"
"""What a spreadsheet would take for a formula: OWASP, CSV Injection."""


def scores_table(root: Path | str = "runs") -> pl.DataFrame:
    """Return every score ever noted, oldest first, with what is known of its entry and submission.

    >>> scores_table("runs").filter(pl.col("scope") == "oof")["value"].max()  # doctest: +SKIP
    0.9812
    """
    with Ledger(root) as ledger:
        entries = {row["name"]: row for row in ledger.entries()}
        sent = {row["name"]: row["sha256"] for row in ledger.submissions()}
        scores = ledger.scores()
    of_entry = ("kind", "experiment", "seed", "identity", "folds")
    rows = [
        {**row, **{key: entries[row["entry"]][key] for key in of_entry}, "sha256": sent.get(row["submission"])}
        for row in scores
    ]
    return pl.DataFrame(rows, schema=_SCORES)


def export(path: Path | str, root: Path | str = "runs") -> int:
    """Write the ledger to a file whose ending says how; return the number of rows in it.

    `.parquet` and `.csv` hold one table, that of `scores_table`. In a CSV, texts that a spreadsheet would take for
    a formula begin with an apostrophe. `.json` holds every row of every table, for `import_rows`.

    Raises
    ------
    UsageError
        For another ending, or where there is no ledger.

    """
    path, root = Path(path), Path(root)
    if path.suffix not in (".parquet", ".csv", ".json"):
        raise UsageError(f"{path}: a ledger is exported as .parquet, .csv or .json")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it, or give another path")
    if not Ledger.exists(root):
        raise UsageError(f"{root} has no ledger to export; train something first: batteries train")
    if path.suffix == ".json":
        return _write_json(path, root)
    table = scores_table(root)
    if path.suffix == ".parquet":
        write_atomic(path, lambda file: table.write_parquet(file))
    else:
        safe = table.with_columns(pl.col(pl.String).str.replace(_FORMULA, "'${0}"))
        write_atomic(path, lambda file: file.write(safe.write_csv().encode()))
    return len(table)


def _write_json(path: Path, root: Path) -> int:
    with Ledger(root) as ledger:
        tables = {name: [plain(name, row) for row in ledger.whole(name)] for name in TABLES}
    write_sealed(path, {"schema": SCHEMA, "batteries": batteries.__version__, "tables": tables})
    return sum(map(len, tables.values()))


def import_rows(path: Path | str, root: Path | str = "runs") -> int:
    """Enter all rows of an exported JSON file that the ledger lacks; return how many. All of them or none.

    Raises
    ------
    CorruptError
        When the file is no such one, or was changed.
    ResumeError
        When a newer Batteries wrote it.
    UsageError
        When an entry of it has the name of another one here.

    """
    path = Path(path)
    data = read_sealed(path)
    schema = data.get("schema")
    if not isinstance(schema, int) or "tables" not in data:
        raise CorruptError(f"{path}: is no exported ledger; export one: batteries ledger export FILE.json")
    if schema > SCHEMA:
        raise ResumeError(
            f"{path} was written by Batteries {data.get('batteries')}, this is {batteries.__version__}"
            f" (schema {schema}, this one knows {SCHEMA}); install that version"
        )
    tables = brought_forward(check_shape(path, data, Export)["tables"], schema)
    rows = [(name, row) for name, each in tables.items() for row in each]
    for name, row in rows:
        check_row(path, name, row)
        if name == "entries":
            check_shape(path, row["config"], Remembered)
    with Ledger(root) as ledger:
        return ledger.enter(rows)
