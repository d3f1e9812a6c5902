"""A picture that came as its pixels. Stage: task."""

from __future__ import annotations

from PIL import Image

from ortmesh.errors import BadInput
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.colours import over_white
from ortmesh_vision.sizes import MAX_SIDE, check_size

BYTES = {
    vision_pb2.PIXEL_FORMAT_RGB8: 3,
    vision_pb2.PIXEL_FORMAT_BGR8: 3,
    vision_pb2.PIXEL_FORMAT_RGBA8: 4,
    vision_pb2.PIXEL_FORMAT_GRAY8: 1,
}
"""Of a pixel."""


class Raw:
    """Pixels that are as many as they should be."""

    def __init__(self, raw: vision_pb2.RawImage, field: str) -> None:
        """BadInput for a size, a format or a number of bytes that is not allowed."""
        for name, side in (("width", raw.width), ("height", raw.height)):
            if not 1 <= side <= MAX_SIDE:
                raise BadInput(f"{field}.{name}", f"is {side}; 1 to {MAX_SIDE:,} is allowed")
        check_size(raw.width, raw.height, field)
        each = BYTES.get(raw.format)
        if each is None:
            raise BadInput(f"{field}.format", "is required: RGB8, BGR8, RGBA8 or GRAY8")
        self._raw = raw
        self.pixels = raw.width * raw.height
        expected, given = self.pixels * each, len(raw.pixels)
        if given != expected:
            raise BadInput(f"{field}.pixels", f"has {given} bytes; width x height x {each} are {expected}")

    def decode(self) -> tuple[Image.Image, int]:
        """The picture in RGB, which is one frame."""
        return self._rgb(), 1

    def _rgb(self) -> Image.Image:
        raw, size = self._raw, (self._raw.width, self._raw.height)
        if raw.format == vision_pb2.PIXEL_FORMAT_RGBA8:
            return over_white(Image.frombytes("RGBA", size, raw.pixels))
        if raw.format == vision_pb2.PIXEL_FORMAT_GRAY8:
            return Image.frombytes("L", size, raw.pixels).convert("RGB")
        order = "BGR" if raw.format == vision_pb2.PIXEL_FORMAT_BGR8 else "RGB"
        return Image.frombytes("RGB", size, raw.pixels, "raw", order)
