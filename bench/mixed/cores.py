"""Cores: with one thread of computation it has one core, and whatever else there is the others.

Left alone, Linux puts a thread that wakes on the core of the computation when all cores are busy, with other work too:
then a busy machine would be measured.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

COMPUTING, *OTHERS = sorted(os.sched_getaffinity(0))


def compute_here() -> None:
    """The calling thread has the core of the computation."""
    os.sched_setaffinity(0, {COMPUTING})


def arrange(pid: int, computing: str) -> None:
    """The threads of a process whose names begin with `computing` have one core, the rest what is left."""
    if not OTHERS:
        return
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            name = (task / "comm").read_text()
            os.sched_setaffinity(int(task.name), {COMPUTING} if name.startswith(computing) else OTHERS)
