"""CostBook: what is known of one model version's costs where it is served; its executors share one. Stage: batcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ortmesh.serving.batcher.costs import Costs, Grid
from ortmesh.serving.batcher.slack import Slack
from ortmesh.serving.types import Cell

MOST_SHAPES = 16384
"""So many are remembered: 512 lengths in batches of up to 32."""
RUNS_TO_STALE = 5000
"""After so many runs it is worth measuring again: batches that looked bad were not chosen, and so not corrected."""


RUNS_TO_DOUBT, DOUBTFUL, OFF_RUNS = 200, 0.2, 50
"""When after so many runs the last ones are off by so much (a quarter, up or down), the table is doubtful."""


class CostBook:
    """Thread-safe. It begins empty; a few cells are enough to begin with, live runs correct it."""

    def __init__(self, sizes: Sequence[int], max_size: int = 0) -> None:
        """`sizes` are where costs are told apart (ascending); `max_size` the largest that callers send."""
        self._sizes = tuple(sizes)
        self._max_size = max(max_size, self._sizes[-1])
        self._runs = 0
        self._whole = False
        self._off = 0.0
        """By how much the last runs were off, as the logarithm of a factor."""
        self._seen: set[Cell] = set()
        self.slack = Slack()
        self.costs: Costs | None = None
        """None until something was measured."""
        self._measured: frozenset[Cell] = frozenset()
        self.largest = 0
        """The largest size that was measured: beyond it, costs are a guess."""

    @property
    def stale(self) -> bool:
        """True when it should be measured, or measured anew, once there is time: after many runs, and after some when
        they took other times than the table says. It may have been made while the machine was busy."""
        wrong = self._runs >= RUNS_TO_DOUBT and self._off > DOUBTFUL
        return not self._whole or wrong or self._runs >= RUNS_TO_STALE

    @property
    def speed(self) -> float:
        """How many times what was measured at first a run takes now; 0 while nothing is known."""
        return 0.0 if self.costs is None else self.costs.speed

    def measured(self, cells: Mapping[Cell, float], *, whole: bool = True) -> None:
        """Takes over what a measurement found, in place of what was known; not `whole`: for the time being.

        Nothing when it did not find what one row costs.
        """
        if any(rows == 1 for rows, _ in cells):
            grid = Grid(tuple(sorted({rows for rows, _ in cells})), self._sizes, dict(cells))
            between = 0.0 if self.costs is None else self.costs.between
            self._know(Costs(grid, self._max_size, between=between), frozenset(cells), whole=whole)

    def learn(self, rows: int, size: int, seconds: float) -> None:
        """Takes the time of one run into account. The first run of a shape teaches nothing: it finds memory and, on a
        device, chooses kernels."""
        shape = rows, size
        if shape not in self._seen:
            if len(self._seen) >= MOST_SHAPES:
                self._seen.clear()
            self._seen.add(shape)
        elif self.costs is not None:
            off = abs(self.costs.learn(rows, size, seconds))
            self._off += (min(off, 1.0) - self._off) / OFF_RUNS
            self._runs += 1

    def passed(self, seconds: float) -> None:
        """So long after a run the next one began, while more waited: a batch costs that, too."""
        if self.costs is not None:
            self.costs.passed(seconds)

    def ended(self, *, late: bool) -> None:
        """An answer that had a deadline was made, too late or in time."""
        self.slack.ended(late=late)

    def at_least(self, rows: int, size: int) -> float:
        """Seconds of one run, beyond the largest measured size as of that size: never a guess. 0 when unknown."""
        return 0.0 if self.costs is None else self.costs.seconds(rows, min(size, self.largest))

    def table(self) -> list[tuple[int, int, float]]:
        """(size, rows, seconds of a run) as known now, of the sizes that were measured; empty when nothing is known.

        The size is 0 where all items cost the same.
        """
        if (costs := self.costs) is None:
            return []
        return [
            (self._shown(size), rows, costs.seconds(rows, size)) for size in self._known for rows in costs.grid.rows
        ]

    def was_measured(self, size: int, rows: int) -> bool:
        """True when such a batch was run to find out; False when its cost follows from others. Sizes as in `table`."""
        return (rows, size or 1) in self._measured

    def choices(self) -> list[tuple[int, int, float]]:
        """(size, rows, rows a second): the batch in which a row of each measured size costs least."""
        if (costs := self.costs) is None:
            return []
        return [(self._shown(size), costs.best_rows(size), 1 / costs.price(size)) for size in self._known]

    def to_json(self) -> dict[str, Any]:
        """What the next start begins with; empty while nothing whole is known."""
        if self.costs is None or not self._whole:
            return {}
        return {"grid": self.costs.learnt().to_json(), "measured": sorted(self._measured)}

    def read(self, written: Mapping[str, Any]) -> bool:
        """Takes over what `to_json` wrote; False when it is nothing, or not of this model."""
        try:
            grid = Grid.from_json(written["grid"])
            measured = frozenset((int(rows), int(size)) for rows, size in written["measured"])
        except (KeyError, TypeError, ValueError, IndexError, OverflowError):
            return False
        if grid.sizes != self._sizes or not measured or not measured <= grid.seconds.keys():
            return False
        self._know(Costs(grid, self._max_size, measured=False), measured, whole=True)
        return True

    def _know(self, costs: Costs, measured: frozenset[Cell], *, whole: bool) -> None:
        largest = max(size for _, size in measured)
        self.largest = min(largest, self.largest or largest)  # in between the smaller one holds for both
        self.costs = costs
        self.largest, self._measured, self._whole, self._runs, self._off = largest, measured, whole, 0, 0.0

    @property
    def _known(self) -> list[int]:
        return [size for size in self._sizes if size <= self.largest]

    def _shown(self, size: int) -> int:
        return 0 if self._sizes == (1,) else size
