"""Small graphs for tests, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save


def write(
    folder: Path, nodes: list[object], inputs: list[object], outputs: list[object], weights: dict[str, object]
) -> Path:
    """Writes a model of opset 17 as `folder/model.onnx`."""
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "test", inputs, outputs, initializers)
    path = folder / "model.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def tensor(name: str, shape: list[int | str], kind: int = TensorProto.FLOAT) -> object:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, kind, shape)


def double(folder: Path) -> Path:
    """y = 2 x, rows of four."""
    nodes = [helper.make_node("Mul", ["x", "two"], ["y"])]
    return write(folder, nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])], {"two": np.float32(2)})


def batch_mean(folder: Path) -> Path:
    """y = x - mean over the batch: looks batchable and is not."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return write(folder, nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])], {})


def lookup(folder: Path) -> Path:
    """y = table[ids]: ids beyond 9 fail."""
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    table = np.arange(20, dtype=np.float32).reshape(10, 2)
    return write(
        folder, nodes, [tensor("ids", ["n", "s"], TensorProto.INT64)], [tensor("y", ["n", "s", 2])], {"table": table}
    )


def masked_sum(folder: Path, *, honest: bool = True) -> Path:
    """y = sum of x where the mask is 1, over `s`; without honesty the mean over the padded length."""
    masked = helper.make_node("Mul", ["x", "mask"], ["kept"])
    reduce = helper.make_node(
        "ReduceSum" if honest else "ReduceMean",
        ["kept", "axis"] if honest else ["kept"],
        ["y"],
        keepdims=0,
        **({} if honest else {"axes": [1]}),
    )
    return write(
        folder,
        [masked, reduce],
        [tensor("x", ["n", "s"]), tensor("mask", ["n", "s"])],
        [tensor("y", ["n"])],
        {"axis": np.array([1], np.int64)},
    )
