"""The pile: prepared items of one model, bounded, from which a free executor pulls its next batch. Stage: batcher."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from ortmesh.errors import Cancelled, Expired, NotReady, Overloaded
from ortmesh.serving.batcher.line import Line
from ortmesh.serving.batcher.policy import ArrivalOrder, Policy
from ortmesh.serving.types import Item, Meter, NoMeter

WINDOW = 4
"""The policy looks at this many full batches of the oldest items: a long queue costs no more than a short one."""
SWEEP_SECONDS = 0.1
"""A full pile is looked through that often for what nobody waits for: thousands of items take a millisecond."""
LONGEST_RETRY_SECONDS = 30.0
FORGET_SECONDS = 5.0
"""After so long without an item the rate at which they leave is measured anew."""


class TooShort(Expired):
    """By what is known of the model's costs, the deadline would pass while the item is computed."""


Dropped = tuple[Item, BaseException]


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
        policy: Policy | None = None,
        meter: Meter | None = None,
        clock: Callable[[], float] = time.monotonic,
        aside: Callable[[Callable[[], None]], None] = lambda do: do(),
    ) -> None:
        """`aside` has something done soon, in another thread if it can: there it is told what was dropped, while the
        executor computes what it took instead. In a flood that is twenty of them a run, and took a thirtieth of it."""
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._max_wait = max_wait_seconds
        self._policy = policy or ArrivalOrder()
        self._clock = clock
        self._aside = aside
        self._meter = meter or NoMeter()
        self._waiting = Line()
        self._free = 0
        """How many executors wait for work."""
        self._closed = False
        self._refusal = NotReady("the model is being unloaded")
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._drain = _DrainRate(clock)
        self._swept = -math.inf

    def __len__(self) -> int:
        return len(self._waiting)

    def oldest(self) -> float:
        """When the item arrived that has waited longest; infinite when none waits."""
        with self._lock:
            return min((item.arrival for item in self._waiting), default=math.inf)

    def submit(self, item: Item) -> None:
        """Adds an item. Overloaded beyond a bound, with the time the queue needs to drain; NotReady when closed.

        Only an owner's first work is refused: what it has begun may go past the bounds, within its task's own.
        """
        self._make_room((item,), item.nbytes)
        with self._lock:
            self._admit((item,), item.nbytes)
            self._append(item)
            self._work.notify()

    def submit_many(self, items: Sequence[Item]) -> None:
        """Adds all items or none: a page of forty lines does not fail at its thirty-ninth."""
        nbytes = sum(item.nbytes for item in items)
        self._make_room(items, nbytes)
        with self._lock:
            self._admit(items, nbytes)
            for item in items:
                self._append(item)
            self._work.notify(len(items))

    def take(self, limit: int, wait: float | None = None) -> list[Item] | None:
        """The next batch; see `ortmesh.serving.types.Pile.take`."""
        until = None if wait is None else time.monotonic() + wait
        while True:
            with self._lock:
                if not self._wait_for_work(until):
                    return None if self._closed else []
                if wait != 0:
                    self._wait_for_more(limit)
                chosen, dropped = self._choose(limit)
            if chosen:
                if dropped:
                    self._aside(partial(_fail, dropped))
                return chosen
            _fail(dropped)
            del dropped  # else the last request's tensors stay until the next one comes

    def take_first(self, accept: Callable[[Item], bool], wait: float | None = None) -> Item | None:
        """The first item in fair order of those that are accepted; see `ortmesh.serving.types.Pile.take_first`."""
        until = None if wait is None else time.monotonic() + wait
        while True:
            with self._lock:
                if not self._wait_for_work(until):
                    return None
                chosen, dropped = self._choose_first(accept)
            _fail(dropped)
            if chosen is not None or not dropped:
                return chosen
            del dropped

    def drop_unwanted(self) -> None:
        """Ends what waits and nobody waits for any more."""
        with self._lock:
            now = self._clock()
            dropped = [(item, error) for item in self._waiting if (error := _ended(item, now)) is not None]
            if dropped:
                self._waiting.drop([item for item, _ in dropped])
                self._tell([], dropped, now)
        _fail(dropped)

    @property
    def closed(self) -> bool:
        """True when nothing waits and nothing will."""
        return self._closed and not self._waiting

    def close(self, error: NotReady | None = None) -> None:
        """Takes no more items. Executors end after what waits is done, or at once when all that waits gets `error`.

        Later items are refused in the same words.
        """
        with self._lock:
            self._closed = True
            self._refusal = error or self._refusal
            abandoned = self._waiting.clear() if error is not None else []
            self._work.notify_all()
        for item in abandoned:
            item.fail(self._refusal)

    def _append(self, item: Item) -> None:
        if len(self._waiting) < self._free:
            item.why = "free"
        self._waiting.append(item, self._policy.price(item))

    def _make_room(self, items: Sequence[Item], nbytes: int) -> None:
        """What nobody waits for any more is no reason to refuse others: where executors take nothing for long, the
        pile can be full of that."""
        with self._lock:
            if not self._reached(items, nbytes) or self._clock() - self._swept < SWEEP_SECONDS:
                return
            self._swept = self._clock()
        self.drop_unwanted()

    def _choose_first(self, accept: Callable[[Item], bool]) -> tuple[Item | None, list[Dropped]]:
        """(an item, what was dropped before it), removed from the pile. Called with the lock held."""
        now, dropped, chosen = self._clock(), list[Dropped](), None
        for item in self._waiting.firsts():
            if (error := self._unwanted(item, now)) is not None:
                dropped.append((item, error))
            elif accept(item):
                chosen = item
                break
        gone = [item for item, _ in dropped]
        taken = [] if chosen is None else [chosen]
        self._waiting.take([*gone, *taken], taken, gone)
        self._tell(taken, dropped, now)
        return chosen, dropped

    def _tell(self, taken: Sequence[Item], dropped: Sequence[Dropped], now: float) -> None:
        """The items and the meters, what has just left the pile."""
        for item in taken:
            item.taken = now
            self._meter.queued(now - item.arrival, item.why)
        for _, error in dropped:
            self._meter.dropped("cancelled" if isinstance(error, Cancelled) else "expired")
        self._drain.took(len(taken) + len(dropped), now)

    def _admit(self, items: Sequence[Item], nbytes: int) -> None:
        if self._closed:
            raise NotReady(self._refusal.message, retry_after_seconds=self._refusal.retry_after_seconds)
        bound = self._reached(items, nbytes)
        if bound and not all(item.owner.admitted for item in items):
            for _ in items:
                self._meter.dropped("overloaded")
            raise Overloaded(
                f"the model's queue is full ({bound})", retry_after_seconds=self._drain.seconds(len(self._waiting))
            )
        for item in items:
            item.owner.admitted = True

    def _reached(self, items: Sequence[Item], nbytes: int) -> str:
        """The bound that these items would exceed, in words; empty for none."""
        waiting = self._waiting
        if len(waiting) + len(items) > self._max_items:
            return f"{self._max_items} items"
        if waiting.nbytes + nbytes > self._max_bytes and waiting:
            return f"{self._max_bytes} bytes"
        # Dynamic thresholds (Choudhury, Hahne 1998): a caller may hold as much as is still free, so that there is
        # always room for another. Without identity all callers are one, which may fill the queue.
        caller = items[0].caller if items else ""
        if caller and waiting.bytes_of(caller) + nbytes > max(self._max_bytes - waiting.nbytes, nbytes):
            return f"{waiting.bytes_of(caller)} of its {self._max_bytes} bytes are this caller's, as much as is free"
        if caller and waiting.of(caller) + len(items) > max(self._max_items - len(waiting), len(items)):
            return (
                f"{waiting.of(caller)} of its {self._max_items} items are this caller's, and it has as much as is free"
            )
        return ""

    def _wait_for_work(self, until: float | None) -> bool:
        """True when there is work; False when there is none by `until`, or never again."""
        while not self._waiting:
            if self._closed:
                return False
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            self._free += 1
            self._work.wait(left)
            self._free -= 1
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

    def _choose(self, limit: int) -> tuple[list[Item], list[Dropped]]:
        """(the batch, what was dropped), both removed from the pile. Called with the lock held."""
        now = self._clock()
        window = self._waiting.first(WINDOW * limit)
        dropped = [(item, error) for item in window if (error := self._unwanted(item, now)) is not None]
        gone = {id(item) for item, _ in dropped}
        alive = [item for item in window if id(item) not in gone] if gone else window
        if not alive and len(window) == len(self._waiting):
            alive, dropped = self._last_chance(dropped)
        places = self._policy.choose(alive, limit, now, shared=self._waiting.shared(now)) if alive else []
        chosen = [alive[index] for index in places]
        self._waiting.take(window, chosen, [item for item, _ in dropped])
        self._tell(chosen, dropped, now)
        if places and places[-1] >= len(places):
            for item in alive[: places[-1]]:  # who was overtaken; who was taken has been told
                item.why = "passed_over"
        return chosen, dropped

    def _last_chance(self, dropped: list[Dropped]) -> tuple[list[Item], list[Dropped]]:
        """When nothing else waits, items whose time is only thought to be too short are tried all the same.

        It harms nobody, and teaches costs that are wrong: else a model whose costs were measured too high would
        refuse for ever what it could do.
        """
        tried = [item for item, error in dropped if isinstance(error, TooShort)]
        for item in tried:
            item.hopeless = True
        return tried, [each for each in dropped if not isinstance(each[1], TooShort)]

    def _unwanted(self, item: Item, now: float) -> BaseException | None:
        """Why an item is worth no work, or None."""
        if (ended := _ended(item, now)) is not None:
            return ended
        if item.deadline != math.inf and item.deadline <= now + self._policy.seconds(item):
            return TooShort("the deadline would pass while the request is computed")
        return None


