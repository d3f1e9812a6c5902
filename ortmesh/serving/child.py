"""Commands that run beside us and end before us, unless we are killed; their lines are heard. Stage: store."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence


def run(command: Sequence[str], hear: Callable[[str], None] = lambda line: None) -> tuple[int, str]:
    """Runs a command to its end; returns its status and all that it wrote, which `hear` was told line by line."""
    lines: list[str] = []
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=_environment(),
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line)
                hear(line)
        except BaseException:  # interrupted: leave nothing running
            process.kill()
            raise
    return process.returncode, "".join(lines)


def _environment() -> dict[str, str]:
    """Ours, with all that this process can import: a child finds the same modules."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
