"""Mixed: texts of 8 to 128 tokens through pile and executors, by cost and in order of arrival, against bare sessions.

Closed loop: as many items are in flight as there are callers, a finished one is followed by the next. Each figure is
taken after seconds of the same load: a shape's first run asks for memory and chooses kernels, its second is recorded.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from bench.gpu.models import MINILM, Bench, Opened
from bench.mixed.grouping import best_groups
from ortmesh.serving.batcher import ArrivalOrder, CostAware, Pile, Policy
from ortmesh.serving.batcher.costs import Costs
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.loaded import Loaded, load
from ortmesh.serving.types import Array, Cell, Item, NoMeter, Tensors

SHORTEST, LONGEST = 8, 128
IN_FLIGHT = (16, 64)
ITEMS = 2048
"""Of the sequence that the best grouping is found for."""
MEASURE_SECONDS = 6.0
WARM_SECONDS = 3.0
"""Before each window."""
GATE_SECONDS = 60.0
"""One that fails must not leave the other waiting."""
OUTPUTS = ("embedding",)
"""What the task that serves this model reads."""

HEAD = [
    "| load | items/s | rows a batch | padding | computing | of bare |",
    "|---|---|---|---|---|---|",
]


WHY = (
    "`Of bare` is the share of the best bare figure, `computing` the share of the executors' time that was in runs. "
    "One interpreter feeds the device: callers, pile and executors share it, and choosing, stacking and answering take "
    "its time; `bare` does none of that, its batches were made before. Where batches cost nearly the same whatever is "
    "in them (see what a run costs), there is little to gain by choosing them. Replicas, not batches, are what brings "
    "a GPU to its limit with texts this short."
)


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


class Batches(NoMeter):
    """The meter of the executors: what ran."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ran: list[tuple[int, float, float]] = []

    def batch(self, rows: int, padded_share: float, compute_seconds: float) -> None:
        """One more."""
        with self._lock:
            self._ran.append((rows, padded_share, compute_seconds))

    def taken(self) -> list[tuple[int, float, float]]:
        """(rows, share of padding, seconds) of each batch since the last time."""
        with self._lock:
            ran, self._ran = self._ran, []
        return ran


@dataclass(slots=True)
class Flight:
    """One policy under one load."""

    loaded: Loaded
    batches: Batches
    pile: Pile
    executors: int
    sizes: Iterator[int]
    _done: list[None] = field(default_factory=list)

    def run(self, in_flight: int, warm: float, seconds: float) -> tuple[float, str]:
        """(items a second, what else a line of the table says)."""
        serving = self.loaded.executors[: self.executors]
        threads = [threading.Thread(target=executor.serve, args=(self.pile,)) for executor in serving]
        for thread in threads:
            thread.start()
        over = threading.Event()
        callers: list[Caller] = []

        def ask(caller: Caller) -> None:
            if not over.is_set():
                self.pile.submit(self._item(caller))

        def answered(place: int) -> None:
            self._done.append(None)  # atomic: executors do it side by side
            ask(callers[place])

        callers += [Caller(partial(answered, place)) for place in range(in_flight)]
        for caller in callers:
            ask(caller)
        time.sleep(warm)
        self.batches.taken()
        before, began = len(self._done), time.perf_counter()
        time.sleep(seconds)
        elapsed = time.perf_counter() - began
        rate, ran = (len(self._done) - before) / elapsed, self.batches.taken()
        over.set()
        self.pile.close()
        for thread in threads:
            thread.join()
        for caller in callers:
            if caller.error is not None:
                raise caller.error
        return rate, _told(ran, elapsed * len(threads))

    def _item(self, caller: Caller) -> Item:
        size = next(self.sizes)
        return Item(tokens(size), answer=caller, owner=caller, deadline=math.inf, size=size, outputs=OUTPUTS)


def _told(ran: Sequence[tuple[int, float, float]], elapsed: float) -> str:
    rows = sum(each for each, _, _ in ran) or 1
    padding = sum(each * share for each, share, _ in ran) / rows
    computing = sum(seconds for _, _, seconds in ran) / elapsed
    return f"{rows / max(len(ran), 1):.1f} | {padding:.0%} | {computing:.0%}"


