"""Vectors as the APIs answer them: numbers, or bytes when the request asks for them. Stage: task."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ortmesh.common.v1 import common_pb2
from ortmesh.errors import BadInput
from ortmesh.serving.types import Array

FLOATS = (common_pb2.VECTOR_ENCODING_UNSPECIFIED, common_pb2.VECTOR_ENCODING_FLOATS)
PACKED: dict[int, npt.DTypeLike] = {
    common_pb2.VECTOR_ENCODING_FLOAT32_BYTES: "<f4",
    common_pb2.VECTOR_ENCODING_FLOAT16_BYTES: "<f2",  # NumPy rounds to nearest even
}


def check_encoding(encoding: int) -> None:
    """BadInput when a request names no VectorEncoding. Tasks call it before they work."""
    if encoding not in FLOATS and encoding not in PACKED:
        raise BadInput("encoding", f"{encoding} is no VectorEncoding")


def unit(vector: Array) -> npt.NDArray[np.float32]:
    """A vector [dimension] at length 1; one of zeros stays as it is."""
    wide = vector.astype(np.float64)
    length = math.sqrt(wide.dot(wide))
    return (wide / length if length else wide).astype(np.float32)


def embedding(vector: Array, encoding: int, normalized: bool) -> common_pb2.Embedding:
    """One vector [dimension] as a message. BadInput for an unknown encoding."""
    check_encoding(encoding)
    message = common_pb2.Embedding(dimension=vector.shape[0], normalized=normalized)
    if encoding in FLOATS:
        message.MergeFromString(_packed(vector.astype("<f4", copy=False).tobytes()))
    else:
        message.packed = vector.astype(PACKED[encoding], copy=False).tobytes()
    return message


def _packed(numbers: bytes) -> bytes:
    """`values` as they are encoded: a tag, the length, and the numbers as they lie in memory. One by one they take six
    times as long. Source: the encoding of protocol buffers, packed repeated fields."""
    return _VALUES + _varint(len(numbers)) + numbers


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that another follows."""
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


_LENGTH_DELIMITED = 2
_VALUES = _varint(common_pb2.Embedding.VALUES_FIELD_NUMBER << 3 | _LENGTH_DELIMITED)
