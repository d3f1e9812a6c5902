"""Answers of executors to coroutines: all of a batch, or of an engine's step, brought to the loop in one wake-up.
Stage: batcher to task."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from ortmesh.serving.types import Item, Tensors

log = logging.getLogger(__name__)

TellSpans = Callable[[float, float, float], None]
"""(arrival, taken, done) of an item, in `time.monotonic()` seconds."""


class Delivered(Protocol):
    """What has something for a coroutine."""

    def deliver(self) -> None:
        """Wakes it; on the loop."""


class Outbox:
    """Brings results from the executors' threads to one event loop.

    Appending to a deque is atomic, so a result costs no lock; only the first after a wake-up wakes the loop. That costs
    a system call, and the loop's thread then wants the interpreter: whoever has many results in a row leaves them all,
    and wakes the loop once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ready: deque[Delivered] = deque()
        self._woken = False

    def put(self, ready: Delivered) -> None:
        """Has it delivered; from any thread."""
        self._ready.append(ready)
        self.wake()

    def leave(self, ready: Delivered) -> None:
        """Has it delivered with the next that is put, or at the next `wake`; from any thread."""
        self._ready.append(ready)

    def wake(self) -> None:
        """Has delivered what was left, if anything was; from any thread."""
        if self._ready and not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._ready.clear()

    def _deliver(self) -> None:
        self._woken = False
        while self._ready:
            try:
                self._ready.popleft().deliver()
            except Exception:
                log.exception("an answer could not be delivered")  # others wait for theirs


class Deed:
    """Something to be done on the loop, as `put` and `leave` take it."""

    __slots__ = ("deliver",)

    def __init__(self, do: Callable[[], None]) -> None:
        self.deliver = do


class FutureAnswer:
    """The answer of one item as a future's result. `future` must be awaited on the outbox's loop."""

    __slots__ = ("_error", "_outbox", "_outputs", "future")

    def __init__(self, outbox: Outbox, future: asyncio.Future[Tensors]) -> None:
        self._outbox = outbox
        self.future = future
        self._outputs: Tensors = {}
        self._error: BaseException | None = None

    def emit(self, outputs: Tensors) -> None:
        """A call of one answer takes no pieces: programs that emit are called through streams."""
        raise TypeError("this model answers in pieces")

    def finish(self, outputs: Tensors) -> None:
        """Keeps the outputs and sends them on their way."""
        self._outputs = outputs
        self._outbox.put(self)

    def fail(self, error: BaseException) -> None:
        """Keeps the error and sends it on its way."""
        self._error = error
        self._outbox.put(self)

    def deliver(self) -> None:
        """Wakes whoever awaits the future; on the loop."""
        if self.future.done():
            return
        if self._error is not None:
            self.future.set_exception(self._error)
        else:
            self.future.set_result(self._outputs)


class TracedAnswer:
    """An answer of a sampled trace: tells how long its item waited and how long it was computed."""

    __slots__ = ("_inner", "_item", "_tell")

    def __init__(self, item: Item, tell: TellSpans) -> None:
        """In the place of the item's own answer."""
        self._inner = item.answer
        self._tell = tell
        self._item = item

    def emit(self, outputs: Tensors) -> None:
        """Passes a piece on."""
        self._inner.emit(outputs)

    def finish(self, outputs: Tensors) -> None:
        """Tells and passes the outputs on."""
        self._told()
        self._inner.finish(outputs)

    def fail(self, error: BaseException) -> None:
        """Tells and passes the error on."""
        self._told()
        self._inner.fail(error)

    def _told(self) -> None:
        now = time.monotonic()
        self._tell(self._item.arrival, self._item.taken or now, now)
