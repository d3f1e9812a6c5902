"""How much memory a process may still take: of the machine's, and of its container's limit. Stage: executor."""

from __future__ import annotations

import math
from pathlib import Path


def free_bytes(root: Path = Path("/")) -> float:
    """Bytes that can be had without anybody being killed, as far as the system tells; infinite where it does not.

    Pages that only cache files count as free. `root` is for tests.
    """
    return min([_of_machine(root), *_of_containers(root)])


def _of_machine(root: Path) -> float:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:  # no Linux
        return math.inf
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), math.inf)


def _of_containers(root: Path) -> list[float]:
    """What is left of the limits of the process's memory cgroup and of all above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    left: list[float] = []
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        # In a container the path may be the host's and not exist here: its limit is then at the top.
        folder = top / inside.lstrip("/")
        left += [_left(level) for level in (folder, *folder.parents) if level.is_relative_to(top)]
    return left


def _left(folder: Path) -> float:
    """What is left of one cgroup's limit; infinite without one."""
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
        return math.inf if most == "max" else max(0, int(most) - taken + int(facts.get(cached, 0)))
    return math.inf
