"""PP-OCRv6 small, recognition: what a line of text says, from the ONNX file that rapidocr carries.

Architecture: SVTR's family (Du et al., arXiv:2205.00159) with a CTC head of 18,710 classes, as in
github.com/PaddlePaddle/PaddleOCR. The best class and its probability are taken inside the graph:
a line of 320 pixels returns 480 bytes instead of 3 MB.
"""

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from ortmesh.catalogue.recipes._rename import rename_value, save, set_shapes

OUTPUTS: tuple[str, ...] = ("model.onnx", "characters.txt")

SOURCE = "PP-OCRv6_rec_small.onnx"
CLASSES = 18710


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `model.onnx` and `characters.txt`.

    `image` [batch, 3, 48, width] → `indices` int64 and `scores` [batch, steps], a step for every
    8 pixels. Line i of the characters is class i: the first, CTC's blank, is empty.
    """
    model = onnx.load(sources[SOURCE])
    (out / "characters.txt").write_text(_characters(model), encoding="utf-8", newline="\n")
    rename_value(model.graph, "x", "image")
    rename_value(model.graph, "fetch_name_0", "probabilities")
    _take_best(model.graph)
    steps = ("batch", "steps")
    shapes = {"image": ("batch", 3, 48, "width"), "indices": steps, "scores": steps}
    set_shapes(model.graph, shapes)
    save(model, out / "model.onnx")


def _take_best(graph: onnx.GraphProto) -> None:
    """Replace the output `probabilities` by the best class and its probability."""
    source = ["probabilities"]
    graph.node.append(helper.make_node("ArgMax", source, ["indices"], axis=2, keepdims=0))
    graph.node.append(helper.make_node("ReduceMax", source, ["scores"], axes=[2], keepdims=0))
    del graph.output[:]
    for name, kind in (("indices", TensorProto.INT64), ("scores", TensorProto.FLOAT)):
        graph.output.append(helper.make_tensor_value_info(name, kind, None))


def _characters(model: onnx.ModelProto) -> str:
    """One character a line: blank, the alphabet in the file's metadata, the space."""
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    characters = ["", *metadata["character"].split("\n"), " "]
    if len(characters) != CLASSES or any(len(c) != 1 for c in characters[1:]):
        raise ValueError(f"the alphabet does not have {CLASSES} single characters")
    return "\n".join(characters) + "\n"
