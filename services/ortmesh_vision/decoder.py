"""The one way from a request's picture to a model's input, on which large pictures take turns. Stage: task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from ortmesh.front.call import Call
from ortmesh.serving.gate import Gate
from ortmesh.vision.v1 import vision_pb2
from ortmesh_vision.pictures import Picture, look_at, read_picture

LARGE_PIXELS = 16_000_000
"""Larger pictures are decoded one after the other: for a moment one of 64 megapixels takes up to 1.3 GB, as WebP."""
LARGE_AT_ONCE: Final = 1

R = TypeVar("R")


class Decoder:
    """Decodes the pictures of all tasks. A large one waits for its turn as its request alone, and in no pool thread."""

    def __init__(self) -> None:
        self.gate = Gate(LARGE_AT_ONCE)

    async def prepare(self, image: vision_pb2.Image, field: str, prepared: Callable[[Picture], R], call: Call) -> R:
        """What `prepared` makes of a picture of the request; never None. BadInput names `field` or a part of it.

        Cancelled or Expired when the call is over while a large picture waits.
        """
        made = await call.in_pool(_unless_large, image, field, prepared)
        if made is None:
            made = await self.gate.in_pool(call, _whatever_size, image, field, prepared)
        return made


def _unless_large(image: vision_pb2.Image, field: str, prepared: Callable[[Picture], R]) -> R | None:
    """None for a large picture: it was looked at, not decoded."""
    source = look_at(image, field)
    return None if source.pixels > LARGE_PIXELS else prepared(Picture(*source.decode()))


def _whatever_size(image: vision_pb2.Image, field: str, prepared: Callable[[Picture], R]) -> R:
    return prepared(read_picture(image, field))
