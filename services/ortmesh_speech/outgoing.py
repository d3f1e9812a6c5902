"""Outgoing: what is to be told to the caller of a stream, from the tasks that find it to the one that sends it.
Stage: task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Generic, TypeVar

M = TypeVar("M")

MOST = 32
"""Messages that wait for the caller to read: with more, whatever makes them waits."""


@dataclass(frozen=True, slots=True)
class _End:
    error: BaseException | None


class Outgoing(Generic[M]):
    """A queue with an end. Lives on one event loop."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[M | _End] = asyncio.Queue()
        self._room = asyncio.Semaphore(MOST)

    async def put(self, message: M) -> None:
        """Adds a message; waits while the caller does not read."""
        await self._room.acquire()
        self._queue.put_nowait(message)

    def end(self, error: BaseException | None = None) -> None:
        """Nothing follows but the error, if there is one. Never waits."""
        self._queue.put_nowait(_End(error))

    async def __aiter__(self) -> AsyncIterator[M]:
        """The messages in their order; then the error is raised."""
        while not isinstance(message := await self._queue.get(), _End):
            self._room.release()
            yield message
        if message.error is not None:
            raise message.error
