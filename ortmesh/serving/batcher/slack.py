"""Slack: how much longer than computed an answer may take, learnt from those that came too late. Stage: batcher."""

from __future__ import annotations

FIRST = 1.25
LATE, SOONER = 0.5, 0.98
"""A late answer adds half a run, one in time takes off a fiftieth of what was added. In a flood of 20 times what a
model can do, with deadlines of five runs, 94 % of the computed answers are in time where 5 % of the runs are disturbed
(simulated), 1 % without; on two busy cores it is what bench/results/flood.md says."""
MOST = 4.0


class Slack:
    """In a flood the oldest item that can be in time at all has no time to spare, so that whatever disturbs its run, or
    the way to its caller, makes it late, and all that are computed are such items. Thread-safe: a lost update costs
    nothing but a little time to learn."""

    def __init__(self) -> None:
        self.factor = FIRST
        """Times the seconds that a run is thought to take: so much time an item must have."""

    def ended(self, *, late: bool) -> None:
        """An answer that had a deadline was made, too late or in time."""
        self.factor = min(self.factor + LATE, MOST) if late else 1 + (self.factor - 1) * SOONER
