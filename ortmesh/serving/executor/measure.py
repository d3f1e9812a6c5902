"""Measuring: what batches of a model cost on this device, a cell at a time while nothing waits. Stage: executor."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress

import numpy as np

from ortmesh.serving.signature import Signature
from ortmesh.serving.types import Array, Cell, Tensors

log = logging.getLogger(__name__)

Plan = Generator[Cell, float, None]

LONGEST_SECONDS, LONGEST_OF_ALL = 0.1, 1.0
"""A request that comes meanwhile waits for the run: longer ones are not tried, their costs follow from shorter ones;
but where batches save much, up to a second."""
MUCH = 0.75
"""Of what a row cost before: a batch that saves so much is worth a longer run to know."""
LEAST_GAIN, LAST = 0.05, 2
"""When so many batches, each twice as large as the one before, save less than so much a row, the last is the last. One
may have been disturbed: then no batch of that size would be formed, and no run would ever show that it pays."""
RUNS, MOST_RUNS, ENOUGH_SECONDS = 2, 10, 0.02
"""Of each cell, more while they are quick; the least counts: whatever else ran only made it longer."""
ROUNDS = 4
"""Then all cells run so many times more, in turns: what keeps a machine busy for a second hits some of them all."""


TOGETHER = 3
"""So many sizes, the first ones, grow side by side: a load has time for a few cells only. With those of three lengths
texts of 8 to 128 tokens have 0.95 of the best grouping's throughput, with as many of one length 0.78 (simulated)."""


def plan(max_rows: int, sizes: Sequence[int]) -> Plan:
    """Yields the cells worth running, and is sent the seconds that each took; infinite when the model refused it."""
    too_long = math.inf
    for together in (sizes[:TOGETHER], *([size] for size in sizes[TOGETHER:])):
        ahead = deque((size, line := _rows(max_rows), next(line)) for size in together)
        while ahead:
            size, line, rows = ahead.popleft()
            if size > too_long:
                continue
            seconds = yield rows, size
            if rows == 1 and 2 * seconds > LONGEST_SECONDS:
                too_long = min(too_long, size)
            with suppress(StopIteration):
                ahead.append((size, line, line.send(seconds)))


def _rows(max_rows: int) -> Generator[int, float, None]:
    """Batches of one size, which grow while they pay; is sent the seconds that each took."""
    rows, best, vain = 1, math.inf, 0
    while rows <= max_rows:
        seconds = yield rows
        much = rows == 1 or seconds / rows < MUCH * best
        vain = vain + 1 if seconds / rows > (1 - LEAST_GAIN) * best else 0
        if vain == LAST or seconds > (LONGEST_OF_ALL / 2 if much else LONGEST_SECONDS / 2):  # infinite: it was refused
            return
        best = min(best, seconds / rows)
        rows = min(2 * rows, max_rows) if rows < max_rows else max_rows + 1


class Measuring:
    """Runs a plan in steps; `seconds` grows with each."""

    def __init__(
        self,
        run: Callable[[dict[str, Array]], object],
        signature: Signature,
        example: Tensors,
        max_rows: int,
        sizes: Sequence[int],
    ) -> None:
        """`run` computes a batch, and is called in `step` alone; `example` is an item that the model takes, `sizes`
        what it can be given, the most telling first."""
        self._run = run
        self._signature = signature
        self._example = example
        self._plan = plan(max_rows, sizes)
        self._next: Cell | None = next(self._plan)
        self._took: list[float] = []
        """The next cell's runs so far."""
        self._again: deque[Cell] = deque()
        """What is left to be run once more."""
        self.seconds: dict[Cell, float] = {}
        """Of each cell that is done."""

    @property
    def done(self) -> bool:
        """True when no run is left."""
        return self._next is None and not self._again

    def run(self, seconds: float) -> None:
        """Goes on until nothing is left or so long has passed: a run that has begun is finished, and counts by itself
        when it is the only one."""
        until = time.monotonic() + seconds
        while not self.done and time.monotonic() < until:
            self.step()
        if not self.seconds and self._next is not None and self._took:
            self.seconds[self._next] = min(self._took)

    def step(self) -> None:
        """One run. The model may refuse it: more than its position table has, than there is memory for."""
        if self._next is None:
            self._run_again()
            return
        try:
            self._took.append(self._time(*self._next))
        except Exception as error:
            log.debug("a batch of %d rows of size %d can't be measured: %s", *self._next, error)
            self._go_on(math.inf)
            return
        if len(self._took) >= RUNS and (len(self._took) == MOST_RUNS or sum(self._took) >= ENOUGH_SECONDS):
            self.seconds[self._next] = min(self._took)
            self._go_on(min(self._took))

    def _go_on(self, seconds: float) -> None:
        """To the next cell, after one that took so long."""
        self._took.clear()
        try:
            self._next = self._plan.send(seconds)
        except StopIteration:
            self._next = None
            short = [cell for cell, seconds in self.seconds.items() if seconds <= LONGEST_SECONDS]
            self._again.extend(short * ROUNDS)

    def _run_again(self) -> None:
        if self._again:
            cell = self._again.popleft()
            with suppress(Exception):  # it ran before; what is wrong now the next request will show
                self.seconds[cell] = min(self.seconds[cell], self._time(*cell))

    def _time(self, rows: int, size: int) -> float:
        feeds = batch(self._signature, self._example, rows, size)
        began = time.perf_counter()
        self._run(feeds)
        return time.perf_counter() - began


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
