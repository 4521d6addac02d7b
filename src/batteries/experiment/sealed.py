"""Sealed: Parquet files that notice any change before a byte of them is parsed.

In:    a table and notes about it.
Out:   one file that any Parquet reader opens, with the digest of its own bytes in its metadata.
Next:  predictions and folds are kept so; `files` does the same for JSON.

A Parquet reader believes lengths that it finds in the file: one flipped bit can ask for more memory
than there is, and end the process. So the digest is of the bytes, and is compared first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import polars as pl

from batteries.errors import CorruptError
from batteries.files import read_whole, write_atomic

UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
"""What is raised for a table that is none; polars panics over some damaged Parquet files."""
_PREFIX = "batteries."
_MARK = b"sha256-of-this-file-with-zeros-here:"
_ZEROS = b"0" * 64
_GROUP = 1 << 15
"""Rows of a row group: fixed, so that a table has the same bytes whether it is written whole or in parts."""
_PIECE, _TAIL = 1 << 20, 1 << 26
"""Bytes read at once, and how many of a file's last ones are searched for a seal."""


def write_table(path: Path, table: pl.DataFrame, about: Mapping[str, str]) -> None:
    """Write `table` and the texts `about` it, whole or not at all."""
    buffer = BytesIO()
    table.write_parquet(buffer, row_group_size=_GROUP, metadata=_metadata(about))
    data = buffer.getvalue()
    start = _seal_start(data)
    seal = sha256(data).hexdigest().encode()
    write_atomic(path, lambda file: (file.write(data[:start]), file.write(seal), file.write(data[start + 64 :])))


def write_parts(path: Path, schema: pl.Schema, parts: Iterator[pl.DataFrame], about: Mapping[str, str]) -> None:
    """Write the same bytes as `write_table` does for the `parts` together, holding a few of them at a time.

    What is written comes from a temporary file beside it.
    """
    from polars.io.plugins import register_io_source

    unsealed = path.with_name(f".{path.name}.{os.getpid()}.unsealed.tmp")
    try:
        source = register_io_source(lambda *_: parts, schema=schema)
        source.sink_parquet(unsealed, row_group_size=_GROUP, metadata=_metadata(about))
        with open(unsealed, "rb") as file:
            start = _find_seal(file)
            seal = _digest(file, start).encode()
            write_atomic(path, lambda out: _copy(file, out, start, seal))
    finally:
        unsealed.unlink(missing_ok=True)


def _metadata(about: Mapping[str, str]) -> dict[str, str]:
    metadata = {_PREFIX + key: text for key, text in about.items()}
    return {**metadata, _PREFIX + "seal": (_MARK + _ZEROS).decode()}


def _copy(file: BinaryIO, out: BinaryIO, start: int, seal: bytes) -> None:
    file.seek(0)
    while piece := file.read(min(_PIECE, start - file.tell())):
        out.write(piece)
    out.write(seal)
    file.seek(start + len(seal))
    while piece := file.read(_PIECE):
        out.write(piece)


def check_seal(path: Path) -> dict[str, str]:
    """Return the texts that `write_table` wrote about a table, holding little of it; none if the file is not ours.

    Raises
    ------
    CorruptError
        When the file is ours and not to the last bit the one that was written.

    """
    with open(path, "rb") as file:
        start = _find_seal(file)
        if start < 0:
            return {}
        file.seek(start)
        if file.read(64) != _digest(file, start).encode():
            raise CorruptError(f"{path}: was changed or damaged after it was written (its digest does not match)")
    return _texts(pl.read_parquet_metadata(path))


def _texts(metadata: Mapping[str, str]) -> dict[str, str]:
    own = {key.removeprefix(_PREFIX): text for key, text in metadata.items() if key.startswith(_PREFIX)}
    own.pop("seal")
    return own


def _find_seal(file: BinaryIO) -> int:
    """Where the digest begins in the last part of a file; -1 if there is none."""
    stop = file.seek(0, os.SEEK_END)
    last, after = max(0, stop - _TAIL), b""
    while stop > last:
        start = max(last, stop - _PIECE)
        file.seek(start)
        piece = file.read(stop - start)
        if (place := (piece + after).rfind(_MARK)) >= 0:
            return start + place + len(_MARK)
        stop, after = start, (piece + after)[: len(_MARK) - 1]
    return -1


def _digest(file: BinaryIO, start: int) -> str:
    """Digest of a file with zeros where its digest is."""
    digest = sha256()
    file.seek(0)
    while piece := file.read(min(_PIECE, start - file.tell())):
        digest.update(piece)
    digest.update(_ZEROS)
    file.seek(start + 64)
    while piece := file.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()


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
    return pl.read_parquet(BytesIO(data)), _texts(pl.read_parquet_metadata(BytesIO(data)))


def _seal_start(data: bytes) -> int:
    """Where the digest begins; the metadata are the last part of a Parquet file."""
    return data.rfind(_MARK) + len(_MARK)
