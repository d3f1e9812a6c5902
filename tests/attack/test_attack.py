"""The short form of `scripts/attack`: whatever is sent, the mesh stays small, lives, tells nothing and serves again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest

from bench.attack.caller import Caller, calling
from bench.attack.kinds import KINDS, Kind
from bench.attack.processes import many_files, read
from bench.attack.targets import TARGETS, Start, Target
from bench.attack.trial import Latency, Rest, trial
from ortmesh.serving.store import Store

SHORT = [kind for kind in KINDS if kind.short_count]
NOTHING = Latency.of([])
RECOVERY_SECONDS = 60.0
"""What lasts so long will not end by itself, however busy the machine is."""

Started = tuple[Target, Rest, Caller]


@pytest.fixture(scope="module")
def running(store: Store) -> Iterator[Callable[[Start], Started]]:
    """Targets with a normal caller each, started when they are first asked for."""
    with contextlib.ExitStack() as stack:
        started: dict[Start, Started] = {}

        def get(start: Start) -> Started:
            if start not in started:
                target = stack.enter_context(start())
                caller = stack.enter_context(calling(target.door))
                started[start] = target, read(target.pids()), caller
            return started[start]

        yield get


@pytest.mark.parametrize("kind", SHORT, ids=[kind.name for kind in SHORT])
@pytest.mark.parametrize("name", ["gateway", "grpcio"])
def test_an_attack_leaves_the_target_as_it_was(name: str, kind: Kind, running: Callable[[Start], Started]) -> None:
    """No process takes over 300 MB or ends, no answer tells of our insides, all is given back, good calls go on."""
    target, rest, caller = running(TARGETS[name][kind.on_stream])
    with many_files():
        attack = trial(name, kind, kind.short_count, target, rest, caller, NOTHING, recovery_seconds=RECOVERY_SECONDS)
        outcome = asyncio.run(attack)
    assert outcome.broken(within_seconds=RECOVERY_SECONDS) == [], outcome.answers
