"""Ogg streams made long by repeating their pages: an hour of Opus takes ten seconds to encode."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

HEADER = struct.Struct("<4sBBqIIIB")
"""OggS, version, flags, position in samples of 48 kHz, stream, number of the page, checksum, segments (RFC 3533)."""
LAST = 4
"""The flag of a stream's last page."""
HEADERS = 2
"""Pages before the sound: what the stream is, and its tags (RFC 7845)."""


def repeated(stream: bytes, times: int) -> bytes:
    """The sound of an Ogg Opus stream without its last page, so many times: that one may end within a packet."""
    pages = list(_pages(stream))
    head, sound = pages[:HEADERS], pages[HEADERS:-1]
    length = HEADER.unpack_from(sound[-1])[3]
    made = list(head)
    for turn in range(times):
        for page in sound:
            last = turn == times - 1 and page is sound[-1]
            made.append(_renumbered(page, len(made), turn * length, last=last))
    return b"".join(made)


def _pages(stream: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(stream):
        segments = stream[at + 26]
        end = at + HEADER.size + segments + sum(stream[at + HEADER.size : at + HEADER.size + segments])
        yield stream[at:end]
        at = end


def _renumbered(page: bytes, number: int, later: int, *, last: bool) -> bytes:
    magic, version, flags, position, stream, _, _, segments = HEADER.unpack_from(page)
    flags = flags | LAST if last else flags & ~LAST
    fields = (magic, version, flags, position + later, stream, number)
    body = page[HEADER.size :]
    return HEADER.pack(*fields, _checksum(HEADER.pack(*fields, 0, segments) + body), segments) + body


def _checksum(page: bytes) -> int:
    crc, table = 0, _table()
    for byte in page:
        crc = (crc << 8 & 0xFFFFFFFF) ^ table[crc >> 24 ^ byte]
    return crc


@cache
def _table() -> tuple[int, ...]:
    """Of the polynomial 0x04C11DB7, highest bit first."""
    table = []
    for value in range(256):
        crc = value << 24
        for _ in range(8):
            crc = crc << 1 ^ (0x104C11DB7 if crc & 0x80000000 else 0)
        table.append(crc)
    return tuple(table)
