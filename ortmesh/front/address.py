"""Where a front listens: who can connect there, and whether the address is free. Stage: front."""

from __future__ import annotations

import errno
import importlib.util
import ipaddress
import os
import socket
import stat
from typing import Literal

UNIX = "unix:"
MAX_SOCKET_PATH = 107
"""Bytes of a Unix socket's path: sockaddr_un has 108 with the final zero."""
CONNECT_SECONDS = 1.0

Adapter = Literal["auto", "native", "grpcio"]


def socket_path(target: str) -> str | None:
    """The path of a `unix:` target, None for others."""
    if not target.startswith(UNIX):
        return None
    path = target.removeprefix(UNIX)
    return path.removeprefix("//") if path.startswith("///") else path


def is_private(target: str) -> bool:
    """True when only this machine can connect: a Unix socket or a loopback address."""
    if socket_path(target) is not None:
        return True
    host = target.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def choose_adapter(adapter: Adapter, target: str) -> Literal["native", "grpcio"]:
    """The adapter for an address, unless the operator chose: native only where no stranger can connect.

    The native adapter buffers and unpacks a message before its size can be checked: 600 KB of gzip take 1.2 GB.
    """
    if adapter != "auto":
        return adapter
    return "native" if is_private(target) and importlib.util.find_spec("pygrpc_native") else "grpcio"


def claim(target: str) -> None:
    """Makes sure that a target can be bound: removes a socket file that nobody listens on.

    OSError when somebody listens there or a file of another kind is in the way: binding would steal the path
    silently, on both adapters. ValueError for a path that is too long.
    """
    path = socket_path(target)
    if path is None:
        return
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValueError(f"{path}: the path of a Unix socket has at most {MAX_SOCKET_PATH} bytes")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(errno.EEXIST, "a file that is no socket is in the way", path)
    if _somebody_listens(path):
        raise OSError(errno.EADDRINUSE, "another process listens on this socket", path)
    os.unlink(path)


def why_not(target: str) -> OSError:
    """Why nothing can listen on a target where that was tried in vain: whoever tried did not say."""
    host, _, port = target.rpartition(":")
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM):
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        return OSError(error.errno, f"cannot listen on {target}: {error.strerror}")
    return OSError(f"cannot listen on {target}")


def _somebody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except TimeoutError:
            return True  # its backlog is full: alive, but busy
    return True
