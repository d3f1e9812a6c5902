"""The few bytes of protobuf's encoding that are written by hand, to save copies of large fields. Stage: wire.

Protobuf messages join by concatenation: fields may follow a serialized message and are read as part of it
(https://protobuf.dev/programming-guides/encoding/#last-one-wins).
"""

from __future__ import annotations

from functools import lru_cache

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
