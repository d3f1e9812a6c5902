"""PP-OCRv6 small, detection: where a page has text, from the ONNX file that rapidocr carries.

Architecture: differentiable binarization (Liao et al., arXiv:1911.08947), as in
github.com/PaddlePaddle/PaddleOCR. Only names and dimensions are changed.
"""

from collections.abc import Mapping
from pathlib import Path

import onnx

from ortmesh.catalogue.recipes._rename import rename_value, save, set_shapes

OUTPUTS: tuple[str, ...] = ("model.onnx",)

SOURCE = "PP-OCRv6_det_small.onnx"


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `model.onnx`: `image` [batch, 3, height, width] → `text` [batch, 1, height, width].

    `text` is the probability of text at each pixel; height and width are multiples of 32.
    """
    model = onnx.load(sources[SOURCE])
    rename_value(model.graph, "x", "image")
    rename_value(model.graph, "fetch_name_0", "text")
    sizes = ("height", "width")
    set_shapes(model.graph, {"image": ("batch", 3, *sizes), "text": ("batch", 1, *sizes)})
    save(model, out / "model.onnx")
