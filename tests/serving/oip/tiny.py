"""The tiny graphs that the tests here serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from ortmesh.serving.cards import Batching, Card, TensorSpec
from ortmesh.serving.store import Store
from ortmesh.serving.tensors import TYPES

FLOAT, HALF = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def save(folder: Path, nodes: Sequence[onnx.NodeProto], inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    """Writes a graph; tensors are given as name → (ONNX type, shape)."""
    takes, gives = (
        [helper.make_tensor_value_info(name, *described) for name, described in tensors.items()]
        for tensors in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, "tiny", takes, gives)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "model.onnx"
    )


def install(store: Store, card: Card, *graph: Any) -> None:
    with store.staging() as folder:
        save(folder, *graph)
        store.install(card, folder)


def card(name: str, **options: Any) -> Card:
    return Card(name=name, family="nlp", files={"model.onnx": None}, **options)


def identity(store: Store, name: str, element: int) -> None:
    shape = ["batch", "n"]
    node = helper.make_node("Identity", ["x"], ["y"])
    install(store, card(name), [node], {"x": (element, shape)}, {"y": (element, shape)})


def fill(store: Store) -> None:
    """An identity for every type; `sums`, two inputs and two outputs; `halves`, FP32 in and FP16 out;
    `grows`, 64 times as much out as in; `spells`, numbers as texts; a broken one."""
    for kind in TYPES.values():
        identity(store, f"identity-{kind.name.lower()}", kind.onnx)
    pair = {"left": (FLOAT, ["batch", 3]), "right": (FLOAT, ["batch", 3])}
    sums = [
        helper.make_node("Add", ["left", "right"], ["sum"]),
        helper.make_node("Mul", ["left", "right"], ["product"]),
    ]
    results = {"sum": (FLOAT, ["batch", 3]), "product": (FLOAT, ["batch", 3])}
    install(store, card("sums", version="1", batching=Batching(max_rows=4)), sums, pair, results)
    install(store, card("sums", version="2"), sums, pair, results)
    halves = [helper.make_node("Cast", ["x"], ["half"], to=HALF), helper.make_node("Identity", ["x"], ["same"])]
    install(
        store,
        card("halves"),
        halves,
        {"x": (FLOAT, ["batch", 2])},
        {"half": (HALF, ["batch", 2]), "same": (FLOAT, ["batch", 2])},
    )
    install(
        store,
        card("scaled", inputs={"factor": TensorSpec(batch_axis=None, shared=True)}),
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        {"x": (FLOAT, ["batch", 2]), "factor": (FLOAT, [])},
        {"y": (FLOAT, ["batch", 2])},
    )
    install(
        store,
        card("grows"),
        [helper.make_node("Concat", ["x"] * 64, ["y"], axis=1)],
        {"x": (FLOAT, ["batch", "n"])},
        {"y": (FLOAT, ["batch", "m"])},
    )
    install(
        store,
        card("spells"),
        [helper.make_node("Cast", ["x"], ["text"], to=onnx.TensorProto.STRING), helper.make_node("Neg", ["x"], ["y"])],
        {"x": (FLOAT, ["batch", "n"])},
        {"text": (onnx.TensorProto.STRING, ["batch", "n"]), "y": (FLOAT, ["batch", "n"])},
    )
    with store.staging() as folder:
        (folder / "model.onnx").write_bytes(b"no graph")
        store.install(card("broken"), folder)
