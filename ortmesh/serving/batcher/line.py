"""Line: a model's waiting items in fair order, so that one caller's flood does not starve another. Stage: batcher.

Who has used least is first. A caller is charged for what was computed for it, whichever of its items that were: batches
take items out of turn. One that comes back starts where those began whose items run (the virtual time of start-time
fair queueing: Goyal, Vin, Cheng 1996), or a few items before, if it has used so much less: without that, a caller who
uses less than its part would wait for others' items between its own whenever several of them come close together, and
more silence than that is not saved up. With one caller that is the order of arrival.
Among a caller's own items priorities share with weights: the higher goes first, and once it has used its part a lower
one's item runs, so that while the higher keeps coming the lower gets a fifth.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from ortmesh.serving.types import Item

MANY_CALLERS = 1024
"""So many are remembered who have nothing waiting."""
SAVED_ITEMS = 16.0
"""Of the usual price: what a caller who is there has left to others may be so much."""
USUAL_WEIGHT = 1 / 32
"""Of the newest item's price in the usual one, an exponential moving average."""
MANY_HEADS = 64
"""Callers whose first item is looked at, where items are let in one by one."""
PRIORITY_WEIGHT = 4.0
"""Of each step of priority; above 8 both classes lose."""

SHARED_SECONDS = 10.0
"""Another caller is expected so long after the last one."""


