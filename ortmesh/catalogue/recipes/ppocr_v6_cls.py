"""PP-OCR, orientation: whether a line of text stands on its head, from rapidocr's ONNX file.

Architecture: a MobileNetV3 (arXiv:1905.02244), version 2.0 of PaddleOCR's mobile text-angle
classifier (github.com/PaddlePaddle/PaddleOCR). Only names and dimensions are changed.
"""

from collections.abc import Mapping
from pathlib import Path

import onnx

from ortmesh.catalogue.recipes._rename import rename_value, save, set_shapes

OUTPUTS: tuple[str, ...] = ("model.onnx",)

SOURCE = "ch_ppocr_mobile_v2.0_cls_mobile.onnx"


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `model.onnx`: `image` [batch, 3, 48, 192] → `turned` [batch, 2].

    `turned` holds the probabilities of 0 and of 180 degrees.
    """
    model = onnx.load(sources[SOURCE])
    rename_value(model.graph, "x", "image")
    rename_value(model.graph, "save_infer_model/scale_0.tmp_1", "turned")
    set_shapes(model.graph, {"image": ("batch", 3, 48, 192), "turned": ("batch", 2)})
    save(model, out / "model.onnx")
