"""How many frames or pages a picture file holds, counted without decoding them. Stage: task.

Pillow's own count sets up every page of a TIFF (48 µs each: 14 s for a file made of empty pages) and fails when a
later page is broken, which would be no reason to refuse the first.
"""

from __future__ import annotations

from PIL import Image

MAX_COUNTED = 65_535
"""Counting stops here: a file of 32 MiB can claim millions of empty frames."""

_GIF_TRAILER, _GIF_EXTENSION, _GIF_FRAME = 0x3B, 0x21, 0x2C
_TIFF_CLASSIC, _TIFF_BIG = 42, 43


def count_frames(image: Image.Image, data: bytes) -> int:
    """Frames or pages of an opened file, at least 1 and at most MAX_COUNTED."""
    if image.format == "GIF":
        count = _gif_frames(data)
    elif image.format == "TIFF":
        count = _tiff_pages(data)
    else:
        count = getattr(image, "n_frames", 1)  # PNG, WebP and multi-picture JPEG say it in their headers
    return min(max(count, 1), MAX_COUNTED)


def _gif_frames(data: bytes) -> int:
    """Image descriptors between the header and the trailer, or as many as a truncated file still has."""
    count, position, end = 0, 13 + _colour_table(data[10]), len(data)
    while position < end and data[position] != _GIF_TRAILER and count < MAX_COUNTED:
        if data[position] == _GIF_EXTENSION:
            position = _after_blocks(data, position + 2)
        elif data[position] == _GIF_FRAME and position + 10 <= end:
            count += 1
            position = _after_blocks(data, position + 11 + _colour_table(data[position + 9]))
        else:
            break
    return count


def _colour_table(flags: int) -> int:
    """Bytes of the colour table that a GIF's flags announce."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: bytes, position: int) -> int:
    """The position after a chain of GIF sub-blocks, each with its length before it; an empty one ends the chain."""
    while position < len(data) and data[position]:
        position += data[position] + 1
    return position + 1


def _tiff_pages(data: bytes) -> int:
    """Directories in a TIFF's chain; a chain that bites its tail or leaves the file ends there."""
    order = "little" if data[:2] == b"II" else "big"

    def number(position: int, size: int) -> int:
        return int.from_bytes(data[position : position + size], order)  # type: ignore[arg-type]

    big = number(2, 2) == _TIFF_BIG
    count_size, entry_size, offset_size = (8, 20, 8) if big else (2, 12, 4)
    seen: set[int] = set()
    offset = number(8, 8) if big else number(4, 4)
    while offset and offset + count_size <= len(data) and offset not in seen and len(seen) < MAX_COUNTED:
        seen.add(offset)
        offset = number(offset + count_size + number(offset, count_size) * entry_size, offset_size)
    return len(seen)
