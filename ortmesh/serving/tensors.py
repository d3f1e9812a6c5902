"""The one table of data types, and tensors between their raw bytes and NumPy. Stage: wire.

Every wrong byte of a caller ends here as a BadInput that names the field; `index` is the tensor's place in the
request's `inputs`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ortmesh.errors import BadInput
from ortmesh.serving.types import Array

MAX_DIMENSIONS = 64
"""NumPy's own limit."""
MAX_BYTES = 2**63 - 1
"""What NumPy and ONNX Runtime can address."""
MAX_TEXTS = 1_048_576
"""Elements of a BYTES tensor: each becomes an object of 50 bytes and more, even of two characters."""
LENGTH = struct.Struct("<I")
"""What stands before each element of a raw BYTES tensor."""
Payload = bytes | memoryview
"""Raw bytes: of their own, or a view of the message that they came in."""


@dataclass(frozen=True, slots=True)
class DataType:
    """One data type by all its names."""

    name: str
    """In the Open Inference Protocol, e.g. `FP32`."""
    dtype: np.dtype[Any]
    """In NumPy. BF16 is carried as uint16, its bits; BYTES as objects that are str."""
    onnx: int
    """`onnx.TensorProto.DataType`."""
    ort: str
    """As ONNX Runtime says it of a graph's input, e.g. `tensor(float)`."""
    contents: str | None
    """Its field in InferTensorContents; None when it travels raw only."""


TYPES: Mapping[str, DataType] = {
    name: DataType(name, np.dtype(dtype), onnx, f"tensor({ort})", contents)
    for name, dtype, onnx, ort, contents in (
        ("BOOL", "?", 9, "bool", "bool_contents"),
        ("INT8", "<i1", 3, "int8", "int_contents"),
        ("INT16", "<i2", 5, "int16", "int_contents"),
        ("INT32", "<i4", 6, "int32", "int_contents"),
        ("INT64", "<i8", 7, "int64", "int64_contents"),
        ("UINT8", "<u1", 2, "uint8", "uint_contents"),
        ("UINT16", "<u2", 4, "uint16", "uint_contents"),
        ("UINT32", "<u4", 12, "uint32", "uint_contents"),
        ("UINT64", "<u8", 13, "uint64", "uint64_contents"),
        ("FP16", "<f2", 10, "float16", None),
        ("BF16", "<u2", 16, "bfloat16", None),
        ("FP32", "<f4", 1, "float", "fp32_contents"),
        ("FP64", "<f8", 11, "double", "fp64_contents"),
        ("BYTES", "O", 8, "string", "bytes_contents"),
    )
}
"""Data types by their OIP name."""

_BY_ORT = {kind.ort: kind.name for kind in TYPES.values()}
_BY_ONNX = {kind.onnx: kind.name for kind in TYPES.values()}


def datatype_of_ort(ort: str) -> str:
    """The OIP name of a type such as `tensor(float)`. ValueError for what can't travel (sequences, maps, int4)."""
    try:
        return _BY_ORT[ort]
    except KeyError:
        raise ValueError(f"{ort} can't travel: expected a tensor of {', '.join(TYPES)}") from None


def datatype_of_onnx(element: int) -> str:
    """The OIP name of an `onnx.TensorProto.DataType`. ValueError for what can't travel (complex, float8, int4)."""
    try:
        return _BY_ONNX[element]
    except KeyError:
        raise ValueError(f"ONNX element type {element} can't travel: expected one of {', '.join(TYPES)}") from None


def dtype_of(datatype: str) -> np.dtype[Any]:
    """NumPy's type for an OIP name; uint16 for BF16, object for BYTES. KeyError for an unknown name."""
    return TYPES[datatype].dtype


