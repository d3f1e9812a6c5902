"""Contest: rounds in which the bare session, the service and its parts take turns with the same items."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.mixed.bare import Bare, Layout
from bench.mixed.caller import Run, check, through_grpc
from bench.mixed.cores import arrange
from bench.mixed.grouping import best_groups, padded_share, total
from bench.mixed.inside import Inside
from bench.mixed.items import Item, stacked
from bench.mixed.served import ARRIVAL, POLICIES, PRODUCT
from bench.mixed.service import EXECUTOR, Service, copied, running
from ortmesh.serving.batcher import ArrivalOrder, Costs
from ortmesh.serving.cards import Card

IN_FLIGHT = (16, 64)
CHECKED = 16
"""Items whose vectors are compared with the bare session's before anything is timed."""
WARM_UP = 64

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """What is measured: where, under which policy, how many items in flight."""

    where: str
    """`service` or `inside`."""
    policy: str
    in_flight: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One kind in one round."""

    run: Run
    share: float = 0.0
    """Of the best grouping's throughput in the same round."""
    share_of_few: float = 0.0
    """Of that of the best groupings of as many items at a time as are in flight."""
    compute_seconds: float = 0.0
    """As the service's metrics have it."""
    rows: float = 0.0
    """A batch, on average."""
    padding: float = 0.0
    """The share of all computed cells."""
    replayed_seconds: float = 0.0
    """Of the same batches by the bare session."""
    answered_seconds: float = 0.0
    """Of all batches, each until its executor asked for the next one."""
    cpu: Counter[str] = field(default_factory=Counter)
    """CPU seconds of the service by room."""


@dataclass
class Contest:
    """What was measured with one number of threads."""

    threads: int
    items: int
    layout: Layout
    """The bare session's that was best."""
    executors: int
    """The service's."""
    best: list[float] = field(default_factory=list)
    """Items a second of the best grouping, a round each."""
    predicted: float = 0.0
    """The same by the table of costs that it was made from."""
    best_rows: float = 0.0
    best_padding: float = 0.0
    few: dict[int, list[float]] = field(default_factory=dict)
    """Share of so many items at a time, each time in their best grouping."""
    alone: list[float] = field(default_factory=list)
    """Share of an item a run, in the bare session."""
    kinds: dict[Kind, list[Measured]] = field(default_factory=dict)


class Rival:
    """The bare session, with the best grouping by its own costs."""

    def __init__(self, card: Card, folder: Path, layout: Layout, items: Sequence[Item]) -> None:
        self.layout, self._items = layout, items
        self._bare = Bare(card, folder, layout)
        self.costs: Costs = self._bare.costs(max(items, key=lambda item: item.size))
        self._sizes = [item.size for item in items]
        self.groups = self._groups(0, len(items))
        self.predicted = total(self.groups, self._sizes, self.costs.seconds)
        self.padding = padded_share(self.groups, self._sizes)
        self._by_size: dict[int, Item] = {item.size: item for item in items}

    def best(self) -> float:
        """Seconds of the best grouping, run."""
        return self._bare.timed(self._batches(self.groups))

    def few(self, at_once: int) -> float:
        """Seconds of so many items at a time, in their order, each time in their best grouping."""
        starts = range(0, len(self._items), at_once)
        return sum(self._bare.timed(self._batches(self._groups(start, at_once))) for start in starts)

    def alone(self) -> float:
        """Seconds of an item a run."""
        return self._bare.timed([item] for item in self._items)

    def replayed(self, batches: Sequence[Sequence[int]]) -> float:
        """Seconds of batches of items of these lengths."""
        return self._bare.timed([self._by_size[size] for size in sizes] for sizes in batches)

    def _groups(self, start: int, count: int) -> list[list[int]]:
        groups = best_groups(self._sizes[start : start + count], self.costs.seconds, self.costs.max_rows)
        return [[start + index for index in group] for group in groups]

    def _batches(self, groups: Sequence[Sequence[int]]) -> list[list[Item]]:
        return [[self._items[index] for index in group] for group in groups]

    def check(self, service: Service) -> None:
        """RuntimeError when the service answers otherwise."""
        few = self._items[:CHECKED]
        check(service.address, few, self._bare.run(stacked(few)))


