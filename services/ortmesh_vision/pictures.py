"""Pictures as people send them, decoded once for all tasks: upright, 8-bit RGB. Stage: task.

Everything that a caller can get wrong about a picture is found here and named by its field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from ortmesh.errors import BadInput
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.files import File
from ortmesh_vision.raw import Raw

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture. It stays Pillow's, which resizes it without a copy: an array of 48 megapixels takes 0.6 s."""

    image: Image.Image
    """Mode RGB, upright."""
    frames: int = 1
    """Frames or pages in the file; this is the first."""

    def rgb(self) -> Pixels:
        """The pixels as an array of its own, [height, width, 3]."""
        return np.asarray(self.image)

    def info(self) -> vision_pb2.ImageInfo:
        """What the answer says of the picture."""
        return vision_pb2.ImageInfo(width=self.image.width, height=self.image.height, frames=self.frames)


class Source(Protocol):
    """A picture that was looked at: its size is known and allowed."""

    pixels: int
    """Width by height."""

    def decode(self) -> tuple[Image.Image, int]:
        """The picture, upright RGB, and the number of its frames. BadInput when it can't be read."""


def look_at(image: vision_pb2.Image, field: str) -> Source:
    """A picture of a request before it is decoded, which is cheap; `field` is its path there, e.g. `images[3]`.

    BadInput that names the field, e.g. `images[3].encoded`, when it is none, too large or of no known kind.
    """
    content = image.WhichOneof("content")
    if content == "encoded":
        return File(image.encoded, f"{field}.encoded")
    if content == "raw":
        return Raw(image.raw, f"{field}.raw")
    raise BadInput(field, "a picture is required, encoded or raw")


def read_picture(image: vision_pb2.Image, field: str) -> Picture:
    """Decodes a picture of a request. BadInput as of `look_at`, and when it is truncated or broken."""
    return Picture(*look_at(image, field).decode())
