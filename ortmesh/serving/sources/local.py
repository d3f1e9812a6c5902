"""`file:` sources: files, archives and folders of this machine, used where they lie. Stage: store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from ortmesh.serving.cards import Source
from ortmesh.serving.faults import PullError, SourceMissing
from ortmesh.serving.sources.fetching import Archive, Files, Progress, is_archive, single_name


def fetch(source: Source, folder: Path, progress: Progress) -> Archive | Files:
    """Finds what `file:/absolute/path` names; nothing is copied into `folder`."""
    path = Path(unquote(urlsplit(source.uri).path))
    if not path.is_absolute():
        raise PullError(f"{source.uri}: write file:/ABSOLUTE/PATH")
    if not path.exists():
        raise SourceMissing(f"{path} does not exist")
    if path.is_dir():
        return Files({name: path / name for name in source.files})
    if is_archive(path.name) and source.files:
        return Archive(path)
    return Files({single_name(source): path})
