"""The reader of ONNX Runtime's own format, on a small model that is quantized as packages do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ortmesh.catalogue.recipes._graph import Array
from ortmesh.catalogue.recipes._ort_format import Weights

RANDOM = np.random.default_rng(0)
QUANTIZED = RANDOM.integers(0, 256, (8, 4)).astype(np.uint8)
PLAIN = RANDOM.standard_normal((4, 4)).astype(np.float32)
NORM = RANDOM.standard_normal(4).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A quantized layer, a plain one with a bias, and a scale whose name tells that two graphs were merged."""
    nodes = [
        helper.make_node(
            "DynamicQuantizeMatMul",
            ["x", "q", "scale", "zero"],
            ["/layers.0/fc1/MatMul_output_0"],
            domain="com.microsoft",
        ),
        helper.make_node("MatMul", ["/layers.0/fc1/MatMul_output_0", "w"], ["/layers.0/fc2/MatMul_output_0"]),
        helper.make_node("Mul", ["/layers.0/fc2/MatMul_output_0", "norm.weight_merged_0"], ["y"]),
    ]
    constants: dict[str, Array] = {
        "q": QUANTIZED,
        "scale": np.array(0.5, np.float32),
        "zero": np.array(128, np.uint8),
        "w": PLAIN,
        "norm.weight_merged_0": NORM,
    }
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    (tmp_path / "m.onnx").write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(tmp_path / "m.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), options, providers=["CPUExecutionProvider"])
    return tmp_path / "m.ort"


def test_linear_layers_are_read_by_their_paths_as_floats(model: Path) -> None:
    weights = Weights(model)
    assert weights.linears.keys() == {"layers.0/fc1", "layers.0/fc2"}
    np.testing.assert_array_equal(weights.linears["layers.0/fc1"], (QUANTIZED.astype(np.float32) - 128) * 0.5)
    np.testing.assert_array_equal(weights.linears["layers.0/fc2"], PLAIN)


def test_constants_are_found_by_the_names_that_they_had(model: Path) -> None:
    weights = Weights(model)
    np.testing.assert_array_equal(weights.named("norm.weight"), NORM)
    with pytest.raises(KeyError, match=r"norm\.bias"):
        weights.named("norm.bias")
