"""Line: a model's waiting items in fair order, so that one caller's flood does not starve another. Stage: batcher.

Who has used least is first. A caller is charged for what was computed for it, whichever of its items that were: batches
take items out of turn. One that comes back starts where the least busy of those who wait stands: silence is not saved
up (the virtual time of fair queueing: Demers, Keshav, Shenker 1989). With one caller that is the order of arrival.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from ortmesh.serving.types import Item

MANY_CALLERS = 1024
"""So many are remembered who have nothing waiting."""


class Line:
    """Not thread-safe: the pile holds its lock."""

    def __init__(self) -> None:
        self._callers: dict[str, deque[Item]] = {}
        self._used: dict[str, float] = {}
        """What each waiting caller's computed items have cost, in the unit of prices."""
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
        return self._in_turns()

    def append(self, item: Item, price: float) -> None:
        """Adds an item that will cost its caller so much."""
        item.price = price
        if item.caller not in self._callers:
            self._callers[item.caller] = deque()
            self._used.setdefault(item.caller, 0.0)
            others = (self._used[caller] for caller in self._callers if caller != item.caller)
            self._used[item.caller] = max(self._used[item.caller], min(others, default=0.0))
        self._callers[item.caller].append(item)
        self._length += 1
        self.nbytes += item.nbytes

    def of(self, caller: str) -> int:
        """How many items of a caller wait."""
        return len(self._callers.get(caller, ()))

    def first(self, count: int) -> list[Item]:
        """At most so many items from the front."""
        return list(islice(iter(self), count))

    def take(self, window: Sequence[Item], taken: Sequence[Item], dropped: Sequence[Item]) -> None:
        """Removes items that `first` has just given: those that run, and those that cost nothing."""
        for item in taken:
            self._used[item.caller] += item.price
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
        self._forget()

    def clear(self) -> list[Item]:
        """Removes all items and returns them."""
        items = list(self)
        self._callers.clear()
        self._length = self.nbytes = 0
        self._forget()
        return items

    def _in_turns(self) -> Iterator[Item]:
        """By what each caller would have used when its earlier items have run; of equals the older item."""
        turns = [(self._used[caller], line[0].arrival, caller, 0) for caller, line in self._callers.items()]
        heapq.heapify(turns)
        while turns:
            used, _, caller, at = turns[0]
            line = self._callers[caller]
            item = line[at]
            yield item
            if at + 1 < len(line):
                heapq.heapreplace(turns, (used + item.price, line[at + 1].arrival, caller, at + 1))
            else:
                heapq.heappop(turns)

    def _forget(self) -> None:
        """When nobody waits, whatever was used was free. Of many who are gone, the least busy are forgotten."""
        if not self._callers:
            self._used.clear()
        elif len(self._used) > len(self._callers) + MANY_CALLERS:
            gone = ((used, caller) for caller, used in self._used.items() if caller not in self._callers)
            busiest = {caller: used for used, caller in heapq.nlargest(MANY_CALLERS // 2, gone)}
            self._used = {caller: self._used[caller] for caller in self._callers} | busiest
