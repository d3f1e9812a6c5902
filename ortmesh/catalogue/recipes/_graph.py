"""A small builder of ONNX graphs: nodes stand in the order written, values are named by them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Array: TypeAlias = npt.NDArray[Any]
Operand: TypeAlias = str | Array  # the name of a value, or an array that becomes a constant
Shape: TypeAlias = Sequence[int | str]

OPSET = 20  # the first with Gelu; read by every ONNX Runtime since 1.17
IR_VERSION = 9
CONTRIB = "com.microsoft"  # ONNX Runtime's own operators
_SHARED_BYTES = 64  # constants up to this size are stored once


class Graph:
    """Collects nodes, constants, inputs and outputs; `save` writes them as one ONNX file."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, Array] = {}
        self._small: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, dtype: npt.DTypeLike, shape: Shape) -> str:
        """Declare an input; text in `shape` names a dimension that varies."""
        self._inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, name: str, value: str, dtype: npt.DTypeLike, shape: Shape) -> None:
        """Give `value` to the caller under `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output_{name}"))
        self._outputs.append(_value_info(name, dtype, shape))

    def given(self, name: str, dtype: npt.DTypeLike, shape: Shape) -> None:
        """Give the value of this name to the caller as it is: one that a node writes in place must not be copied."""
        self._outputs.append(_value_info(name, dtype, shape))

    def constant(self, value: Array, name: str | None = None) -> str:
        """Store `value`; small unnamed ones that are equal share one entry."""
        if name is not None:
            if name in self._constants:
                raise ValueError(f"constant {name!r} is stored already")
            self._constants[name] = value
            return name
        if value.nbytes > _SHARED_BYTES:
            return self._store(value)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._small:
            self._small[key] = self._store(value)
        return self._small[key]

    def _store(self, value: Array) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants[name] = value
        return name

    def op(self, kind: str, *operands: Operand, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return that output's name."""
        return self.ops(kind, *operands, outputs=1, domain=domain, **attributes)[0]

    def ops(
        self, kind: str, *operands: Operand, outputs: int | Sequence[str], domain: str = "", **attributes: Any
    ) -> tuple[str, ...]:
        """Add a node and return the names of its outputs, which may be given; "" is an operand or output left out."""
        node = f"{kind}_{len(self._nodes)}"
        if not isinstance(outputs, int):
            results = tuple(outputs)
        else:
            results = (node,) if outputs == 1 else tuple(f"{node}_{i}" for i in range(outputs))
        names = [o if isinstance(o, str) else self.constant(o) for o in operands]
        self._nodes.append(helper.make_node(kind, names, results, name=node, domain=domain, **attributes))
        return results

    def model(self) -> onnx.ModelProto:
        """The finished model, checked."""
        constants = [
            numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
            for name, value in self._constants.items()
        ]
        graph = helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, constants)
        domains = {node.domain for node in self._nodes}
        opsets = [helper.make_opsetid("", OPSET)]
        if CONTRIB in domains:
            opsets.append(helper.make_opsetid(CONTRIB, 1))
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="ortmesh")
        onnx.checker.check_model(model, full_check=True)
        return model

    def save(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Write the model; the same nodes and constants give the same bytes."""
        model = self.model()
        helper.set_model_props(model, dict(metadata or {}))
        path.write_bytes(model.SerializeToString(deterministic=True))


def int64(*values: int) -> Array:
    """A vector of int64, as shapes, axes and bounds are given."""
    return np.array(values, np.int64)


def float32(value: float) -> Array:
    """A float32 scalar."""
    return np.array(value, np.float32)


def _value_info(name: str, dtype: npt.DTypeLike, shape: Shape) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, kind, list(shape))
