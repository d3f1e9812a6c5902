"""InferTensorContents, OIP's typed values, to and from NumPy. Stage: wire.

Floats and truth values are fixed-width on the wire, so their packed bytes are the array's: 150,000 floats take
17 µs that way and 4 ms one by one. Whole numbers go one by one, in slices, so that other threads get their turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ortmesh import descriptors
from ortmesh.errors import BadInput
from ortmesh.serving import tensors
from ortmesh.serving.oip_wire import prefix
from ortmesh.serving.tensors import DataType
from ortmesh.serving.types import Array

Contents = descriptors.oip("InferTensorContents")
FIELDS = {field.name: field.number for field in Contents.DESCRIPTOR.fields}
FIXED_WIDTH = ("BOOL", "FP32", "FP64")
SLICE = 65536
"""Whole numbers converted at a time: about 2 ms of held interpreter lock."""


def decode_typed(kind: DataType, shape: Sequence[int], contents: Any, index: int) -> Array:
    """A tensor from its InferTensorContents. BadInput when the values are not such a tensor's."""
    elements = tensors.count(kind, shape, index)
    field = _field(kind, contents, index)
    values = getattr(contents, field)
    path = f"inputs[{index}].contents.{field}"
    if len(values) != elements:
        raise BadInput(path, f"{len(values)} values: expected {elements} for {kind.name} {list(shape)}")
    if kind.name == "BYTES":
        return _texts(values, path).reshape(shape)
    if kind.name in FIXED_WIDTH:
        return _packed(kind, contents, elements).reshape(shape)
    return _whole(kind, values, path).reshape(shape)


def encode_typed(kind: DataType, array: Array) -> Any:
    """The InferTensorContents of an array. KeyError for a type that travels raw only."""
    field = kind.contents
    if field is None:
        raise KeyError(kind.name)
    if kind.name in FIXED_WIDTH:
        packed = array.tobytes()
        return Contents.FromString(prefix(FIELDS[field], len(packed)) + packed) if packed else Contents()
    contents = Contents()
    values = getattr(contents, field)
    if kind.name == "BYTES":
        values.extend(tensors.encode_texts(array))
        return contents
    flat = array.ravel()
    for start in range(0, flat.size, SLICE):
        values.extend(flat[start : start + SLICE].tolist())
    return contents


def _field(kind: DataType, contents: Any, index: int) -> str:
    """The field that holds the values. BadInput when there is none for the type or another one is used."""
    if kind.contents is None:
        raise BadInput(f"inputs[{index}].contents", f"{kind.name} has no typed contents: expected raw_input_contents")
    for used, _ in contents.ListFields():
        if used.name != kind.contents:
            raise BadInput(f"inputs[{index}].contents.{used.name}", f"expected {kind.name} in {kind.contents}")
    return kind.contents


def _packed(kind: DataType, contents: Any, elements: int) -> Array:
    """The values of a fixed-width type, [elements]: the packed field's bytes, copied to be aligned."""
    if not elements:
        return np.empty(0, kind.dtype)
    contents.DiscardUnknownFields()  # they would stand among the bytes
    message = contents.SerializeToString()
    return np.frombuffer(message, kind.dtype, elements, len(message) - elements * kind.dtype.itemsize).copy()


def _whole(kind: DataType, values: Sequence[int], path: str) -> Array:
    """Whole numbers, [elements]. BadInput for one beyond the type: INT8 and INT16 travel in 32 bits."""
    limits = np.iinfo(kind.dtype)
    array = np.empty(len(values), kind.dtype)
    for start in range(0, len(values), SLICE):
        part = np.array(values[start : start + SLICE], np.uint64 if kind.name == "UINT64" else np.int64)
        wrong = (part < limits.min) | (part > limits.max)
        if wrong.any():
            place = int(wrong.argmax())
            raise BadInput(
                f"{path}[{start + place}]", f"{part[place]}: expected {limits.min} to {limits.max} ({kind.name})"
            )
        array[start : start + SLICE] = part
    return array


def _texts(values: Sequence[bytes], path: str) -> Array:
    """The elements of a BYTES tensor, [elements], as str."""
    texts = np.empty(len(values), object)
    for place, element in enumerate(values):
        texts[place] = tensors.decode_text(element, path, place)
    return texts
