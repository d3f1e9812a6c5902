"""Disks that are full or read-only: file systems in memory, or what comes near them where nothing can be mounted."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


class Disk:
    """A file system of so many KiB at `folder`. Without the right to mount, no file of it may be larger than that."""

    def __init__(self, kib: int = 32 * 1024) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="om-", dir="/tmp"))
        self.folder.chmod(0o755)
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        self.mounted = _mount("-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(self.folder))
        self.resize(kib)

    def resize(self, kib: int) -> None:
        """Gives it another size."""
        if self.mounted:
            assert _mount("-o", f"remount,size={kib}k", str(self.folder))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, self._before[1]))

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Nothing can be written to it meanwhile. Without the right to mount: not by this user."""
        if self.mounted:
            assert _mount("-o", "remount,ro", str(self.folder))
            try:
                yield
            finally:
                assert _mount("-o", "remount,rw", str(self.folder))
            return
        before, places = os.geteuid(), [self.folder, *self.folder.rglob("*")]
        for place in places:
            place.chmod(0o555 if place.is_dir() else 0o444)
        if before == 0:
            os.seteuid(NOBODY)  # the right to write does not bind root
        try:
            yield
        finally:
            os.seteuid(before)
            for place in places:
                place.chmod(0o755 if place.is_dir() else 0o644)

    def close(self) -> None:
        """Takes it away."""
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)
        shutil.rmtree(self.folder)


def _mount(*arguments: str) -> bool:
    """True when it is done; false for who has no right to it."""
    return (
        shutil.which("mount") is not None
        and subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0
    )
