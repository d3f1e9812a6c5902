"""Signature: the tensors that a model takes and gives, from its graph and its card. Stage: executor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ortmesh.serving import tensors
from ortmesh.serving.cards import Card, TensorSpec
from ortmesh.serving.types import Array


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a model."""

    name: str
    datatype: str
    """Its type by the Open Inference Protocol's name, e.g. `FP32`."""
    dtype: np.dtype[Any]
    """Its type in NumPy; BF16 travels as uint16, BYTES as object."""
    shape: tuple[int, ...]
    """-1 where the size may vary."""
    batch_axis: int | None
    """The axis along which items are stacked; None for a tensor that takes no part in batching."""
    shared: bool = False
    """True when it must be equal in all items of a batch."""
    pad_axis: int | None = None
    pad_value: float = 0.0
    sample_range: tuple[float, float] | None = None
    sample_shape: tuple[int, ...] | None = None
    optional: bool = False
    """True for an input that an item may lack: only a program has such ones, and knows what holds instead."""

    def rows(self, array: Array) -> int:
        """How many rows an array of this tensor has."""
        return 1 if self.batch_axis is None else int(array.shape[self.batch_axis])

    def shape_of_a_row(self, array: Array) -> tuple[int, ...]:
        """The array's shape without its batch axis."""
        shape: tuple[int, ...] = array.shape
        return shape if self.batch_axis is None else shape[: self.batch_axis] + shape[self.batch_axis + 1 :]


@dataclass(frozen=True, slots=True)
class Signature:
    """All tensors of a model, by name, in the graph's order."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]

    @property
    def stackable(self) -> bool:
        """True when every tensor has a batch axis or is a shared input: items can run together."""
        inputs_fit = all(info.shared or info.batch_axis is not None for info in self.inputs.values())
        stacked = any(info.batch_axis is not None for info in self.inputs.values())
        return inputs_fit and stacked and all(info.batch_axis is not None for info in self.outputs.values())

    @property
    def padded(self) -> bool:
        """True when items of unequal sizes are padded to stack."""
        return any(info.pad_axis is not None for info in self.inputs.values())


class NodeArg(Protocol):
    """What ONNX Runtime says of an input or output."""

    name: str
    type: str
    shape: Sequence[int | str | None]


def signature_of(inputs: Sequence[NodeArg], outputs: Sequence[NodeArg], card: Card) -> Signature:
    """The signature of a session, with what the card says of each tensor.

    A card that says nothing of a tensor leaves it unbatched unless its first dimension is free (a named or unknown
    first dimension is taken for the batch; warm-up finds out whether that is true). ValueError for tensors that
    can't travel (sequences, maps) and for a card that names tensors which the graph does not have.
    """
    for kind, written, nodes in (("inputs", card.inputs, inputs), ("outputs", card.outputs, outputs)):
        unknown = sorted(set(written) - {node.name for node in nodes})
        if unknown:
            raise ValueError(f"the card's {kind} name {', '.join(unknown)}, which the graph does not have")
    return Signature(
        inputs={node.name: _info(node, card.inputs.get(node.name)) for node in inputs},
        outputs={node.name: _info(node, card.outputs.get(node.name)) for node in outputs},
    )


def _must_have_axes(name: str, shape: tuple[int, ...], spec: TensorSpec) -> None:
    for word, axis in (("batch_axis", spec.batch_axis), ("pad_axis", spec.pad_axis)):
        if axis is not None and not 0 <= axis < len(shape):
            raise ValueError(f"the card's {word} {axis} of {name} is beyond its {len(shape)} dimensions")


def _info(node: NodeArg, spec: TensorSpec | None) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    datatype = tensors.datatype_of_ort(node.type)
    if spec is not None and shape:
        _must_have_axes(node.name, shape, spec)
    if spec is None:
        free = bool(shape) and shape[0] == -1
        spec = TensorSpec(batch_axis=0 if free else None)
    return TensorInfo(
        name=node.name,
        datatype=datatype,
        dtype=tensors.dtype_of(datatype),
        shape=shape,
        batch_axis=spec.batch_axis,
        shared=spec.shared,
        pad_axis=spec.pad_axis,
        pad_value=spec.pad_value,
        sample_range=spec.sample_range,
        sample_shape=spec.sample_shape,
    )
