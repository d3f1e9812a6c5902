"""What a picture file is made of, counted before a decoder reads it. Stage: task.

Formats let a file have any number of parts, and decoders take them as they come: 32 MB of empty segments took 20 s and
1 GB, 4 MB of empty JPEG scans longer than anybody waits. What is merely broken is left to the decoder.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator

from ortmesh.errors import BadInput

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

_PNG, _JPEG, _GIF, _BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", (b"GIF87a", b"GIF89a"), b"BM"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_GIF_FRAME, _GIF_EXTENSION, _GIF_TRAILER = b"\x2c", b"\x21", b"\x3b"
_SCAN, _APP1, _END = 0xDA, 0xE1, 0xD9
_BARE = {0x01, *range(0xD0, 0xD9)}
"""JPEG's markers that stand alone."""
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""In a scan, 0xFF is followed by 0, or by a marker that only restarts it."""
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


# PNG


def _check_png(data: bytes, field: str) -> None:
    at, parts = len(_PNG), 0
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IEND":
        at += 12 + int.from_bytes(data[at : at + 4])
        parts += 1
        if parts > MOST_PARTS:
            raise _too_many("chunks", field)


# JPEG


def _check_jpeg(data: bytes, field: str) -> None:
    parts = scans = junk = exif = 0
    at = len(_JPEG)
    while (found := _MARKER.search(data, at)) is not None:
        marker = data[found.end() - 1]
        junk += found.start() - at
        at = found.end()
        if marker not in _BARE:
            at += int.from_bytes(data[at : at + 2])
        if marker == _APP1 and data.startswith(b"Exif\0\0", found.end() + 2):
            exif += at - found.end()
        if marker == _SCAN:
            scans += 1
            following = _AFTER_SCAN.search(data, at)
            at = following.start() if following else len(data)
        parts += 1
        if parts > MOST_PARTS:
            raise _too_many("segments", field)
        if scans > MOST_SCANS:
            raise BadInput(field, f"has more than {MOST_SCANS} scans: no picture needs them")
        if junk > MOST_JUNK or exif > MOST_EXIF:
            raise _too_much(field)
        if marker == _END:
            return


# GIF


def _check_gif(data: bytes, field: str) -> None:
    """All before the first frame; behind it nothing is read."""
    at, parts, junk = 13 + (3 << ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0), 0, 0
    while at < len(data) and data[at : at + 1] not in (_GIF_FRAME, _GIF_TRAILER):
        if data[at : at + 1] == _GIF_EXTENSION:
            at += 2
            while at < len(data) and data[at]:
                at += 1 + data[at]
                parts += 1
            parts += 1
        else:
            junk += 1
        at += 1
        if parts > MOST_PARTS:
            raise _too_many("blocks", field)
        if junk > MOST_JUNK:
            raise _too_much(field)


# TIFF


def _check_tiff(data: bytes, field: str) -> None:
    if _values(data) > MOST_VALUES:
        raise BadInput(field, f"its tags have more than {MOST_VALUES:,} values: no picture needs them")


def _values(data: bytes) -> int:
    """How many numbers the first directory's tags have, and those of the directories in it, by what they cost."""
    if not data.startswith(_TIFF):
        return 0
    order, big = "<" if data[:1] == b"I" else ">", b"+" in data[:4]
    whole = data.ljust(16, b"\0")
    directories = [struct.unpack_from(f"{order}Q" if big else f"{order}I", whole, 8 if big else 4)[0]]
    values, read = 0, 0
    while directories and read <= len(_DIRECTORIES) and values <= MOST_VALUES:
        for tag, kind, count, value in _tags(data, directories.pop(), order, big=big):
            if tag in _DIRECTORIES:
                directories.append(value)
            size = _TIFF_SIZES.get(kind)
            values += min(count, len(data) // size) * (_FRACTION_WEIGHT if kind in _FRACTIONS else 1) if size else 0
        read += 1
    return values


def _tags(data: bytes, at: int, order: str, *, big: bool) -> Iterator[tuple[int, int, int, int]]:
    """(tag, type, count, value or where it stands) of the directory at a place, as far as there is one."""
    head, entry = (
        (struct.Struct(f"{order}Q"), struct.Struct(f"{order}HHQQ"))
        if big
        else (
            struct.Struct(f"{order}H"),
            struct.Struct(f"{order}HHII"),
        )
    )
    if at + head.size > len(data):
        return
    (entries,) = head.unpack_from(data, at)
    at += head.size
    for place in range(at, min(at + entries * entry.size, len(data) - entry.size + 1), entry.size):
        yield entry.unpack_from(data, place)


# BMP


def _check_bmp(data: bytes, field: str) -> None:
    if len(data) > MOST_RLE_BYTES and data[30:34] in (b"\1\0\0\0", b"\2\0\0\0"):
        raise BadInput(field, f"is a run-length encoded BMP of more than {MOST_RLE_BYTES:,} bytes")


def _too_many(parts: str, field: str) -> BadInput:
    return BadInput(field, f"has more than {MOST_PARTS:,} {parts}: no picture needs them")


def _too_much(field: str) -> BadInput:
    return BadInput(field, "has too many bytes between or before its parts that are no picture")


_CHECKS: tuple[tuple[bytes | tuple[bytes, ...], Callable[[bytes, str], None]], ...] = (
    (_PNG, _check_png),
    (_JPEG, _check_jpeg),
    (_GIF, _check_gif),
    (_TIFF, _check_tiff),
    (_BMP, _check_bmp),
)
