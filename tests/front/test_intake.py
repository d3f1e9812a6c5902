"""Slow messages share a bound; the oldest ends when it is passed."""

from __future__ import annotations

import asyncio

import pytest

from ortmesh.errors import Overloaded
from ortmesh.front.intake import SLOW_SECONDS, Intake


class Sender:
    """Messages that come when the test says so."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._go = asyncio.Event()

    def begin(self, nbytes: int) -> asyncio.Task[bytes]:
        """A message of at most so many bytes is on its way."""
        return asyncio.create_task(self._intake.take(self._message(), nbytes))

    def finish(self) -> None:
        """All of them arrive."""
        self._go.set()

    async def _message(self) -> bytes:
        await self._go.wait()
        return b"here"


async def test_quick_messages_are_not_counted() -> None:
    sender = Sender(Intake(max_bytes=10))
    begun = [sender.begin(10) for _ in range(20)]
    await asyncio.sleep(0)
    sender.finish()
    assert await asyncio.gather(*begun) == [b"here"] * 20


async def test_the_oldest_of_too_many_slow_messages_ends() -> None:
    sender = Sender(Intake(max_bytes=25))
    first, second, third = (sender.begin(10) for _ in range(3))
    with pytest.raises(Overloaded, match="too slowly") as caught:
        await first
    assert caught.value.retry_after_seconds == 1.0
    sender.finish()
    assert (await second, await third) == (b"here", b"here")


async def test_a_slow_message_alone_may_be_larger_than_the_bound() -> None:
    sender = Sender(Intake(max_bytes=5))
    only = sender.begin(10)
    await asyncio.sleep(2 * SLOW_SECONDS)
    sender.finish()
    assert await only == b"here"


async def test_a_caller_that_leaves_makes_room() -> None:
    sender = Sender(Intake(max_bytes=25))
    gone, *others = (sender.begin(10) for _ in range(3))
    await asyncio.sleep(SLOW_SECONDS / 2)
    gone.cancel()
    await asyncio.sleep(SLOW_SECONDS)
    sender.finish()
    assert await asyncio.gather(*others) == [b"here"] * 2
