"""Trial: one attack on one target: what was there before, what it cost, and whether all recovered."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.attack import processes
from bench.attack.caller import Caller, Sample, call_once
from bench.attack.door import Door
from bench.attack.kinds import Kind
from bench.attack.processes import Reading
from bench.attack.seen import Seen
from bench.attack.targets import Target

MAX_KEPT_BYTES = 250_000_000
"""How much of it may stay while the normal caller goes on: what allocators keep for the next time."""
MAX_LEFT_BYTES = 150_000_000
"""How much may stay once nobody calls any more: Envoy keeps 96 MiB, and more until its next allocation."""
MAX_LEFT_FILES = 24
"""Connections between gateway and services that are kept: a hundred calls each, 1,024 in flight."""
LOAD_SECONDS = 30.0
RECOVERY_SECONDS = 10.0
SETTLE_SECONDS = 15.0
CALM_SECONDS = 4.0
PAUSE_SECONDS = 0.1


Rest = Mapping[int, Reading]
"""A target's processes before the first attack."""


@dataclass(frozen=True, slots=True)
class Latency:
    """What a normal caller met in a span of time."""

    calls: int
    p50_ms: float
    p99_ms: float
    failures: Mapping[str, int]
    """By code."""

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Latency:
        """Of the calls that were answered; NaN when none was."""
        times = sorted(sample.seconds * 1000 for sample in samples if sample.code == "OK")
        failures = Counter(sample.code for sample in samples if sample.code != "OK")
        if not times:
            return cls(len(samples), float("nan"), float("nan"), failures)
        return cls(len(samples), statistics.median(times), times[min(len(times) - 1, len(times) * 99 // 100)], failures)


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the target: before the first attack, at its highest in this one, and after it."""

    name: str
    rest: Reading
    peak_bytes: int
    after: Reading | None
    """None: it is gone."""

    @property
    def growth_bytes(self) -> int:
        """At its highest, beyond rest."""
        return self.peak_bytes - self.rest.resident_bytes

    @property
    def left_bytes(self) -> int:
        """Afterwards, beyond rest."""
        return self.after.resident_bytes - self.rest.resident_bytes if self.after else 0

    @property
    def left_files(self) -> int:
        """Afterwards, more than before."""
        return self.after.files - self.rest.files if self.after else 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial showed."""

    target: str
    kind: Kind
    seconds: float
    """How long the attack took."""
    answers: str
    leaks: frozenset[str]
    processes: tuple[Process, ...]
    newcomers: int
    """Processes that were not there before: a crashed one was started again."""
    before: Latency
    meanwhile: Latency
    recovered_seconds: float | None
    """Until a new caller's good call was answered; None: it never was."""

    @property
    def largest(self) -> Process:
        """The process that grew most."""
        return max(self.processes, key=lambda process: process.growth_bytes)

    def broken(self, *, within_seconds: float = RECOVERY_SECONDS) -> list[str]:
        """The requirements that were not met, in words. A new caller must be answered within so long."""
        gone = [f"{each.name} ended" for each in self.processes if each.after is None]
        grown = [
            f"{each.name} took {each.growth_bytes / 1e6:.0f} MB more than at rest"
            for each in self.processes
            if each.growth_bytes > self.kind.max_growth_bytes
        ]
        left = [
            f"{each.name} keeps {each.left_bytes / 1e6:.0f} MB and {each.left_files} files"
            for each in self.processes
            if each.left_bytes > MAX_KEPT_BYTES or each.left_files > MAX_LEFT_FILES
        ]
        told = [f"an answer says {leak!r}" for leak in sorted(self.leaks)]
        late = [f"no call was answered within {within_seconds:g} s"]
        if self.recovered_seconds is not None and self.recovered_seconds <= within_seconds:
            late = []
        return [*gone, *(["a process was started anew"] if self.newcomers else []), *grown, *left, *told, *late]


@dataclass(frozen=True, slots=True)
class Siege:
    """All attacks on one target, and what is left of them once nobody calls any more."""

    target: str
    outcomes: tuple[Outcome, ...]
    left: tuple[Process, ...]

    def broken(self) -> list[str]:
        """The requirement that was not met afterwards, in words."""
        return [
            f"{each.name} still has {each.left_bytes / 1e6:.0f} MB"
            for each in self.left
            if each.after is None or each.left_bytes > MAX_LEFT_BYTES
        ]

    def __str__(self) -> str:
        left = ", ".join(f"{each.name} {round(each.left_bytes / 1e6):+d} MB" for each in self.left)
        return f"Once nobody called any more: {left}"


def left_of(rest: Rest) -> tuple[Process, ...]:
    """The processes after a while in which services give back what idle models do not need."""
    time.sleep(CALM_SECONDS)
    now = processes.read(rest)
    return tuple(_process(rest[pid], now.get(pid)) for pid in rest)


async def trial(
    target_name: str,
    kind: Kind,
    count: int,
    target: Target,
    rest: Rest,
    caller: Caller,
    before: Latency,
    *,
    recovery_seconds: float = RECOVERY_SECONDS,
) -> Outcome:
    """Runs one attack; afterwards it asks for so long whether a new caller is answered."""
    pids = list(rest)
    processes.reset_peaks(pids)
    seen = Seen()
    begin = time.monotonic()
    try:
        async with asyncio.timeout(LOAD_SECONDS):
            await kind.load(target.door, seen, count)
    except TimeoutError:
        seen.answers[f"cut off after {LOAD_SECONDS:g} s"] += 1
    end = time.monotonic()
    recovered = await _recover(target.door, seen, recovery_seconds)
    after = await _settle(pids, rest)
    meanwhile = caller.between(begin, end)
    for sample in caller.between(begin, time.monotonic()):
        seen.read(sample.text.encode())
    return Outcome(
        target_name,
        kind,
        end - begin,
        str(seen),
        frozenset(seen.leaks),
        tuple(_process(rest[pid], after.get(pid)) for pid in pids),
        len(set(target.pids()) - set(pids)),
        before,
        Latency.of(meanwhile),
        recovered,
    )


def _process(rest: Reading, after: Reading | None) -> Process:
    return Process(rest.name, rest, after.peak_bytes if after else rest.peak_bytes, after)


async def _recover(door: Door, seen: Seen, seconds: float) -> float | None:
    """Seconds until a good call on a new channel is answered; each try has a tenth of the seconds."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        sample = await call_once(door.address, door.cheap, door.cheap_request, seconds / 10)
        if sample.code == "OK":
            return time.monotonic() - begin
        seen.read(sample.text.encode())
    return None


async def _settle(pids: list[int], rest: Rest) -> dict[int, Reading]:
    """The processes once they are back near rest, or after SETTLE_SECONDS."""
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        now = processes.read(pids)
        near = all(
            now[pid].files <= rest[pid].files + MAX_LEFT_FILES
            and now[pid].resident_bytes <= rest[pid].resident_bytes + MAX_KEPT_BYTES
            for pid in now
        )
        if near or time.monotonic() > until:
            return now
        await asyncio.sleep(PAUSE_SECONDS)
