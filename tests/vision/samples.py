"""Pictures that the vision tests make: files, headers without pixels, pages of known text."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import skimage
from PIL import Image, ImageDraw, ImageFont

from ortmesh.vision.v1 import vision_pb2

Pixels = npt.NDArray[np.uint8]
SKIMAGE = Path(skimage.__file__).parent / "data"
"""Pictures that scikit-image ships: public domain or CC0."""


def photo(name: str) -> vision_pb2.Image:
    """A photograph, as its file."""
    return vision_pb2.Image(encoded=(SKIMAGE / name).read_bytes())


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> vision_pb2.Image:
    """A picture as a file, in the request's message."""
    return vision_pb2.Image(encoded=encode(image, kind, **options))


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds hardly a pixel."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def quadrants() -> Pixels:
    """[20, 40, 3]: red, green, blue and white quarters, so that every way to turn it shows."""
    pixels = np.full((20, 40, 3), 255, np.uint8)
    pixels[:10, :20] = (255, 0, 0)
    pixels[:10, 20:] = (0, 255, 0)
    pixels[10:, :20] = (0, 0, 255)
    return pixels


def jpeg_with(parts: bytes) -> bytes:
    """A JPEG with something behind its first marker."""
    whole = encode(Image.fromarray(quadrants()), "JPEG")
    return whole[:2] + parts + whole[2:]


def scans(count: int) -> bytes:
    """A progressive JPEG whose last scan comes so often again."""
    whole = encode(Image.fromarray(quadrants()), "JPEG", progressive=True)
    last = whole[whole.rindex(b"\xff\xda") : -2]
    return whole[:-2] + last * count + b"\xff\xd9"


def draw_page(lines: Sequence[str], size: int = 28, margin: int = 40) -> Image.Image:
    """Lines of text under each other, in the font that Pillow carries."""
    font = ImageFont.load_default(size)
    width = round(max(font.getlength(line) for line in lines))
    page = Image.new("RGB", (width + 2 * margin, len(lines) * 2 * size + 2 * margin), "white")
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        draw.text((margin, margin + number * 2 * size), line, fill="black", font=font)
    return page


def character_errors(truth: str, read: str) -> float:
    """Edits that turn what was read into the truth, by the truth's length."""
    row = list(range(len(read) + 1))
    for number, character in enumerate(truth, 1):
        diagonal, row[0] = row[0], number
        for column, other in enumerate(read, 1):
            edits = min(row[column] + 1, row[column - 1] + 1, diagonal + (character != other))
            diagonal, row[column] = row[column], edits
    return row[-1] / max(len(truth), 1)
