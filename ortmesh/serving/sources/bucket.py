"""`s3:` and `gs:` sources: objects of a bucket through fsspec's drivers, which are installed apart. Stage: store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from ortmesh.serving.cards import Source
from ortmesh.serving.digests import matches
from ortmesh.serving.faults import DriverMissing, PullError, SourceMissing, SourceUnreachable
from ortmesh.serving.sources.fetching import Archive, Files, Progress, Step, is_archive, patiently, single_name
from ortmesh.serving.sources.partial import Partial

CHUNK_BYTES = 4 * 1024 * 1024
DRIVERS = {"s3": "s3fs", "gs": "gcsfs"}
IDENTITIES = ("ETag", "etag", "md5Hash", "generation", "mtime", "created")


def fetch(source: Source, folder: Path, progress: Progress) -> Archive | Files:
    """Downloads into `folder`, with the credentials that the driver finds in the environment."""
    disk = _file_system(source.uri)
    if source.uri.endswith("/"):
        return Files(
            {path: copy(disk, source.uri + path, folder / path, sum_, progress) for path, sum_ in source.files.items()}
        )
    name = PurePosixPath(source.uri).name
    if is_archive(name) and source.files:
        return Archive(copy(disk, source.uri, folder / name, source.sha256, progress))
    listed = single_name(source)
    sha256 = source.sha256 or source.files.get(listed)
    return Files({listed: copy(disk, source.uri, folder / name, sha256, progress)})


def copy(disk: Any, uri: str, target: Path, sha256: str | None, progress: Progress) -> Path:
    """Brings one object of an fsspec file system to `target`, going on where an earlier try broke off."""
    if not matches(target, sha256):
        partial = Partial(target)
        patiently(lambda: _copy_rest(disk, uri, partial, progress))
        partial.complete()
    return target


def _file_system(uri: str) -> Any:
    scheme = uri.partition(":")[0]
    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:
        raise DriverMissing(f"{uri} needs a driver: pip install {DRIVERS[scheme]}") from error


def _copy_rest(disk: Any, uri: str, partial: Partial, progress: Progress) -> None:
    facts = _ask(uri, disk.info, uri)
    identity = next((str(facts[key]) for key in IDENTITIES if facts.get(key)), None)
    start = partial.size if identity is not None and identity == partial.identity else 0
    size: int | None = facts.get("size")

    def tell(done: int) -> None:
        progress(Step("downloading", partial.target.name, done, size))

    partial.write(_chunks(disk, uri, start), start, identity, tell)
    if size is not None and partial.size != size:
        raise SourceUnreachable(f"{uri} broke off after {partial.size} of {size} bytes")


def _chunks(disk: Any, uri: str, start: int) -> Iterator[bytes]:
    with _ask(uri, disk.open, uri, "rb") as file:
        _ask(uri, file.seek, start)
        while chunk := _ask(uri, file.read, CHUNK_BYTES):
            yield chunk


def _ask(uri: str, function: Any, *arguments: Any) -> Any:
    """Calls the driver; its errors become ours. Each driver has its own, so that anything unknown counts as
    a side that does not answer."""
    try:
        return function(*arguments)
    except FileNotFoundError as error:
        raise SourceMissing(f"{uri} does not exist") from error
    except PermissionError as error:
        raise PullError(f"{uri} is refused: {error}") from error
    except Exception as error:
        raise SourceUnreachable(f"{uri} cannot be read: {type(error).__name__}: {error}") from error
