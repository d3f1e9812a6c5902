"""Items into one batch and its outputs back into items: pure functions. Stage: executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ortmesh.errors import BadInput
from ortmesh.serving.signature import Signature, TensorInfo
from ortmesh.serving.types import Array, Item, Tensors

Shape = tuple[int, ...]
Places = Callable[[Mapping[str, Shape]], dict[str, Array]]
"""Gives arrays of these shapes to write a batch into: `Runner.places`."""


def stack(items: Sequence[Item], signature: Signature, places: Places | None = None) -> tuple[dict[str, Array], float]:
    """(feeds, share of the batch's cells that is padding). One item's arrays are passed on as they are, if aligned;
    of several items each array is copied once, into its place (in new arrays where no `places` are given).

    BadInput when a shared tensor differs between items: the executor then runs them one by one.
    """
    if len(items) == 1:
        return {name: aligned(array) for name, array in items[0].tensors.items()}, 0.0
    parts = {name: [item.tensors[name] for item in items] for name in items[0].tensors}
    shapes = {name: _joined(arrays, signature.inputs[name]) for name, arrays in parts.items()}
    feeds = places(shapes) if places is not None else fresh(shapes, signature)
    cells = used = 0
    for name, arrays in parts.items():
        info = signature.inputs[name]
        if _is_one(info):
            feeds[name] = aligned(arrays[0])
        else:
            _write(feeds[name], arrays, info)
        if info.pad_axis is not None:
            cells += feeds[name].size
            used += sum(array.size for array in arrays)
    return feeds, 1 - used / cells if cells else 0.0


def fresh(shapes: Mapping[str, Shape], signature: Signature) -> dict[str, Array]:
    """New arrays for inputs of these shapes, with nothing in them."""
    return {name: np.empty(shape, signature.inputs[name].dtype) for name, shape in shapes.items()}


def wanted(items: Sequence[Item], signature: Signature) -> tuple[str, ...]:
    """The outputs that some item wants, in the graph's order."""
    first = items[0].outputs
    if all(item.outputs is first for item in items):  # of one task, mostly
        names = first
    elif any(item.outputs is None for item in items):
        names = None
    else:
        names = {name for item in items for name in item.outputs or ()}
    return tuple(signature.outputs) if names is None else tuple([name for name in signature.outputs if name in names])


def aligned(array: Array) -> Array:
    """The array itself where its numbers lie at multiples of their size, else a copy.

    A caller's tensor may begin at any byte of its message. ONNX Runtime takes that, but sums such numbers in another
    order and up to eight times as slowly (0.06 ms and 0.5 for a mean of 4 MB, whose copy takes 0.08).
    """
    return array if array.flags.aligned else array.copy()


def _is_one(info: TensorInfo) -> bool:
    return info.shared or info.batch_axis is None


def _joined(arrays: Sequence[Array], info: TensorInfo) -> Shape:
    """The shape of all together. BadInput when a shared tensor is not the same."""
    if _is_one(info):
        if any(not np.array_equal(array, arrays[0]) for array in arrays[1:]):
            raise BadInput(info.name, "a shared tensor must be equal in all requests of a batch")
        return arrays[0].shape
    assert info.batch_axis is not None
    shape = list(arrays[0].shape)
    shape[info.batch_axis] = sum([array.shape[info.batch_axis] for array in arrays])
    if info.pad_axis is not None:
        shape[info.pad_axis] = max([array.shape[info.pad_axis] for array in arrays])
    return tuple(shape)


def _write(target: Array, arrays: Sequence[Array], info: TensorInfo) -> None:
    """Writes arrays into their places, of the same type: else the batch fails, and its items are run one by one."""
    batch_axis, pad_axis = info.batch_axis, info.pad_axis
    assert batch_axis is not None
    if pad_axis is None or all(array.shape[pad_axis] == target.shape[pad_axis] for array in arrays):
        np.concatenate(arrays, axis=batch_axis, out=target, casting="no")
        return
    target[...] = info.pad_value
    at = 0
    for array in arrays:
        place = [slice(None)] * target.ndim
        place[batch_axis] = slice(at, at + array.shape[batch_axis])
        place[pad_axis] = slice(0, array.shape[pad_axis])
        np.copyto(target[tuple(place)], array, casting="no")
        at += array.shape[batch_axis]


class NotByRows(Exception):
    """The outputs do not have the rows of the inputs: nobody can tell whose is whose."""


def split(outputs: Mapping[str, Array], items: Sequence[Item], signature: Signature) -> list[Tensors]:
    """Each item's rows of a batch's outputs, cut back to its own length along the padded axis.

    The pieces are views; what outlives the batch must copy (the answers do when they serialize). NotByRows when an
    output has not exactly the batch's rows: a graph that selects rows would give one caller another's.
    """
    if len(items) == 1:
        return [outputs]
    must_have_rows(outputs, sum(item.rows for item in items), signature)
    pieces: list[Tensors] = []
    at, padded = 0, signature.padded
    for item in items:
        length = item.size if padded else 0
        pieces.append(
            {
                name: _cut(array, signature.outputs[name], at, item.rows, length)
                for name, array in outputs.items()
                if item.outputs is None or name in item.outputs
            }
        )
        at += item.rows
    return pieces


def _cut(array: Array, info: TensorInfo, at: int, rows: int, length: int) -> Array:
    if info.batch_axis is None:
        return array
    place = [slice(None)] * array.ndim
    place[info.batch_axis] = slice(at, at + rows)
    if info.pad_axis is not None and length and array.shape[info.pad_axis] > length:
        place[info.pad_axis] = slice(0, length)
    return array[tuple(place)]


def must_have_rows(outputs: Mapping[str, Array], rows: int, signature: Signature) -> None:
    """NotByRows when an output has not exactly so many rows."""
    for name, array in outputs.items():
        axis = signature.outputs[name].batch_axis
        if axis is not None and (array.ndim <= axis or array.shape[axis] != rows):
            raise NotByRows(f"{name} has the shape {list(array.shape)} for a batch of {rows} rows")


def join(parts: Sequence[Tensors], signature: Signature) -> Tensors:
    """The outputs of an item's slices as if it had run in one piece."""
    return {
        name: array if (axis := signature.outputs[name].batch_axis) is None else _concatenated(parts, name, axis)
        for name, array in parts[0].items()
    }


def _concatenated(parts: Sequence[Tensors], name: str, axis: int) -> Array:
    return np.concatenate([part[name] for part in parts], axis=axis)
