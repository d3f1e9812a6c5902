"""The layers that Whisper's encoder and decoder share, from CTranslate2's weights.

Architecture: Radford et al., arXiv:2212.04356, and github.com/openai/whisper (`whisper/model.py`):
pre-norm transformers with GELU. Weights are stored as float32 (exactly the packaged float16), or in 8 bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ortmesh.catalogue.recipes._graph import Array, Graph, int64
from ortmesh.catalogue.recipes._products import Product, full

LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class Sizes:
    """The dimensions of one Whisper model."""

    mels: int
    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int
    audio_positions: int
    text_positions: int
    vocabulary: int

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def read_sizes(weights: Mapping[str, Array]) -> Sizes:
    """The sizes that the weights imply."""
    vocabulary, width = weights["decoder/embeddings/weight"].shape
    return Sizes(
        mels=weights["encoder/conv1/weight"].shape[1],
        width=width,
        heads=int(weights["encoder/num_heads"]),
        encoder_layers=_count_layers(weights, "encoder"),
        decoder_layers=_count_layers(weights, "decoder"),
        audio_positions=weights["encoder/position_encodings/encodings"].shape[0],
        text_positions=weights["decoder/position_encodings/encodings"].shape[0],
        vocabulary=vocabulary,
    )


class Layers:
    """Adds layers to a graph; `name` is the prefix of their weights, x is [rows, positions, width]."""

    def __init__(self, graph: Graph, weights: Mapping[str, Array], sizes: Sizes, product: Product = full) -> None:
        """`product` multiplies with the weights."""
        self.graph = graph
        self.product = product
        self.weights = weights
        self.sizes = sizes

    def weight(self, name: str) -> Array:
        return self.weights[name].astype(np.float32)

    def norm(self, x: str, name: str) -> str:
        gamma, beta = self.weight(f"{name}/gamma"), self.weight(f"{name}/beta")
        return self.graph.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=LAYER_NORM_EPSILON)

    def linear(self, x: str, name: str) -> str:
        return self.linears(x, name, parts=1)[0]

    def linears(self, x: str, name: str, parts: int) -> list[str]:
        """Apply each of the equal parts in which CTranslate2 keeps fused projections."""
        pairs = zip(
            np.split(self.weight(f"{name}/weight"), parts),
            np.split(self.weight(f"{name}/bias"), parts),
            strict=True,
        )
        return [self.product(self.graph, x, weight, bias) for weight, bias in pairs]

    def split_heads(self, x: str, *, transposed: bool = False) -> str:
        """[rows, positions, width] → [rows, heads, positions, head] (or head, positions)."""
        shape = int64(0, 0, self.sizes.heads, self.sizes.head_width)
        order = [0, 2, 3, 1] if transposed else [0, 2, 1, 3]
        return self.graph.op("Transpose", self.graph.op("Reshape", x, shape), perm=order)

    def attend(self, queries: str, keys: str, values: str, mask: str | None = None) -> str:
        """Attention over heads; keys come transposed: [rows, heads, head, positions]."""
        return self.gather(self.attention(queries, keys, mask), values)

    def attention(self, queries: str, keys: str, mask: str | None = None) -> str:
        """Which share of each position's value every query takes: [rows, heads, queries, positions]."""
        graph = self.graph
        scale = np.array(self.sizes.head_width**-0.5, np.float32)
        scores = graph.op("MatMul", graph.op("Mul", queries, scale), keys)
        if mask is not None:
            scores = graph.op("Add", scores, mask)
        return graph.op("Softmax", scores, axis=-1)

    def gather(self, attention: str, values: str) -> str:
        """These shares of values [rows, heads, positions, head]: [rows, queries, width]."""
        graph = self.graph
        merged = graph.op("Transpose", graph.op("MatMul", attention, values), perm=[0, 2, 1, 3])
        return graph.op("Reshape", merged, int64(0, 0, self.sizes.width))

    def feed_forward(self, x: str, name: str) -> str:
        hidden = self.linear(self.norm(x, f"{name}/layer_norm"), f"{name}/linear_0")
        return self.graph.op("Add", x, self.linear(self.graph.op("Gelu", hidden), f"{name}/linear_1"))

    def stack(self, values: list[str]) -> str:
        """The layers' values under a new first axis."""
        rows = [self.graph.op("Unsqueeze", value, int64(0)) for value in values]
        return self.graph.op("Concat", *rows, axis=0)


def _count_layers(weights: Mapping[str, Array], side: str) -> int:
    return sum(name.startswith(f"{side}/layer_") and name.endswith("/ffn/layer_norm/gamma") for name in weights)