def count(kind: DataType, shape: Sequence[int], index: int) -> int:
    """How many elements a tensor of this shape has. BadInput when no tensor can have it."""
    if len(shape) > MAX_DIMENSIONS:  # first: the product of a million sizes would take minutes
        raise BadInput(f"inputs[{index}].shape", f"{len(shape)} dimensions: expected at most {MAX_DIMENSIONS}")
    elements = 1
    for size in shape:
        if size < 0:
            raise BadInput(f"inputs[{index}].shape", f"{list(shape)}: expected sizes that are not negative")
        elements *= size or 1  # NumPy refuses [0, 2**62] too: a zero must not hide an overflow
    if elements * kind.dtype.itemsize > MAX_BYTES:
        raise BadInput(f"inputs[{index}].shape", f"{list(shape)}: expected at most {MAX_BYTES} bytes in all")
    if kind.name == "BYTES" and elements > MAX_TEXTS:
        raise BadInput(f"inputs[{index}].shape", f"{list(shape)}: expected at most {MAX_TEXTS} elements of BYTES")
    return 0 if 0 in shape else elements


def decode_raw(kind: DataType, shape: Sequence[int], payload: Payload, index: int) -> Array:
    """A tensor from its raw bytes: a read-only view of `payload`, aligned as that is (BYTES: an array of str).

    BadInput when the bytes are not such a tensor's.
    """
    elements = count(kind, shape, index)
    if kind.name == "BYTES":
        return _split(payload, elements, index).reshape(shape)
    if elements * kind.dtype.itemsize != len(payload):
        raise BadInput(
            f"raw_input_contents[{index}]",
            f"{len(payload)} bytes: expected {elements * kind.dtype.itemsize} for {kind.name} {list(shape)}",
        )
    if kind.name == "BOOL":
        _check_truth(payload, index)
    return np.ndarray(shape, kind.dtype, payload)


def encode_raw(kind: DataType, array: Array) -> bytes:
    """A tensor's raw bytes, row-major, little-endian; BYTES with a length before each element."""
    if kind.name == "BYTES":
        return b"".join(LENGTH.pack(len(element)) + element for element in encode_texts(array))
    return array.tobytes()


def decode_text(element: Payload, field: str, place: int) -> str:
    """One element of a BYTES tensor as the text that ONNX Runtime wants. BadInput when it is not UTF-8."""
    try:
        return str(element, "utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(field, f"element {place} is not UTF-8 ({error.reason} at its byte {error.start})") from None


def encode_texts(array: Array) -> Iterable[bytes]:
    """The elements of a BYTES tensor, row-major, as UTF-8."""
    return (element if isinstance(element, bytes) else element.encode() for element in array.ravel().tolist())


def _split(payload: Payload, elements: int, index: int) -> Array:
    """The elements of a raw BYTES tensor, [elements], as str."""
    field = f"raw_input_contents[{index}]"
    if elements * LENGTH.size > len(payload):  # before the array is made: the shape may ask for terabytes
        raise BadInput(field, f"{len(payload)} bytes: expected a 4-byte length before each of {elements} elements")
    texts = np.empty(elements, object)
    start = 0
    for place in range(elements):
        end = start + LENGTH.size
        if end > len(payload):
            raise BadInput(field, f"element {place}: expected a 4-byte length, {len(payload) - start} bytes are left")
        start, end = end, end + LENGTH.unpack_from(payload, start)[0]
        if end > len(payload):
            raise BadInput(field, f"element {place}: expected {end - start} bytes, {len(payload) - start} are left")
        texts[place] = decode_text(payload[start:end], field, place)
        start = end
    if start != len(payload):
        raise BadInput(field, f"{len(payload) - start} bytes after the last of {elements} elements: expected none")
    return texts


def _check_truth(payload: Payload, index: int) -> None:
    """BadInput unless every byte of a BOOL tensor is 0 or 1: any other is undefined behaviour in the graph."""
    wrong = np.frombuffer(payload, np.uint8) > 1
    if wrong.any():
        place = int(wrong.argmax())
        raise BadInput(f"raw_input_contents[{index}]", f"byte {place} is {payload[place]}: expected 0 or 1")
