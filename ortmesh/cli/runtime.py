"""The runtime folder of `ortmesh up`: private, short enough for sockets, used by one mesh at a time.
Stage: command line."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class InUse(Exception):
    """Something that a mesh needs for itself is used by another program; the text says what to do."""


@contextmanager
def runtime_folder(chosen: Path | None) -> Iterator[Path]:
    """The folder of the mesh's sockets: the chosen one, else below XDG_RUNTIME_DIR, else a temporary one.

    InUse while another mesh has it: a socket's path belongs to one process, a second would steal it silently.
    """
    folder = chosen or _of_the_session()
    if folder is None:
        made = Path(tempfile.mkdtemp(prefix="ortmesh-"))
        try:
            yield made
        finally:
            shutil.rmtree(made)
        return
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder):
        yield folder


def _of_the_session() -> Path | None:
    """XDG_RUNTIME_DIR/ortmesh, unless this user has no such folder or may not write it (after su or sudo)."""
    session = os.environ.get("XDG_RUNTIME_DIR")
    return Path(session) / "ortmesh" if session and os.access(session, os.W_OK | os.X_OK) else None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("a+b", buffering=0) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().decode().strip() or "unknown"
            raise InUse(
                f"another mesh (process {owner}) uses {folder}: stop it, or choose another folder with --runtime"
            ) from None
        lock.truncate(0)
        try:
            lock.write(str(os.getpid()).encode())
        except OSError as error:  # a full disk is better told with its folder
            raise OSError(error.errno, error.strerror, str(folder)) from None
        yield
        lock.truncate(0)


def claim_port(host: str, port: int, option: str = "--port") -> int:
    """Makes sure that a server can listen there, and returns the port: a free one for 0.

    InUse says why not, and which option chooses another.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise InUse(_why_not(error, host, port, option)) from None
        return int(probe.getsockname()[1])


def _why_not(error: OSError, host: str, port: int, option: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is used by another program: stop it, or choose another with {option}"
    if error.errno == errno.EACCES:
        return f"port {port} on {host} needs more rights: choose one from 1024 with {option}"
    return f"nothing can listen on {host}:{port}: {error.strerror}"
