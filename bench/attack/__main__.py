"""Attacks the gateway and the services' adapters, and says what it cost them: `python -m bench.attack`.

Everything stays on this machine and ends by itself: eight minutes, or under one with --short. Exit code 1 when a
process took over 300 MB, ended, kept what it took, told of its insides, or answered nobody afterwards.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from bench.attack.caller import calling
from bench.attack.kinds import KINDS, Kind
from bench.attack.processes import many_files, read
from bench.attack.report import failures, markdown, show
from bench.attack.targets import TARGETS, Target
from bench.attack.trial import Latency, Siege, left_of, trial

RESULTS = Path(__file__).parent.parent / "results" / "attack.md"
QUIET_SECONDS = 4.0
SHORT_QUIET_SECONDS = 1.0
EXEMPT = "native"
"""Only the gateway, or this machine, can connect to it; what it lacks the gateway has. Shown for comparison."""


def main() -> int:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="each kind small")
    parser.add_argument("--only", nargs="+", choices=[kind.name for kind in KINDS], metavar="KIND")
    parser.add_argument("--target", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name} in bench/results")
    chosen = parser.parse_args()
    wanted = [kind for kind in KINDS if not chosen.only or kind.name in chosen.only]
    kinds = [kind for kind in wanted if kind.short_count or not chosen.short]
    console = Console()
    sieges = [each for name in chosen.target for each in besiege(name, kinds, chosen.short, console)]
    show(console, sieges)
    if chosen.write:
        RESULTS.write_text(markdown(sieges, short=chosen.short), encoding="utf-8")
    return int(any(failures(siege) for siege in sieges if siege.target != EXEMPT))


def besiege(name: str, kinds: Sequence[Kind], short: bool, console: Console) -> Iterator[Siege]:
    """All kinds on a target, and on the one like it whose streams are long."""
    for start, on_stream in zip(TARGETS[name], (False, True), strict=True):
        mine = [kind for kind in kinds if kind.on_stream == on_stream]
        if mine:
            with start() as target:
                yield _siege(name, target, mine, short, console)


def _siege(name: str, target: Target, kinds: Sequence[Kind], short: bool, console: Console) -> Siege:
    outcomes = []
    with calling(target.door) as caller, many_files():
        begin = time.monotonic()
        time.sleep(SHORT_QUIET_SECONDS if short else QUIET_SECONDS)
        before = Latency.of(caller.between(begin, time.monotonic()))
        rest = read(target.pids())
        for kind in kinds:
            count = kind.short_count if short else kind.count
            outcome = asyncio.run(trial(name, kind, count, target, rest, caller, before))
            grown = f"{outcome.largest.growth_bytes / 1e6:.0f} MB"
            console.print(f"{name:8} {kind.name:13} {outcome.seconds:5.1f} s  {grown:>8}")
            outcomes.append(outcome)
    return Siege(name, tuple(outcomes), left_of(rest))


if __name__ == "__main__":
    sys.exit(main())
