"""Inside: the product's pile, policy and executor in this process: what is left when there is no wire."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from bench.mixed.caller import Run
from bench.mixed.cores import compute_here
from bench.mixed.items import Item
from ortmesh.serving import types
from ortmesh.serving.batcher import CostAware, Pile, Policy
from ortmesh.serving.cards import Card
from ortmesh.serving.loaded import Loaded, load
from ortmesh.serving.types import NoMeter, Tensors

NEVER = float("inf")
MEASURED_SECONDS, PAUSE_SECONDS = 60.0, 0.1


class _Feeder:
    """Keeps so many items in the pile or running: each that ends brings the next, in the executor's thread."""

    admitted = cancelled = False

    def __init__(self, pile: Pile, items: Sequence[Item]) -> None:
        self._pile = pile
        self._left: Iterator[Item] = iter(items)
        self._lock = threading.Lock()
        self._count = len(items)
        self.latencies: list[float] = []
        self.errors: list[BaseException] = []
        self.ended = threading.Event()

    def feed(self) -> None:
        """Submits the next item, if one is left."""
        with self._lock:
            item = next(self._left, None)
        if item is not None:
            ids = np.array([item.ids], np.int64)
            answer = _Answer(self)
            tensors = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
            self._pile.submit(types.Item(tensors, answer=answer, owner=self, deadline=NEVER, size=item.size))

    def told(self, seconds: float, error: BaseException | None) -> None:
        """An item has ended."""
        with self._lock:
            self.latencies.append(seconds)
            if error is not None:
                self.errors.append(error)
            if len(self.latencies) == self._count:
                self.ended.set()
        self.feed()


class _Answer:
    """Of one item."""

    def __init__(self, feeder: _Feeder) -> None:
        self._feeder = feeder
        self._began = time.monotonic()

    def emit(self, outputs: Tensors) -> None:
        """A session has no pieces."""
        raise TypeError("an answer in pieces")

    def finish(self, outputs: Tensors) -> None:
        """Its time, and the next item."""
        self._feeder.told(time.monotonic() - self._began, None)

    def fail(self, error: BaseException) -> None:
        """The run fails at its end."""
        self._feeder.told(time.monotonic() - self._began, error)


class Inside:
    """The model, loaded as a service does it, with all that its executor finds out of costs while it idles."""

    def __init__(self, card: Card, folder: Path, threads: int) -> None:
        """RuntimeError for a model that is not measured; TimeoutError when that takes too long."""
        self._loaded: Loaded = load(card, folder, threads, NoMeter())
        if self._loaded.costs is None:
            raise RuntimeError(f"{card.key} is not measured")
        self._book = self._loaded.costs
        with self._serving(Pile()):
            self._until_measured()

    def policy(self) -> Policy:
        """The product's, with what is known of the costs."""
        return CostAware(self._book, sized=self._loaded.sizing.sized)

    def run(self, items: Sequence[Item], in_flight: int, policy: Policy) -> Run:
        """All items through a pile with this policy. The first error is raised."""
        pile = Pile(policy=policy)
        feeder = _Feeder(pile, items)
        with self._serving(pile):
            began = time.monotonic()
            for _ in range(in_flight):
                feeder.feed()
            feeder.ended.wait()
            ended = time.monotonic()
        if feeder.errors:
            raise feeder.errors[0]
        return Run(began, ended, feeder.latencies)

    def _serve(self, executor: types.Executor, pile: Pile) -> None:
        if self._loaded.threads * len(self._loaded.executors) == 1:
            compute_here()
        executor.serve(pile)

    def _until_measured(self) -> None:
        until = time.monotonic() + MEASURED_SECONDS
        while self._book.stale:
            if time.monotonic() > until:
                raise TimeoutError("the executor does not come to an end with its measuring")
            time.sleep(PAUSE_SECONDS)

    @contextlib.contextmanager
    def _serving(self, pile: Pile) -> Iterator[None]:
        threads = [threading.Thread(target=self._serve, args=(each, pile)) for each in self._loaded.executors]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            pile.close()
            for thread in threads:
                thread.join()
