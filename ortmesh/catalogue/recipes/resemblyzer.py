"""Resemblyzer's voice encoder, 1.4 M weights, from a PyTorch checkpoint: a vector that stands for a voice.

Architecture: three LSTM layers over a mel spectrogram, a projection of the last hidden state, a rectifier and the
L2 norm, trained with the loss "GE2E" (Wan et al., arXiv:1710.10467; github.com/resemble-ai/Resemblyzer,
`resemblyzer/voice_encoder.py`).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ortmesh.catalogue.recipes._graph import Array, Graph, int64
from ortmesh.catalogue.recipes._pickles import read_weights

OUTPUTS: tuple[str, ...] = ("model.onnx",)

SOURCE = "pretrained.pt"
ENTRY = "model_state"

MELS = 40
WIDTH = 256
LAYERS = 3


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `model.onnx`: `mels` [batch, frames, 40] → `embedding` [batch, 256], of length 1.

    `mels` are powers, not their logarithms; the weights were trained on 160 frames of 10 ms.
    """
    build(read_weights(sources[SOURCE], ENTRY)).save(out / "model.onnx")


def build(weights: Mapping[str, Array]) -> Graph:
    """The graph of these weights, by their names in the checkpoint."""
    graph = Graph("resemblyzer")
    steps = graph.op("Transpose", graph.input("mels", np.float32, ["batch", "frames", MELS]), perm=[1, 0, 2])
    last = ""
    for layer in range(LAYERS):
        hidden, last = graph.ops("LSTM", steps, *_lstm(weights, layer), hidden_size=WIDTH, outputs=2)
        steps = graph.op("Squeeze", hidden, int64(1))
    projected = graph.op(
        "Gemm", graph.op("Squeeze", last, int64(0)), weights["linear.weight"], weights["linear.bias"], transB=1
    )
    embedding = graph.op("LpNormalization", graph.op("Relu", projected), axis=1, p=2)
    graph.output("embedding", embedding, np.float32, ["batch", WIDTH])
    return graph


def _lstm(weights: Mapping[str, Array], layer: int) -> tuple[Array, Array, Array]:
    """The weights of one layer as ONNX's LSTM takes them."""
    ours = {part: _gates(weights[f"lstm.{part}_l{layer}"]) for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    bias = np.concatenate([ours["bias_ih"], ours["bias_hh"]])
    return ours["weight_ih"][None], ours["weight_hh"][None], bias[None]


def _gates(rows: Array) -> Array:
    """From PyTorch's order (input, forget, cell, output) to ONNX's (input, output, forget, cell)."""
    entrance, forget, cell, out = np.split(rows, 4)
    return np.concatenate([entrance, out, forget, cell])
