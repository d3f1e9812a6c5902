"""Reads the weights of a model in ONNX Runtime's own format (.ort), whatever it was quantized to, as float32.

ONNX Runtime itself rewrites such a file as ONNX. Its linear layers are told by the names that PyTorch's exporter gave
their results (`/layers.0/mlp/fc1/MatMul_output_0`), everything else by the names of the stored constants.
"""

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from ortmesh.catalogue.recipes._graph import Array

_LAYER = re.compile(r"^/?(?P<name>.+?)/(MatMul|Add|Gemm)_output_0(_\w+)?$")
_QUANTIZED = {"DynamicQuantizeMatMul": (1, 2, 3), "MatMulIntegerToFloat": (1, 3, 5)}
"""Where the operators have a weight, its scale and its zero point."""


class Weights:
    """Constants and linear layers of one file."""

    def __init__(self, path: Path) -> None:
        """Of the file at `path`. ImportError without ONNX Runtime, which must be there to convert."""
        self.constants: dict[str, Array] = {}
        self.linears: dict[str, Array] = {}
        """By the layer's path, e.g. `layers.0/mlp/fc1`: float32 [in, out]."""
        graphs = list(_graphs(_as_onnx(path).graph))
        for graph in graphs:
            self.constants.update((tensor.name, numpy_helper.to_array(tensor)) for tensor in graph.initializer)
        for graph in graphs:
            for node in graph.node:
                self._read(node)

    def named(self, ending: str) -> Array:
        """The one constant whose name, without what merging graphs appended, is this."""
        found = [value for name, value in self.constants.items() if name.split("_merged_")[0] == ending]
        if not found:
            raise KeyError(ending)
        return found[0]

    def _read(self, node: onnx.NodeProto) -> None:
        layer = _layer_of(node)
        if node.op_type == "Constant":
            self.constants.update(
                (node.output[0], numpy_helper.to_array(a.t)) for a in node.attribute if a.name == "value"
            )
        elif node.op_type in _QUANTIZED:
            weight, scale, zero = (node.input[place] for place in _QUANTIZED[node.op_type])
            self.linears[layer] = dequantized(self.constants, weight, scale, zero)
        elif node.op_type == "MatMul" and node.input[1] in self.constants:
            self.linears[layer] = self.constants[node.input[1]].astype(np.float32)


def _layer_of(node: onnx.NodeProto) -> str:
    """The path of the layer whose result a node gives, or the result's own name."""
    named = _LAYER.match(node.output[0])
    return named["name"] if named else node.output[0]


def dequantized(constants: Mapping[str, Array], weight: str, scale: str, zero: str) -> Array:
    """A quantized constant as float32; a zero point that is not named is 0."""
    origin = constants[zero].astype(np.float32) if zero else np.float32(0)
    values: Array = (constants[weight].astype(np.float32) - origin) * constants[scale].astype(np.float32)
    return values


def _as_onnx(path: Path) -> onnx.ModelProto:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(written)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.add_session_config_entry("session.save_model_format", "ONNX")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return onnx.load(written)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those within its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)
