"""Which waiting items run next, as one batch: pure functions. Stage: batcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ortmesh.serving.types import Item

Policy = Callable[[Sequence[Item], int, float], list[int]]
"""(waiting in order of arrival, most rows, now) to the indices that run together, ascending, at least one."""


def arrival_order(waiting: Sequence[Item], limit: int, now: float) -> list[int]:
    """The oldest item of the highest priority, and whatever may share a batch with it, oldest first.

    An item of more rows than the limit runs alone, and so does a solo one. O(waiting) at worst, O(batch) when all
    items are of one group and one priority.
    """
    first = _oldest_of_highest_priority(waiting)
    lead = waiting[first]
    if lead.solo or lead.rows >= limit:
        return [first]
    chosen, rows = [first], lead.rows
    for index, item in enumerate(waiting):
        if index == first or item.solo or item.group != lead.group or rows + item.rows > limit:
            continue
        chosen.append(index)
        rows += item.rows
        if rows == limit:
            break
    return sorted(chosen)


def _oldest_of_highest_priority(waiting: Sequence[Item]) -> int:
    best = 0
    for index, item in enumerate(waiting):
        if item.priority > waiting[best].priority:
            best = index
    return best
