"""Contest: layouts of one model that take turns on this machine, round by round. Stage: executor."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ortmesh.serving.executor.layout import Layout, Measurement
from ortmesh.serving.executor.stage import MEASURING
from ortmesh.serving.types import Tensors

SECONDS = 0.5
"""What a load may take for it."""
LONGEST_SECONDS = 0.1
"""A model whose run takes longer is not measured: two rounds would hold up its load for seconds, and its operators are
long enough for all threads (faces in 480 × 640 pixels, 14 ms: nothing gained by any layout)."""
SHORTEST_SECONDS = 1e-4
"""Nor is one whose run is shorter: there is nothing in it to spread, and most of a call is Python."""
ROUNDS = 7
"""Of a quick model; each cell's least counts: whatever else ran only made it longer."""
LEAST_ROUNDS = 2
TRIES = 3
"""Of one item, to see whether a contest is worth its time."""
SLOT_SECONDS = 0.004
"""Runs shorter than this are repeated in a turn: a thread needs 0.1 ms to wake."""
BATCH_SECONDS = 0.05
"""The larger batch is one that is expected to take at most so long."""
LARGER = (8, 4, 2)
"""Rows of the larger batch, of which the first that fits is run. Larger ones gain little more on a CPU."""
CALM = 0.85
"""Callers without helpers compute all the time; where they got a core for less of it, others had the machine, and the
round counts for nothing. The same goes for threads that only compute a hash."""
WORK = bytes(1 << 21)

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


class Contest:
    """One model's."""

    def __init__(
        self, run_of: Callable[[int], Run], layouts: Sequence[Layout], batch: Callable[[int], Tensors], max_rows: int
    ) -> None:
        """`run_of` opens a session whose operators have so many threads, once each and only when it is needed;
        `batch` makes feeds of so many rows of a typical size."""
        self._run_of = run_of
        self._layouts = layouts
        self._batch = batch
        self._max_rows = max_rows
        self._rounds: list[dict[Cell, Turn]] = []
        """Those in which nothing else took the cores."""

    def hold(self) -> list[Measurement]:
        """Measures the layouts in their order. Empty for a model whose runs are too long or too short, and on a
        machine that is too busy to tell. What a run raises leaves it.

        One measurement at a time: others that load wait here.
        """
        with MEASURING.taken():
            one = self._batch(1)
            runs = {self._layouts[0].threads: self._run_of(self._layouts[0].threads)}
            alone = min(take_turn(runs[self._layouts[0].threads], one, 1, 1).seconds for _ in range(TRIES))
            if not SHORTEST_SECONDS < alone < LONGEST_SECONDS:
                return []
            for threads in {layout.threads for layout in self._layouts} - runs.keys():
                runs[threads] = self._run_of(threads)
                runs[threads](one)
            rows = self._rows(alone)
            self._play(runs, {each: self._batch(each) for each in rows}, alone)
        if len(self._rounds) < LEAST_ROUNDS:
            return []
        return [self._measurement(layout, rows) for layout in self._layouts]

    def _play(self, runs: Mapping[int, Run], feeds: Mapping[int, Tensors], alone: float) -> None:
        cells = self._cells(list(runs), list(feeds))
        repeats = {cell: max(1, round(SLOT_SECONDS / (alone * cell.rows))) for cell in cells}
        until = time.monotonic() + SECONDS
        for number in range(ROUNDS):
            if number >= LEAST_ROUNDS and time.monotonic() > until:
                break
            turns = {
                cell: take_turn(runs[cell.threads], feeds[cell.rows], cell.callers, repeats[cell]) for cell in cells
            }
            lone = [turn.share for cell, turn in turns.items() if cell.threads == 1]
            if min([*lone, cores_free(self._layouts[0].threads)]) >= CALM:
                self._rounds.append(turns)

    def _rows(self, alone: float) -> tuple[int, ...]:
        fit = (rows for rows in LARGER if rows <= self._max_rows and rows * alone <= BATCH_SECONDS)
        return (1, *([larger] if (larger := next(fit, 0)) else []))

    def _cells(self, threads: Sequence[int], rows: Sequence[int]) -> list[Cell]:
        alone = [Cell(each, 1, 1) for each in threads]
        loaded = [Cell(layout.threads, layout.executors, each) for layout in self._layouts for each in rows]
        return list(dict.fromkeys([*alone, *loaded]))

    def _measurement(self, layout: Layout, rows: Sequence[int]) -> Measurement:
        threads, executors = layout.threads, layout.executors
        by_rows = {each: executors * each / self._least(Cell(threads, executors, each)) for each in rows}
        return Measurement(layout, self._least(Cell(threads, 1, 1)), by_rows)

    def _least(self, cell: Cell) -> float:
        return min(turns[cell].seconds for turns in self._rounds)


def cores_free(threads: int) -> float:
    """For which share of its time each of so many threads gets a core that has work for some milliseconds."""
    return take_turn(lambda _: hashlib.sha256(WORK), {}, threads, 1).share


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
    try:
        for thread in others:
            thread.start()
    except RuntimeError:  # no thread can be started: those that wait must not for ever
        gate.abort()
        raise
    call()
    for thread in others:
        thread.join()
    if errors:
        raise errors[0]
    seconds = max(ended for _, ended, _ in spans) - min(began for began, _, _ in spans)
    return Turn(seconds / repeats, sum(used for _, _, used in spans) / (callers * seconds))