def contest(card: Card, folder: Path, items: Sequence[Item], threads: int, rounds: int, say: Say) -> Contest:
    """All kinds, `rounds` times in turn."""
    rival = _best_rival(card, folder, items, threads)
    with copied(folder) as store, _services(store, card.name, threads) as services:
        found = Contest(threads, len(items), rival.layout, services[0].executors)
        found.predicted = len(items) / rival.predicted * rival.layout.callers
        found.best_rows, found.best_padding = len(items) / len(rival.groups), rival.padding
        inside = Inside(card, store / card.name / card.version, threads)
        if threads == 1:
            arrange(os.getpid(), EXECUTOR)
        for service in services:
            rival.check(service)
            through_grpc(service.address, items[:WARM_UP], max(IN_FLIGHT))
        for number in range(rounds):
            for service in services:
                service.until_idle()
            _round(found, rival, services, inside, items)
            say(f"{threads} threads, round {number + 1} of {rounds}: {_told(found)}")
    return found


def _best_rival(card: Card, folder: Path, items: Sequence[Item], threads: int) -> Rival:
    """Of all ways to use the threads."""
    layouts = [Layout(1, threads)] + ([Layout(threads, 1)] if threads > 1 else [])
    rivals = [Rival(card, folder, layout, items) for layout in layouts]
    return rivals[0] if len(rivals) == 1 else min(rivals, key=Rival.best)


@contextlib.contextmanager
def _services(store: Path, model: str, threads: int) -> Iterator[list[Service]]:
    """One after the other: each may measure its model before the next one starts."""
    with contextlib.ExitStack() as stack:
        services = []
        for policy in POLICIES:
            services.append(stack.enter_context(running(policy, store, model, threads)))
            if threads == 1:
                arrange(services[-1].process.pid, EXECUTOR)
            services[-1].until_idle()
        yield services


def _round(found: Contest, rival: Rival, services: Sequence[Service], inside: Inside, items: Sequence[Item]) -> None:
    """The best grouping begins and ends the round: a machine that becomes slower meets it as it meets the others."""
    first, alone = rival.best(), rival.alone()
    few = {in_flight: rival.few(in_flight) for in_flight in IN_FLIGHT}
    made: dict[Kind, tuple[Run, Measured]] = {}
    for in_flight in IN_FLIGHT:
        for service in services:
            made[Kind("service", service.policy, in_flight)] = _of_service(service, rival, items, in_flight)
        for policy in POLICIES:
            chosen = ArrivalOrder() if policy == ARRIVAL else inside.policy()
            run = inside.run(items, in_flight, chosen)
            made[Kind("inside", policy, in_flight)] = run, Measured(run)
    best = (first + rival.best()) / 2
    found.best.append(len(items) / best)
    found.alone.append(best / alone)
    for in_flight, seconds in few.items():
        found.few.setdefault(in_flight, []).append(best / seconds)
    for kind, (run, measured) in made.items():
        shares = replace(measured, share=best / run.seconds, share_of_few=few[kind.in_flight] / run.seconds)
        found.kinds.setdefault(kind, []).append(shares)


def _told(found: Contest) -> str:
    """The last round in a line."""
    shares = (f"{each.where} {each.policy} {each.in_flight} {of[-1].share:.3f}" for each, of in found.kinds.items())
    return f"best {found.best[-1]:.1f} items/s; of it " + ", ".join(shares)


def _of_service(service: Service, rival: Rival, items: Sequence[Item], in_flight: int) -> tuple[Run, Measured]:
    before, cpu = service.totals(), service.cpu_seconds()
    run = through_grpc(service.address, items, in_flight)
    told, cpu = service.totals().since(before), service.cpu_seconds() - cpu
    batches = service.batches(run.began, run.ended)
    sizes = [batch.sizes for batch in batches]
    cells = sum(len(each) * max(each) for each in sizes)
    return run, Measured(
        run,
        compute_seconds=told.compute_seconds,
        rows=told.rows / told.batches,
        padding=1 - sum(map(sum, sizes)) / cells,
        replayed_seconds=rival.replayed(sizes) if service.policy == PRODUCT else 0.0,
        answered_seconds=sum(batch.seconds for batch in batches),
        cpu=cpu,
    )
