"""How many CPUs a process may use: what its container's quota and its affinity leave of the machine. Stage: shared."""

from __future__ import annotations

import os
from pathlib import Path


def cpus(root: Path = Path("/")) -> int:
    """Whole CPUs that this process may use, at least 1: its cgroup's quota and its affinity, the lesser.

    A quota of 1.5 gives 1: a second thread would be stopped for the rest of each period. `root` is for tests.
    """
    allowed = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    return max(1, int(min([allowed, *_quotas(root)])))


def _quotas(root: Path) -> list[float]:
    """The CPU quotas of the process's cgroups and of all above them, in CPUs; those without a limit are left out."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return []
    found: list[float | None] = []
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        for top in _mounts(root / "sys/fs/cgroup", controllers):
            folder = top / inside.lstrip("/")
            # In a container the path may be the host's and not exist here: its limit is then at the top.
            above = [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]
            found += [_quota(level) for level in above]
    return [quota for quota in found if quota]


def _mounts(base: Path, controllers: str) -> list[Path]:
    """Where a line of /proc/self/cgroup is mounted: version 2 has no controllers' names, version 1 one folder each."""
    if controllers == "":
        return [base]
    return [base / "cpu", base / "cpu,cpuacct"] if "cpu" in controllers.split(",") else []


def _quota(folder: Path) -> float | None:
    """The quota that one cgroup states, in CPUs; None without a limit."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
    except OSError:
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)
