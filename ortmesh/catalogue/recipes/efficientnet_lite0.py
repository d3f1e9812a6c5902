"""EfficientNet-Lite0, an image classifier over ImageNet's 1,000 classes, from PyTorch weights.

Architecture: Tan and Le, "EfficientNet" (arXiv:1905.11946); the Lite variants
(github.com/tensorflow/tpu, `models/official/efficientnet/lite`) leave out squeeze-and-excitation,
use ReLU6 and keep stem and head unscaled. The weights' names are those of EfficientNet-PyTorch.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ortmesh.catalogue.recipes._graph import Array, Graph, float32
from ortmesh.catalogue.recipes._pickles import read_weights

OUTPUTS: tuple[str, ...] = ("model.onnx", "labels.txt")

WEIGHTS = "efficientnet-lite0-57934424.pth"
CLEAN_NAMES = "imagenet1k_clean_names.json"
WORDNET_NAMES = "imagenet1k_label_to_names.json"

BATCH_NORM_EPSILON = 1e-3
# first stride, expansion, output channels, repeats (kernel sizes are read from the weights)
STAGES = (
    (1, 1, 16, 1),
    (2, 6, 24, 2),
    (2, 6, 40, 2),
    (2, 6, 80, 3),
    (1, 6, 112, 3),
    (2, 6, 192, 4),
    (1, 6, 320, 1),
)


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `model.onnx` and `labels.txt` (one class a line)."""
    _EfficientNet(read_weights(sources[WEIGHTS])).build().save(out / "model.onnx")
    labels = read_labels(sources[CLEAN_NAMES], sources[WORDNET_NAMES])
    (out / "labels.txt").write_text("\n".join(labels) + "\n", encoding="utf-8", newline="\n")


class _EfficientNet:
    """Writes the graph; every method takes and returns maps [batch, channels, height, width]."""

    def __init__(self, weights: Mapping[str, Array]) -> None:
        self.weights = weights
        self.graph = Graph("efficientnet_lite0")

    def build(self) -> Graph:
        """`image` [batch, 3, 224, 224] → `logits` [batch, 1000] and `embedding` [batch, 1280]."""
        graph = self.graph
        x = graph.input("image", np.float32, ["batch", 3, 224, 224])
        x = self._relu6(self._conv(x, "_conv_stem", "_bn0", stride=2))
        x = self._relu6(self._conv(self._stages(x), "_conv_head", "_bn1"))
        embedding = graph.op("Flatten", graph.op("GlobalAveragePool", x), axis=1)
        weight, bias = self.weights["_fc.weight"], self.weights["_fc.bias"]
        logits = graph.op("Gemm", embedding, weight, bias, transB=1)
        graph.output("logits", logits, np.float32, ["batch", 1000])
        graph.output("embedding", embedding, np.float32, ["batch", 1280])
        return graph

    def _stages(self, x: str) -> str:
        channels, block = 32, 0
        for first_stride, expansion, wider, repeats in STAGES:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                y = self._inverted_residual(x, f"_blocks.{block}.", channels, expansion, stride)
                x = self.graph.op("Add", y, x) if stride == 1 and channels == wider else y
                channels, block = wider, block + 1
        return x

    def _inverted_residual(self, x: str, block: str, channels: int, expansion: int, stride: int) -> str:
        """Widen, filter each channel alone, narrow (Sandler et al., arXiv:1801.04381)."""
        if expansion != 1:
            x = self._relu6(self._conv(x, f"{block}_expand_conv", f"{block}_bn0"))
        groups = channels * expansion
        x = self._conv(x, f"{block}_depthwise_conv", f"{block}_bn1", stride=stride, groups=groups)
        return self._conv(self._relu6(x), f"{block}_project_conv", f"{block}_bn2")

    def _conv(self, x: str, conv: str, norm: str, stride: int = 1, groups: int = 1) -> str:
        """A convolution with the batch normalisation after it folded into its weights.

        The padding is TensorFlow's SAME (the weights were trained with it): at stride 2 the odd
        pixel goes to the bottom right.
        """
        weight, (gamma, beta, mean, variance) = self.weights[f"{conv}.weight"], self._norm(norm)
        scale = gamma / np.sqrt(variance + np.float32(BATCH_NORM_EPSILON))
        folded, bias = weight * scale[:, None, None, None], beta - mean * scale
        return self.graph.op(
            "Conv",
            x,
            folded,
            bias,
            kernel_shape=list(weight.shape[2:]),
            strides=[stride, stride],
            group=groups,
            auto_pad="SAME_UPPER",
        )

    def _norm(self, name: str) -> tuple[Array, ...]:
        parts = ("weight", "bias", "running_mean", "running_var")
        return tuple(self.weights[f"{name}.{part}"] for part in parts)

    def _relu6(self, x: str) -> str:
        return self.graph.op("Clip", x, float32(0), float32(6))


def read_labels(clean_names: Path, wordnet_names: Path) -> list[str]:
    """The 1,000 readable names; where two classes share one, each takes its first WordNet name."""
    names: list[str] = json.loads(clean_names.read_text(encoding="utf-8"))
    wordnet: dict[str, str] = json.loads(wordnet_names.read_text(encoding="utf-8"))
    uses = Counter(names)
    labels = [name if uses[name] == 1 else wordnet[str(i)].split(",")[0] for i, name in enumerate(names)]
    if len(labels) != 1000 or len(set(labels)) != 1000:
        raise ValueError("the labels are not 1,000 distinct names")
    return labels
