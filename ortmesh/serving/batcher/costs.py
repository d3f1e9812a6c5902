"""Costs: what one run of a model takes, by its rows and its size; measured, interpolated, learning. Stage: batcher."""

from __future__ import annotations

import bisect
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

EXACT, STEPS = 64, 192
"""Sizes are looked up one by one so far, and beyond it in so many steps that grow with them: 4 % at 64,000."""
MOST_ROWS = 4096
NO_GAIN = 0.02
"""A larger batch that saves less a row is not better: all in it would wait longer."""
LEAST_SECONDS = 1e-7
DISTURBED = 1.2
"""A batch never costs much more than its halves: a cell that does was measured while something else ran."""
SPEED, SHAPE, FORGET = 0.05, 0.1, 0.002
"""Of what a run shows: the weight of the device's speed, the weight of its own cells, and how fast the latter fades, so
that a bad sample cannot bar a cell for ever."""
MOST_AT_ONCE = 0.2
"""A run's surprise is clipped to a fifth: on a machine that does other work too, some run takes twice its time by
chance. With a clip of e they cost 2 % of the throughput; so a table that is wrong by 3 takes 100 runs instead of 40."""
BETWEEN, LONGEST_BETWEEN = 0.05, 0.005
"""The weight of one run, and the most seconds that count, of what passes between two: some wait is the machine's."""
RUNS_A_REFRESH = 8
"""The table is worked out anew after so many runs (some 40 µs); the device's speed counts at once."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What was measured: seconds of one run for some rows and sizes. What was not measured is absent."""

    rows: tuple[int, ...]
    """Ascending; the last is the largest batch worth running."""
    sizes: tuple[int, ...]
    """Ascending, at least 1; one entry where all items cost the same."""
    seconds: Mapping[tuple[int, int], float]
    """By (rows, size); (1, size) is there for one size at least."""

    def to_json(self) -> dict[str, Any]:
        """As it is kept on disk."""
        cells = [[rows, size, seconds] for (rows, size), seconds in sorted(self.seconds.items())]
        return {"rows": list(self.rows), "sizes": list(self.sizes), "seconds": cells}

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Grid:
        """Reads what `to_json` wrote. KeyError, TypeError or ValueError for anything else."""
        seconds = {(int(rows), int(size)): float(cost) for rows, size, cost in written["seconds"]}
        grid = cls(tuple(map(int, written["rows"])), tuple(map(int, written["sizes"])), seconds)
        if not any(rows == 1 for rows, _ in seconds) or any(not 0 < cost < np.inf for cost in seconds.values()):
            raise ValueError("a grid needs a positive cost of one row")
        if list(grid.rows) != sorted(set(grid.rows)) or list(grid.sizes) != sorted(set(grid.sizes)):
            raise ValueError("rows and sizes ascend")
        if grid.rows[0] != 1 or grid.rows[-1] > MOST_ROWS:
            raise ValueError(f"rows are 1 to {MOST_ROWS}")
        if any(rows not in grid.rows or size not in grid.sizes for rows, size in seconds):
            raise ValueError("a cell is beyond the grid")
        return grid


