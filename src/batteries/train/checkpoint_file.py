"""Checkpoint file: how one is read: only what was written, and nothing in it is executed.

In:    a file of tensors and plain values.
Out:   what it holds, on the CPU, or an error.
Next:  checkpoints and weights load through here.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from batteries.errors import CorruptError
from batteries.files import digest_file
from batteries.shapes import CheckpointRecord, read_record


def read_checkpoint(path: Path, *, sha256: str | None = None) -> dict[str, Any]:
    """Load a checkpoint or `state_dict` file on the CPU, executing nothing in it.

    The digest is compared first: with `sha256` if given, else with the record of a checkpoint of ours in its folder.

    Raises
    ------
    CorruptError
        When the file is missing, damaged, or no file of tensors and plain values.

    """
    if not path.is_file():
        raise CorruptError(f"{path}: there is no such file")
    if sha256 is None:
        sha256 = _recorded_digest(path)
    if sha256 is not None and digest_file(path) != sha256:
        raise CorruptError(f"{path}: was changed or damaged after it was written (its digest does not match)")
    _check_parts(path)
    try:
        data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise CorruptError(f"{path}: is not a file of weights ({reason})") from error
    if not isinstance(data, dict):
        raise CorruptError(f"{path}: holds {type(data).__name__}, not a dict of weights")
    return data


def _check_parts(path: Path) -> None:
    """Refuse a zip with compressed parts: PyTorch writes none, and a small one may unpack to more than there is."""
    try:
        with zipfile.ZipFile(path) as parts:
            packed = [part.filename for part in parts.infolist() if part.compress_type != zipfile.ZIP_STORED]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return  # of PyTorch's old format, or nothing that it will load
    if packed:
        raise CorruptError(f"{path}: is not a file of weights (its part {packed[0]!r} is compressed)")


def _recorded_digest(path: Path) -> str | None:
    """The digest in the record of a checkpoint, also when `path` is a link to it such as `best.pt`."""
    for record in path.parent.glob("checkpoint-*.json"):
        file = record.with_suffix(".pt")
        if file.exists() and file.samefile(path):
            digest: str = read_record(record, CheckpointRecord)["sha256"]
            return digest
    return None
