"""Whisper's encoder: from a log-mel spectrogram to what every layer of the decoder attends to."""

from collections.abc import Mapping

import numpy as np

from ortmesh.catalogue.recipes._graph import CONTRIB, Array, Graph, int64
from ortmesh.catalogue.recipes._products import Product, full
from ortmesh.catalogue.recipes._whisper import Layers, read_sizes


def build_encoder(weights: Mapping[str, Array], product: Product = full) -> Graph:
    """`mel` [batch, mels, frames] → `cross_k`, `cross_v`; frames is even and at most 3,000.

    `cross_k` [layers, batch, heads, head, audio] is stored transposed, as the decoder reads it at
    each step, `cross_v` [layers, batch, heads, audio, head]; audio is frames / 2 (20 ms each).
    """
    sizes, graph = read_sizes(weights), Graph("whisper_encoder")
    layers = Layers(graph, weights, sizes, product)
    x = _embed(layers, graph.input("mel", np.float32, ["batch", sizes.mels, "frames"]))
    for i in range(sizes.encoder_layers):
        x = _layer(layers, x, f"encoder/layer_{i}")
    x = layers.norm(x, "encoder/layer_norm")
    keys, values = zip(*(_cross(layers, x, i) for i in range(sizes.decoder_layers)), strict=True)
    start = (sizes.decoder_layers, "batch", sizes.heads)
    head, positions = sizes.head_width, "audio"
    graph.output("cross_k", layers.stack([*keys]), np.float32, [*start, head, positions])
    graph.output("cross_v", layers.stack([*values]), np.float32, [*start, positions, head])
    return graph


def _embed(layers: Layers, mel: str) -> str:
    """Two convolutions, the second of stride 2, and sinusoids: [batch, audio, width]."""
    graph = layers.graph
    x = graph.op("Gelu", _conv(layers, mel, "encoder/conv1", stride=1))
    x = graph.op("Gelu", _conv(layers, x, "encoder/conv2", stride=2))
    x = graph.op("Transpose", x, perm=[0, 2, 1])
    audio = graph.op("Shape", x, start=1, end=2)
    table = layers.weight("encoder/position_encodings/encodings")
    return graph.op("Add", x, graph.op("Slice", table, int64(0), audio, int64(0)))


def _conv(layers: Layers, x: str, name: str, stride: int) -> str:
    weight, bias = layers.weight(f"{name}/weight"), layers.weight(f"{name}/bias")
    return layers.graph.op("Conv", x, weight, bias, kernel_shape=[3], pads=[1, 1], strides=[stride])


def _layer(layers: Layers, x: str, name: str) -> str:
    graph = layers.graph
    x = graph.op("Add", x, _self_attention(layers, x, f"{name}/self_attention"))
    return layers.feed_forward(x, f"{name}/ffn")


def _self_attention(layers: Layers, x: str, name: str) -> str:
    """Attention as ONNX Runtime's own operator, which never holds [heads, audio, audio] at once.

    At 30 s that is a tenth of the encoder's time and 200 MB less than MatMul, Softmax, MatMul.
    """
    normed = layers.norm(x, f"{name}/layer_norm")
    parts = layers.linears(normed, f"{name}/linear_0", parts=3)
    heads = layers.sizes.heads
    context = layers.graph.op("MultiHeadAttention", *parts, domain=CONTRIB, num_heads=heads)
    return layers.linear(context, f"{name}/linear_1")


def _cross(layers: Layers, x: str, layer: int) -> tuple[str, str]:
    """The keys (transposed) and values that one layer of the decoder attends to."""
    keys, values = layers.linears(x, f"decoder/layer_{layer}/attention/linear_1", parts=2)
    return layers.split_heads(keys, transposed=True), layers.split_heads(values)
