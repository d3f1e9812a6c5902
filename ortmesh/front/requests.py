"""Requests: the messages of a caller's stream, read and parsed as the handler asks for them. Stage: front."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ortmesh.errors import Cancelled, Expired

if TYPE_CHECKING:
    from ortmesh.front.exchange import Route

T = TypeVar("T")

Read = Callable[[], Awaitable[bytes | None]]
"""The next message's bytes, or None once the caller has sent all of them."""


class Memory(Protocol):
    """Where the bytes that streams hold are counted."""

    def hold(self, nbytes: int) -> None:
        """Counts a message. Overloaded when streams hold too much already."""

    def release(self, nbytes: int) -> None:
        """A held message is done with."""


class Requests:
    """What the handler of a method that takes a stream iterates over. Lives on one loop; one task reads at a time.

    Nothing is read ahead: while the handler asks for nothing, the transport's flow control holds the caller back. The
    iteration ends when the caller has sent all (half-close). It raises MalformedMessage, BadInput or MessageTooLarge
    for a message that is wrong, Overloaded where streams hold too many bytes; the next one can be asked for after that.
    Whoever is cancelled while waiting for a message (a timeout) loses none.
    """

    def __init__(self, route: Route, read: Read, memory: Memory) -> None:
        self.received_bytes = 0
        """Bytes of all messages so far."""
        self._route = route
        self._read = read
        self._memory = memory
        self._held_bytes = 0
        self._next: asyncio.Future[bytes | None] | None = None
        self._closed = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        self._release()
        payload = await self._payload()
        if payload is None:
            raise StopAsyncIteration
        self.received_bytes += len(payload)
        self._route.check_size(len(payload))
        self._memory.hold(len(payload))
        self._held_bytes = len(payload)
        return self._route.parse(payload)

    def close(self) -> None:
        """The call has ended: what comes of it now is nobody's. Once, by the front."""
        self._closed = True
        self._release()
        if self._next is not None and not self._next.cancel() and not self._next.cancelled():
            self._next.exception()  # looked at, else asyncio would complain that nobody did

    async def _payload(self) -> bytes | None:
        """The next message. A read that somebody gave up waiting for goes on: what it brings is the next one's."""
        if self._closed:
            raise Cancelled("the call has ended")
        if self._next is None:
            self._next = asyncio.ensure_future(self._read())
        await asyncio.wait((self._next,))
        if self._next.cancelled():
            raise Cancelled("the call has ended")
        done, self._next = self._next, None
        if self._closed:
            raise Cancelled("the call has ended")
        return done.result()

    def _release(self) -> None:
        self._memory.release(self._held_bytes)
        self._held_bytes = 0


async def first_of(requests: AsyncIterator[T], seconds: float) -> T | None:
    """The first message of a stream, None when it ends without one. Expired when none comes within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            return await anext(requests, None)
    except TimeoutError:
        raise Expired(f"the first message did not come within {seconds:g} s") from None
