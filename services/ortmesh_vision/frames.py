"""How many frames or pages a picture file holds, counted without decoding them. Stage: task.

Pillow's own count sets up every page of a TIFF (48 µs each: 14 s for a file made of empty pages) and fails when a
later page is broken, which would be no reason to refuse the first.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice, takewhile

from PIL import Image

from ortmesh_vision import gif
from ortmesh_vision.tiff import Tiff

MAX_COUNTED = 65_535
"""Counting stops here: a file of 32 MiB can claim millions of empty frames."""
MAX_GIF_PARTS = 1_000_000
"""And here: 0.1 s. A GIF of 32 MiB in blocks of 255 bytes, as they are written, has 131,000."""


def count_frames(image: Image.Image, data: bytes) -> int:
    """Frames or pages of an opened file, at least 1 and at most MAX_COUNTED."""
    if image.format == "GIF":
        count = _gif_frames(data)
    elif image.format == "TIFF":
        count = _length(Tiff(data).chain())
    else:
        count = getattr(image, "n_frames", 1)  # PNG, WebP and multi-picture JPEG say it in their headers
    return min(max(count, 1), MAX_COUNTED)


def _gif_frames(data: bytes) -> int:
    """Frames before the trailer, or as many as a broken file still has."""
    whole = takewhile(lambda part: part != "junk", islice(gif.walk(data), MAX_GIF_PARTS))
    return _length(part for part in whole if part == "frame")


def _length(several: Iterable[object]) -> int:
    """How many there are, MAX_COUNTED at most."""
    return sum(1 for _ in islice(several, MAX_COUNTED))
