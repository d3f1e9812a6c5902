"""Which waiting items run next, as one batch. Stage: batcher."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ortmesh.serving.batcher.book import CostBook
from ortmesh.serving.batcher.compose import ENOUGH, compose
from ortmesh.serving.batcher.costs import Costs
from ortmesh.serving.types import Item

UNKNOWN_SECONDS = 0.001
"""A row's price while costs are not known. Seconds as well, and few: what callers have used by then counts beside
what they use later."""


class Policy(Protocol):
    """What a pile asks. Called with its lock held: no blocking, no side effects."""

    def choose(self, waiting: Sequence[Item], limit: int, now: float, *, shared: bool) -> list[int]:
        """The items that run together, at most `limit` rows or one item: ascending indices, at least one. `shared` is
        True when several callers have asked lately: then it matters how long a batch takes."""

    def price(self, item: Item) -> float:
        """What an item takes of its caller's share."""

    def seconds(self, item: Item) -> float:
        """How much time an item must have left: one that has less is not begun while others wait."""


class ArrivalOrder:
    """The oldest item and whatever may share a batch with it, oldest first: for a model whose costs are not known."""

    def choose(self, waiting: Sequence[Item], limit: int, now: float, *, shared: bool) -> list[int]:
        """O(waiting) at worst, O(batch) when all items are of one group and one priority."""
        return oldest_first(waiting, limit)

    def price(self, item: Item) -> float:
        """Its rows."""
        return float(item.rows)

    def seconds(self, item: Item) -> float:
        """Nobody knows."""
        return 0.0


class BySize(ArrivalOrder):
    """In order of arrival, and what an item takes of its caller's share is its size: for texts, their tokens."""

    def price(self, item: Item) -> float:
        """Its size."""
        return float(item.size)


class CostAware:
    """Batches of the size that the device likes, of items whose sizes go together; in order of arrival while costs
    are not known."""

    def __init__(self, book: CostBook, *, sized: bool) -> None:
        """`sized` is False for a model whose items all cost the same: it needs no search."""
        self._book = book
        self._sized = sized

    def choose(self, waiting: Sequence[Item], limit: int, now: float, *, shared: bool) -> list[int]:
        """As `compose` does; for items that all cost the same, the oldest up to the best batch."""
        costs = self._book.costs
        if costs is None:
            return oldest_first(waiting, limit)
        if self._sized:
            return compose(waiting, costs, limit, now, self._book.slack.factor, shared=shared)
        best = costs.least_rows(0, ENOUGH) if shared else costs.best_rows(0)
        return self._in_time(waiting, costs, min(limit, best), now)

    def price(self, item: Item) -> float:
        """The least seconds that it can cost; so many a row while costs are not known."""
        costs = self._book.costs
        return (UNKNOWN_SECONDS if costs is None else costs.price(item.size)) * item.rows

    def seconds(self, item: Item) -> float:
        """What a run with this item alone costs, beyond what was measured the least that is certain, and the slack that
        late answers have taught."""
        return self._book.at_least(item.rows, item.size) * self._book.slack.factor

    def _in_time(self, waiting: Sequence[Item], costs: Costs, limit: int, now: float) -> list[int]:
        """The first in line, as many as are in time together. Where others fill a batch for which these are too late,
        it is theirs: in a flood the oldest always are."""
        chosen, rows = oldest_first(waiting, limit), limit
        while len(chosen) > 1 and now + self._needs(costs, rows) > min(waiting[each].deadline for each in chosen):
            able = [index for index, item in enumerate(waiting) if item.deadline >= now + self._needs(costs, rows)]
            if sum(waiting[index].rows for index in able) >= rows:
                return [able[index] for index in oldest_first([waiting[index] for index in able], rows)]
            rows //= 2
            chosen = oldest_first(waiting, rows)
        return chosen

    def _needs(self, costs: Costs, rows: int) -> float:
        """Seconds that items of a batch of so many rows must have left."""
        return costs.seconds(rows, 0) * self._book.slack.factor


def oldest_first(waiting: Sequence[Item], limit: int) -> list[int]:
    """The first in line, and whatever may share a batch with it, first come first.

    An item of more rows than the limit runs alone, and so does a solo one.
    """
    lead = waiting[0]
    if lead.solo or lead.rows >= limit:
        return [0]
    chosen, rows = [0], lead.rows
    for index, item in enumerate(waiting):
        if not index or item.solo or item.group != lead.group or rows + item.rows > limit:
            continue
        chosen.append(index)
        rows += item.rows
        if rows == limit:
            break
    return chosen
