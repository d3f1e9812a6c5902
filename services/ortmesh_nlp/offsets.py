"""Offsets: places in a text as the caller's language counts them. Stage: task."""

from __future__ import annotations

import numpy as np

from ortmesh.errors import BadInput
from ortmesh.nlp.v1 import nlp_pb2
from ortmesh.serving.types import Array

STEPS: dict[int, tuple[int, ...]] = {
    nlp_pb2.OFFSET_ENCODING_UNSPECIFIED: (),
    nlp_pb2.OFFSET_ENCODING_UTF8: (0x80, 0x800, 0x10000),
    nlp_pb2.OFFSET_ENCODING_UTF16: (0x10000,),
    nlp_pb2.OFFSET_ENCODING_UTF32: (),
}
"""The code points from which on a character takes one unit more."""


def check_encoding(encoding: int) -> None:
    """BadInput for an encoding that does not exist."""
    if encoding not in STEPS:
        raise BadInput("offset_encoding", f"{encoding}: expected UTF8, UTF16 or UTF32 (1, 2, 3), or 0 for UTF32")


def offsets(text: str, encoding: int) -> Array:
    """Where each code point begins, and at last where the text ends, in units of the encoding: int64 [n + 1]."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    sizes = np.ones(len(points), np.int64)
    for step in STEPS[encoding]:
        sizes += points >= step
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
