"""Small graphs for tests, made on the spot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save


def write(
    folder: Path, nodes: Sequence[object], inputs: list[object], outputs: list[object], weights: Mapping[str, object]
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


def compress(folder: Path) -> Path:
    """y = the rows whose first number is above -10: an answer may have fewer rows than its request."""
    nodes = [
        helper.make_node("Gather", ["x", "zero"], ["first"], axis=1),
        helper.make_node("Greater", ["first", "bound"], ["kept"]),
        helper.make_node("Compress", ["x", "kept"], ["y"], axis=0),
    ]
    weights = {"zero": np.array(0, np.int64), "bound": np.float32(-10)}
    return write(folder, nodes, [tensor("x", ["n", 4])], [tensor("y", ["m", 4])], weights)


def first_four_rows(folder: Path) -> Path:
    """y = x[:4]: what a batch of three does not show."""
    nodes = [helper.make_node("Slice", ["x", "from", "to", "axis"], ["y"])]
    weights = {"from": np.array([0], np.int64), "to": np.array([4], np.int64), "axis": np.array([0], np.int64)}
    return write(folder, nodes, [tensor("x", ["n", 4])], [tensor("y", ["m", 4])], weights)


def only_the_first(folder: Path) -> Path:
    """y = the batch's first text, for every row."""
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"]),
        helper.make_node(
            "ConstantOfShape", ["rows"], ["zeros"], value=helper.make_tensor("v", TensorProto.INT64, [1], [0])
        ),
        helper.make_node("Gather", ["x", "zeros"], ["y"]),
    ]
    inputs, outputs = [tensor("x", ["n"], TensorProto.STRING)], [tensor("y", ["n"], TensorProto.STRING)]
    return write(folder, nodes, inputs, outputs, {})


def one_scale(folder: Path) -> Path:
    """y = x quantized with one scale for the whole batch, as dynamic quantization does."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("DynamicQuantizeLinear", ["f"], ["q", "s", "z"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    return write(folder, nodes, [tensor("x", ["n", 16], TensorProto.UINT8)], [tensor("y", ["n", 16])], {})


def tiny_difference(folder: Path) -> Path:
    """y = (x - mean over the batch) / 100,000: small, and wrong all the same."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["difference"]),
        helper.make_node("Mul", ["difference", "small"], ["y"]),
    ]
    return write(folder, nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])], {"small": np.float32(1e-5)})


def not_a_number(folder: Path) -> Path:
    """y = log(x - 10) - its mean over the batch: usual samples give NaN, which proves nothing."""
    nodes = [
        helper.make_node("Sub", ["x", "ten"], ["shifted"]),
        helper.make_node("Log", ["shifted"], ["l"]),
        helper.make_node("ReduceMean", ["l"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["l", "mean"], ["y"]),
    ]
    return write(folder, nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])], {"ten": np.float32(10)})


def counts_down(folder: Path) -> Path:
    """y = x - 1, again and again until all of it is 0 exactly: below 0 it never ends."""
    body = helper.make_graph(
        [
            helper.make_node("Sub", ["a", "one"], ["less"]),
            helper.make_node("ReduceMax", ["less"], ["highest"], keepdims=0),
            helper.make_node("Equal", ["highest", "zero"], ["over"]),
            helper.make_node("Not", ["over"], ["on"]),
        ],
        "body",
        [tensor("i", [], TensorProto.INT64), tensor("go", [], TensorProto.BOOL), tensor("a", ["n", 4])],
        [tensor("on", [], TensorProto.BOOL), tensor("less", ["n", 4])],
        [numpy_helper.from_array(np.float32(1), "one"), numpy_helper.from_array(np.float32(0), "zero")],
    )
    nodes = [
        helper.make_node("Ceil", ["x"], ["whole"]),
        helper.make_node("Loop", ["", "yes", "whole"], ["y"], body=body),
    ]
    return write(folder, nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])], {"yes": np.array(True)})


def hungry(folder: Path) -> Path:
    """y = x, rows of four, by way of 4 MiB a row, twice over."""
    nodes = [
        helper.make_node("Unsqueeze", ["x", "last"], ["column"]),
        helper.make_node("Expand", ["column", "wide"], ["many"]),
        helper.make_node("Neg", ["many"], ["turned"]),
        helper.make_node("ReduceMin", ["turned"], ["lowest"], axes=[2], keepdims=0),
        helper.make_node("Neg", ["lowest"], ["y"]),
    ]
    weights = {"last": np.array([2], np.int64), "wide": np.array([1, 1, 262_144], np.int64)}
    return write(folder, nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])], weights)


def heavy(folder: Path, megabytes: int) -> Path:
    """y = x + the row of w that x begins with, where w has so many megabytes."""
    nodes = [
        helper.make_node("Gather", ["x", "zero"], ["begin"], axis=1),
        helper.make_node("Cast", ["begin"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["w", "place"], ["row"]),
        helper.make_node("Add", ["x", "row"], ["y"]),
    ]
    rows = np.random.default_rng(0).random((megabytes * 62_500, 4), np.float32)
    weights = {"w": rows, "zero": np.array(0, np.int64)}
    return write(folder, nodes, [tensor("x", ["n", 4])], [tensor("y", ["n", 4])], weights)


def attends(folder: Path) -> Path:
    """y = softmax(x xᵀ) x for x [n, s, 16]: by way of n s² numbers."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["x", "turned"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"]),
        helper.make_node("MatMul", ["weights", "x"], ["y"]),
    ]
    return write(folder, nodes, [tensor("x", ["n", "s", 16])], [tensor("y", ["n", "s", 16])], {})


def small_and_wide(folder: Path) -> Path:
    """y = 2 x, rows of four; wide = x three thousand times over, 48 KB a row."""
    nodes = [helper.make_node("Mul", ["x", "two"], ["y"]), helper.make_node("Tile", ["x", "many"], ["wide"])]
    outputs = [tensor("y", ["n", 4]), tensor("wide", ["n", 12000])]
    return write(folder, nodes, [tensor("x", ["n", 4])], outputs, {"two": np.float32(2), "many": np.array([1, 3000])})
