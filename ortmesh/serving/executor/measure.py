"""Measuring: what batches of a model cost on this device, a cell at a time while nothing waits. Stage: executor."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence

import numpy as np

from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Array, Tensors

Cell = tuple[int, int]
"""Rows and size."""
Plan = Generator[Cell, float, None]

SIZES = (8, 16, 32, 64, 128, 256, 512)
LONGEST_SECONDS = 0.25
"""A request that comes meanwhile waits for the cell: longer ones are not run, their costs follow from shorter ones."""
LEAST_GAIN = 0.05
"""A batch twice as large that saves less than so much a row is the last."""
RUNS = 2
"""Of each cell; the least counts: whatever else ran only made it longer."""


def plan(max_rows: int, sizes: Sequence[int]) -> Plan:
    """Yields the cells worth running, and is sent the seconds that each took: small ones first, so that what is known
    after a few tells most."""
    for size in sizes:
        rows, best = 1, float("inf")
        while rows <= max_rows:
            seconds = yield rows, size
            if rows == 1 and 2 * seconds > LONGEST_SECONDS and size != sizes[0]:
                return
            if seconds / rows > (1 - LEAST_GAIN) * best or 2 * seconds > LONGEST_SECONDS:
                break
            best = min(best, seconds / rows)
            rows = min(2 * rows, max_rows) if rows < max_rows else max_rows + 1


class Measuring:
    """Runs a plan in steps; `seconds` grows with each."""

    def __init__(
        self, run: Callable[[dict[str, Array]], object], signature: Signature, example: Tensors, max_rows: int
    ) -> None:
        """`run` computes a batch, and is called in `step` alone; `example` is an item that the model takes."""
        self._run = run
        self._signature = signature
        self._example = example
        self._plan = plan(max_rows, SIZES if signature.padded else (1,))
        self._next: Cell | None = next(self._plan)
        self.seconds: dict[Cell, float] = {}
        """Of each cell that was run."""

    @property
    def done(self) -> bool:
        """True when no cell is left."""
        return self._next is None

    def step(self) -> None:
        """Runs one cell. One that the model refuses ends the plan: what is known must do."""
        if self._next is None:
            return
        try:
            took = self._time(*self._next)
        except Exception:  # larger than its position table, more memory than there is: the model's own limit
            self._plan.close()
            self._next = None
            return
        self.seconds[self._next] = took
        try:
            self._next = self._plan.send(took)
        except StopIteration:
            self._next = None

    def _time(self, rows: int, size: int) -> float:
        feeds = batch(self._signature, self._example, rows, size)
        least = float("inf")
        for _ in range(RUNS):
            began = time.perf_counter()
            self._run(feeds)
            least = min(least, time.perf_counter() - began)
        return least


def batch(signature: Signature, example: Tensors, rows: int, size: int) -> dict[str, Array]:
    """So many rows like the example, `size` long where an axis is padded."""
    feeds: dict[str, Array] = {}
    for name, array in example.items():
        info = signature.inputs[name]
        if info.pad_axis is not None:
            array = np.take(array, np.arange(size) % array.shape[info.pad_axis], axis=info.pad_axis)
        if info.batch_axis is not None:
            array = np.take(array, np.zeros(rows, int), axis=info.batch_axis)
        feeds[name] = array
    return feeds
