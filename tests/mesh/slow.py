"""A model that works for as long as its caller says, so that a test can keep it busy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from tests.serving.graphs import tensor, write

COLUMNS = 1024
"""A row of `x` is 4 KiB."""
SIDE = 128


def slow(folder: Path) -> Path:
    """y = x, rows of 1,024; takes longer the greater the largest of `rounds` in the batch is: some 25 µs each."""
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["before", "unit"], ["after"]),
        ],
        "round",
        [
            value("number", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("before", TensorProto.FLOAT, [SIDE, SIDE]),
        ],
        [value("go_on", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, [SIDE, SIDE])],
    )
    nodes = [
        helper.make_node("ReduceMax", ["rounds"], ["most"], keepdims=0),
        helper.make_node("Loop", ["most", "", "unit"], ["still_unit"], body=body),
        helper.make_node("ReduceMax", ["still_unit"], ["one"], keepdims=0),
        helper.make_node("Mul", ["x", "one"], ["y"]),
    ]
    inputs = [tensor("x", ["n", COLUMNS]), tensor("rounds", ["n", 1], TensorProto.INT64)]
    return write(folder, nodes, inputs, [tensor("y", ["n", COLUMNS])], {"unit": np.eye(SIDE, dtype=np.float32)})