class Line:
    """Not thread-safe: the pile holds its lock."""

    def __init__(self) -> None:
        self._callers: dict[str, _Turns] = {}
        self._used: dict[str, float] = {}
        """What each caller's computed items have cost, in the unit of prices; of some who are gone, too."""
        self._reached = 0.0
        """What the least busy of those whose items were taken last had used before: where one that comes back starts,
        so that what runs is the last that it waits for."""
        self._usual = 0.0
        """Price of an item, an exponential moving average of those that were taken."""
        self._length = 0
        self._latest: str | None = None
        """Who came last."""
        self._changed = -math.inf
        """When somebody came who was not the one before."""
        self.nbytes = 0
        """Bytes of all items."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        """All items, a caller's after another's."""
        return (item for turns in self._callers.values() for waiting in turns.by_priority.values() for item in waiting)

    def append(self, item: Item, price: float) -> None:
        """Adds an item that will cost its caller so much."""
        item.price = price
        if item.caller != self._latest:
            if self._latest is not None:
                self._changed = item.arrival
            self._latest = item.caller
        if item.caller not in self._callers:
            self._callers[item.caller] = _Turns()
            used = self._used.get(item.caller, self._reached)
            self._used[item.caller] = max(used, self._reached - SAVED_ITEMS * self._usual)
        self._callers[item.caller].append(item)
        self._length += 1
        self.nbytes += item.nbytes

    def shared(self, now: float) -> bool:
        """True when several callers have come lately."""
        return now - self._changed < SHARED_SECONDS

    def of(self, caller: str) -> int:
        """How many items of a caller wait."""
        return len(self._callers[caller]) if caller in self._callers else 0

    def bytes_of(self, caller: str) -> int:
        """How many bytes of a caller wait."""
        return self._callers[caller].nbytes if caller in self._callers else 0

    def first(self, count: int) -> list[Item]:
        """At most so many items from the front."""
        if len(self._callers) == 1:
            (only,) = self._callers.values()
            return list(islice(only.in_order(), count))
        return list(islice(self._in_turns(), count))

    def firsts(self) -> Iterator[Item]:
        """Each caller's first item, in the order of `first`; of many callers those that are before others."""
        heads = [(self._used[caller], next(iter(turns.in_order()))) for caller, turns in self._callers.items()]
        first = heapq.nsmallest(MANY_HEADS, heads, key=lambda head: (head[0], head[1].arrival))
        return (item for _, item in first)

    def drop(self, items: Sequence[Item]) -> None:
        """Removes items that cost nothing, wherever they wait."""
        lines = {(item.caller, item.priority) for item in items}
        self._remove({line: len(self._callers[line[0]].by_priority[line[1]]) for line in lines}, items)

    def take(self, window: Sequence[Item], taken: Sequence[Item], dropped: Sequence[Item]) -> None:
        """Removes items that `first` has just given: those that run, and those that cost nothing."""
        if taken:
            self._reached = max(self._reached, min(self._used[item.caller] for item in taken))
        for item in taken:
            self._usual += (item.price - self._usual) * USUAL_WEIGHT
            self._used[item.caller] += item.price
            self._callers[item.caller].charge(item)
        seen: dict[tuple[str, int], int] = {}
        for item in window:
            seen[item.caller, item.priority] = seen.get((item.caller, item.priority), 0) + 1
        self._remove(seen, [*taken, *dropped])

    def clear(self) -> list[Item]:
        """Removes all items and returns them."""
        items = list(self)
        self._callers.clear()
        self._length = self.nbytes = 0
        self._forget()
        return items

    def _remove(self, fronts: Mapping[tuple[str, int], int], items: Sequence[Item]) -> None:
        """Removes items, which are among the first so many of each caller's priority."""
        gone = {id(item) for item in items}
        for (caller, priority), count in fronts.items():
            turns = self._callers[caller]
            turns.remove(priority, count, gone)
            if not len(turns):
                del self._callers[caller]
        self._length -= len(gone)
        self.nbytes -= sum(item.nbytes for item in items)
        self._forget()

    def _in_turns(self) -> Iterator[Item]:
        """By what each caller would have used when its earlier items have run; of equals the older item."""
        lines = {caller: turns.in_order() for caller, turns in self._callers.items()}
        firsts = {caller: next(line) for caller, line in lines.items()}
        turns = [(self._used[caller], item.arrival, caller) for caller, item in firsts.items()]
        heapq.heapify(turns)
        while turns:
            used, _, caller = turns[0]
            item = firsts[caller]
            yield item
            following = next(lines[caller], None)
            if following is not None:
                firsts[caller] = following
                heapq.heapreplace(turns, (used + item.price, following.arrival, caller))
            else:
                heapq.heappop(turns)

    def _forget(self) -> None:
        """When nobody waits, whatever was used was free. Of many who are gone, the least busy are forgotten."""
        if not self._callers:
            self._used.clear()
            self._reached = 0.0
        elif len(self._used) > len(self._callers) + MANY_CALLERS:
            gone = ((used, caller) for caller, used in self._used.items() if caller not in self._callers)
            busiest = {caller: used for used, caller in heapq.nlargest(MANY_CALLERS // 2, gone)}
            self._used = {caller: self._used[caller] for caller in self._callers} | busiest


class _Turns:
    """What waits of one caller, by priority."""

    __slots__ = ("by_priority", "nbytes", "used")

    def __init__(self) -> None:
        self.by_priority: dict[int, deque[Item]] = {}
        self.used: dict[int, float] = {}
        """What was computed of each priority, by its weight; of those that no longer wait, too: urgent calls that come
        one at a time leave the others their part all the same."""
        self.nbytes = 0

    def __len__(self) -> int:
        return sum(map(len, self.by_priority.values()))

    def append(self, item: Item) -> None:
        """Behind those of its priority."""
        if item.priority not in self.by_priority:
            least = min((self.used[priority] for priority in self.by_priority), default=0.0)
            self.used[item.priority] = max(self.used.get(item.priority, 0.0), least)
            self.by_priority[item.priority] = deque()
        self.by_priority[item.priority].append(item)
        self.nbytes += item.nbytes

    def in_order(self) -> Iterator[Item]:
        """All, in the order in which they run one by one while no more come: each time the `_next`."""
        if len(self.by_priority) == 1:
            (only,) = self.by_priority.values()
            return iter(only)
        return self._in_turns()

    def charge(self, item: Item) -> None:
        """An item runs."""
        self.used[item.priority] += item.price / PRIORITY_WEIGHT**item.priority

    def remove(self, priority: int, count: int, gone: set[int]) -> None:
        """Of the first so many of a priority, those that are gone."""
        line = self.by_priority[priority]
        front = [line.popleft() for _ in range(count)]
        line.extendleft(item for item in reversed(front) if id(item) not in gone)
        self.nbytes -= sum(item.nbytes for item in front if id(item) in gone)
        if not line:
            del self.by_priority[priority]

    def _in_turns(self) -> Iterator[Item]:
        lines = {priority: iter(self.by_priority[priority]) for priority in sorted(self.by_priority, reverse=True)}
        firsts = {priority: next(line) for priority, line in lines.items()}
        used = {priority: self.used[priority] for priority in lines}
        while firsts:
            priority = _next(firsts, used)
            item = firsts[priority]
            yield item
            used[priority] += item.price / PRIORITY_WEIGHT**priority
            following = next(lines[priority], None)
            if following is None:
                del firsts[priority]
            else:
                firsts[priority] = following


def _next(firsts: Mapping[int, Item], used: Mapping[int, float]) -> int:
    """The priority whose first item is next; `firsts` from the highest priority down, which are few.

    A lower one's item goes before a higher one's when it would leave the lower with less used than as much of the
    higher's would. For items of one price that is the order of their finish tags (self-clocked fair queueing: Golestani
    1994). By their own prices a long urgent item would wait for short ones that are not.
    """
    best, *lower = firsts
    for priority in lower:
        price = firsts[priority].price
        if used[priority] + price / PRIORITY_WEIGHT**priority < used[best] + price / PRIORITY_WEIGHT**best:
            best = priority
    return best
