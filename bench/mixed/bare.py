"""Bare: ONNX Runtime's session alone, with the service's options and batches made before: what a server can reach."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from bench.mixed.cores import compute_here
from bench.mixed.items import Item, stacked
from ortmesh.serving.batcher import Costs, Grid
from ortmesh.serving.cards import Card
from ortmesh.serving.executor.sessions import Sessions
from ortmesh.serving.types import Array

OUTPUTS = ["embedding"]
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
SIZES = (8, 12, 16, 24, 32, 48, 64, 96, 128)
MOST_TOKENS = 1024
"""Of a cell that is measured: on a CPU a larger batch costs in proportion, and its time is better spent on repeats."""
REPEATS = 3

Feeds = dict[str, Array]


@dataclass(frozen=True, slots=True)
class Layout:
    """How the threads are used."""

    callers: int
    """Python threads that call the one session."""
    threads: int
    """Of operators in each call."""

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return f"{self.callers} callers of {threads} each" if self.callers > 1 else threads


class Bare:
    """One session of a model."""

    def __init__(self, card: Card, folder: Path, layout: Layout) -> None:
        options = Sessions(card.runtime, layout.threads).options()
        path = str(folder / card.graph)
        self._session: Any = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._callers = layout.callers
        self._pinned = layout.callers * layout.threads == 1

    def run(self, feeds: Feeds) -> Array:
        """Embeddings [items, dimension]."""
        found: Array = self._session.run(OUTPUTS, feeds)[0]
        return found

    def costs(self, example: Item) -> Costs:
        """What one run takes for some rows and lengths: of each the least of three."""
        cells = [(rows, size) for rows in ROWS for size in SIZES if rows * size <= MOST_TOKENS]
        feeds = {cell: stacked([Item("", _of_length(example.ids, cell[1]))] * cell[0]) for cell in cells}
        seconds = dict.fromkeys(cells, float("inf"))
        for _ in range(REPEATS):  # rounds, so that no disturbance meets all repeats of a cell
            for cell in cells:
                seconds[cell] = min(seconds[cell], self._one(feeds[cell]))
        return Costs(Grid(ROWS, SIZES, seconds))

    def _one(self, feeds: Feeds) -> float:
        began = time.perf_counter()
        self.run(feeds)
        return time.perf_counter() - began

    def timed(self, batches: Iterable[Sequence[Item]]) -> float:
        """Seconds in which the batches run, one after the other by each caller. Stacking them is not counted."""
        feeds = [stacked(list(batch)) for batch in batches]
        feeds.sort(key=lambda each: each["input_ids"].size, reverse=True)  # with two callers the last ends soon
        left, lock = iter(feeds), threading.Lock()

        def call() -> None:
            if self._pinned:
                compute_here()
            while True:
                with lock:
                    batch = next(left, None)
                if batch is None:
                    return
                self.run(batch)

        callers = [threading.Thread(target=call) for _ in range(self._callers)]
        began = time.perf_counter()
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        return time.perf_counter() - began


def _of_length(ids: Sequence[int], length: int) -> tuple[int, ...]:
    return tuple(itertools.islice(itertools.cycle(ids), length))
