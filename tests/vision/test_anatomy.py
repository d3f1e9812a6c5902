"""Files of a million parts are refused before a decoder takes them one by one; what programs write is not."""

from __future__ import annotations

import re
import struct
import time
import zlib
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from PIL import Image

from ortmesh.errors import BadInput
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.anatomy import check_parts, is_small_exif
from ortmesh_vision.pictures import read_picture
from tests.vision.samples import SKIMAGE, encode, jpeg_with, quadrants, scans

PNG = encode(Image.fromarray(quadrants()))
GIF = encode(Image.fromarray(quadrants()), "GIF")
HEADER = 33
"""Bytes of a PNG's signature and first chunk."""


def png_with(kind: bytes, content: bytes, count: int) -> bytes:
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return PNG[:HEADER] + chunk * count + PNG[HEADER:]


def gif_with(blocks: bytes) -> bytes:
    """Something before the first frame."""
    at = 13 + (3 << (GIF[10] & 7) + 1)
    return GIF[:at] + blocks + GIF[at:]


def exif_segments(count: int) -> bytes:
    return jpeg_with((b"\xff\xe1" + struct.pack(">H", 60_008) + b"Exif\0\0" + bytes(60_000)) * count)


def tiff(*tags: tuple[int, int, int, int], magic: bytes = b"II*\0") -> bytes:
    """A TIFF of one directory with tags (tag, type, count, value), and eight megabytes of nothing behind it."""
    order = "<" if magic.startswith(b"II") else ">"
    head = magic + struct.pack(f"{order}IH", 8, len(tags))
    return head + b"".join(struct.pack(f"{order}HHII", *each) for each in tags) + bytes(8_000_000)


def tiff_in_tiff() -> bytes:
    """A directory of Exif, to which the first one leads, with a million fractions."""
    first = tiff((0x8769, 4, 1, 22))[:22]
    return first + struct.pack("<HHHII", 1, 0x9999, 5, 1_000_000, 60) + bytes(8_000_000)


def bmp(size: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, 4000, 4000, 1, 8, 1, 0, 0, 0, 256, 0) + bytes(1024)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(header)) + header + b"\xff\x01" * (size // 2)


MONSTERS: Mapping[str, tuple[Callable[[], bytes], str]] = {
    "PNG of empty chunks": (lambda: png_with(b"teSt", b"", 70_000), "65,536 chunks"),
    "PNG of empty pixels": (lambda: png_with(b"IDAT", b"", 70_000), "65,536 chunks"),
    "JPEG of empty comments": (lambda: jpeg_with(b"\xff\xfe\0\x02" * 70_000), "65,536 segments"),
    "JPEG of bare markers": (lambda: jpeg_with(b"\xff\xd0" * 70_000), "65,536 segments"),
    "JPEG of filling": (lambda: jpeg_with(b"\xff" * 32_000_000), "no picture"),
    "JPEG of junk": (lambda: jpeg_with(b"\0" * 32_000_000), "no picture"),
    "JPEG of Exif": (lambda: exif_segments(18), "no picture"),
    "JPEG of scans": (lambda: scans(100), "more than 100 scans"),
    "GIF of comments": (lambda: gif_with(b"\x21\xfe\x01a\0" * 40_000), "65,536 blocks"),
    "GIF of one comment": (lambda: gif_with(b"\x21\xfe" + (b"\x01a" * 70_000) + b"\0"), "65,536 blocks"),
    "GIF of junk": (lambda: gif_with(b"\0" * 32_000_000), "no picture"),
    "TIFF of numbers": (lambda: tiff((258, 3, 2_500_000, 8)), "2,000,000 values"),
    "TIFF of fractions": (lambda: tiff((282, 5, 100_000, 8)), "2,000,000 values"),
    "TIFF of tags": (lambda: tiff(*[(number, 4, 1000, 8) for number in range(3000)]), "2,000,000 values"),
    "TIFF of Motorola's": (
        lambda: tiff((273, 4, 1_900_000, 8), (279, 4, 1_900_000, 8), magic=b"MM\0*"),
        "2,000,000 values",
    ),
    "TIFF of Motorola's with a swapped head": (lambda: tiff((282, 5, 100_000, 8), magic=b"MM*\0"), "2,000,000 values"),
    "TIFF of Intel's with a swapped head": (lambda: tiff((282, 5, 100_000, 8), magic=b"II\0*"), "2,000,000 values"),
    "TIFF that says it is big": (lambda: tiff((282, 5, 100_000, 8), magic=b"MM\0+"), "2,000,000 values"),
    "TIFF in a TIFF": (tiff_in_tiff, "2,000,000 values"),
    "BMP of runs": (lambda: bmp(5_000_000), "run-length encoded"),
}


@pytest.mark.parametrize("name", MONSTERS)
def test_what_would_take_long_is_refused_at_once(name: str) -> None:
    made, why = MONSTERS[name]
    data = made()
    start = time.process_time()
    with pytest.raises(BadInput, match=re.escape(why)) as caught:
        read_picture(vision_pb2.Image(encoded=data), "image")
    assert time.process_time() - start < 1
    assert caught.value.violations[0].field == "image.encoded"


@pytest.mark.parametrize(
    "data",
    [
        png_with(b"tEXt", b"k\0v", 100),
        png_with(b"IDAT", b"", 4000),  # a PNG of 32 MB in libpng's pieces of 8 kB
        jpeg_with((b"\xff\xfe\0\x10" + bytes(14)) * 300),
        jpeg_with(b"\xff" * 100),
        scans(20),
        exif_segments(2),
        gif_with(b"\x21\xfe" + (b"\xff" + bytes(255)) * 4000 + b"\0"),  # a megabyte of XMP
        bmp(100_000)[:100_000] + b"\0\1",
    ],
)
def test_what_programs_write_is_passed(data: bytes) -> None:
    check_parts(data, "image")


@pytest.mark.parametrize("path", sorted(SKIMAGE.glob("*.[pjtg][npi][gf]*")), ids=lambda path: path.name)
def test_real_files_are_passed(path: object) -> None:
    check_parts(path.read_bytes(), "image")  # type: ignore[attr-defined]


def test_damaged_files_are_left_to_their_decoders() -> None:
    """Cut and changed anywhere, a file is passed or refused, and nothing else is raised."""
    random = np.random.default_rng(5)
    files = [PNG, jpeg_with(b""), GIF, scans(3), tiff((0x8769, 4, 1, 8), (256, 3, 1, 4))[:64], bmp(100)]
    for _ in range(2000):
        data = bytearray(files[random.integers(len(files))])
        for place in random.integers(0, len(data), size=4):
            data[place] = random.integers(256)
        check_parts(bytes(data[: random.integers(len(data) + 1)]), "image")


def test_exif_that_takes_long_to_read_is_not_read() -> None:
    """A picture whose orientation stands among a million fractions is shown as it lies."""
    exif = tiff((0x112, 5, 900_000, 30), (0x11A, 5, 900_000, 30))
    assert not is_small_exif(exif)
    assert not is_small_exif(b"Exif\0\0" + exif)
    content = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    start = time.process_time()
    picture = read_picture(vision_pb2.Image(encoded=PNG[:HEADER] + content + PNG[HEADER:]), "image")
    assert time.process_time() - start < 1
    assert picture.info() == vision_pb2.ImageInfo(width=40, height=20, frames=1)
