"""Steady: a graph whose every row costs the same, so that no batch is worth more than its rows."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper, save

SIDE = 128
"""A round multiplies a matrix [128, 128] of the row's own: 4.2 MFLOP, some 60 µs on one core."""
COLUMNS = 16
PROBE_ROUNDS = 100
PROBES = 9


def steady(folder: Path, rounds: int) -> Path:
    """y = x, f32 [n, 16]; each row takes so many rounds of a product. Returns the graph's file."""
    value = helper.make_tensor_value_info
    square = value("before", TensorProto.FLOAT, ["n", SIDE, SIDE])
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["before", "unit"], ["after"]),
        ],
        "round",
        [value("number", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), square],
        [value("go_on", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, ["n", SIDE, SIDE])],
    )
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["most"], axes=[1], keepdims=1),
        helper.make_node("Unsqueeze", ["most", "last"], ["deep"]),
        helper.make_node("Mul", ["deep", "unit"], ["square"]),
        helper.make_node("Loop", ["rounds", "", "square"], ["same"], body=body),
        helper.make_node("ReduceMax", ["same"], ["again"], axes=[1, 2], keepdims=0),
        helper.make_node("Unsqueeze", ["again", "last_of_two"], ["column"]),
        helper.make_node("Sub", ["column", "most"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    weights = {
        "unit": np.eye(SIDE, dtype=np.float32),
        "rounds": np.int64(rounds),
        "last": np.array([2], np.int64),
        "last_of_two": np.array([1], np.int64),
    }
    rows: list[str | int | None] = ["n", COLUMNS]
    graph = helper.make_graph(
        nodes,
        "steady",
        [value("x", TensorProto.FLOAT, rows)],
        [value("y", TensorProto.FLOAT, rows)],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in weights.items()],
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def rounds_for(seconds: float, folder: Path) -> int:
    """How many rounds take a row so long on one core of this machine, as it is loaded now."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    path = steady(folder, PROBE_ROUNDS)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    row = {"x": np.ones((1, COLUMNS), np.float32)}
    times = []
    for _ in range(PROBES):
        begin = time.perf_counter()
        session.run(None, row)
        times.append(time.perf_counter() - begin)
    return max(1, round(seconds * PROBE_ROUNDS / min(times)))
