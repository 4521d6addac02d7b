"""Credentials: the user's Kaggle credentials, kept from other users and out of everything that is said.

In:    the environment and the files that the official client reads.
Out:   the texts that must never be shown; a text without them.
Next:  `kaggle` says nothing that did not go through here.
"""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from pathlib import Path

from batteries.errors import UsageError

_FILES = ("kaggle.json", "access_token", "access_token.txt", "credentials.json")
_SECRET = ("key", "access_token", "refresh_token", "token")


def kaggle_secrets() -> list[str]:
    """Return every secret of the user's Kaggle credentials, those in files that only the user can read.

    Raises
    ------
    UsageError
        When other users of the machine can read such a file.

    """
    found = [os.environ.get(name, "") for name in ("KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN")]
    pair = [(os.environ.get("KAGGLE_USERNAME", ""), found[0])]
    for path in _files():
        if path.stat().st_mode & 0o077:
            raise UsageError(f"{path} holds a Kaggle token and other users can read it; run: chmod 600 {path}")
        text = path.read_text(errors="replace").strip()
        fields = _fields(text)
        found += [fields.get(name, "") for name in _SECRET] if fields else [text]
        pair.append((fields.get("username", ""), fields.get("key", "")))
    basic = [b64encode(f"{user}:{key}".encode()).decode() for user, key in pair if key]
    return [secret for secret in (*found, *basic) if secret and not _is_file(secret)]


def _files() -> Iterator[Path]:
    """Every file with credentials that the client may read, where there is one."""
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises where there is no home
    folders = [home / ".kaggle", Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "kaggle"]
    if moved := os.environ.get("KAGGLE_CONFIG_DIR"):
        folders.append(Path(moved))
    named = [Path(os.environ[name]) for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_V1_TOKEN") if os.environ.get(name)]
    yield from (path for path in [*(folder / name for folder in folders for name in _FILES), *named] if _is_file(path))


def _is_file(path: Path | str) -> bool:
    """Whether this names a file; a token may be longer than any name."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def _fields(text: str) -> dict[str, str]:
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    return {key: value for key, value in data.items() if isinstance(value, str)} if isinstance(data, dict) else {}


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return `text` without secrets, and without what follows the question mark of an address, which may sign it.

    >>> scrub("key abc123 refused at https://x.test/up?sign=9", ["abc123"])
    'key *** refused at https://x.test/up?***'
    """
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return re.sub(r"(/[^\s?]*\?)[^\s)]+", r"\1***", text)
