"""`hf:` sources: files of a repository of the Hugging Face hub, or of a mirror named by HF_ENDPOINT. Stage: store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ortmesh.serving.cards import Source
from ortmesh.serving.digests import matches
from ortmesh.serving.faults import DriverMissing, PullError, SourceMissing, SourceUnreachable, StoreError, disk_errors
from ortmesh.serving.sources.fetching import Files, Progress, Step, body, patiently


def fetch(source: Source, folder: Path, progress: Progress) -> Files:
    """Downloads the listed files of `hf:owner/name@revision` (by default `main`) into `folder`.

    The hub's client resumes, and reads its token and proxies from the environment.
    """
    repository, _, revision = body(source).partition("@")
    if not source.files:
        raise SourceMissing(f"{source.uri}: list the files to take under `files`")
    paths = {}
    for path, sha256 in source.files.items():
        target = folder / path
        if not matches(target, sha256):
            patiently(lambda path=path: _download(source.uri, repository, revision or "main", path, folder, progress))  # type: ignore[misc]
        paths[path] = target
    return Files(paths)


def _download(uri: str, repository: str, revision: str, path: str, folder: Path, progress: Progress) -> None:
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError as error:
        raise DriverMissing(f"{uri} needs the hub's client: pip install huggingface_hub") from error
    try:
        with disk_errors(folder):
            hf_hub_download(
                repository,
                path,
                revision=revision,
                local_dir=folder,
                endpoint=os.environ.get("HF_ENDPOINT"),
                tqdm_class=_bar(path, progress),
            )
    except errors.GatedRepoError as error:
        raise PullError(f"{uri}: accept the repository's terms and set HF_TOKEN: {error}") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        if _status(error.__cause__) == 404:  # a mirror that does not say what is missing
            raise SourceMissing(f"{uri} has no {path}: {error.__cause__}") from error
        raise SourceUnreachable(f"{uri} cannot be reached: {error}") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise SourceMissing(f"{uri} has no {path}: {error}") from error
    except StoreError:
        raise
    except Exception as error:  # whatever its HTTP client raises: names differ between the hub's versions
        raise SourceUnreachable(f"{uri} cannot be read: {error}") from error


def _status(error: BaseException | None) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _bar(path: str, progress: Progress) -> type[Any]:
    """A bar that draws nothing and tells `progress`."""

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": False, "file": _Nowhere()})

        def update(self, n: float | None = 1) -> bool | None:
            drawn = super().update(n)
            progress(Step("downloading", path, int(self.n), int(self.total) if self.total else None))
            return drawn

    return Bar


class _Nowhere:
    def write(self, _: str) -> None:
        """Draws nothing."""

    def flush(self) -> None:
        """Nothing to flush."""