def _ended(item: Item, now: float) -> BaseException | None:
    """Why nobody waits for an item any more, or None."""
    if item.owner.cancelled:
        if item.late:
            return Expired("the deadline passed while the request waited for the model, and the caller left")
        return Cancelled("the caller left")
    if item.deadline <= now:
        return Expired("the deadline passed while the request waited for the model")
    return None


def _fail(dropped: Sequence[Dropped]) -> None:
    for item, error in dropped:
        item.fail(error)


class _DrainRate:
    """How many items a second leave the pile, measured over the last seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._since = clock()
        self._count = 0
        self._rate = 0.0

    def took(self, count: int, now: float) -> None:
        elapsed = now - self._since
        if elapsed > FORGET_SECONDS:  # nobody came for long: that tells nothing of how quick it is
            self._since, self._count, self._rate = now, count, 0.0
            return
        self._count += count
        if elapsed >= 1.0:
            self._rate = self._count / elapsed
            self._since, self._count = now, 0

    def seconds(self, waiting: int) -> float:
        """How long the waiting items need at the measured rate; a second while none is known."""
        elapsed = max(self._clock() - self._since, 1e-3)
        rate = max(self._rate, self._count / elapsed if elapsed > 0.1 else 0.0)
        return min(max(waiting / rate, 0.01), LONGEST_RETRY_SECONDS) if rate else 1.0
