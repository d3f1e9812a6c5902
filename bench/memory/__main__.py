"""`python -m bench.memory`: whether a mesh that is asked for shapes that never repeat holds more and more.

Linux only; nothing leaves the machine. Exit code 1 when a process grew, or a call failed.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from bench.memory.drive import Callers
from bench.memory.growth import Sample, Watched, growth
from bench.memory.mesh import mesh
from bench.memory.processes import held
from bench.memory.report import draw, table

ROOT = Path(__file__).parents[2]
TABLE = ROOT / "bench" / "results" / "memory.md"
PLOT = ROOT / "docs" / "memory.svg"
EVERY_SECONDS = 1.0
REST_SECONDS = 15.0
"""Executors give back after two seconds, and the last call may take some itself."""
RESTS = 7
WINDOW_MINUTES = 1.0
"""Some rounds of requests."""
NICE = 10
SHOWN = 10
"""Of the calls that failed."""


def main() -> int:
    """Runs a mesh for as long as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--warm", type=float, help="minutes until growth counts; a quarter of all by default")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} and {PLOT.name}")
    parser.add_argument("--samples", type=Path, help="keep all samples in this file, for a closer look")
    chosen = parser.parse_args()
    os.nice(NICE)  # the mesh inherits it
    with mesh() as (address, pids), Callers(address) as callers:
        run = watch(pids, callers, chosen.minutes, chosen.warm or chosen.minutes / 4)
    if chosen.samples:
        chosen.samples.write_bytes(pickle.dumps(run))
    growths = [growth(name, run) for name in pids]
    settings = {"minutes": chosen.minutes, "every": EVERY_SECONDS, "rest": REST_SECONDS, "write": chosen.write}
    text = "\n".join(table(growths, callers, run, **settings))
    print(text, *callers.failed[:SHOWN], sep="\n")
    if chosen.write:
        TABLE.write_text(text + "\n", encoding="utf-8")
        draw(run.samples, PLOT)
    return int(bool(callers.failed) or not all(each.flat for each in growths))


def watch(pids: Mapping[str, int], callers: Callers, minutes: float, warm: float) -> Watched:
    """What all processes held. ProcessLookupError or FileNotFoundError when one ends."""
    begin = time.monotonic()
    samples: list[Sample] = []
    rests: list[Sample] = []
    for number in range(RESTS):
        until = warm + (minutes - warm) * number / (RESTS - 1)
        while (minute := (time.monotonic() - begin) / 60) < until:
            samples.append(Sample(minute, held(pids)))
            callers.wait(EVERY_SECONDS)
        rests.append(_rest(pids, callers, begin))
    return Watched(samples, rests, warm, min(WINDOW_MINUTES, (minutes - warm) / 6))


def _rest(pids: Mapping[str, int], callers: Callers, begin: float) -> Sample:
    with callers.resting():
        callers.wait(REST_SECONDS)
        rest = Sample((time.monotonic() - begin) / 60, held(pids))
    sizes = ", ".join(f"{name} {each.resident / 1e6:.1f}" for name, each in rest.held.items())
    print(f"minute {rest.minute:.1f}, at rest: {sizes}", file=sys.stderr, flush=True)
    return rest


if __name__ == "__main__":
    sys.exit(main())
