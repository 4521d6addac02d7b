"""Files: written whole or not at all, sealed by a digest, named safely.

In:    bytes, plain data, names that a user typed.
Out:   files on disk that are either the old or the new version, never a part of one.
Next:  every module that writes anything writes through here.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread
from typing import Any, BinaryIO
from uuid import uuid4

from batteries.errors import BusyError, CorruptError, NotSafeError, ResourceError

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{p}{i}" for p in ("com", "lpt") for i in range(1, 10)}
_SEAL = "seal"
_NUMBERS = ".numbers.json"
_PIECE, _FOLLOWED = 1 << 20, 1 << 23
"""Bytes read or written at once: few enough calls that a thread at it does not hold up the others."""


def safe_name(name: str, what: str = "name") -> str:
    """Return `name` unchanged if it can be a folder's name on any system, else raise NotSafeError.

    Letters, digits, `.`, `_` and `-`, starting with a letter or digit, at most 80 characters.
    """
    if (
        not isinstance(name, str)
        or not _SAFE.fullmatch(name)
        or name.split(".")[0].lower() in _RESERVED
        or name.endswith(".")
    ):
        raise NotSafeError(
            f"{what} {str(name)[:100]!r} cannot be used as a file name; use letters, digits, '.', '_' and '-',"
            " starting with a letter or digit, at most 80 characters"
        )
    return name


def inside(root: Path, name: str, what: str = "name") -> Path:
    """Return `root/name`; raise NotSafeError where the name, or a link of that name, leads out of `root`."""
    folder = root / safe_name(name, what)
    if not folder.resolve().is_relative_to(root.resolve()):
        raise NotSafeError(f"{folder} is a link that leads out of {root}, to {folder.resolve()}; copy the folder in")
    return folder


def write_atomic(path: Path, write: Callable[[BinaryIO], object]) -> str:
    """Write `path` whole, or leave it as it was; return the SHA-256 of what was written.

    The temporary file lies in the same folder, is flushed to the disk and renamed, and the
    folder is flushed after it. On any failure the temporary file is removed.

    Raises
    ------
    ResourceError
        When the system refuses (no space, read-only, quota, not permitted).

    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb", buffering=_PIECE) as file, _HashingWriter(file, temporary) as hashing:
            write(hashing)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):  # where even that is refused, the first error is the one to show
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise ResourceError(_cannot_write(path, error)) from error
        raise
    return hashing.digest.hexdigest()


class _HashingWriter:
    """A binary file that knows the digest of all that went through it once it is left.

    The first megabytes are hashed as they are written. A large file's rest is hashed by a thread that reads
    it back behind the writing, from memory as a rule: the digest is ready about when the disk is.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.digest = sha256()
        self._path = path
        self._hashed = 0
        self._ended = Event()
        self._error: OSError | None = None
        self._follower: Thread | None = None

    def __enter__(self) -> _HashingWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._follower is not None:
            self._follower.join()
        if self._error is not None:
            raise self._error

    def write(self, data: Any) -> int:
        if self._follower is None:
            self._hash(memoryview(data).cast("B"))
        return self.file.write(data)

    def _hash(self, data: memoryview) -> None:
        """Hash what belongs to the first megabytes; start the thread that hashes the rest."""
        head = data[: max(0, _FOLLOWED - self._hashed)]
        self.digest.update(head)
        self._hashed += len(head)
        if len(head) < len(data):
            try:
                follower = Thread(target=self._follow, name="digest")
                follower.start()
                self._follower = follower
            except RuntimeError:  # no thread to be had, as when the interpreter is ending
                self.digest.update(data[len(head) :])
                self._hashed += len(data) - len(head)

    def _follow(self) -> None:
        piece = memoryview(bytearray(4 * _PIECE))
        try:
            with open(self._path, "rb", buffering=0) as written:
                written.seek(self._hashed)
                while True:
                    ended = self._ended.is_set()  # asked first: what is read after it is all there will be
                    if size := written.readinto(piece):
                        self.digest.update(piece[:size])
                    elif ended:
                        return
                    else:
                        self._ended.wait(0.002)
        except OSError as error:
            self._error = error

    def flush(self) -> None:
        self.file.flush()

    def tell(self) -> int:
        return self.file.tell()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Name the file where the system refuses an act on it, as ResourceError."""
    try:
        yield
    except OSError as error:
        raise ResourceError(_cannot_write(path, error)) from error


def room(folder: Path) -> str:
    """How much is free on the disk of a folder, or of where it would be, in words."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    return f"{shutil.disk_usage(there).free:,} bytes free"


def _cannot_write(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        kept = "the previous version is untouched. Free some and run again"
        return f"{path}: no space left ({room(path.parent)}); {kept}"
    return f"{path}: cannot be written ({error.strerror or error}); the previous version is untouched"


def write_text(path: Path, text: str) -> str:
    """Write a text file whole, as UTF-8; return its SHA-256."""
    return write_atomic(path, lambda file: file.write(text.encode()))


def canonical_json(data: object) -> str:
    """One text for one value: sorted keys, no spaces, no NaN. What digests of configs are made of."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)


