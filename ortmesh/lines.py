"""Lines: what a child process writes, line by line, however long its lines are. Stage: process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

MAX_LINE_BYTES = 16 * 1024
"""A longer line comes in pieces."""


async def lines_of(reader: asyncio.StreamReader) -> AsyncIterator[str]:
    """The lines without their ends, until the other end is closed.

    asyncio's own way of reading lines ends at one over 64 KiB, and a child whose output nobody reads stands still.
    """
    rest = b""
    while chunk := await reader.read(MAX_LINE_BYTES):
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            whole, rest = [*whole, rest], b""
        for line in whole:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")
