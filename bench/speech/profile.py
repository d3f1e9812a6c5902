"""Profile: where the time of a talk goes in the service: its graphs' runs, and its threads' CPU time."""

from __future__ import annotations

import contextlib
from collections import Counter
from pathlib import Path

from bench.mixed.service import NANOSECONDS, OTHER, ROOMS
from bench.speech.contestants import Contestant, measure
from bench.speech.corpus import Recording
from bench.speech.service import Service

POOL = "ortmesh-pool"


def profile(service: Service, ours: Contestant, talk: Recording) -> list[str]:
    """The talk once more, alone: a table of graphs and one of threads."""
    graphs, rooms = service.graph_seconds(), room_seconds(service.pid)
    measured = measure(ours, [talk.path])
    after, used = service.graph_seconds(), room_seconds(service.pid) - rooms
    lines = [
        f"Where the time of the first talk goes, once more and alone: {measured.seconds:.1f} s of wall time, "
        f"{measured.cpu_seconds:.1f} of CPU. Runs of the graphs may overlap, since executors run side by side.",
        "",
        "| graph | runs | s in its runs | ms a run | of the wall time |",
        "|---|---|---|---|---|",
    ]
    for name, (runs, seconds) in sorted(after.items(), key=lambda entry: -entry[1][1]):
        before = graphs.get(name, (0, 0.0))
        if (made := runs - before[0]) > 0:
            took = seconds - before[1]
            lines.append(f"| {name} | {made} | {took:.2f} | {1000 * took / made:.1f} | {took / measured.seconds:.0%} |")
    lines += ["", "| threads | CPU s | of all CPU time |", "|---|---|---|"]
    whole = sum(used.values())
    lines += [f"| {room} | {seconds:.2f} | {seconds / whole:.0%} |" for room, seconds in used.most_common()]
    return lines


def room_seconds(pid: int) -> Counter[str]:
    """CPU time of a process by what its threads do."""
    taken: Counter[str] = Counter()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            name = (task / "comm").read_text().strip()
            ran = int((task / "schedstat").read_text().split()[0]) / NANOSECONDS
            room = next((room for begins, room in ROOMS if name.startswith(begins)), OTHER)
            taken["reading and preparing audio" if name.startswith(POOL) else room] += ran  # type: ignore[assignment]
    return taken
