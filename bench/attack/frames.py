"""Frames of HTTP/2 and gRPC, made by hand: a good library refuses to misbehave."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4
"""A setting: how much of a stream is taken unasked."""
CANCEL: Final = struct.pack(">I", 8)
MAX_FRAME = 16_384


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", key, value) for key, value in values.items()))


def literal(name: bytes, value: bytes) -> bytes:
    """One header of a block, without compression: the block means the same on every connection."""
    return b"\x00" + _length(name) + name + _length(value) + value


def _length(text: bytes) -> bytes:
    if len(text) < 127:
        return bytes((len(text),))
    rest, encoded = len(text) - 127, bytearray(b"\x7f")
    while rest > 127:
        encoded.append(rest % 128 + 128)
        rest //= 128
    return bytes(encoded) + bytes((rest,))


def request(path: str | bytes, **headers: str) -> bytes:
    """The header block of a gRPC call; underscores in the names of further headers become hyphens."""
    pairs = {":method": "POST", ":scheme": "http", ":authority": "localhost"}
    block = b"".join(literal(name.encode(), value.encode()) for name, value in pairs.items())
    block += literal(b":path", path.encode() if isinstance(path, str) else path)
    further = {"te": "trailers", "content_type": "application/grpc", **headers}
    return block + b"".join(literal(n.replace("_", "-").encode(), v.encode()) for n, v in further.items())


def message(payload: bytes, *, compressed: bool = False) -> bytes:
    """One gRPC message with its prefix."""
    return message_prefix(len(payload), compressed=compressed) + payload


def message_prefix(nbytes: int, *, compressed: bool = False) -> bytes:
    """What precedes a message of so many bytes."""
    return struct.pack(">BI", compressed, nbytes)


def head(stream: int, block: bytes, *, ends: bool = True) -> bytes:
    """A header block in as many frames as it takes; without an end, more of it may follow."""
    parts = [block[at : at + MAX_FRAME] for at in range(0, len(block), MAX_FRAME)]
    flags = [0] * (len(parts) - 1) + [END_HEADERS if ends else 0]
    kinds = [HEADERS] + [CONTINUATION] * (len(parts) - 1)
    return b"".join(frame(kind, flag, stream, part) for kind, flag, part in zip(kinds, flags, parts, strict=True))


def call(stream: int, block: bytes, body: bytes) -> bytes:
    """A whole unary call of one small message."""
    return head(stream, block) + frame(DATA, END_STREAM, stream, body)


GREETING: Final = PREFACE + settings({})
"""What a connection begins with."""