class Costs:
    """Seconds of one run for any rows and size. Thread-safe: readers see the table before or after a refresh."""

    def __init__(self, grid: Grid, max_size: int = 0, *, measured: bool = True, between: float = 0.0) -> None:
        """`max_size` is the largest size that will be asked for, where it is beyond the grid's. What was `measured`
        may have been disturbed by whatever else ran; what was learnt is taken as it is. `between` is what has passed
        between runs so far."""
        self.grid = grid
        self.between = between
        """Seconds that pass between two runs while more waits: choosing, stacking, answering. A batch costs them once,
        so that of batches that cost as much a row the larger is cheaper."""
        self.max_rows = grid.rows[-1]
        self._dense_sizes = _dense_sizes(max(max_size, grid.sizes[-1]))
        self._steps = self._dense_sizes.tolist()
        self._by_size = interpolation(grid.sizes, np.maximum(1, self._dense_sizes))
        self._by_rows = interpolation(grid.rows, np.arange(1, self.max_rows + 1))
        self._near_size, self._near_rows = np.clip(self._by_size, 0, 1), np.clip(self._by_rows, 0, 1)
        self._prior = _filled(grid, measured=measured)
        self._offset = np.zeros_like(self._prior)
        self._speed = 1.0
        self._runs = 0
        self._lock = threading.Lock()
        self._refresh()

    @property
    def speed(self) -> float:
        """How many times what was measured at first a run takes now."""
        return self._speed

    def seconds(self, rows: int, size: int) -> float:
        """Of one run; rows beyond the table's cost in proportion."""
        within = min(rows, self.max_rows)
        return float(self._dense[self._index_of(size), within - 1]) * self._speed * rows / within

    def table(self, sizes: Floats) -> Floats:
        """[items, max_rows]: seconds of 1, 2, … rows of each of these sizes, with what passes before the next run."""
        found: Floats = self._dense[self._index(sizes)] * self._speed + self.between
        return found

    def prices(self, sizes: Floats) -> Floats:
        """[items]: the least that a row of each size can cost, in the best batch of its own size."""
        found: Floats = self._prices[self._index(sizes)] * self._speed
        return found

    def price(self, size: int) -> float:
        """The least that a row of this size can cost."""
        return float(self._prices[self._index_of(size)]) * self._speed

    def best_rows(self, size: int) -> int:
        """The rows of the smallest batch in which a row of this size costs least, among those that are told apart."""
        return int(self._best[self._index_of(size)])

    def least_rows(self, size: int, share: float) -> int:
        """The rows of the smallest batch that computes so large a share of the rows a second that the best one does."""
        line = self._dense[self._index_of(size)]
        rates = np.arange(1, self.max_rows + 1) / (line * self._speed + self.between)
        return int((rates >= share * rates.max()).argmax()) + 1

    def learn(self, rows: int, size: int, seconds: float) -> float:
        """Takes the time of one run into account; how far off it was, as the logarithm of a factor."""
        if rows > self.max_rows or seconds <= 0:
            return 0.0
        with self._lock:
            off = math.log(seconds / self.seconds(rows, size))
            surprise = min(max(off, -MOST_AT_ONCE), MOST_AT_ONCE)
            self._speed *= math.exp(SPEED * surprise)
            self._offset *= 1 - FORGET
            near = self._near_rows[rows - 1] * (SHAPE * surprise)
            self._offset += self._near_size[self._index_of(size)][:, None] * near
            self._runs += 1
            if self._runs % RUNS_A_REFRESH == 0:
                self._refresh()
        return off

    def passed(self, seconds: float) -> None:
        """So long after a run the next one began, while more waited."""
        self.between += BETWEEN * (min(max(seconds, 0.0), LONGEST_BETWEEN) - self.between)

    def learnt(self) -> Grid:
        """The grid as it is known now, every cell filled: what the next start begins with."""
        with self._lock:
            cells = np.maximum.accumulate(self._prior * np.exp(self._offset), axis=1) * self._speed
        keys = [(rows, size) for size in self.grid.sizes for rows in self.grid.rows]
        return Grid(self.grid.rows, self.grid.sizes, dict(zip(keys, cells.ravel().tolist(), strict=True)))

    def _index(self, sizes: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        index: npt.NDArray[np.int64] = np.minimum(np.searchsorted(self._dense_sizes, sizes), len(self._steps) - 1)
        return index

    def _index_of(self, size: int) -> int:
        """As `_index`, of one: NumPy takes 5 µs for that."""
        return min(bisect.bisect_left(self._steps, size), len(self._steps) - 1)

    def _refresh(self) -> None:
        dense = self._by_size @ (self._prior * np.exp(self._offset)) @ self._by_rows.T
        # More rows never cost less.
        dense = np.maximum(np.maximum.accumulate(dense, axis=1), LEAST_SECONDS)
        a_row = (dense + self.between / self._speed) / np.arange(1, self.max_rows + 1)
        self._prices = a_row.min(axis=1)
        known = np.array(self.grid.rows)
        near = a_row[:, known - 1] <= (1 + NO_GAIN) * a_row[:, known - 1].min(axis=1, keepdims=True)
        self._best = known[near.argmax(axis=1)]
        self._dense = dense


def _dense_sizes(largest: int) -> npt.NDArray[np.int64]:
    """Ascending, from 0 to the largest."""
    exact = np.arange(min(EXACT, largest) + 1)
    beyond = np.ceil(np.geomspace(EXACT, largest, STEPS)) if largest > EXACT else np.array([])
    return np.unique(np.concatenate((exact, beyond)).astype(np.int64))


def interpolation(grid: Sequence[int], at: npt.NDArray[Any]) -> Floats:
    """[len(at), len(grid)]: weights by which values on the grid give those between, and beyond in a line."""
    points, wanted = np.asarray(grid, float), np.asarray(at, float)
    weights = np.zeros((len(wanted), len(points)))
    if len(points) == 1:  # in proportion
        weights[:, 0] = wanted / points[0]
        return weights
    right = np.clip(np.searchsorted(points, wanted), 1, len(points) - 1)
    share = (wanted - points[right - 1]) / (points[right] - points[right - 1])
    each = np.arange(len(wanted))
    weights[each, right - 1] = 1 - share
    weights[each, right] = share
    return weights


def _filled(grid: Grid, *, measured: bool) -> Floats:
    """[sizes, rows]: the grid with every cell: what is missing goes on from its neighbours, disturbed cells are cut."""
    cells = np.full((len(grid.sizes), len(grid.rows)), np.nan)
    for (rows, size), seconds in grid.seconds.items():
        cells[grid.sizes.index(size), grid.rows.index(rows)] = seconds
    if measured:
        cells = _undisturbed(cells)
    known = [int(each) for each in np.flatnonzero(~np.isnan(cells).all(axis=1))]
    for line in known:
        cells[line] = _along_rows(cells[line], grid.rows)
    for line in set(range(len(cells))) - set(known):
        weights = interpolation([grid.sizes[each] for each in known], np.array([grid.sizes[line]]))
        cells[line] = np.maximum(weights[0] @ cells[known], LEAST_SECONDS)
    for column in range(1, len(grid.rows) if measured else 0):
        most = cells[:, column - 1] * grid.rows[column] / grid.rows[column - 1]
        cells[:, column] = np.where(cells[:, column] > DISTURBED * most, most, cells[:, column])
    return cells


def _undisturbed(cells: Floats) -> Floats:
    """What was measured, or what a larger batch or size took if that was less: it could be padded to that."""
    least = np.fmin.accumulate(cells[::-1, ::-1], axis=0)
    least = np.fmin.accumulate(least, axis=1)[::-1, ::-1]
    kept: Floats = np.where(np.isnan(cells), cells, least)
    return kept


def _along_rows(line: Floats, rows: Sequence[int]) -> Floats:
    """Missing batches of one size: the last marginal cost goes on."""
    measured = [int(each) for each in np.flatnonzero(~np.isnan(line))]
    guessed = interpolation([rows[each] for each in measured], np.array(rows)) @ line[measured]
    filled: Floats = np.where(np.isnan(line), np.maximum(guessed, line[measured[0]] / 2), line)
    return filled
