"""Suspects: models that a service was loading when it died, so that one bad model never stops the others. Stage: store.

A graph that brings ONNX Runtime down, or takes more memory than there is, would do so again whenever the service is
started anew, and no other model would ever come up. So each load is marked while it lasts; what is marked by a
process that is gone is loaded apart from the others the next time, and after a few deaths not any more.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from platformdirs import user_cache_path

from ortmesh.serving.files import files_of

log = logging.getLogger(__name__)

MOST_DEATHS = 3
FORGET_SECONDS = 24 * 3600.0
"""After this time a model is tried again: the service may have died of something else."""


class Suspect(Exception):
    """The service died several times while it loaded this model."""


class Suspects:
    """The marks in one folder, which outlives the process; those of other live processes are left alone.

    `prefix` keeps those of other families and stores apart.
    """

    def __init__(self, folder: Path, prefix: str = "") -> None:
        self._folder = folder
        self._prefix = prefix

    @classmethod
    def of(cls, store: Path, family: str) -> Suspects:
        """Of the services of a family that serve a store on this machine."""
        place = hashlib.sha256(os.fsencode(store)).hexdigest()[:12]
        return cls(user_cache_path("ortmesh") / "loading", f"{family}-{place}-")

    def look(self) -> None:
        """Counts what earlier processes left behind. To be called before the first load. It forgets where it can't
        write: then nothing is suspected."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for mark in self._folder.glob(f"{self._prefix}*.loading"):
                self._count(mark)
        except (OSError, ValueError) as error:  # the latter: somebody else's file
            log.info("what is loaded can't be remembered beyond this process: %s", error)

    def of_version(self, key: str, folder: Path) -> int:
        """How many processes died while they loaded the version, as its files are now."""
        deaths = self._path(f"{key}.deaths")
        return _deaths(deaths, _digest(folder)) if deaths.exists() else 0

    @contextmanager
    def loading(self, key: str, folder: Path) -> Iterator[None]:
        """Marks a version while it is loaded. Suspect after too many deaths. Whatever it raises, it killed nobody."""
        deaths = self._path(f"{key}.deaths")
        if (number := self.of_version(key, folder)) >= MOST_DEATHS:
            raise Suspect(
                f"the service died {number} times while it loaded this model: it is tried again when its files change, "
                "or after a day"
            )
        mark = self._path(f"{key}.{os.getpid()}.loading")
        with suppress(OSError):  # `look` has told it
            self._folder.mkdir(parents=True, exist_ok=True)
            mark.write_text(_digest(folder), encoding="ascii")
        try:
            yield
        finally:
            with suppress(OSError):
                mark.unlink(missing_ok=True)
                deaths.unlink(missing_ok=True)

    def close(self) -> None:
        """Leaves no empty folder behind."""
        with suppress(OSError):  # another service has marks there
            self._folder.rmdir()

    def _path(self, name: str) -> Path:
        return self._folder / f"{self._prefix}{name}"

    def _count(self, mark: Path) -> None:
        key, pid, _ = mark.name.removeprefix(self._prefix).rsplit(".", 2)
        if int(pid) != os.getpid() and _lives(int(pid)):
            return
        digest, deaths = mark.read_text(encoding="ascii"), self._path(f"{key}.deaths")
        number = _deaths(deaths, digest) + 1
        deaths.write_text(f"{digest} {number}", encoding="ascii")
        mark.unlink()
        log.warning("an earlier process died while it loaded %s, for the %d. time", key, number)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _digest(folder: Path) -> str:
    """Another one when a file of the version is another one."""
    facts = [(path.relative_to(folder), status.st_size, status.st_mtime_ns) for path, status in _files(folder)]
    return hashlib.sha256(repr(sorted(facts)).encode()).hexdigest()[:16]


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in files_of(folder):
        with suppress(OSError):  # it goes while we look
            yield path, path.stat()


def _deaths(path: Path, digest: str) -> int:
    """The number that a file holds for these files of a version, if it is not too old."""
    try:
        seen, number = path.read_text(encoding="ascii").split()
        recent = time.time() - path.stat().st_mtime < FORGET_SECONDS
        return int(number) if recent and seen == digest else 0
    except (OSError, ValueError):  # there is none, or it was written only in part
        return 0
