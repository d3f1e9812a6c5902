"""The walk along a GIF's parts, from its header to its trailer. Stage: task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

MAGIC = (b"GIF87a", b"GIF89a")

Part = Literal["extension", "frame", "block", "junk"]
"""A block belongs to the extension or the frame before it; junk is one byte that begins nothing."""

_HEADER = 13
_DESCRIPTOR = 10
_EXTENSION, _FRAME, _TRAILER = 0x21, 0x2C, 0x3B


def walk(data: bytes) -> Iterator[Part]:
    """The parts in their order, as far as a broken or truncated file has them."""
    at, end = _HEADER + (_colour_table(data[10]) if len(data) > 10 else 0), len(data)
    while at < end and data[at] != _TRAILER:
        if data[at] == _EXTENSION:
            yield "extension"
            at += 2
        elif data[at] == _FRAME:
            if at + _DESCRIPTOR > end:
                return
            yield "frame"
            at += _DESCRIPTOR + _colour_table(data[at + 9]) + 1
        else:
            yield "junk"
            at += 1
            continue
        while at < end and data[at]:  # each block has its length before it; an empty one ends them
            yield "block"
            at += data[at] + 1
        at += 1


def _colour_table(flags: int) -> int:
    """Bytes of the colour table that flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0