def digest_of(data: object) -> str:
    """SHA-256 of plain data (what JSON can hold), the same on every machine."""
    return sha256(canonical_json(data).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        digest = sha256()
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def read_whole(path: Path) -> bytes:
    """Return the bytes of a file. Raises CorruptError for what has no end or is none: a device, a pipe, a folder."""
    if path.exists() and not path.is_file():
        raise CorruptError(f"{path}: is not a file")
    return path.read_bytes()


def write_sealed(path: Path, data: Mapping[str, Any]) -> None:
    """Write a JSON object together with a digest of itself, so that `read_sealed` notices any change."""
    plain = json.loads(json.dumps(data, allow_nan=False))  # as it will be read back: keys are texts, tuples lists
    assert _SEAL not in plain, f"{_SEAL!r} is the name of the digest"
    sealed = {**plain, _SEAL: digest_of(plain)}
    write_text(path, json.dumps(sealed, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_sealed(path: Path) -> dict[str, Any]:
    """Read what `write_sealed` wrote.

    Raises
    ------
    CorruptError
        When the file is not JSON, carries no digest, or does not match it.

    """
    try:
        data = json.loads(read_whole(path).decode())
        seal = data.pop(_SEAL, None) if isinstance(data, dict) else None
        digest = digest_of(data)  # a damaged number can be one that JSON cannot hold
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptError(f"{path}: cannot be read ({error})") from error
    if not isinstance(data, dict) or not isinstance(seal, str):
        raise CorruptError(f"{path}: is not a record of Batteries (no digest in it)")
    if digest != seal:
        raise CorruptError(f"{path}: was changed or damaged after it was written (its digest does not match)")
    return data


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold `folder` for this process; a second one stops at once, or waits.

    The lock is the kernel's, so it ends with its owner however that dies.

    Raises
    ------
    BusyError
        When another process holds it; the message names its process and host.

    """
    path = folder / ".lock"
    with refusing(path):
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab+", buffering=0)  # noqa: SIM115 - closed below
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().decode().strip() or "another process"
            raise BusyError(f"{folder} is in use by {owner}; wait for it or stop it, then run again") from error
        with refusing(path):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


def sweep(folder: Path) -> None:
    """Remove what a killed process left half-written below a folder that the caller holds."""
    for left in folder.rglob(".*.tmp"):
        left.unlink(missing_ok=True)


def new_folder(root: Path, stem: str, fill: Callable[[Path, str], object]) -> Path:
    """Make the first free `root/stem-001`, `-002`, ..., whole or not at all, and return it.

    `fill(folder, name)` writes the files into a folder that gets its name only when it is done. Two
    processes never get the same one, and the number of a folder that was deleted is not given again:
    what was noted elsewhere under its name stays true.
    """
    safe_name(stem)
    root.mkdir(parents=True, exist_ok=True)
    there = (int(p.name[len(stem) + 1 :]) for p in root.glob(f"{stem}-*") if _numbered(p, stem))
    number = 1 + max(_numbers(root).get(stem, 0), *there, 0)
    while True:
        folder = root / f"{stem}-{number:03d}"
        half_made = root / f".{folder.name}.{uuid4().hex}.tmp"
        half_made.mkdir()
        try:
            fill(half_made, folder.name)
            if _claimed(half_made, folder):
                write_text(root / _NUMBERS, json.dumps({**_numbers(root), stem: number}))
                return folder
        finally:
            shutil.rmtree(half_made, ignore_errors=True)
        number += 1


def forget_folder(folder: Path) -> None:
    """Remove a folder that `new_folder` made and whose name nobody has noted yet; its number may be given again."""
    root, (stem, _, number) = folder.parent, folder.name.rpartition("-")
    removed = root / f".{folder.name}.{uuid4().hex}.tmp"
    folder.rename(removed)
    shutil.rmtree(removed, ignore_errors=True)
    if _numbers(root).get(stem) == int(number):
        write_text(root / _NUMBERS, json.dumps({**_numbers(root), stem: int(number) - 1}))


def _claimed(half_made: Path, folder: Path) -> bool:
    """Whether the folder got its name; not if another process took it meanwhile."""
    with refusing(folder):
        try:
            half_made.rename(folder)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                return False
            raise
        _sync_folder(folder.parent)
    return True


def _numbers(root: Path) -> dict[str, int]:
    """The highest number ever given for each stem; none where the note is lost."""
    try:
        noted = json.loads((root / _NUMBERS).read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return {stem: n for stem, n in noted.items() if isinstance(n, int)} if isinstance(noted, dict) else {}


def _numbered(path: Path, stem: str) -> bool:
    return re.fullmatch(r"\d+", path.name[len(stem) + 1 :]) is not None
