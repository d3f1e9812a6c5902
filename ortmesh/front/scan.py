"""A look at a message's bytes before it is parsed: some small ones become gigabytes of objects. Stage: front."""

from __future__ import annotations

from collections.abc import Iterator

from ortmesh.errors import BadInput, MalformedMessage

SMALL_BYTES = 64 * 1024
"""Below, no message can grow to much."""
MOST_FIELDS = 4096
INPUTS, SHAPE = 5, 3
"""Numbers of ModelInferRequest.inputs and of InferInputTensor.shape."""
MOST_SHAPE_BYTES = 1024


def check_infer(payload: bytes) -> None:
    """Refuses a ModelInferRequest of a million empty tensors or dimensions: 31 MB of them took 1.6 GB to parse.

    MalformedMessage or BadInput; a message that is merely broken is left to the parser.
    """
    if len(payload) < SMALL_BYTES:
        return
    for index, (field, start, end) in enumerate(_fields(payload, 0, len(payload))):
        if index >= MOST_FIELDS:
            raise MalformedMessage(f"the message has more than {MOST_FIELDS} fields")
        if field == INPUTS and end - start > MOST_SHAPE_BYTES:
            _check_input(payload, start, end)


def _check_input(payload: bytes, start: int, end: int) -> None:
    for index, (field, inner, outer) in enumerate(_fields(payload, start, end)):
        if index >= MOST_FIELDS or (field == SHAPE and outer - inner > MOST_SHAPE_BYTES):
            raise BadInput("inputs", "a tensor has too many dimensions or fields")


def _fields(payload: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, first byte, end) of each field's value; ends early where the bytes are no message."""
    while at < end:
        key, at = _varint(payload, at, end)
        kind = key & 7
        if kind == 2:
            size, at = _varint(payload, at, end)
        elif kind == 0:
            _, after = _varint(payload, at, end)
            size = after - at
        else:
            size = {1: 8, 5: 4}.get(kind, end)
        if at + size > end:
            return
        yield key >> 3, at, at + size
        at += size


def _varint(payload: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = payload[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    return value, end
