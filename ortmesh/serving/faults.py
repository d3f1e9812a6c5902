"""What can go wrong on a model's way from its source into the store, in words for the person at the keyboard.

    source ──①──► cache ──②──► extracted files ──③──► recipe ──④──► store

    ①  SourceUnreachable, SourceMissing, DriverMissing, WrongChecksum
    ②  BadArchive, SourceMissing (a listed file), WrongChecksum
    ③  ConversionFailed
    ④  AlreadyInstalled, UnknownVersion
    everywhere   DiskFull, NotWritable

None of them is a caller's: calls meet `ortmesh.errors`. Stage: store.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class StoreError(Exception):
    """The store, or a way into it, does not work as asked; the text says what and why."""


class DiskFull(StoreError):
    """No space is left where the store, its cache or the temporary folder lies, or for a file of that size."""


class NotWritable(StoreError):
    """The store is read-only, or this user may not write it."""


class AlreadyInstalled(StoreError):
    """The version is there; it must be removed first, or another version chosen."""


class UnknownVersion(StoreError):
    """The store has no such model or version."""


class PullError(StoreError):
    """A model could not be fetched."""


class SourceUnreachable(PullError):
    """The network, a proxy or the other side does not answer. A later try may succeed."""


class IndexUnreachable(SourceUnreachable):
    """pip reaches no package index: no other package can be had either."""


class SourceMissing(PullError):
    """The source answers, but has no such package, version or file."""


class DriverMissing(PullError):
    """The source needs a Python package that is not installed; the text names it."""


class BadArchive(PullError):
    """The archive is damaged, or has members that would be written outside of their folder."""


class WrongChecksum(PullError):
    """The bytes are not those that the card promises."""

    def __init__(self, what: str, expected: str, actual: str) -> None:
        super().__init__(f"{what} is not what its card promises: expected {expected}, got {actual}")
        self.expected = expected
        self.actual = actual


class ConversionFailed(PullError):
    """The recipe ended with an error, or did not write the files that the card lists."""

    def __init__(self, message: str, log: str = "") -> None:
        super().__init__(message)
        self.log = log
        """All that the recipe wrote, with its traceback."""


class GraphRefused(StoreError):
    """The ONNX file cannot be served; the text says why and, where there is one, what to do."""


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write at `place` into DiskFull and NotWritable."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"no space is left on the disk of {place}") from error
        if error.errno == errno.EFBIG:
            raise DiskFull(f"a file is too large for the disk of {place}, or for this user's limit") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise NotWritable(f"{error.filename or place} cannot be written: {error.strerror}") from error
        raise
