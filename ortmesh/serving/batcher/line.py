"""Line: a model's waiting items in fair order, so that one caller's flood does not starve another. Stage: batcher.

Start-time fair queueing (Goyal, Vin, Cheng 1996): an item begins, in virtual time, when its caller's last one ends, and
no earlier than what was served last; who begins first is first in line. With one caller that is the order of arrival.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from ortmesh.serving.types import Item

MANY_CALLERS = 1024
"""Beyond so many, those who are gone are forgotten, the least busy first."""


class Line:
    """Not thread-safe: the pile holds its lock."""

    def __init__(self) -> None:
        self._callers: dict[str, deque[Item]] = {}
        self._ends: dict[str, float] = {}
        """When each caller's last item ends, in virtual time."""
        self._now = 0.0
        """Virtual time: the beginning of what was served last."""
        self._latest = 0.0
        self._length = 0
        self.nbytes = 0
        """Bytes of all items."""

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item]:
        """All items in order."""
        if len(self._callers) == 1:
            (only,) = self._callers.values()
            return iter(only)
        return heapq.merge(*self._callers.values(), key=_order)

    def append(self, item: Item, price: float) -> None:
        """Adds an item that costs its caller's share so much."""
        item.begins = max(self._now, self._ends.get(item.caller, 0.0))
        end = self._ends[item.caller] = item.begins + price
        self._latest = max(self._latest, end)
        self._callers.setdefault(item.caller, deque()).append(item)
        self._length += 1
        self.nbytes += item.nbytes
        if len(self._ends) > MANY_CALLERS:
            self._forget()

    def of(self, caller: str) -> int:
        """How many items of a caller wait."""
        return len(self._callers.get(caller, ()))

    def first(self, count: int) -> list[Item]:
        """At most so many items from the front."""
        return list(islice(iter(self), count))

    def take(self, window: Sequence[Item], taken: Sequence[Item], dropped: Sequence[Item]) -> None:
        """Removes items that `first` has just given: those that run, and those that cost nothing."""
        if taken:
            self._now = max(self._now, min(item.begins for item in taken))
        gone = {id(item) for item in taken} | {id(item) for item in dropped}
        seen: dict[str, int] = {}
        for item in window:
            seen[item.caller] = seen.get(item.caller, 0) + 1
        for caller, count in seen.items():
            line = self._callers[caller]
            front = [line.popleft() for _ in range(count)]
            line.extendleft(item for item in reversed(front) if id(item) not in gone)
            if not line:
                del self._callers[caller]
        self._length -= len(gone)
        self.nbytes -= sum(item.nbytes for item in taken) + sum(item.nbytes for item in dropped)
        if not self._length:
            self._begin_anew()

    def clear(self) -> list[Item]:
        """Removes all items and returns them."""
        items = list(self)
        self._callers.clear()
        self._length = self.nbytes = 0
        self._begin_anew()
        return items

    def _begin_anew(self) -> None:
        """Nobody waits: whatever a caller has used was free."""
        self._now = self._latest
        self._ends.clear()

    def _forget(self) -> None:
        """Keeps who waits, and of the others those that have used the most."""
        waiting = {caller: end for caller, end in self._ends.items() if caller in self._callers}
        gone = ((caller, end) for caller, end in self._ends.items() if caller not in waiting and end > self._now)
        self._ends = waiting | dict(heapq.nlargest(MANY_CALLERS // 2, gone, key=lambda each: each[1]))


def _order(item: Item) -> tuple[float, float]:
    return item.begins, item.arrival
