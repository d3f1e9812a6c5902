"""Slack: how much longer than computed an answer may take, learnt from those that came too late. Stage: batcher."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

FIRST = 1.25
LATE, SOONER = 1.0, 0.99
"""A late answer adds a run, one in time takes off a hundredth of what was added. In a flood of 20 times what a model
can do, with deadlines of five runs, 98 % of the computed answers are in time where 5 % of the runs take up to 2.5 times
as long (simulated), 1 % without; on two busy cores it is what bench/results/flood.md says. Where so many wait, those
that are not tried cost nothing."""
MOST = 4.0
HALF_SECONDS = 2.0
"""In which half of what was added is forgotten: what nobody tries nobody finds to be in time."""


class Slack:
    """In a flood the oldest item that can be in time at all has no time to spare, so that whatever disturbs its run, or
    the way to its caller, makes it late, and all that are computed are such items. Thread-safe: a lost update costs
    nothing but a little time to learn."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known = FIRST - 1, clock()

    @property
    def factor(self) -> float:
        """Times the seconds that a run is thought to take: so much time an item must have."""
        added, since = self._known
        return 1 + added * math.exp2((since - self._clock()) / HALF_SECONDS)

    def ended(self, *, late: bool) -> None:
        """An answer that had a deadline was made, too late or in time."""
        added = self.factor - 1
        self._known = min(added + LATE, MOST - 1) if late else added * SOONER, self._clock()
