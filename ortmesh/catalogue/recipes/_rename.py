"""Gives the inputs and outputs of a ready ONNX file the names and dimensions that callers see."""

from collections.abc import Mapping
from pathlib import Path

import onnx

from ortmesh.catalogue.recipes._graph import Shape


def rename_value(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename one value wherever the graph (without subgraphs) mentions it."""
    for info in (*graph.input, *graph.output):
        if info.name == old:
            info.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]


def set_shapes(graph: onnx.GraphProto, shapes: Mapping[str, Shape]) -> None:
    """State the shapes of inputs and outputs; text names a dimension that varies."""
    for info in (*graph.input, *graph.output):
        dims = info.type.tensor_type.shape.dim
        del dims[:]
        for size in shapes[info.name]:
            dims.add(**{"dim_param" if isinstance(size, str) else "dim_value": size})


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write the model without the notes of its converter (inferred shapes, metadata)."""
    del model.graph.value_info[:]
    del model.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))
