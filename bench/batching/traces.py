"""Traces: when items came to a running service, how large, from whom, within which time; recorded by `record.py`."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "traces"
HEAD = ("seconds", "size", "caller", "deadline")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One item's."""

    seconds: float
    """Since the first one."""
    size: int
    """Tokens, or columns of pixels."""
    caller: str
    deadline: float
    """Seconds from its arrival."""


@cache
def read(name: str, folder: Path = FOLDER) -> tuple[Arrival, ...]:
    """A trace, in order of arrival."""
    path = folder / f"{name}.csv"
    with path.open(newline="", encoding="utf-8") as file:
        head, *lines = csv.reader(file)
    if tuple(head) != HEAD:
        raise ValueError(f"{path.name}: its columns are {', '.join(head)}")
    return tuple(
        Arrival(float(seconds), int(size), caller, float(deadline)) for seconds, size, caller, deadline in lines
    )


def write(path: Path, arrivals: Iterable[Arrival]) -> None:
    """Times to a tenth of a millisecond, deadlines to a tenth of a second."""
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(HEAD)
        for each in arrivals:
            out.writerow((f"{each.seconds:.4f}", each.size, each.caller, f"{each.deadline:.1f}"))
