"""A model under load in one process: the product's pile and executors, laid out in one way."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ortmesh.serving.batcher import Pile
from ortmesh.serving.batcher.book import CostBook
from ortmesh.serving.batcher.policy import CostAware
from ortmesh.serving.cards import Card
from ortmesh.serving.executor.interruptible import InterruptibleSession
from ortmesh.serving.executor.layout import Layout
from ortmesh.serving.executor.measure import batch
from ortmesh.serving.executor.session import SessionExecutor
from ortmesh.serving.signature import Signature
from ortmesh.serving.sizing import Sizing, elements_of
from ortmesh.serving.types import Item, NoMeter, Tensors

Draw = Callable[[], int]
"""The size of the next item."""


@dataclass
class Slice:
    """What came of some time under load."""

    items_per_second: float
    seconds: list[float]
    """From an item's arrival to its answer."""

    @property
    def median(self) -> float:
        """Of the seconds."""
        return statistics.median(self.seconds)


class Served:
    """One layout of a model, ready to be loaded: its costs are known."""

    def __init__(
        self, card: Card, signature: Signature, sample: Tensors, session: InterruptibleSession, layout: Layout
    ) -> None:
        self.layout = layout
        self._signature = signature
        self._sample = sample
        self._sizing = Sizing(signature, elements_of(sample, signature))
        self._book = CostBook(self._sizing.sizes, self._sizing.max_size)
        self._feeds: dict[int, Tensors] = {}
        self._executors = [
            SessionExecutor(
                session.again(),
                signature,
                limit=card.batching.max_rows,
                meter=NoMeter(),
                proof=sample,
                costs=self._book,
            )
            for _ in range(layout.executors)
        ]
        measuring = self._executors[0].measure(self._sizing.measurable)
        measuring.run(3.0)
        self._book.measured(measuring.seconds)

    def under(self, in_flight: int, draw: Draw, seconds: float) -> Slice:
        """So many items in flight for so long: each answer brings the next item."""
        with self._running() as pile:
            load = _Load(self, pile, draw)
            began = time.perf_counter()
            for _ in range(in_flight):
                load.submit()
            time.sleep(seconds)
            done, load.over = list(load.seconds), True
            took = time.perf_counter() - began
        return Slice(len(done) / took, done)

    def item(self, answer: _Answer, size: int) -> Item:
        """One of this size."""
        if size not in self._feeds:
            self._feeds[size] = batch(self._signature, self._sample, 1, size)
        tensors = self._feeds[size]
        return Item(tensors, answer=answer, owner=answer, deadline=math.inf, size=self._sizing.of(tensors))

    @contextmanager
    def _running(self) -> Iterator[Pile]:
        pile = Pile(policy=CostAware(self._book, sized=self._sizing.sized))
        threads = [threading.Thread(target=executor.serve, args=[pile]) for executor in self._executors]
        for thread in threads:
            thread.start()
        try:
            yield pile
        finally:
            pile.close()
            for thread in threads:
                thread.join()


@dataclass
class _Load:
    """A closed loop."""

    served: Served
    pile: Pile
    draw: Draw
    seconds: list[float] = field(default_factory=list)
    over: bool = False

    def submit(self) -> None:
        """One more item, whose answer submits the next."""
        self.pile.submit(self.served.item(_Answer(self), self.draw()))

    def answered(self, seconds: float) -> None:
        """In an executor's thread."""
        self.seconds.append(seconds)
        if not self.over:
            self.submit()


class _Answer:
    """Counts, and is its own owner."""

    admitted = cancelled = False

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._began = time.perf_counter()

    def emit(self, outputs: Tensors) -> None:
        """No model here answers in pieces."""

    def finish(self, outputs: Tensors) -> None:
        """One more."""
        self._load.answered(time.perf_counter() - self._began)

    def fail(self, error: BaseException) -> None:
        """The figures would be wrong."""
        raise error
