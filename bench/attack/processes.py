"""Processes: the memory and the open files of everything that a target consists of, as Linux counts them."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CHECKOUT = Path(__file__).parent.parent.parent
"""Where the modules of `bench` are found."""
RESET_PEAK = "5"
"""Written to clear_refs: the highest resident size becomes the present one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One process at one moment."""

    name: str
    resident_bytes: int
    peak_bytes: int
    """The highest since `reset_peaks`."""
    files: int
    """Open descriptors: files, sockets and all."""


@contextlib.contextmanager
def many_files() -> Iterator[None]:
    """Lets this process open as many connections as the machine allows; not the targets, which run already."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def tree(root: int) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for stat in PROC.glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, ahead = [], [root]
    while ahead:
        pid = ahead.pop()
        found.append(pid)
        ahead += children.get(pid, [])
    return sorted(found)


def reset_peaks(pids: Iterable[int]) -> None:
    """Begins the highest sizes anew."""
    for pid in pids:
        (PROC / str(pid) / "clear_refs").write_text(RESET_PEAK)


def read(pids: Iterable[int]) -> dict[int, Reading]:
    """The processes that are still there."""
    made = {}
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            made[pid] = _read(pid)
    return made


def _read(pid: int) -> Reading:
    folder = PROC / str(pid)
    lines = (line.partition(":") for line in (folder / "status").read_text().splitlines())
    status = {name: value.strip() for name, _, value in lines}
    if "VmRSS" not in status:
        raise ProcessLookupError(f"process {pid} has ended")
    words = (folder / "cmdline").read_bytes().decode().split("\0")
    files = len(os.listdir(folder / "fd"))
    return Reading(_name(words), _bytes(status["VmRSS"]), _bytes(status["VmHWM"]), files)


def _name(words: list[str]) -> str:
    """The module that Python runs, else the program."""
    return words[words.index("-m") + 1] if "-m" in words else Path(words[0]).name


def _bytes(kibibytes: str) -> int:
    return int(kibibytes.removesuffix(" kB")) * 1024
