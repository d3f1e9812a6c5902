"""Compose: which waiting items run next, chosen by what batches cost and how long items have waited. Stage: batcher.

Items of one group, sorted by size, are scored in every contiguous window by value a second: an item's value is what it
would cost at best, raised by its age. So a batch is as large as the device likes it, pads no more than it gains, and
nobody starves. The figures behind the constants: bench/results/batching.md.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from ortmesh.serving.batcher.costs import Costs, Floats
from ortmesh.serving.batcher.line import PRIORITY_WEIGHT
from ortmesh.serving.types import Item

Indices = npt.NDArray[np.int64]

SIZE_EXPONENT = 0.75
"""1 would never mind a long item, 0 would let short ones starve it."""
AGES_OF_PATIENCE = 3.0
"""Patience is the mean price plus so many mean ages: it follows load and device, and no second is written down."""
OLD = 1.5
"""An item older than so many patiences goes now."""
ENOUGH = 0.8
"""Where several callers ask, the next one waits for the end of what runs: of the batches whose value a second is so
much of the best one's, the shortest. Beside another's bursts a caller's p99 was 2.7 to 5 times what it is alone with
0.9 and 1.8 to 2.3 with 0.8 (MiniLM, through the service)."""
NO_LOSS = 0.02
"""Of batches that take so nearly as short, the best."""
MOST_OF_ALONE = 1.5
"""Where several callers' items wait, a batch takes at most so many times what the one whose turn it is would take
alone."""
MOST_STEPS = 2
"""Priorities further apart than that count no more."""


class _Company(Enum):
    """Who has asked lately."""

    ONE = "one caller, or nobody knows"
    ONE_OF_SEVERAL = "several callers, of which one's items wait"
    SEVERAL = "several callers, whose items wait"

    @classmethod
    def of(cls, waiting: Sequence[Item], *, shared: bool) -> _Company:
        first = waiting[0].caller
        if any(item.caller != first for item in waiting):
            return cls.SEVERAL
        return cls.ONE_OF_SEVERAL if shared else cls.ONE


def compose(
    waiting: Sequence[Item], costs: Costs, limit: int, now: float, slack: float = 1.0, *, shared: bool = False
) -> list[int]:
    """Which items run next, as one batch of at most `limit` rows (an item of more runs alone). A pure function.

    `waiting` is in fair order and holds only what is worth running; `shared` tells that several callers ask, even when
    one's items wait. No batch makes one of its items late, if it takes `slack` times what it costs. O(n · limit), in
    NumPy: some 70 µs for tens.
    """
    if len(waiting) == 1:
        return [0]
    limit = min(limit, costs.max_rows)
    items, company = _Items.of(waiting, costs, now), _Company.of(waiting, shared=shared)
    search = _Search(items, company, costs, limit, now, slack)
    must = _due(items, company)
    if must is not None:
        members = _members(waiting, limit)[_key(waiting, must, limit)]
        return search.best_of(members, must).chosen
    windows = (search.best_of(members) for members in _members(waiting, limit).values())
    return max(windows, key=lambda window: window.gain).chosen


def _due(items: _Items, company: _Company) -> int | None:
    """The item that the next batch must hold: the first in line where several callers wait, else one far older
    than the rest, if there is any."""
    if company is _Company.SEVERAL:
        return 0
    oldest = int(items.age.argmax())
    return oldest if items.age[oldest] > OLD * items.patience else None


@dataclass(frozen=True, slots=True)
class _Items:
    """What counts of the waiting items, an entry each."""

    size: Floats
    rows: Indices
    age: Floats
    deadline: Floats
    price: Floats
    """The least seconds that the item can cost."""
    worth: Floats
    """The price, for which a long item is not begrudged and a short one not starved, by priority."""
    value: Floats
    """Its worth, raised by its age."""
    patience: float
    weight: Floats
    """By priority."""

    def equal(self, one: int, other: int) -> bool:
        """True when two items differ in nothing but their ages."""
        return bool(
            self.size[one] == self.size[other]
            and self.rows[one] == self.rows[other]
            and self.weight[one] == self.weight[other]
        )

    @classmethod
    def of(cls, waiting: Sequence[Item], costs: Costs, now: float) -> _Items:
        table = np.array([(item.size, item.rows, item.arrival, item.deadline, item.priority) for item in waiting]).T
        size, rows, arrival, deadline, priority = table
        age = now - arrival
        price = costs.prices(size) * rows
        patience = float(price.mean() + AGES_OF_PATIENCE * age.mean())
        weight = PRIORITY_WEIGHT ** np.clip(priority, -MOST_STEPS, MOST_STEPS)
        worth = weight * price**SIZE_EXPONENT
        value = worth * (1 + age / patience)
        return cls(size, rows.astype(np.int64), age, deadline, price, worth, value, patience, weight)


@dataclass(frozen=True, slots=True)
class _Window:
    """A batch and its value a second."""

    chosen: list[int]
    gain: float


@dataclass(frozen=True, slots=True)
class _Search:
    """What windows are judged by."""

    items: _Items
    company: _Company
    costs: Costs
    limit: int
    now: float
    slack: float

    def best_of(self, members: Sequence[int], must: int | None = None) -> _Window:
        """The best batch of one group, one that holds `must` where it is given."""
        items, order = self.items, np.array(members)
        order = order[np.lexsort((order, items.weight[order], items.rows[order], items.size[order]))]
        if len(order) == 1:
            only = int(order[0])
            seconds = self.costs.seconds(int(items.rows[only]), int(items.size[only]))
            return _Window([only], float(items.value[only] / seconds))
        rows, valid, cost = _batches(items, order, self.costs, self.limit)
        # Beside others a burst's age must not draw its items into the batch that must hold somebody else's.
        value = items.worth if self.company is _Company.SEVERAL else items.value
        gain = np.where(valid, _sums(value[order], len(rows[0])) / cost, -np.inf)
        gain = np.where(_late(items.deadline[order], cost * self.slack, self.now), -np.inf, gain)
        price = _sums(items.price[order], len(rows[0]))
        if must is not None:
            at = int(np.flatnonzero(order == must)[0])
            allowed = _holds(gain.shape, at, at)
            if self.company is _Company.SEVERAL:
                # Others join it only where they cost no more than they would at best by themselves.
                allowed &= (price - cost >= price[at, 0] - cost[at, 0]) & (cost <= MOST_OF_ALONE * cost[at, 0])
            gain = np.where(allowed, gain, -np.inf)
        end, back = self._choose(gain, cost, price)
        chosen = _elders(items, order, end - back, end, self.now + self.slack * float(cost[end, back]))
        return _Window(sorted(order[chosen].tolist()), float(gain.max()))

    def _choose(self, gain: Floats, cost: Floats, price: Floats) -> tuple[int, int]:
        """(end, span) of a batch: by its value a second; where several callers ask, by how long it holds them up."""
        if self.company is not _Company.ONE:
            enough = gain >= ENOUGH * gain.max()
            shortest = cost[enough].min()
            return _place(np.where(enough & (cost <= (1 + NO_LOSS) * shortest), gain, -np.inf))
        end, back = _place(gain)
        # Free riders: the batch grows while those that join cost no more than they would at best.
        spare = np.where((gain > -np.inf) & _holds(gain.shape, end - back, end), price - cost, -np.inf)
        return _place(spare)


def _elders(items: _Items, order: Indices, first: int, last: int, done: float) -> list[int]:
    """The places from `first` to `last`, but of equals the older ones: a window that ends among equals, seen from the
    larger sizes, holds the younger. Not one that would be late when the batch is done."""
    low, high = first, first + 1
    while low > 0 and items.equal(order[low - 1], order[first]):
        low -= 1
    if low == first:
        return list(range(first, last + 1))
    while high < len(order) and items.equal(order[high], order[first]):
        high += 1
    equals = [place for place in range(low, high) if items.deadline[order[place]] >= done or first <= place <= last]
    rest = list(range(high, last + 1))
    return equals[: last + 1 - first - len(rest)] + rest


def _batches(items: _Items, order: Indices, costs: Costs, limit: int) -> tuple[Indices, npt.NDArray[np.bool_], Floats]:
    """(rows, allowed, seconds), each [items, span]: of the batch of `span + 1` items that ends at each item."""
    most = min(limit, len(order))
    rows = _sums(items.rows[order], most).astype(np.int64)
    complete = np.arange(len(order))[:, None] >= np.arange(most)
    table = costs.table(items.size[order])
    within = np.clip(rows, 1, table.shape[1])
    cost = np.take_along_axis(table, within - 1, axis=1)
    return rows, complete & (rows <= limit), cost


def _sums(values: npt.NDArray[np.number], most: int) -> Floats:
    """[items, most]: the sums of the 1, 2, … values that end at each item."""
    total = np.concatenate(([0.0], np.cumsum(values)))
    first = np.maximum(np.arange(len(values))[:, None] - np.arange(most), 0)
    sums: Floats = total[1:, None] - total[first]
    return sums


def _late(deadline: Floats, cost: Floats, now: float) -> npt.NDArray[np.bool_]:
    """True where a batch would make one of its own items late, and not by that item's own cost."""
    late = np.zeros(cost.shape, bool)
    if deadline.min() < np.inf:
        first = np.maximum(np.arange(len(deadline))[:, None] - np.arange(cost.shape[1]), 0)
        late = now + cost > np.minimum.accumulate(deadline[first], axis=1)
        late[:, 0] = False
    return late


def _holds(shape: tuple[int, int], low: int, high: int) -> npt.NDArray[np.bool_]:
    """True for the batches that hold the places from `low` to `high`."""
    last = np.arange(shape[0])[:, None]
    held: npt.NDArray[np.bool_] = (last - np.arange(shape[1]) <= low) & (last >= high)
    return held


def _place(score: Floats) -> tuple[int, int]:
    """(end, span) of the batch with the highest score."""
    end, back = divmod(int(score.argmax()), score.shape[1])
    return end, back


def _key(waiting: Sequence[Item], index: int, limit: int) -> Hashable:
    """What an item shares a batch by; its own number when it runs alone."""
    item = waiting[index]
    return index if item.solo or item.rows >= limit else (item.group,)


def _members(waiting: Sequence[Item], limit: int) -> dict[Hashable, list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for index in range(len(waiting)):
        groups.setdefault(_key(waiting, index, limit), []).append(index)
    return groups
