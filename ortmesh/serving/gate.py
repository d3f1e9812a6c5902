"""How many pages, large pictures or long texts are worked on at once. Stage: task.

Begun, each is megabytes; waiting, only its request. It bounds memory, which no queue does: a page that was begun holds
up to 50 MB of pixels until it is read, its lines are taken by the models' queues whatever their bounds say, and a
service admits a thousand calls.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from ortmesh.front.call import Call

P = ParamSpec("P")
R = TypeVar("R")


class Gate:
    """Lets calls in while there are places: higher priority first, then callers in turn, then by arrival."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: dict[str, deque[_Place]] = {}
        """By caller; the one whose turn it is comes first."""

    @asynccontextmanager
    async def place(self, call: Call) -> AsyncIterator[None]:
        """A place for as long as the block runs. Cancelled or Expired when the call is over before it gets one."""
        await self._enter(call)
        try:
            call.check()
            yield
        finally:
            self._pass_on()

    async def in_pool(self, call: Call, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Runs a pure function in the pool on a place, which stays taken until the thread is done.

        A call that is over is left at once, as everywhere, but a thread can't be stopped: callers that leave would
        have any number of them at work.
        """
        await self._enter(call)
        work = asyncio.ensure_future(call.in_pool(function, *args, **kwargs))
        work.add_done_callback(lambda _: self._pass_on())
        return await asyncio.shield(work)

    async def _enter(self, call: Call) -> None:
        if self._free:
            self._free -= 1
        else:
            await self._wait(call)

    async def _wait(self, call: Call) -> None:
        place = _Place(call.priority)
        self._waiting.setdefault(call.caller, deque()).append(place)
        try:
            await place.given
        except asyncio.CancelledError:
            if place.given.done() and not place.given.cancelled():
                self._pass_on()  # it was given in the moment in which nobody wanted it any more
            raise

    def _pass_on(self) -> None:
        """Gives a place that became free to whoever is next, or keeps it."""
        place = self._next()
        while place is not None and place.given.done():  # its call is over
            place = self._next()
        if place is None:
            self._free += 1
        else:
            place.given.set_result(None)

    def _next(self) -> _Place | None:
        if not self._waiting:
            return None
        caller = max(self._waiting, key=lambda each: self._waiting[each][0].priority)
        queue = self._waiting.pop(caller)
        place = queue.popleft()
        if queue:
            self._waiting[caller] = queue  # at the end: the others' turn
        return place


class _Place:
    """A call that waits for its place."""

    __slots__ = ("given", "priority")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
