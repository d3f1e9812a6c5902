"""Messages that unpack to too much, are too much, never end, or go to nobody."""

from __future__ import annotations

import asyncio
import zlib
from functools import cache

from bench.attack.door import MIB, Door
from bench.attack.frames import message, message_prefix, request
from bench.attack.seen import Seen
from bench.attack.wire import Connection, crowd

ZEROS = bytes(MIB)
ANSWER_SECONDS = 10.0
HELD_SECONDS = 1.0
UNFINISHED_BYTES = 30_000_000
SENT_BYTES = 25_000_000
ABANDONED = 10


async def gzip_bomb(door: Door, seen: Seen, count: int) -> None:
    """One message of `count` MB of zeros, which gzip makes a thousand times smaller."""
    body = message(await asyncio.to_thread(_gzip_of_zeros, count), compressed=True)
    async with crowd(door.address, seen, 1) as connections:
        for connection in connections:
            connection.begin(1, request(door.cheap, grpc_encoding="gzip"))
            await connection.upload(1, body, end=True)
            await connection.until_ended(ANSWER_SECONDS)


async def large_message(door: Door, seen: Seen, count: int) -> None:
    """One message of `count` MB to a method that takes 4 MiB."""
    async with crowd(door.address, seen, 1) as connections:
        for connection in connections:
            connection.begin(1, request(door.cheap))
            await _send_zeros(connection, 1, count * 1_000_000)
            await connection.until_ended(ANSWER_SECONDS)


async def unfinished_messages(door: Door, seen: Seen, count: int) -> None:
    """`count` messages of 30 MB to a method that takes 32 MiB, of which 25 MB come, held for a while."""
    async with crowd(door.address, seen, count) as connections:
        for connection in connections:
            connection.begin(1, request(door.large))
        await asyncio.gather(*(_send_zeros(each, 1, UNFINISHED_BYTES, sent=SENT_BYTES) for each in connections))
        await asyncio.sleep(HELD_SECONDS)


async def data_to_nobody(door: Door, seen: Seen, count: int) -> None:
    """Ten connections that each send `count` MB to a method that does not exist, whatever is answered."""
    async with crowd(door.address, seen, ABANDONED) as connections:
        for connection in connections:
            connection.begin(1, request("/ortmesh.nobody.v1.NobodyService/Listen"))
        await asyncio.gather(*(_send_zeros(each, 1, count * 1_000_000) for each in connections))
        await asyncio.gather(*(each.until_ended(ANSWER_SECONDS) for each in connections))


async def _send_zeros(connection: Connection, stream: int, nbytes: int, *, sent: int | None = None) -> None:
    """A message of so many bytes, or its first `sent`; less when the call ends."""
    await connection.upload(stream, message_prefix(nbytes))
    left = nbytes if sent is None else sent
    while left > 0 and await connection.upload(stream, ZEROS[: min(left, MIB)]):
        left -= MIB


@cache
def _gzip_of_zeros(megabytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    zeros = bytes(1_000_000)
    return b"".join(packer.compress(zeros) for _ in range(megabytes)) + packer.flush()
