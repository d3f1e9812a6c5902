"""More of everything: connections that say nothing or too little, calls that queue, readers that don't read."""

from __future__ import annotations

import asyncio

from bench.attack.door import Door
from bench.attack.frames import (
    DATA,
    END_STREAM,
    GREETING,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    frame,
    head,
    message,
    request,
    settings,
)
from bench.attack.seen import Seen
from bench.attack.wire import Connection, crowd

HELD_SECONDS = 1.0
QUEUES = 20
STREAMS = 100
"""Calls at once on one connection."""
SLOW_SECONDS = 0.03
LAST_WORDS_SECONDS = 0.5
ANSWER_SECONDS = 15.0


async def idle_connections(door: Door, seen: Seen, count: int) -> None:
    """`count` connections that say hello and nothing more."""
    async with crowd(door.address, seen, count):
        await asyncio.sleep(HELD_SECONDS)


async def slow_prefaces(door: Door, seen: Seen, count: int) -> None:
    """`count` connections that say hello, and begin a call, one byte at a time."""
    words = GREETING + head(1, request(door.cheap))
    # Whoever listens acknowledges settings, in the middle of a frame here.
    async with crowd(door.address, seen, count, greeting=b"", listens=False) as connections:
        for at in range(len(PREFACE) * 2):
            for connection in connections:
                connection.send(words[at : at + 1])
                await connection.flush()
            await asyncio.sleep(SLOW_SECONDS)
        for connection in connections:
            connection.listen()
        await asyncio.sleep(LAST_WORDS_SECONDS)


async def queued_calls(door: Door, seen: Seen, count: int) -> None:
    """`count` good calls from twenty connections that each keep a hundred in flight, as many as a gateway takes."""
    async with crowd(door.address, seen, QUEUES) as connections:
        await asyncio.gather(*(_queue(each, door, count // QUEUES) for each in connections))


async def _queue(connection: Connection, door: Door, count: int) -> None:
    block, body = request(door.cheap), message(door.cheap_request)
    for begin in range(0, count, STREAMS):
        connection.begin_calls(range(2 * begin + 1, 2 * min(begin + STREAMS, count), 2), block, body)
        await connection.flush()
        await connection.until_ended(ANSWER_SECONDS)


async def stampede(door: Door, seen: Seen, count: int) -> None:
    """`count` good calls in the same moment, a hundred on each connection."""
    block, body = request(door.cheap), message(door.cheap_request)
    async with crowd(door.address, seen, count // STREAMS) as connections:
        for connection in connections:
            connection.begin_calls(range(1, 2 * STREAMS, 2), block, body)
        await asyncio.gather(*(each.until_ended(ANSWER_SECONDS) for each in connections))


async def zero_window_readers(door: Door, seen: Seen, count: int) -> None:
    """`count` connections that ask for a long stream and never open their window for it."""
    closed = PREFACE + settings({INITIAL_WINDOW_SIZE: 0})
    async with crowd(door.address, seen, count, greeting=closed) as connections:
        for connection in connections:
            _ask(connection, door.stream)
        await asyncio.sleep(HELD_SECONDS)


def _ask(connection: Connection, path: str) -> None:
    connection.begin(1, request(path))
    connection.send(frame(DATA, END_STREAM, 1, message(b"")))
