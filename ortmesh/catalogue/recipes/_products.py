"""Products with constant weights, at the precision that they are stored in.

Each function multiplies a value [..., inputs] by weights [outputs, inputs] and adds a bias, if any.
"""

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import onnx

from ortmesh.catalogue.recipes._graph import CONTRIB, Array, Graph, float32, int64

BLOCK = 128
"""Numbers under one scale: of 32, 64 and 128 the quickest, with no more errors."""
ZERO = 128
"""What stands for zero in weights of 8 bits without a sign."""
AS_INT8 = 4
"""MatMulNBits's level of accuracy at which it quantizes the other side too, a scale for each block of each row: a row's
result does not depend on the others."""


class Product(Protocol):
    """One of the functions below."""

    def __call__(self, graph: Graph, x: str, weight: Array, bias: Array | None = None) -> str:
        """Adds the nodes and names the product."""


def full(graph: Graph, x: str, weight: Array, bias: Array | None = None) -> str:
    """In 32 bits."""
    product = graph.op("MatMul", x, weight.T)
    return product if bias is None else graph.op("Add", product, bias)


def blockwise(graph: Graph, x: str, weight: Array, bias: Array | None = None) -> str:
    """Weights of 8 bits, a scale for each 128 of them."""
    return Blocks.of(graph, weight).product(graph, x, bias)


def dynamic(graph: Graph, x: str, weight: Array, bias: Array | None = None) -> str:
    """8 bits on both sides: a scale for each output's weights, and one for ALL of x, found when it is computed.

    Only for graphs that compute one item a run: an item's result depends on all others in x.
    """
    scales = np.maximum(np.abs(weight).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127)
    small = np.rint(weight / scales[:, None]).astype(np.int8)
    operands = (x, np.ascontiguousarray(small.T), scales, "", *([] if bias is None else [bias]))
    return graph.op("DynamicQuantizeMatMul", *operands, domain=CONTRIB)


@dataclass(frozen=True)
class Blocks:
    """Weights of 8 bits in a graph, a scale for each 128 of them, to multiply with and to look rows up in."""

    weight: str
    """Constant, uint8 [outputs, blocks, 128]."""
    scales: str
    """Constant, float32 [outputs, blocks]."""
    outputs: int
    inputs: int

    @classmethod
    def of(cls, graph: Graph, weight: Array) -> Self:
        """Stores weights [outputs, inputs]; inputs is a multiple of 128."""
        outputs, inputs = weight.shape
        cut = weight.reshape(outputs, -1, BLOCK)
        scales = np.maximum(np.abs(cut).max(axis=2), np.finfo(np.float32).tiny) / np.float32(127)
        small = (np.rint(cut / scales[:, :, None]) + ZERO).astype(np.uint8)
        return cls(graph.constant(small), graph.constant(scales), outputs, inputs)

    def product(self, graph: Graph, x: str, bias: Array | None = None) -> str:
        """x [..., inputs] times the weights, by ONNX Runtime's own operator."""
        sizes = {"K": self.inputs, "N": self.outputs, "bits": 8, "block_size": BLOCK, "accuracy_level": AS_INT8}
        product = graph.op("MatMulNBits", x, self.weight, self.scales, domain=CONTRIB, **sizes)
        return product if bias is None else graph.op("Add", product, bias)

    def rows(self, graph: Graph, ids: str) -> str:
        """The weights of some outputs, as float32 [ids, inputs] for ids of any number of dimensions."""
        small = graph.op("Cast", graph.op("Gather", self.weight, ids, axis=0), to=onnx.TensorProto.FLOAT)
        scales = graph.op("Unsqueeze", graph.op("Gather", self.scales, ids, axis=0), int64(-1))
        values = graph.op("Mul", graph.op("Sub", small, float32(ZERO)), scales)
        shape = graph.op("Concat", graph.op("Shape", ids), int64(self.inputs), axis=0)
        return graph.op("Reshape", values, shape)
