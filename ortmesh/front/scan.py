"""A look at a message's bytes before it is parsed: some small ones become gigabytes of objects. Stage: front."""

from __future__ import annotations

from collections.abc import Iterator

from ortmesh.errors import BadInput, MalformedMessage

MIB = 1024 * 1024
SMALL_BYTES = 64 * 1024
"""Below, no message can grow to much."""
MOST_FIELDS = 4096
MOST_INNER_FIELDS = 65_536
"""Of all inputs together; looking at so many takes 0.1 s, at the 16 million of 32 MB it would take half a minute."""
INPUTS, SHAPE, CONTENTS = 5, 3, 5
"""Numbers of ModelInferRequest.inputs and of InferInputTensor.shape and .contents."""
MOST_SHAPE_BYTES = 1024
KEPT_AS_SENT = (1, 6, 7, 8)
"""Numbers of InferTensorContents' fields whose packed values, or long texts, take no more memory than bytes."""
MOST_GROWING_BYTES = 4 * MIB
"""Of whole numbers and short texts in the contents of all inputs: 32 MB of them took 480 MB to parse."""


def check_fields(payload: bytes) -> None:
    """Refuses a message of a million empty fields: 32 MB of empty pictures took 800 MB to parse.

    MalformedMessage; a message that is merely broken is left to the parser.
    """
    if len(payload) >= SMALL_BYTES:
        for _ in _few(payload):
            pass


def check_infer(payload: bytes) -> None:
    """Refuses a ModelInferRequest of a million empty tensors or dimensions: 31 MB of them took 1.6 GB to parse.

    MalformedMessage or BadInput; a message that is merely broken is left to the parser.
    """
    if len(payload) < SMALL_BYTES:
        return
    inputs = _Inputs(payload)
    for field, start, end in _few(payload):
        if field == INPUTS:
            inputs.look(start, end)


def _few(payload: bytes) -> Iterator[tuple[int, int, int]]:
    """A message's fields. MalformedMessage for too many."""
    for index, field in enumerate(fields(payload, 0, len(payload))):
        if index >= MOST_FIELDS:
            raise MalformedMessage(f"the message has more than {MOST_FIELDS} fields")
        yield field


class _Inputs:
    """What was seen of a request's inputs so far."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._index = -1
        self._fields = 0
        self._growing_bytes = 0

    def look(self, start: int, end: int) -> None:
        """Looks at one more. BadInput for too many dimensions, fields or values."""
        self._index += 1
        if end - start <= MOST_SHAPE_BYTES:
            return
        for index, (field, inner, outer) in enumerate(fields(self._payload, start, end)):
            self._count()
            if index >= MOST_FIELDS:
                raise BadInput(f"inputs[{self._index}]", f"more than {MOST_FIELDS} fields")
            if field == SHAPE and outer - inner > MOST_SHAPE_BYTES:
                raise BadInput(f"inputs[{self._index}].shape", "too many dimensions")
            if field == CONTENTS and outer - inner > SMALL_BYTES:
                self._look_at_values(inner, outer)

    def _look_at_values(self, start: int, end: int) -> None:
        """Looks at the first values; those behind them count as if they were small."""
        growing = end - start
        for _, (field, inner, outer) in zip(range(MOST_FIELDS), fields(self._payload, start, end), strict=False):
            self._count()
            if field in KEPT_AS_SENT:
                growing -= outer - inner
        self._growing_bytes += growing
        if self._growing_bytes > MOST_GROWING_BYTES:
            text = f"more than {MOST_GROWING_BYTES} bytes of whole numbers or short texts: expected raw_input_contents"
            raise BadInput(f"inputs[{self._index}].contents", text)

    def _count(self) -> None:
        self._fields += 1
        if self._fields > MOST_INNER_FIELDS:
            raise BadInput("inputs", f"the tensors have more than {MOST_INNER_FIELDS} fields")


def fields(payload: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
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
