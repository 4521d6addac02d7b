"""Sealed: Parquet files that notice any change before a byte of them is parsed.

In:    a table and notes about it.
Out:   one file that any Parquet reader opens, with the digest of its own bytes in its metadata.
Next:  predictions and folds are kept so; `files` does the same for JSON.

A Parquet reader believes lengths that it finds in the file: one flipped bit can ask for more memory
than there is, and end the process. So the digest is of the bytes, and is compared first.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import polars as pl

from batteries.errors import CorruptError
from batteries.files import read_whole, write_atomic

_PREFIX = "batteries."
_MARK = b"sha256-of-this-file-with-zeros-here:"
_ZEROS = b"0" * 64


def write_table(path: Path, table: pl.DataFrame, about: Mapping[str, str]) -> None:
    """Write `table` and the texts `about` it, whole or not at all."""
    metadata = {_PREFIX + key: text for key, text in about.items()}
    buffer = BytesIO()
    table.write_parquet(buffer, metadata={**metadata, _PREFIX + "seal": (_MARK + _ZEROS).decode()})
    data = buffer.getvalue()
    start = _seal_start(data)
    seal = sha256(data).hexdigest().encode()
    write_atomic(path, lambda file: (file.write(data[:start]), file.write(seal), file.write(data[start + 64 :])))


def read_table(path: Path) -> tuple[pl.DataFrame, dict[str, str]]:
    """Return the table and the texts that `write_table` wrote.

    Raises
    ------
    CorruptError
        When the file is not to the last bit the one that was written.

    """
    try:
        data = read_whole(path)
    except OSError as error:
        raise CorruptError(f"{path}: cannot be read ({error.strerror or error})") from error
    start = _seal_start(data)
    if start < len(_MARK):
        raise CorruptError(f"{path}: was not written by Batteries, or was damaged since (no digest in it)")
    view = memoryview(data)
    digest = sha256(view[:start])
    digest.update(_ZEROS)
    digest.update(view[start + 64 :])
    if digest.hexdigest().encode() != view[start : start + 64]:
        raise CorruptError(f"{path}: was changed or damaged after it was written (its digest does not match)")
    about = pl.read_parquet_metadata(BytesIO(data))
    own = {key.removeprefix(_PREFIX): text for key, text in about.items() if key.startswith(_PREFIX)}
    own.pop("seal")
    return pl.read_parquet(BytesIO(data)), own


def _seal_start(data: bytes) -> int:
    """Where the digest begins; the metadata are the last part of a Parquet file."""
    return data.rfind(_MARK) + len(_MARK)
