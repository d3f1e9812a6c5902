"""Mixed: texts of 8 to 128 tokens through pile and executor, by cost and in order of arrival, against the bare session.

Closed loop: as many items are in flight as there are callers, a finished one is followed by the next.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from bench.gpu.models import MINILM, Bench, Opened
from bench.mixed.grouping import best_groups
from ortmesh.serving.batcher import ArrivalOrder, CostAware, Pile, Policy
from ortmesh.serving.loaded import Loaded, load
from ortmesh.serving.types import Array, Item, NoMeter, Tensors

SHORTEST, LONGEST = 8, 128
IN_FLIGHT = (16, 64)
ITEMS = 2048
"""Of the sequence that the best grouping is found for."""
MEASURE_SECONDS = 6.0
WARM_SECONDS = 15.0


class Caller:
    """Owner and answer of its items: asks again as soon as it is answered."""

    admitted = cancelled = False

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self.error: BaseException | None = None

    def emit(self, outputs: Tensors) -> None:
        """There are no pieces."""

    def finish(self, outputs: Tensors) -> None:
        """The answer."""
        self._done()

    def fail(self, error: BaseException) -> None:
        """Kept: the figures would be wrong."""
        self.error = error


@dataclass(slots=True)
class Flight:
    """One policy under one load."""

    loaded: Loaded
    pile: Pile
    sizes: Iterator[int]
    done: int = 0
    """Rows that were answered; added to by the executor's thread alone."""

    def run(self, in_flight: int, seconds: float) -> float:
        """Items a second."""
        (executor, *_) = self.loaded.executors
        thread = threading.Thread(target=executor.serve, args=(self.pile,))
        thread.start()
        over = threading.Event()
        callers: list[Caller] = []

        def ask(caller: Caller) -> None:
            if not over.is_set():
                self.pile.submit(self._item(caller))

        def answered(place: int) -> None:
            self.done += 1
            ask(callers[place])

        callers += [Caller(partial(answered, place)) for place in range(in_flight)]
        for caller in callers:
            ask(caller)
        self._warm(4 * in_flight)
        before, began = self.done, time.perf_counter()
        time.sleep(seconds)
        rate = (self.done - before) / (time.perf_counter() - began)
        over.set()
        self.pile.close()
        thread.join()
        for caller in callers:
            if caller.error is not None:
                raise caller.error
        return rate

    def _warm(self, rows: int) -> None:
        """Until so many are answered: a thread's first runs on a GPU make handles and choose kernels."""
        until = time.monotonic() + WARM_SECONDS
        while self.done < rows and time.monotonic() < until:
            time.sleep(0.01)

    def _item(self, caller: Caller) -> Item:
        size = next(self.sizes)
        return Item(tokens(size), answer=caller, owner=caller, deadline=math.inf, size=size)


def tokens(size: int, rows: int = 1) -> dict[str, Array]:
    """A text of so many tokens."""
    ids = np.full((rows, size), 2000, np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def lengths(seed: int = 7) -> Iterator[int]:
    """Most texts are short: the logarithm of their length is even."""
    random = np.random.default_rng(seed)
    while True:
        yield from np.exp(random.uniform(math.log(SHORTEST), math.log(LONGEST + 1), 4096)).astype(int).tolist()


def throughput(bench: Bench) -> list[str]:
    """Items a second: by cost, in order of arrival, and the best of a bare session with batches made before."""
    lines = [
        "| in flight | by cost | by arrival | bare, best groups | so, our runner | cost / bare | arrival / bare |",
        "|---|---|---|---|---|---|---|",
    ]
    card, folder = bench.card(MINILM)
    loaded = load(card, folder, 2, NoMeter())
    assert loaded.study is not None
    assert loaded.costs is not None
    measuring = loaded.study.begin()
    measuring.run(MEASURE_SECONDS if bench.provider == "cuda" else 1.0)
    loaded.costs.measured(measuring.seconds)
    by_cost: Callable[[], Policy] = partial(CostAware, loaded.costs, sized=True)
    for in_flight in IN_FLIGHT:
        rates = [
            Flight(loaded, Pile(policy=policy()), lengths()).run(in_flight, bench.seconds)
            for policy in (by_cost, ArrivalOrder)
        ]
        best = [
            _bare(bench.open(MINILM), loaded, in_flight, bench.seconds, through=through) for through in (False, True)
        ]
        top = max(best)
        shares = " | ".join(f"{rate / top:.2f}" for rate in rates)
        figures = " | ".join(f"{rate:.0f}" for rate in (*rates, *best))
        lines.append(f"| {in_flight} | {figures} | {shares} |")
    return lines


def _bare(opened: Opened, loaded: Loaded, in_flight: int, seconds: float, *, through: bool) -> float:
    """Items a second of the best grouping of a long sequence, no batch larger than what is in flight."""
    costs = loaded.costs.costs if loaded.costs is not None else None
    assert costs is not None
    source = lengths()
    sizes = [next(source) for _ in range(ITEMS if loaded.threads == 0 else ITEMS // 16)]
    groups = best_groups(sizes, costs.seconds, min(in_flight, costs.max_rows))
    batches = [tokens(max(sizes[i] for i in group), len(group)) for group in groups]
    run: Callable[[Tensors], object] = opened.runner.run if through else opened.plain
    for feeds in batches[:: max(len(batches) // 20, 1)]:
        run(feeds)
    began, items, place = time.perf_counter(), 0, 0
    while place < len(batches) or time.perf_counter() - began < seconds:
        feeds = batches[place % len(batches)]
        run(feeds)
        items += len(feeds["input_ids"])
        place += 1
        if place % len(batches) == 0 and time.perf_counter() - began > seconds:
            break
    return items / (time.perf_counter() - began)
