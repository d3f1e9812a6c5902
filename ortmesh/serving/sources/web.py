"""`https:` sources: one file, an archive, or (an address that ends with /) a folder of single files. Stage: store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

import httpx

from ortmesh.serving.cards import Source
from ortmesh.serving.digests import matches
from ortmesh.serving.faults import PullError, SourceMissing, SourceUnreachable
from ortmesh.serving.sources.fetching import Archive, Files, Progress, Step, is_archive, patiently, single_name
from ortmesh.serving.sources.partial import Partial

TIMEOUT = httpx.Timeout(60, connect=20)
GONE = (404, 410)
LATER = (408, 425, 429)


def fetch(source: Source, folder: Path, progress: Progress) -> Archive | Files:
    """Downloads into `folder`."""
    if source.uri.endswith("/"):
        return Files(
            {
                path: _file(source.uri + quote(path), folder / path, sum_, progress)
                for path, sum_ in source.files.items()
            }
        )
    name = unquote(PurePosixPath(httpx.URL(source.uri).path).name)
    if is_archive(name) and source.files:
        return Archive(_file(source.uri, folder / name, source.sha256, progress))
    listed = single_name(source)
    return Files({listed: _file(source.uri, folder / name, source.sha256 or source.files.get(listed), progress)})


def _file(url: str, target: Path, sha256: str | None, progress: Progress) -> Path:
    if not matches(target, sha256):
        download(url, target, progress)
    return target


def download(url: str, target: Path, progress: Progress) -> None:
    """Brings `url` to `target`; goes on from what an earlier try left if the other side still has that content."""
    partial = Partial(target)
    patiently(lambda: _download_rest(url, partial, progress))
    partial.complete()


def get_json(url: str) -> Mapping[str, object]:
    """A JSON object."""

    def attempt() -> Mapping[str, object]:
        with _client(url) as client:
            response = client.get(url)
            _check(response)
            return dict(response.json())

    return patiently(attempt)


def shown(url: httpx.URL | str) -> str:
    """An address for messages: without the secrets that user names, passwords and queries carry."""
    return str(httpx.URL(url).copy_with(userinfo=b"", query=None))


def _download_rest(url: str, partial: Partial, progress: Progress) -> None:
    headers = {"Accept-Encoding": "identity"}  # sizes and ranges are those of the file itself
    if partial.identity is not None and partial.size:
        headers |= {"Range": f"bytes={partial.size}-", "If-Range": partial.identity}
    with _client(url) as client, client.stream("GET", url, headers=headers) as response:
        if response.status_code == 416:
            partial.discard()
            raise SourceUnreachable(f"{shown(url)} has become shorter while it was downloaded")
        _check(response)
        start = partial.size if _goes_on(response, partial.size) else 0
        total = _total(response, start)

        def tell(done: int) -> None:
            progress(Step("downloading", partial.target.name, done, total))

        partial.write(response.iter_raw(), start, _identity(response), tell)


@contextmanager
def _client(url: str) -> Iterator[httpx.Client]:
    """A client as proxies and certificates in the environment say; its errors become ours."""
    try:
        with httpx.Client(timeout=TIMEOUT, follow_redirects=True) as client:
            yield client
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise PullError(f"{url} is no address: {error}") from error
    except (httpx.TransportError, httpx.TooManyRedirects) as error:
        raise SourceUnreachable(f"{shown(url)} cannot be reached: {_reason(error)}") from error


def _check(response: httpx.Response) -> None:
    """Raises what a status that is no success means."""
    address, status = shown(response.url), response.status_code
    if response.is_success:
        return
    if status in GONE:
        raise SourceMissing(f"{address} does not exist ({status})")
    if status in LATER or status >= 500:
        raise SourceUnreachable(f"{address} does not answer now ({status} {response.reason_phrase})")
    raise PullError(f"{address} is refused ({status} {response.reason_phrase})")


def _goes_on(response: httpx.Response, offset: int) -> bool:
    return response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _total(response: httpx.Response, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    return start + int(length) if length is not None else None


def _identity(response: httpx.Response) -> str | None:
    """What `If-Range` may name: a strong ETag or a date."""
    tag = response.headers.get("ETag")
    if tag is not None and not tag.startswith("W/"):
        return str(tag)
    date = response.headers.get("Last-Modified")
    return None if date is None else str(date)


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
