"""Draws outlines of what was found into a picture. Stage: command line."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

COLOUR = (220, 30, 60)

Points = Sequence[tuple[float, float]]


def draw(content: bytes, outlines: Sequence[Points], dots: Points, target: Path) -> None:
    """Writes the picture, upright as the mesh saw it, with outlines and dots; the target's suffix says the format.

    OSError or ValueError when it cannot be read or written.
    """
    with Image.open(io.BytesIO(content)) as opened:
        picture = ImageOps.exif_transpose(opened).convert("RGB")
    pen = ImageDraw.Draw(picture)
    width = max(2, round(max(picture.size) / 600))
    for corners in outlines:
        pen.line([*corners, corners[0]], fill=COLOUR, width=width, joint="curve")
    for x, y in dots:
        pen.ellipse((x - width, y - width, x + width, y + width), fill=COLOUR)
    picture.save(target)
