"""What a picture file is made of, counted before a decoder reads it. Stage: task.

Formats let a file have any number of parts, and decoders take them as they come: 32 MB of empty segments took 20 s and
1 GB, 4 MB of empty JPEG scans longer than anybody waits. What is merely broken is left to the decoder.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import takewhile

from ortmesh.errors import BadInput
from ortmesh_vision import gif, jpeg
from ortmesh_vision.tiff import MAGIC as TIFF
from ortmesh_vision.tiff import Tag, Tiff

MOST_PARTS = 65_536
"""Chunks, segments or blocks; each costs Pillow some microseconds. A PNG of 32 MB in pieces of a kilobyte has half."""
MOST_SCANS = 100
"""Of a JPEG, each over all of its pixels; encoders make some ten."""
MOST_JUNK = 65_536
"""Bytes between parts, which Pillow reads one by one."""
MOST_EXIF = 1024 * 1024
"""Bytes of Exif in a JPEG, which a camera keeps in one segment of at most 64 kB."""
MOST_VALUES = 2_000_000
"""Of the tags of a TIFF, that become Python's numbers; 64 megapixels in tiles of 16 x 16 have twice 250,000."""
MOST_EXIF_VALUES = 10_000
"""Of Exif's first directory, of which one is read."""
MOST_RLE_BYTES = 4 * 1024 * 1024
"""Of a run-length encoded BMP, which Pillow decodes in Python."""

_PNG, _BMP = b"\x89PNG\r\n\x1a\n", b"BM"
_TIFF_SIZES = {3: 2, 4: 4, 5: 8, 6: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of TIFF's types that become numbers; bytes and text stay what they are."""
_FRACTIONS, _FRACTION_WEIGHT = (5, 10), 50
"""A fraction takes Pillow as long as so many other numbers: 4 µs."""
_DIRECTORIES = (0x8769, 0x8825, 0xA005)
"""Tags that lead to other directories: Exif, GPS, interoperability."""


def check_parts(data: bytes, field: str) -> None:
    """BadInput that names the field for a file whose parts are too many for any picture."""
    for magic, check in _CHECKS:
        if data.startswith(magic):
            check(data, field)


def is_small_exif(data: bytes) -> bool:
    """False for Exif that takes long to read."""
    return _values(data.removeprefix(b"Exif\0\0")) <= MOST_EXIF_VALUES


def _check_png(data: bytes, field: str) -> None:
    at, parts = len(_PNG), 0
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IEND":
        at += 12 + int.from_bytes(data[at : at + 4])
        parts += 1
        if parts > MOST_PARTS:
            raise _too_many("chunks", field)


def _check_jpeg(data: bytes, field: str) -> None:
    scans = junk = exif = 0
    for parts, segment in enumerate(jpeg.walk(data), 1):
        junk += segment.junk
        if segment.marker == jpeg.SCAN:
            scans += 1
        if segment.marker == jpeg.APP1 and data.startswith(b"Exif\0\0", segment.start + 2):
            exif += segment.end - segment.start
        if parts > MOST_PARTS:
            raise _too_many("segments", field)
        if scans > MOST_SCANS:
            raise BadInput(field, f"has more than {MOST_SCANS} scans: no picture needs them")
        if junk > MOST_JUNK or exif > MOST_EXIF:
            raise _too_much(field)


def _check_gif(data: bytes, field: str) -> None:
    """All before the first frame; behind it nothing is read."""
    parts = junk = 0
    for part in takewhile(lambda part: part != "frame", gif.walk(data)):
        if part == "junk":
            junk += 1
        else:
            parts += 1
        if parts > MOST_PARTS:
            raise _too_many("blocks", field)
        if junk > MOST_JUNK:
            raise _too_much(field)


def _check_tiff(data: bytes, field: str) -> None:
    if _values(data) > MOST_VALUES:
        raise BadInput(field, f"its tags have more than {MOST_VALUES:,} values: no picture needs them")


def _check_bmp(data: bytes, field: str) -> None:
    if len(data) > MOST_RLE_BYTES and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0"):
        raise BadInput(field, f"is a run-length encoded BMP of more than {MOST_RLE_BYTES:,} bytes")


def _values(data: bytes) -> int:
    """How many numbers the first directory's tags have, and those of the directories in it, by what they cost."""
    if not data.startswith(TIFF):
        return 0
    file, values, read = Tiff(data), 0, 0
    directories = [file.first]
    while directories and read <= len(_DIRECTORIES) and values <= MOST_VALUES:
        for tag in file.tags(directories.pop()):
            if tag.number in _DIRECTORIES:
                directories.append(tag.value)
            values += _cost(tag, len(data))
        read += 1
    return values


def _cost(tag: Tag, nbytes: int) -> int:
    """A tag's numbers, as many as a file of so many bytes can have, by what they cost."""
    size = _TIFF_SIZES.get(tag.kind)
    if size is None:
        return 0
    return min(tag.values, nbytes // size) * (_FRACTION_WEIGHT if tag.kind in _FRACTIONS else 1)


def _too_many(parts: str, field: str) -> BadInput:
    return BadInput(field, f"has more than {MOST_PARTS:,} {parts}: no picture needs them")


def _too_much(field: str) -> BadInput:
    return BadInput(field, "has too many bytes between or before its parts that are no picture")


_CHECKS: tuple[tuple[bytes | tuple[bytes, ...], Callable[[bytes, str], None]], ...] = (
    (_PNG, _check_png),
    (jpeg.MAGIC, _check_jpeg),
    (gif.MAGIC, _check_gif),
    (TIFF, _check_tiff),
    (_BMP, _check_bmp),
)
