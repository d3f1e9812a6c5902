"""The pile: prepared items of one model, bounded, from which a free executor pulls its next batch. Stage: batcher."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice

from ortmesh.errors import Cancelled, Expired, NotReady, Overloaded
from ortmesh.serving.batcher.policy import Policy, arrival_order
from ortmesh.serving.types import Item, Meter, NoMeter

WINDOW = 4
"""The policy looks at this many full batches of the oldest items: a long queue costs no more than a short one."""
LONGEST_RETRY_SECONDS = 30.0


class Pile:
    """Thread-safe; `submit` never blocks, `take` does.

    A request that finds a free executor runs at once; a batch is what piled up while all were busy. What was
    cancelled or is past its deadline is dropped before it costs.
    """

    def __init__(
        self,
        *,
        max_items: int = 2048,
        max_bytes: int = 256 * 1024 * 1024,
        max_wait_seconds: float = 0.0,
        policy: Policy = arrival_order,
        meter: Meter | None = None,
    ) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._max_wait = max_wait_seconds
        self._policy = policy
        self._meter = meter or NoMeter()
        self._waiting: deque[Item] = deque()
        self._bytes = 0
        self._closed = False
        self._refusal = NotReady("the model is being unloaded")
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._drain = _DrainRate()

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, item: Item) -> None:
        """Adds an item. Overloaded beyond a bound, with the time the queue needs to drain; NotReady when closed.

        Only an owner's first work is refused: what it has begun may go past the bounds, within its task's own.
        """
        with self._lock:
            self._admit((item,), item.nbytes)
            self._waiting.append(item)
            self._work.notify()

    def submit_many(self, items: Sequence[Item]) -> None:
        """Adds all items or none: a page of forty lines does not fail at its thirty-ninth."""
        with self._lock:
            self._admit(items, sum(item.nbytes for item in items))
            self._waiting.extend(items)
            self._work.notify(len(items))

    def take(self, limit: int, wait: float | None = None) -> list[Item] | None:
        """The next batch; see `ortmesh.serving.types.Pile.take`."""
        until = None if wait is None else time.monotonic() + wait
        while True:
            with self._lock:
                if not self._wait_for_work(until):
                    return None if self._closed else []
                self._wait_for_more(limit)
                chosen, dropped = self._choose(limit)
            for item, error in dropped:
                item.fail(error)
            if chosen:
                return chosen

    def close(self, error: NotReady | None = None) -> None:
        """Takes no more items. Executors end after what waits is done, or at once when all that waits gets `error`.

        Later items are refused in the same words.
        """
        with self._lock:
            self._closed = True
            self._refusal = error or self._refusal
            abandoned = list(self._waiting) if error is not None else []
            if abandoned:
                self._waiting.clear()
                self._bytes = 0
            self._work.notify_all()
        for item in abandoned:
            item.fail(self._refusal)

    def _admit(self, items: Sequence[Item], nbytes: int) -> None:
        if self._closed:
            raise NotReady(self._refusal.message, retry_after_seconds=self._refusal.retry_after_seconds)
        over_items = len(self._waiting) + len(items) > self._max_items
        over_bytes = self._bytes + nbytes > self._max_bytes and self._waiting
        if (over_items or over_bytes) and not all(item.owner.admitted for item in items):
            self._meter.dropped("overloaded")
            bound = f"{self._max_items} items" if over_items else f"{self._max_bytes} bytes"
            raise Overloaded(
                f"the model's queue is full ({bound})", retry_after_seconds=self._drain.seconds(len(self._waiting))
            )
        self._bytes += nbytes
        for item in items:
            item.owner.admitted = True

    def _wait_for_work(self, until: float | None) -> bool:
        """True when there is work; False when there is none by `until`, or never again."""
        while not self._waiting:
            if self._closed:
                return False
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._work.wait(left)
        return True

    def _wait_for_more(self, limit: int) -> None:
        if not self._max_wait:
            return
        until = time.monotonic() + self._max_wait
        while not self._closed and sum(item.rows for item in self._waiting) < limit:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._work.wait(left)

    def _choose(self, limit: int) -> tuple[list[Item], list[tuple[Item, BaseException]]]:
        """(the batch, what was dropped), both removed from the pile. Called with the lock held."""
        now = time.monotonic()
        window = list(islice(self._waiting, WINDOW * limit))
        dropped = [(item, error) for item in window if (error := _unwanted(item, now)) is not None]
        gone = {id(item) for item, _ in dropped}
        alive = [item for item in window if id(item) not in gone] if gone else window
        indices = self._policy(alive, limit, now) if alive else []
        chosen = [alive[index] for index in indices]
        self._remove(window, gone, chosen, prefix=not gone and indices == list(range(len(indices))))
        for item in chosen:
            item.taken = now
            self._meter.queued(now - item.arrival)
        for _, error in dropped:
            self._meter.dropped("cancelled" if isinstance(error, Cancelled) else "expired")
        self._drain.took(len(chosen) + len(dropped), now)
        return chosen, dropped

    def _remove(self, window: list[Item], gone: set[int], chosen: list[Item], prefix: bool) -> None:
        self._bytes -= sum(item.nbytes for item in chosen)
        if prefix:
            for _ in chosen:
                self._waiting.popleft()
            return
        self._bytes -= sum(item.nbytes for item in window if id(item) in gone)
        gone |= {id(item) for item in chosen}
        for _ in window:
            self._waiting.popleft()
        self._waiting.extendleft(item for item in reversed(window) if id(item) not in gone)


def _unwanted(item: Item, now: float) -> BaseException | None:
    """Why an item is worth no work, or None."""
    if item.owner.cancelled:
        return Cancelled("the caller left")
    if item.deadline <= now:
        return Expired("the deadline passed while the request waited for the model")
    return None


class _DrainRate:
    """How many items a second leave the pile, measured over the last seconds."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._count = 0
        self._rate = 0.0

    def took(self, count: int, now: float) -> None:
        self._count += count
        elapsed = now - self._since
        if elapsed >= 1.0:
            self._rate = self._count / elapsed
            self._since, self._count = now, 0

    def seconds(self, waiting: int) -> float:
        """How long the waiting items need at the measured rate; a second while none is known."""
        elapsed = max(time.monotonic() - self._since, 1e-3)
        rate = max(self._rate, self._count / elapsed if elapsed > 0.1 else 0.0)
        return min(max(waiting / rate, 0.01), LONGEST_RETRY_SECONDS) if rate else 1.0
