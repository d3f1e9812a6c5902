"""Whatever colours a picture has become 8-bit RGB, what is transparent over white. Stage: task."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ortmesh.errors import BadInput

WHITE = (255, 255, 255)
TOO_DEEP = ("I", "F")
"""Pillow's modes of 32 bits a channel: what is white in them, nobody knows."""


def to_rgb(image: Image.Image, field: str) -> Image.Image:
    """A decoded picture in mode RGB. BadInput for colours that are not supported."""
    if image.mode in TOO_DEEP:
        raise BadInput(field, "pictures of 32 bits a channel are not supported")
    if image.mode == "LAB":
        raise BadInput(field, "pictures in the LAB colour space are not supported")
    if image.mode.startswith("I;16"):
        return _from_grey16(image)
    if image.has_transparency_data:
        return over_white(image if image.mode == "RGBA" else image.convert("RGBA"))
    return image.convert("RGB")


def over_white(rgba: Image.Image) -> Image.Image:
    """A picture in mode RGBA as it looks on white paper."""
    white = Image.new("RGB", rgba.size, WHITE)
    white.paste(rgba, mask=rgba)
    return white


def _from_grey16(image: Image.Image) -> Image.Image:
    """The upper 8 bits, as Pillow keeps of 16-bit colours; the one transparent value becomes white."""
    deep = np.asarray(image)
    grey = (deep >> 8).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[deep == transparent] = 255
    return Image.fromarray(grey).convert("RGB")
