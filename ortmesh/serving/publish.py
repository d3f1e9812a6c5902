"""Publishing a folder by a rename, so that no reader ever sees half of it. Stage: store."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

from ortmesh.serving.digests import sync

AT_FDCWD = -100
RENAME_EXCHANGE = 2
CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)
"""An old kernel, or a file system that can't exchange (some network ones)."""


def publish(folder: Path, target: Path) -> None:
    """Gives a folder its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder.rename(target)
    sync(target.parent)


def exchange(folder: Path, target: Path, attic: Path) -> None:
    """Puts a folder in the place of another, which ends up in `folder` or `attic`: at once where the system can, so
    that a reader finds one of the two at any moment; else by two renames."""
    if not _swap(folder, target):
        target.rename(attic)
        try:
            folder.rename(target)
        except OSError:
            attic.rename(target)
            raise
    sync(target.parent)


def _swap(one: Path, other: Path) -> bool:
    """Exchanges two paths by renameat2; False where that can't be done."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(other))