def tokens(size: int, rows: int = 1) -> dict[str, Array]:
    """A text of so many tokens."""
    ids = np.full((rows, size), 2000, np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


class Lengths:
    """Most texts are short: the logarithm of their length is even. For several threads."""

    def __init__(self, seed: int = 7) -> None:
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._drawn: list[int] = []

    def __iter__(self) -> Lengths:
        return self

    def __next__(self) -> int:
        with self._lock:
            if not self._drawn:
                drawn = self._random.uniform(math.log(SHORTEST), math.log(LONGEST + 1), 4096)
                self._drawn = np.exp(drawn).astype(int).tolist()
            return self._drawn.pop()


def throughput(bench: Bench) -> list[str]:
    """Without recorded runs and with them."""
    lines: list[str] = []
    for record in (False, True):
        lines += [f"**{'recorded runs' if record else 'no recorded runs'}**", "", *_throughput(bench, record), ""]
    return [*lines, WHY]


def _throughput(bench: Bench, record: bool) -> list[str]:
    """Items a second of bare batches made before, of the best grouping; by cost with one executor and with all; in
    order of arrival with all."""
    card, folder = bench.card(MINILM, cuda_graph=record)
    batches = Batches()
    loaded = load(card, folder, 2, batches)
    assert loaded.study is not None
    assert loaded.costs is not None
    on_gpu = bench.provider == "cuda"
    first = Caller(lambda: None)
    item = Item(tokens(LONGEST), answer=first, owner=first, deadline=math.inf, size=LONGEST, outputs=OUTPUTS)
    executor = loaded.executors[0]
    assert isinstance(executor, SessionExecutor)
    executor.run([item])  # shows which outputs are wanted
    measuring = loaded.study.begin()
    measuring.run(MEASURE_SECONDS if on_gpu else 1.0)
    loaded.costs.measured(measuring.seconds)
    measured = loaded.costs.costs
    assert measured is not None
    by_cost: Callable[[], Policy] = partial(CostAware, loaded.costs, sized=True)
    every = len(loaded.executors)
    warm = WARM_SECONDS if on_gpu else min(bench.seconds, WARM_SECONDS)
    opened = [bench.open(MINILM, record=record) for _ in range(max(every, 2))]
    groups = {each: _batches(measured, each, ITEMS if on_gpu else ITEMS // 16) for each in IN_FLIGHT}
    lines, shares = list(HEAD), list[float]()
    for in_flight in IN_FLIGHT:
        bare = [
            ("bare, `session.run`", opened[:1], False),
            ("bare, one runner", opened[:1], True),
            ("bare, two runners", opened[:2], True),
        ]
        rates = [_bare(sessions, groups[in_flight], bench.seconds, through=through) for _, sessions, through in bare]
        top = max(rates)
        for (name, _, _), rate in zip(bare, rates, strict=True):
            lines.append(f"| {in_flight} in flight, {name} | {rate:.0f} | | | | {rate / top:.2f} |")
        chosen: list[float] = []
        for name, executors, policy in (
            ("by cost, one executor", 1, by_cost),
            (f"by cost, {every} executors", every, by_cost),
            (f"by arrival, {every} executors", every, ArrivalOrder),
        ):
            flight = Flight(loaded, batches, Pile(policy=policy()), executors, Lengths())
            rate, told = flight.run(in_flight, warm, bench.seconds)
            lines.append(f"| {in_flight} in flight, {name} | {rate:.0f} | {told} | {rate / top:.2f} |")
            chosen.append(rate)
        shares += [rate / max(chosen[-1], 1.0) for rate in chosen[:-1]]
    lines += ["", f"By cost has {min(shares):.2f} to {max(shares):.2f} of what order of arrival has."]
    return [*lines, "", *_learnt(loaded, measuring.seconds)]


def _batches(costs: Costs, in_flight: int, items: int) -> list[dict[str, Array]]:
    """The best grouping of a long sequence, no batch larger than what is in flight."""
    source = Lengths()
    sizes = [next(source) for _ in range(items)]
    groups = best_groups(sizes, costs.seconds, min(in_flight, costs.max_rows))
    batches = [tokens(max(sizes[i] for i in group), len(group)) for group in groups]
    np.random.default_rng(3).shuffle(batches)
    return batches


def _bare(sessions: Sequence[Opened], batches: Sequence[dict[str, Array]], seconds: float, *, through: bool) -> float:
    """Items a second of prepared batches, after each of them ran three times."""
    done = [0] * len(sessions)
    until = [0.0]
    gate = threading.Barrier(
        len(sessions), action=lambda: until.__setitem__(0, time.perf_counter() + seconds), timeout=GATE_SECONDS
    )

    def work(place: int) -> None:
        opened = sessions[place]
        run = partial(opened.runner.run, outputs=OUTPUTS) if through else partial(opened.plain, outputs=OUTPUTS)
        for feeds in [*batches] * 3:
            run(feeds)
        gate.wait()
        at = place * len(batches) // len(sessions)
        while time.perf_counter() < until[0]:
            feeds = batches[at % len(batches)]
            run(feeds)
            done[place] += len(feeds["input_ids"])
            at += 1

    threads = [threading.Thread(target=work, args=(place,)) for place in range(len(sessions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / seconds


def _learnt(loaded: Loaded, measured: dict[Cell, float]) -> list[str]:
    """What live runs made of the table: learnt over measured, of each cell."""
    assert loaded.costs is not None
    ratios = {
        (rows, size): seconds / measured[rows, size]
        for size, rows, seconds in loaded.costs.table()
        if (rows, size) in measured
    }
    rows_of, sizes = sorted({rows for rows, _ in ratios}), sorted({size for _, size in ratios})
    lines = [
        f"Learnt over measured (`speed` {loaded.costs.speed:.2f}):",
        "",
        f"| size | {' | '.join(f'{rows} rows' for rows in rows_of)} |",
        "|---|" + "---|" * len(rows_of),
    ]
    for size in sizes:
        cells = (f"{ratios[rows, size]:.2f}" if (rows, size) in ratios else "" for rows in rows_of)
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return lines
