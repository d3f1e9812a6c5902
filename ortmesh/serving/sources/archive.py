"""Taking single members out of wheels, zips and tarballs, without trusting the archive. Stage: store."""

from __future__ import annotations

import gzip
import lzma
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from ortmesh.serving.faults import BadArchive, SourceMissing, disk_errors
from ortmesh.serving.sources.fetching import Archive


def extract(archive: Archive, members: Iterable[str], out: Path) -> Mapping[str, Path]:
    """Writes the listed members, and only these, below `out`; returns where each one is.

    SourceMissing when one is not in the archive, BadArchive when it is damaged or would be written elsewhere.
    """
    wanted = list(members)
    for member in wanted:
        _must_stay_inside(member, archive.path.name)
    take = _from_zip if zipfile.is_zipfile(archive.path) else _from_tar
    with disk_errors(out), _damage(archive.path.name):
        found = {member: _write(content, out / member) for member, content in take(archive, set(wanted))}
    if missing := sorted(set(wanted) - set(found)):
        raise SourceMissing(f"{archive.path.name} has no {', '.join(missing)}")
    return found


def _from_zip(archive: Archive, wanted: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(archive.path) as file:
        for info in file.infolist():
            if not info.is_dir() and (name := _name(info.filename, archive)) in wanted:
                with file.open(info) as content:
                    yield name, content


def _from_tar(archive: Archive, wanted: set[str]) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(archive.path) as file:
        for info in file:
            # Links are never followed: a member is the bytes that stand in the archive.
            if info.isfile() and (name := _name(info.name, archive)) in wanted:
                content = file.extractfile(info)
                assert content is not None
                with content:
                    yield name, content


def _name(member: str, archive: Archive) -> str:
    parts = PurePosixPath(member).parts
    return str(PurePosixPath(*parts[1:])) if archive.strip else str(PurePosixPath(member))


def _write(content: IO[bytes], target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(content, file, 1024 * 1024)
    return target


def _must_stay_inside(member: str, archive: str) -> None:
    path = PurePosixPath(member)
    if path.is_absolute() or ".." in path.parts or "\\" in member:
        raise BadArchive(f"{archive}: {member} would be written outside of the model's folder")


# What the standard library raises for damaged, encrypted (RuntimeError) and unknown kinds of archives.
DAMAGES = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError)


@contextmanager
def _damage(name: str) -> Iterator[None]:
    try:
        yield
    except DAMAGES as error:
        raise BadArchive(f"{name} is damaged: {error}") from error
