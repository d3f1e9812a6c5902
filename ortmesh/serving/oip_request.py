"""A ModelInferRequest, checked against the model that it names, and its tensors in NumPy. Stage: wire.

In two steps, because the first is cheap and tells whether the second may run in the thread that received the
request: `declared` reads names, types and shapes; `tensors_of` reads the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from ortmesh.errors import BadInput
from ortmesh.serving.oip_contents import decode_typed
from ortmesh.serving.signature import TensorInfo
from ortmesh.serving.tensors import MAX_DIMENSIONS, TYPES, DataType, count, decode_raw
from ortmesh.serving.types import Array

MAX_ROWS = 4096
"""The most rows of one request, whatever the card's `max_rows`: beyond that one, a request runs alone."""
MAX_NAME = 128
"""How much of an unknown name is looked at and repeated."""

Shape = tuple[int, ...]


@dataclass(slots=True)  # not frozen: that makes it five times as slow to make
class Declared:
    """What a request says of its tensors; it fits the model."""

    names: list[str]
    """In the order of the request's `inputs`."""
    kinds: list[DataType]
    shapes: list[Shape]
    nbytes: int
    """Bytes of all tensors (of BYTES, 8 an element)."""
    raw: bool
    """True when the values are in raw_input_contents."""
    text: bool
    """True with a BYTES tensor, whose elements are decoded one by one."""


def declared(request: Any, inputs: Mapping[str, TensorInfo]) -> Declared:
    """Reads and checks all but the values. BadInput names the field and says what the model expects."""
    names: list[str] = []
    kinds: list[DataType] = []
    shapes: list[Shape] = []
    rows = nbytes = 0
    raw, text = bool(request.raw_input_contents), False
    if len(request.inputs) > len(inputs) + MAX_DIMENSIONS:  # before a million of them are looked at
        raise BadInput("inputs", f"{len(request.inputs)} tensors: expected {len(inputs)}")
    for index, tensor in enumerate(request.inputs):
        info = inputs.get(tensor.name)
        if info is None or tensor.datatype != info.datatype or info.name in names:
            raise _refused(tensor, inputs, index)
        if raw and tensor.HasField("contents") and tensor.contents.ListFields():
            raise BadInput(f"inputs[{index}].contents", "raw_input_contents is used: expected no contents beside it")
        if len(tensor.shape) > MAX_DIMENSIONS:  # before a tuple of a million numbers is made
            raise BadInput(f"inputs[{index}].shape", f"{len(tensor.shape)} dimensions: expected {_written(info)}")
        kind, shape = TYPES[info.datatype], tuple(tensor.shape)
        nbytes += count(kind, shape, index) * kind.dtype.itemsize
        if not _fits(shape, info.shape):
            raise BadInput(f"inputs[{index}].shape", f"{list(shape)}: expected {_written(info)}")
        if info.batch_axis is not None:
            rows = _rows(shape[info.batch_axis], rows, info, index)
        text = text or kind.name == "BYTES"
        names.append(info.name)
        kinds.append(kind)
        shapes.append(shape)
    if len(names) != len(inputs):
        _must_have_all(names, inputs)
    return Declared(names, kinds, shapes, nbytes, raw, text)


def tensors_of(request: Any, declared: Declared) -> dict[str, Array]:
    """The values of all inputs by name; raw ones are views of the request's bytes. BadInput names the field."""
    if declared.raw:
        return _raw_tensors(request, declared)
    return {
        name: decode_typed(kind, shape, tensor.contents, index)
        for index, (name, kind, shape, tensor) in enumerate(
            zip(declared.names, declared.kinds, declared.shapes, request.inputs, strict=True)
        )
    }


def wanted(request: Any, outputs: Mapping[str, TensorInfo]) -> Sequence[TensorInfo]:
    """The outputs that the request asks for, in its order; all when it asks for none. BadInput for an unknown one."""
    if not request.outputs:
        return tuple(outputs.values())
    asked: dict[str, TensorInfo] = {}
    for index, output in enumerate(request.outputs):
        if output.name not in outputs:
            raise BadInput(f"outputs[{index}].name", _unknown(output.name, outputs))
        if output.name in asked:
            raise BadInput(f"outputs[{index}].name", f"{output.name!r} is asked for twice")
        asked[output.name] = outputs[output.name]
    return tuple(asked.values())


def _raw_tensors(request: Any, declared: Declared) -> dict[str, Array]:
    payloads = request.raw_input_contents
    if len(payloads) != len(declared.names):
        raise BadInput(
            "raw_input_contents", f"{len(payloads)} buffers: expected {len(declared.names)}, one for each of `inputs`"
        )
    tensors: dict[str, Array] = {}
    for index, (name, kind, shape) in enumerate(zip(declared.names, declared.kinds, declared.shapes, strict=True)):
        tensors[name] = decode_raw(kind, shape, payloads[index], index)
    return tensors


def _fits(shape: Shape, expected: Shape) -> bool:
    """Whether a shape is what the model takes. ONNX Runtime shows a scalar and an unknown rank alike, as []: the
    graph itself decides on those."""
    if not expected:
        return True
    if len(shape) != len(expected):
        return False
    for size, length in zip(shape, expected, strict=True):  # noqa: SIM110 (`all` takes three times as long)
        if length not in (size, -1):
            return False
    return True


def _rows(size: int, rows: int, info: TensorInfo, index: int) -> int:
    """How many rows the request has, after one more input; `rows` is 0 before the first."""
    field = f"inputs[{index}].shape"
    if size < 1:
        raise BadInput(field, f"no rows along axis {info.batch_axis}: expected at least 1")
    if size > MAX_ROWS:
        raise BadInput(field, f"{size} rows along axis {info.batch_axis}: expected at most {MAX_ROWS}")
    if rows not in (0, size):
        raise BadInput(field, f"{size} rows along axis {info.batch_axis}: expected {rows} as in the inputs before it")
    return size


def _refused(tensor: Any, inputs: Mapping[str, TensorInfo], index: int) -> BadInput:
    """Why an input's name or type is wrong."""
    info = inputs.get(tensor.name)
    if info is None:
        return BadInput(f"inputs[{index}].name", _unknown(tensor.name, inputs))
    if tensor.datatype != info.datatype:
        return BadInput(f"inputs[{index}].datatype", f"{tensor.datatype[:MAX_NAME]!r}: expected {_written(info)}")
    return BadInput(f"inputs[{index}].name", f"{tensor.name!r} is given twice")


def _must_have_all(names: Sequence[str], inputs: Mapping[str, TensorInfo]) -> None:
    """BadInput names the inputs that are missing and not optional."""
    missing = [_written(info) for name, info in inputs.items() if name not in names and not info.optional]
    if missing:
        raise BadInput("inputs", f"expected also {', '.join(missing)}")


def _unknown(name: str, tensors: Mapping[str, TensorInfo]) -> str:
    """That a name is unknown, with a near one. Only its beginning is looked at: a caller may send megabytes."""
    name = name[:MAX_NAME]
    near = get_close_matches(name, tensors, n=1)
    question = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{name!r} is unknown{question}: expected one of {', '.join(map(repr, tensors))}"


def _written(info: TensorInfo) -> str:
    """A tensor as a person reads it, e.g. `'image' FP32 [-1, 3, 224, 224]`."""
    return f"{info.name!r} {info.datatype} {list(info.shape) if info.shape else 'of any shape'}"
