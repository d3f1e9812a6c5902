"""A stand-in for registries, hubs and web servers: serves what a test puts into it, and fails as it is told.

With it what tests of pulling share: cards, and what archives hold.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ortmesh.serving.cards import Card

MODEL = bytes(range(256)) * 4096
"""What stands for a model: 1 MiB."""


class StandIn(ThreadingHTTPServer):
    """`files` by their path; `broken[path]` lists after how many bytes the next answers break off, `refused[path]`
    with which status they are refused, `held[path]` after how many bytes they wait until `go_on` is set. `requests`
    has (method, path, Range header) of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.broken: dict[str, list[int]] = {}
        self.refused: dict[str, list[int]] = {}
        self.held: dict[str, int] = {}
        self.go_on = threading.Event()
        self.requests: list[tuple[str, str, str | None]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """Callers that were interrupted or killed are what some tests are about."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def ranges(self, path: str) -> list[str | None]:
        """The Range header of each GET of `path`."""
        return [wanted for method, asked, wanted in self.requests if (method, asked) == ("GET", path)]


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path, wanted = self.path, self.headers.get("Range")
        self.server.requests.append((self.command, path, wanted))
        if refused := self.server.refused.get(path):
            self._refuse(refused.pop(0))
        elif (content := self.server.files.get(path)) is None:
            self._refuse(404)
        else:
            self._send(content, wanted, body=body)

    def _refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, wanted: str | None, *, body: bool) -> None:
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        start = 0
        if wanted is not None and self.headers.get("If-Range", tag) == tag:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", tag)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
        self.end_headers()
        if body:
            broken = self.server.broken.get(self.path)
            body_of_answer = content[start : start + broken.pop(0) if broken else None]
            held = self.server.held.get(self.path, 0)
            with suppress(ConnectionError):  # whoever asked was killed
                self.wfile.write(body_of_answer[:held])
                if held:
                    self.server.go_on.wait(30)
                self.wfile.write(body_of_answer[held:])
            if broken is not None:
                self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def serving() -> Iterator[StandIn]:
    """A stand-in on a free port."""
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def zipped(members: Mapping[str, bytes]) -> bytes:
    """A zip of these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members: Mapping[str, bytes]) -> bytes:
    """A tarball of these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def wheel(name: str, members: Mapping[str, bytes]) -> bytes:
    """A wheel of `name` 1.0 that pip accepts."""
    facts = f"{name}-1.0.dist-info"
    return zipped(
        {
            **members,
            f"{facts}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
            f"{facts}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{facts}/RECORD": b"",
        }
    )


def sum_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def card(*sources: Mapping[str, object], **more: object) -> Card:
    """A card of a model `cat`."""
    return Card.model_validate({"name": "cat", "family": "vision", "sources": sources, **more})


def content(folder: Path) -> dict[str, bytes]:
    """The visible files of a version but its card."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name[0] != "." and path.name != "card.yaml")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def closed_port() -> str:
    """An address where nobody listens."""
    with serving() as server:
        return server.url
