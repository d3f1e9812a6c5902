"""The few bytes of protobuf's encoding that are written by hand, to save copies of large fields. Stage: wire.

Protobuf messages join by concatenation: fields may follow a serialized message and are read as part of it
(https://protobuf.dev/programming-guides/encoding/#last-one-wins).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from io import BytesIO

import numpy as np

from ortmesh.serving.types import Array

LENGTH_DELIMITED = 2


def varint(number: int) -> bytes:
    """A number that is not negative, seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


@lru_cache(maxsize=1024)  # a model's answers have few sizes
def prefix(field: int, size: int) -> bytes:
    """What stands before the `size` bytes of a length-delimited field: bytes, text, message or packed numbers."""
    return varint(field << 3 | LENGTH_DELIMITED) + varint(size)


def join(parts: Sequence[bytes | Array]) -> bytes:
    """The parts one after the other, arrays row-major; each array is copied once, without the interpreter's lock."""
    if all(isinstance(part, bytes) for part in parts):
        return b"".join(parts)  # type: ignore[arg-type]  # they are bytes
    # Python has no way to fill new bytes but this one: a file in memory gives away the bytes that it was written in.
    file = BytesIO(bytes(sum(len(part) if isinstance(part, bytes) else part.nbytes for part in parts)))
    at = 0
    with file.getbuffer() as room:
        for part in parts:
            size = len(part) if isinstance(part, bytes) else part.nbytes
            if isinstance(part, bytes):
                room[at : at + size] = part
            else:
                _copy(part, room[at : at + size])
            at += size
    return file.getvalue()


def _copy(array: Array, room: memoryview) -> None:
    """As bytes where they lie in one piece: numbers at any address are copied one by one."""
    if array.flags.c_contiguous:
        np.frombuffer(room, np.uint8)[:] = array.reshape(-1).view(np.uint8)
    else:
        np.ndarray(array.shape, array.dtype, room)[...] = array
