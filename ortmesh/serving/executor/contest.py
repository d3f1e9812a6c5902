"""Contest: layouts of one model that take turns on this machine, round by round, in half a second. Stage: executor."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ortmesh.serving.executor.layout import Layout, Measurement
from ortmesh.serving.executor.measure import MEASURING
from ortmesh.serving.types import Tensors

SECONDS = 0.5
"""What a load may take for it."""
LONGEST_SECONDS = 0.1
"""A model whose run takes longer is not measured: two rounds would hold up its load for seconds, and its operators are
long enough for all threads (faces in 480 × 640 pixels, 14 ms: nothing gained by any layout)."""
ROUNDS = 7
"""Of a quick model; each cell's least counts: whatever else ran only made it longer."""
LEAST_ROUNDS = 2
SLOT_SECONDS = 0.004
"""Runs shorter than this are repeated in a turn: a thread needs 0.1 ms to wake."""
BATCH_SECONDS = 0.05
"""The larger batch is one that is expected to take at most so long."""
LARGER = (8, 4, 2)
"""Rows of the larger batch, of which the first that fits is run. Larger ones gain little more on a CPU."""
CALM = 0.85
"""Callers that got a core for a smaller share of their time were disturbed: what came out is not to be kept."""

Run = Callable[[Tensors], object]
"""Computes a batch; called by several threads at once."""


class Cell(NamedTuple):
    """What is timed in one turn: so many callers that all compute batches of so many rows."""

    threads: int
    callers: int
    rows: int


class Turn(NamedTuple):
    """What a turn took."""

    seconds: float
    """A run of all callers side by side."""
    share: float
    """Of that time each caller got a core for: 1 where it computed all the time, with nobody to help it."""


@dataclass(slots=True)
class Contest:
    """One model's."""

    runs: Mapping[int, Run]
    """By the threads that its session's operators have."""
    layouts: Sequence[Layout]
    batch: Callable[[int], Tensors]
    """Feeds of so many rows of a typical size."""
    max_rows: int
    turns: dict[Cell, list[Turn]] = field(default_factory=dict)

    def hold(self) -> list[Measurement]:
        """Measures the layouts in their order; empty for a model whose runs take too long. What a run raises leaves it.

        One contest of a process at a time: others that load wait here.
        """
        with MEASURING:
            alone = self._first()
            if alone > LONGEST_SECONDS:
                return []
            rows = self._rows(alone)
            cells = self._cells(rows)
            feeds = {each: self.batch(each) for each in rows}
            repeats = {cell: max(1, round(SLOT_SECONDS / (alone * cell.rows))) for cell in cells}
            until = time.monotonic() + SECONDS
            for number in range(ROUNDS):
                if number >= LEAST_ROUNDS and time.monotonic() > until:
                    break
                for cell in cells:
                    turn = take_turn(self.runs[cell.threads], feeds[cell.rows], cell.callers, repeats[cell])
                    self.turns.setdefault(cell, []).append(turn)
        return [self._measurement(layout, rows) for layout in self.layouts]

    @property
    def calm(self) -> bool:
        """True when nothing else took the cores: callers without helpers always had one."""
        lone = [cell for cell in self.turns if cell.threads == 1]
        return all(max(turn.share for turn in self.turns[cell]) >= CALM for cell in lone)

    def _first(self) -> float:
        """Seconds of one item on the first layout's session; every session has run once then."""
        one = self.batch(1)
        for run in self.runs.values():
            run(one)
        return take_turn(self.runs[self.layouts[0].threads], one, 1, 1).seconds

    def _rows(self, alone: float) -> tuple[int, ...]:
        fit = (rows for rows in LARGER if rows <= self.max_rows and rows * alone <= BATCH_SECONDS)
        return (1, *([larger] if (larger := next(fit, 0)) else []))

    def _cells(self, rows: Sequence[int]) -> list[Cell]:
        alone = [Cell(threads, 1, 1) for threads in self.runs]
        loaded = [Cell(layout.threads, layout.executors, each) for layout in self.layouts for each in rows]
        return list(dict.fromkeys([*alone, *loaded]))

    def _measurement(self, layout: Layout, rows: Sequence[int]) -> Measurement:
        threads, executors = layout.threads, layout.executors
        by_rows = {each: executors * each / self._least(Cell(threads, executors, each)) for each in rows}
        return Measurement(layout, self._least(Cell(threads, 1, 1)), by_rows)

    def _least(self, cell: Cell) -> float:
        return min(turn.seconds for turn in self.turns[cell])


def take_turn(run: Run, feeds: Tensors, callers: int, repeats: int) -> Turn:
    """Has so many threads run the feeds so many times, all beginning at once. Raises what a run raises."""
    gate = threading.Barrier(callers)
    spans: list[tuple[float, float, float]] = []
    errors: list[BaseException] = []

    def call() -> None:
        try:
            gate.wait()
            used, began = time.thread_time(), time.perf_counter()
            for _ in range(repeats):
                run(feeds)
            ended = time.perf_counter()
            spans.append((began, ended, time.thread_time() - used))
        except BaseException as error:
            errors.append(error)

    others = [threading.Thread(target=call, name="layout", daemon=True) for _ in range(callers - 1)]
    for thread in others:
        thread.start()
    call()
    for thread in others:
        thread.join()
    if errors:
        raise errors[0]
    seconds = max(ended for _, ended, _ in spans) - min(began for began, _, _ in spans)
    return Turn(seconds / repeats, sum(used for _, _, used in spans) / (callers * seconds))
