"""What all kinds of sources share: what a fetch is given and returns, progress, and when to try again. Stage: store."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from ortmesh.serving.cards import Source
from ortmesh.serving.faults import PullError, SourceUnreachable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Step:
    """How far a pull is: told again and again while bytes arrive."""

    doing: Literal["waiting", "downloading", "extracting", "converting", "installing"]
    what: str
    """The file, package or model."""
    done: int = 0
    """Bytes so far, while downloading."""
    total: int | None = None
    """Bytes in all, where the other side says so."""


Progress = Callable[[Step], None]


def silent(_: Step) -> None:
    """For whoever does not want to know."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A wheel, tarball or zip of which the card's files are members."""

    path: Path
    strip: bool = False
    """True when every member lies in one folder whose name does not matter (npm's `package/`)."""


@dataclass(frozen=True, slots=True)
class Files:
    """Single files by the paths under which the card lists them."""

    paths: Mapping[str, Path]


Fetch = Callable[[Source, Path, Progress], Archive | Files]
"""`fetch(source, folder, progress)`: brings the source into `folder`, which belongs to this source alone and
survives a broken-off try. A file that is there already, whole and with the right sum, is not fetched again."""

FULL = re.compile(r"No space left|File too large|Disk quota exceeded")
"""What the system tells a command that runs beside us of a full disk: its output is all that we see of it."""
ATTEMPTS = 5
FIRST_DELAY_SECONDS = 0.5

ARCHIVES = (".whl", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


def is_archive(name: str) -> bool:
    """True for names whose content is taken out of them rather than served as it is."""
    return name.lower().endswith(ARCHIVES)


def body(source: Source) -> str:
    """What follows the scheme: `name==1.0` of `pypi:name==1.0`."""
    return source.uri.partition(":")[2]


def single_name(source: Source) -> str:
    """The path under which the card lists the only file of a source, by default the last part of its address."""
    if len(source.files) > 1:
        raise PullError(
            f"{source.uri} is one file, but its card lists {len(source.files)}; an address that ends with / is a folder"
        )
    return next(iter(source.files), PurePosixPath(source.uri.partition("?")[0]).name)


def patiently(attempt: Callable[[], T]) -> T:
    """Tries again, later and later, while the other side does not answer."""
    for number in range(ATTEMPTS - 1):
        try:
            return attempt()
        except SourceUnreachable:
            time.sleep(FIRST_DELAY_SECONDS * 2**number)
    return attempt()
