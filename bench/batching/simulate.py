"""A simulation of one model's pile and executor: the product's own pile on a clock of the simulation's.

Deterministic: arrivals and sizes are given, and a run takes what the device's table says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from bench.batching.devices import Device
from bench.batching.traces import Arrival
from ortmesh.serving.batcher import ArrivalOrder, CostAware, Pile, Policy
from ortmesh.serving.batcher.book import CostBook
from ortmesh.serving.types import Item, Tensors


class Sorted(ArrivalOrder):
    """The usual remedy against padding: the full batch of neighbours in size that holds the oldest item."""

    def choose(self, waiting: Sequence[Item], limit: int, now: float, *, shared: bool) -> list[int]:
        """Slices of the sorted queue."""
        first = min(range(len(waiting)), key=lambda index: waiting[index].arrival)
        group = (index for index, item in enumerate(waiting) if item.group == waiting[first].group)
        order = sorted(group, key=lambda index: waiting[index].size)
        low = order.index(first) // limit * limit
        return sorted(order[low : low + limit])


@dataclass(frozen=True)
class Contestant:
    """A policy, how long an idle executor waits for more, and how many rows somebody allows a batch to have."""

    name: str
    policy: Callable[[CostBook], Policy]
    delay: float = 0.0
    most: int | None = None
    """None: what the device takes."""

    def limit(self, device: Device) -> int:
        """The most rows of a batch."""
        return min(self.most or device.truth.max_rows, device.truth.max_rows)


BY_COST = Contestant("by cost", lambda book: CostAware(book, sized=True))
CONTESTANTS = (
    Contestant("fixed delay of 1 ms", lambda book: ArrivalOrder(), 0.001),
    Contestant("arrival order", lambda book: ArrivalOrder()),
    Contestant("sorted by size", lambda book: Sorted()),
    BY_COST,
)
LIMITS = (1, 2, 4, 8, 16, 32, 64)
BY_HAND = {
    "arrival order": [Contestant(f"arrival order, {most}", lambda book: ArrivalOrder(), most=most) for most in LIMITS],
    "sorted by size": [Contestant(f"sorted by size, {most}", lambda book: Sorted(), most=most) for most in LIMITS],
}
"""With a limit that somebody sets."""


@dataclass
class Outcome:
    """What became of the items."""

    items: int = 0
    good: int = 0
    """Answered within their deadlines."""
    urgent: int = 0
    """Items of the shortest deadline: somebody waits for them."""
    urgent_good: int = 0
    urgent_waits: list[float] = field(default_factory=list)
    """Seconds from arrival to answer, of those that ran."""
    padded: float = 0.0
    useful: float = 0.0

    @property
    def goodput(self) -> float:
        """The share that was answered in time."""
        return self.good / self.items

    @property
    def urgent_goodput(self) -> float:
        """Of the items for which somebody waits."""
        return self.urgent_good / self.urgent

    @property
    def waste(self) -> float:
        """The share of computed cells that was padding."""
        return 1 - self.useful / self.padded if self.padded else 0.0

    def percentile(self, share: float) -> float:
        """Of the urgent items' waits, in seconds."""
        return float(np.percentile(self.urgent_waits, share)) if self.urgent_waits else math.nan


class _Answer:
    """Nobody listens."""

    admitted = cancelled = False

    def emit(self, outputs: Tensors) -> None:
        """Nothing."""

    finish = emit

    def fail(self, error: BaseException) -> None:
        """Nothing."""


def simulate(device: Device, contestant: Contestant, arrivals: Sequence[Arrival]) -> Outcome:
    """One executor; what is dropped, because its deadline is past or will be, is not answered in time."""
    clock = SimpleNamespace(now=0.0)
    book = CostBook(device.known.sizes, device.largest)
    book.measured(device.known.seconds)
    pile = Pile(max_items=1 << 30, policy=contestant.policy(book), clock=lambda: clock.now)
    coming = [_item(each, device) for each in arrivals]
    urgent = [item for item in coming if _urgent(item, device)]
    outcome, at, limit = Outcome(items=len(coming), urgent=len(urgent)), 0, contestant.limit(device)
    while at < len(coming) or len(pile):
        if not len(pile):
            clock.now = max(clock.now, coming[at].arrival)
        if contestant.delay and (wake := _wait(pile, contestant.delay, coming, at, clock.now, limit)) is not None:
            clock.now = wake
        while at < len(coming) and coming[at].arrival <= clock.now:
            pile.submit(coming[at])
            at += 1
        batch = pile.take(limit, wait=0)
        if batch:
            clock.now += _run(batch, device, outcome, clock.now, book)
    return outcome


def _item(arrival: Arrival, device: Device) -> Item:
    answer = _Answer()
    item = Item(
        {},
        answer=answer,
        owner=answer,
        deadline=arrival.seconds + arrival.deadline,
        size=arrival.size,
        group=None if device.padded else arrival.size,
        caller=arrival.caller,
    )
    item.arrival = arrival.seconds
    return item


def _urgent(item: Item, device: Device) -> bool:
    return item.deadline - item.arrival < 1.5 * device.deadline


def _wait(pile: Pile, delay: float, coming: Sequence[Item], at: int, now: float, limit: int) -> float | None:
    """Until when a fixed delay has the executor wait for a full batch; None when it goes at once."""
    waiting = len(pile)
    if waiting >= limit:
        return None
    first = now if not waiting else pile.oldest()
    full = at + limit - waiting - 1
    until = first + delay
    if full < len(coming):
        until = min(until, coming[full].arrival)
    return max(until, now)


def _run(batch: Sequence[Item], device: Device, outcome: Outcome, now: float, book: CostBook) -> float:
    longest = max(item.size for item in batch)
    seconds = device.truth.seconds(len(batch), longest)
    book.learn(len(batch), longest, seconds)
    outcome.padded += longest * len(batch)
    for item in batch:
        good = now + seconds <= item.deadline
        outcome.useful += item.size
        outcome.good += good
        if _urgent(item, device):
            outcome.urgent_waits.append(now + seconds - item.arrival)
            outcome.urgent_good += good
    return seconds
