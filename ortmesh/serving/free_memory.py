"""How much memory a process may have: of the machine's, and of its container's limit. Stage: executor."""

from __future__ import annotations

import math
import resource
from collections.abc import Iterator
from pathlib import Path

from ortmesh.serving.files import files_of

BOUND = resource.RLIMIT_DATA
SLACK_BYTES = 1 << 30
"""What a process may reserve beyond what it can use: stacks of threads and freed memory, some 0.5 GB of a service."""


def free_bytes(root: Path = Path("/")) -> float:
    """Bytes that can be had without anybody being killed, as far as the system tells; infinite where it does not.

    Pages that only cache files count as free. `root` is for tests.
    """
    return min([_of_machine(root, "MemAvailable"), *(limit - used for limit, used in _limits(root))])


def files_fit(folder: Path) -> bool:
    """True when there is as much free memory as the files of a folder have bytes."""
    return bytes_of(folder) <= free_bytes()


def bytes_of(folder: Path) -> int:
    """Of a model's files in its folder."""
    return sum(path.stat().st_size for path in files_of(folder) if path.is_file())


def total_bytes(root: Path = Path("/")) -> float:
    """All that the machine has, or the container may have; infinite where the system does not tell."""
    return min([_of_machine(root, "MemTotal"), *(limit for limit, _ in _limits(root))])


def bound_memory(root: Path = Path("/")) -> None:
    """Has the system refuse this process what it can't have.

    Without it an allocation of ten times the memory succeeds, and the process is killed when it writes there, with
    all models that it serves; with it one request fails.
    """
    total = total_bytes(root)
    if math.isinf(total):
        return
    soft, hard = (math.inf if bound == resource.RLIM_INFINITY else bound for bound in resource.getrlimit(BOUND))
    wanted = int(total) + SLACK_BYTES
    if wanted < min(soft, hard):
        resource.setrlimit(BOUND, (wanted, resource.getrlimit(BOUND)[1]))


def _of_machine(root: Path, fact: str) -> float:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:  # no Linux
        return math.inf
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{fact}:")), math.inf)


def _limits(root: Path) -> Iterator[tuple[float, float]]:
    """(limit, used) of the process's memory cgroup and of all above it that have a limit."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        # In a container the path may be the host's and not exist here: its limit is then at the top.
        folder = top / inside.lstrip("/")
        for level in (folder, *folder.parents):
            if level.is_relative_to(top) and (found := _limit(level)) is not None:
                yield found


def _limit(folder: Path) -> tuple[float, float] | None:
    """(limit, used) of one cgroup, in version 2 or 1."""
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most = (folder / limit).read_text().strip()
            taken = int((folder / used).read_text())
            facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        if most != "max":
            return float(most), max(0, taken - int(facts.get(cached, 0)))
    return None
