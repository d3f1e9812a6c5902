"""Intake: messages that are on their way in, and a bound on those that take their time. Stage: front.

gRPC hands a message over once it is complete and tells nobody how much of it has come. So a slow one counts as much as
its method takes; when they are too many, the oldest ends. Quick ones are bounded by the network alone: what comes in
within SLOW_SECONDS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from ortmesh.errors import Overloaded

SLOW_SECONDS = 0.1
RETRY_SECONDS = 1.0


class Intake:
    """Awaits messages. Lives on one event loop."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._slow: dict[asyncio.Timeout, int] = {}
        """What each slow message may hold, the oldest first."""

    async def take(self, message: Coroutine[Any, Any, bytes], nbytes: int) -> bytes:
        """The message, which has at most so many bytes. Overloaded when it was slow and others needed its room."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(None) as guard:
                timer = loop.call_later(SLOW_SECONDS, self._is_slow, guard, nbytes)
                try:
                    return await message
                finally:
                    timer.cancel()
                    self._slow.pop(guard, None)
        except TimeoutError:
            raise Overloaded(
                "the message came too slowly while others waited for room", retry_after_seconds=RETRY_SECONDS
            ) from None

    def _is_slow(self, guard: asyncio.Timeout, nbytes: int) -> None:
        self._slow[guard] = nbytes
        while sum(self._slow.values()) > self._max_bytes and len(self._slow) > 1:
            oldest = next(iter(self._slow))
            del self._slow[oldest]
            oldest.reschedule(0)  # in the past: at once
