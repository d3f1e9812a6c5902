"""A simulation of one model's pile and executor: the product's own pile on a clock of the simulation's.

Deterministic: arrivals and sizes come from seeds, and a run takes what the device's table says.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from bench.batching.devices import Device
from ortmesh.serving.batcher import ArrivalOrder, CostAware, Costs, Pile, Policy
from ortmesh.serving.types import Item, Tensors

BURST = 16
"""Mean items of a burst."""


class Sorted(ArrivalOrder):
    """The usual remedy against padding: the full batch of neighbours in size that holds the oldest item."""

    def choose(self, waiting: Sequence[Item], limit: int, now: float) -> list[int]:
        """Slices of the sorted queue."""
        order = sorted(range(len(waiting)), key=lambda index: waiting[index].size)
        oldest = order.index(min(order, key=lambda index: waiting[index].arrival))
        low = oldest // limit * limit
        return sorted(order[low : low + limit])


@dataclass(frozen=True)
class Contestant:
    """A policy, and how long an idle executor waits for more."""

    name: str
    policy: Callable[[Device], Policy]
    delay: float = 0.0


CONTESTANTS = (
    Contestant("fixed delay of 1 ms", lambda device: ArrivalOrder(), 0.001),
    Contestant("arrival order", lambda device: ArrivalOrder()),
    Contestant("sorted by length", lambda device: Sorted()),
    Contestant("cost-aware", lambda device: CostAware(Costs(device.known.grid), sized=True)),
)


@dataclass
class Outcome:
    """What became of the items."""

    good: int = 0
    """Answered within their deadlines."""
    items: int = 0
    waits: list[float] = field(default_factory=list)
    """Seconds from arrival to answer, of those that ran."""
    padded: float = 0.0
    useful: float = 0.0
    batches: int = 0

    @property
    def goodput(self) -> float:
        """The share that was answered in time."""
        return self.good / self.items

    @property
    def waste(self) -> float:
        """The share of computed cells that was padding."""
        return 1 - self.useful / self.padded if self.padded else 0.0

    def percentile(self, share: float) -> float:
        """Of the waits, in seconds."""
        return float(np.percentile(self.waits, share)) if self.waits else math.nan


class _Answer:
    """Nobody listens."""

    admitted = cancelled = False

    def emit(self, outputs: Tensors) -> None:
        """Nothing."""

    finish = emit

    def fail(self, error: BaseException) -> None:
        """Nothing."""


def arrivals(kind: str, rate: float, count: int, seed: int) -> list[float]:
    """Times in seconds: `poisson`, or `bursty` where some sixteen come at once."""
    draw, now, times = random.Random(seed), 0.0, list[float]()
    while len(times) < count:
        now += draw.expovariate(rate if kind == "poisson" else rate / BURST)
        size = 1 if kind == "poisson" else 1 + int(math.log(1 - draw.random()) / math.log(1 - 1 / BURST))
        times += [now] * size
    return times[:count]


def capacity(device: Device) -> float:
    """Items a second when a large backlog is grouped as well as contiguous groups can be."""
    draw, count, seconds = random.Random(1), 4 * device.truth.max_rows, 0.0
    for _ in range(6):
        seconds += best_grouping(sorted(device.size(draw) for _ in range(count)), device.truth)
    return 6 * count / seconds


def best_grouping(sizes: Sequence[int], costs: Costs) -> float:
    """The least seconds in which items of these ascending sizes can run, by dynamic programming over their ends."""
    table = costs.table(np.array(sizes, float))
    best = [0.0]
    for end in range(1, len(sizes) + 1):
        most = min(end, costs.max_rows)
        best.append(min(best[end - rows] + table[end - 1, rows - 1] for rows in range(1, most + 1)))
    return best[-1]


def simulate(device: Device, contestant: Contestant, kind: str, load: float, *, count: int, seed: int) -> Outcome:
    """One executor under `load` times the device's best throughput."""
    clock = SimpleNamespace(now=0.0)
    policy = contestant.policy(device)
    pile = Pile(max_items=1 << 30, policy=policy, clock=lambda: clock.now)
    coming = _items(device, arrivals(kind, load * capacity(device), count, seed), seed)
    outcome, at = Outcome(items=count), 0
    while at < len(coming) or len(pile):
        if not len(pile):
            clock.now = max(clock.now, coming[at].arrival)
        if contestant.delay and (wake := _wait(pile, contestant.delay, coming, at, clock.now, device)) is not None:
            clock.now = wake
        while at < len(coming) and coming[at].arrival <= clock.now:
            pile.submit(coming[at])
            at += 1
        batch = pile.take(device.truth.max_rows, wait=0)
        if batch:
            clock.now += _run(batch, device, outcome, clock.now)
    return outcome


def _items(device: Device, times: Sequence[float], seed: int) -> list[Item]:
    draw, made = random.Random(seed + 1), []
    for time in times:
        answer = _Answer()
        item = Item({}, answer=answer, owner=answer, deadline=time + device.deadline, size=device.size(draw))
        item.arrival = time
        made.append(item)
    return made


def _wait(pile: Pile, delay: float, coming: Sequence[Item], at: int, now: float, device: Device) -> float | None:
    """Until when a fixed delay has the executor wait for a full batch; None when it goes at once."""
    waiting = len(pile)
    if waiting >= device.truth.max_rows:
        return None
    first = now if not waiting else pile.oldest()
    full = at + device.truth.max_rows - waiting - 1
    until = first + delay
    if full < len(coming):
        until = min(until, coming[full].arrival)
    return max(until, now)


def _run(batch: Sequence[Item], device: Device, outcome: Outcome, now: float) -> float:
    longest = max(item.size for item in batch)
    seconds = device.truth.seconds(len(batch), longest)
    outcome.batches += 1
    outcome.padded += longest * len(batch)
    for item in batch:
        outcome.useful += item.size
        outcome.waits.append(now + seconds - item.arrival)
        outcome.good += now + seconds <= item.deadline
    return seconds
