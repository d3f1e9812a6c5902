"""The walk along a JPEG's segments, from marker to marker. Stage: task."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"\xff\xd8"
APP1, SCAN = 0xE1, 0xDA

_END = 0xD9
_BARE = {0x01, *range(0xD0, 0xD9)}
"""Markers that stand alone."""
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""In a scan, 0xFF is followed by 0, or by a marker that only restarts it."""


class Segment(NamedTuple):
    """A marker and what belongs to it, without a scan's pixels."""

    marker: int
    start: int
    """Behind the marker: two bytes of length, unless it stands alone, then the content."""
    end: int
    junk: int
    """Bytes before the marker that belong to nothing."""


def walk(data: bytes) -> Iterator[Segment]:
    """The segments in their order, as far as a broken or truncated file has them."""
    at = len(MAGIC)
    while (found := _MARKER.search(data, at)) is not None:
        start = found.end()
        marker = data[start - 1]
        end = start if marker in _BARE else start + int.from_bytes(data[start : start + 2])
        yield Segment(marker, start, end, found.start() - at)
        if marker == _END:
            return
        at = end
        if marker == SCAN:
            following = _AFTER_SCAN.search(data, at)
            at = following.start() if following else len(data)
