"""Sums of files, and copies that end up on the disk rather than in its cache. Stage: store."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from ortmesh.serving.faults import WrongChecksum


def sha256_of(path: Path) -> str:
    """The sha256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, expected: str | None, what: str) -> None:
    """Compares a file with the sum that a card gives, if it gives one; WrongChecksum with both sums."""
    if expected is not None and (actual := sha256_of(path)) != expected:
        raise WrongChecksum(what, f"sha256:{expected}", f"sha256:{actual}")


def sync_tree(folder: Path) -> None:
    """Writes every file and folder below `folder` through to the disk, so that a rename publishes whole files."""
    for path in [folder, *folder.rglob("*")]:
        sync(path)


def sync(path: Path) -> None:
    """Writes one file or folder through to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def matches(path: Path, sha256: str | None) -> bool:
    """True when the file is there and is known to be the right one; without a sum nothing is known."""
    return sha256 is not None and path.is_file() and sha256_of(path) == sha256
