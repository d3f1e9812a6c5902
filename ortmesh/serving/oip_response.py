"""A ModelInferResponse from a model's outputs, serialized. Stage: wire.

The part that names model and outputs is the same in thousands of answers: it is made once for each set of shapes,
and the id and the values are appended to it (0.6 µs an answer, 1.4 µs by filling a message).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ortmesh import descriptors
from ortmesh.serving.oip_contents import encode_typed
from ortmesh.serving.oip_wire import join, prefix
from ortmesh.serving.signature import TensorInfo
from ortmesh.serving.tensors import TYPES, encode_raw
from ortmesh.serving.types import Array, Tensors

ModelInferResponse = descriptors.oip("ModelInferResponse")
ID_FIELD = ModelInferResponse.DESCRIPTOR.fields_by_name["id"].number
RAW_FIELD = ModelInferResponse.DESCRIPTOR.fields_by_name["raw_output_contents"].number

JOINED_BYTES = 64 * 1024
"""A larger output is copied once, into its place in the answer; for others two copies take less time."""

Described = tuple[str, str, tuple[int, ...]]
"""An output's name, data type and shape."""


def encode(
    model: tuple[str, str], wanted: Sequence[TensorInfo], outputs: Tensors, *, request_id: str, raw: bool
) -> bytes:
    """The answer of a model, given as (name, version), to one request: the wanted outputs in their order.

    Raw when `raw`, or when an output has no typed form (FP16, BF16): an answer is one or the other throughout.
    """
    if not raw and all(TYPES[info.datatype].contents for info in wanted):
        return _typed(model, wanted, outputs, request_id)
    described = tuple([(info.name, info.datatype, outputs[info.name].shape) for info in wanted])
    parts: list[bytes | Array] = [_head(*model, described)]
    if request_id:
        identifier = request_id.encode()
        parts += (prefix(ID_FIELD, len(identifier)), identifier)
    for info in wanted:
        array = outputs[info.name]
        if array.nbytes > JOINED_BYTES and info.datatype != "BYTES":
            parts += (prefix(RAW_FIELD, array.nbytes), array)
        else:
            payload = encode_raw(TYPES[info.datatype], array)
            parts += (prefix(RAW_FIELD, len(payload)), payload)
    return join(parts)


@lru_cache(maxsize=4096)
def _head(name: str, version: str, outputs: tuple[Described, ...]) -> bytes:
    """The answer's bytes without id and values."""
    return bytes(_described(name, version, outputs).SerializeToString())


def _typed(model: tuple[str, str], wanted: Sequence[TensorInfo], outputs: Tensors, request_id: str) -> bytes:
    response = _described(*model, [(info.name, info.datatype, outputs[info.name].shape) for info in wanted])
    response.id = request_id
    for output, info in zip(response.outputs, wanted, strict=True):
        output.contents.CopyFrom(encode_typed(TYPES[info.datatype], outputs[info.name]))
    return bytes(response.SerializeToString())


def _described(name: str, version: str, outputs: Sequence[Described]) -> Any:
    response = ModelInferResponse(model_name=name, model_version=version)
    for output, datatype, shape in outputs:
        response.outputs.add(name=output, datatype=datatype, shape=shape)
    return response
