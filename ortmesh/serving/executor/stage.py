"""Stage: one measurement at a time on this machine, as far as that can be had. Stage: executor.

Two executors that measure side by side measure each other, and what they find is kept for all later starts.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PATIENCE_SECONDS = 1.0
"""Others are waited for so long: a load must not hang on theirs."""


class Stage:
    """Of a process: its executors wait for each other; other processes of this user are waited for a while, or not at
    all where no file can be made."""

    def __init__(self, path: Path | None = None) -> None:
        """`path` is the lock's file; by default one in the folder for temporary files, a user one."""
        self._mine = threading.Lock()
        self._path = path

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Waits for its turn, but not for ever: a measurement beside another is better than none."""
        mine = self._mine.acquire(timeout=PATIENCE_SECONDS)
        try:
            with self._others(PATIENCE_SECONDS):
                yield
        finally:
            if mine:
                self._mine.release()

    @contextmanager
    def free(self) -> Iterator[bool]:
        """False at once when somebody measures."""
        if not self._mine.acquire(blocking=False):
            yield False
            return
        try:
            with self._others(0.0) as free:
                yield free
        finally:
            self._mine.release()

    @contextmanager
    def _others(self, patience: float) -> Iterator[bool]:
        try:
            lock = FileLock(self._path or _in_temporary_files())
            lock.acquire(timeout=patience)
        except Timeout:
            yield False
            return
        except (OSError, NotImplementedError):  # another user's file, nowhere to write to, no locks there
            yield True
            return
        try:
            yield True
        finally:
            with suppress(OSError):
                lock.release()


def _in_temporary_files() -> Path:
    """FileNotFoundError where there is no such folder."""
    return Path(tempfile.gettempdir()) / f"ortmesh-measuring-{os.getuid()}.lock"


MEASURING = Stage()
