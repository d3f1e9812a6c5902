"""Silero VAD, speech detection at 16 kHz, from the weights in its package's ONNX file for sequences.

Architecture: the magnitudes of an STFT, four convolutions, an LSTM and a linear head, a probability for every frame of
512 samples that sees the 64 before it (github.com/snakers4/silero-vad, `tinygrad_model.py`). The package's graphs take
one frame of many recordings a run, or many frames of one recording; this one takes many of many, and cuts the frames
out of the samples itself. A frame is only four steps long: its convolutions are written as products with one matrix a
layer, over all frames at once, which takes a third of the time.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from ortmesh.catalogue.recipes._graph import Array, Graph, int64

OUTPUTS: tuple[str, ...] = ("model.onnx",)

SOURCE = "silero_vad_16k_sequence.onnx"

FRAME = 512
CONTEXT = 64  # samples before a frame that it sees
REFLECTED = 64  # samples mirrored behind a frame's end
HOP = 128
STEPS = 4  # windows of 256 samples in a frame with what it sees before it and what is mirrored
BINS = 129
WIDTH = 128
STRIDES = (1, 2, 2, 1)  # of the convolutions


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `model.onnx`: `samples` [batch, samples] in [-1, 1] and `state` [2, batch, 128] → `speech` [batch, frames]
    and `next_state` [2, batch, 128].

    `samples` are the 64 before the block (zero at the beginning) and whole frames of 512; `state` is zero at the
    beginning and then the `next_state` of the block before.
    """
    build(_read_weights(sources[SOURCE])).save(out / "model.onnx")


def build(weights: Mapping[str, Array]) -> Graph:
    """The graph of these weights."""
    graph = Graph("silero_vad")
    samples = graph.input("samples", np.float32, ["batch", "samples"])
    state = graph.input("state", np.float32, [2, "batch", WIDTH])
    frames = _frames(graph, samples)
    features = _encode(graph, graph.op("Reshape", frames, int64(-1, CONTEXT + FRAME)), weights)
    shape = graph.op("Concat", graph.op("Shape", frames, end=2), int64(WIDTH), axis=0)
    steps = graph.op("Transpose", graph.op("Reshape", features, shape), perm=[1, 0, 2])
    hidden, cell = graph.ops("Split", state, axis=0, num_outputs=2, outputs=2)
    recurrent = (weights["input"], weights["recurrence"], weights["bias"], "", hidden, cell)
    found, hidden, cell = graph.ops("LSTM", steps, *recurrent, hidden_size=WIDTH, outputs=3)
    active = graph.op("Relu", graph.op("Squeeze", found, int64(1)))
    logits = graph.op("Add", graph.op("MatMul", active, weights["head"]), weights["head_bias"])
    speech = graph.op("Squeeze", graph.op("Sigmoid", logits), int64(2))
    graph.output("speech", graph.op("Transpose", speech, perm=[1, 0]), np.float32, ["batch", "frames"])
    graph.output("next_state", graph.op("Concat", hidden, cell, axis=0), np.float32, [2, "batch", WIDTH])
    return graph


def _frames(graph: Graph, samples: str) -> str:
    """Samples [batch, 64 + n x 512] to overlapping frames [batch, n, 576]; other lengths fail."""
    last = np.iinfo(np.int64).max
    own = graph.op("Reshape", graph.op("Slice", samples, int64(CONTEXT), int64(last), int64(1)), int64(0, -1, FRAME))
    before = graph.op("Reshape", graph.op("Slice", samples, int64(0), int64(-CONTEXT), int64(1)), int64(0, -1, FRAME))
    context = graph.op("Slice", before, int64(0), int64(CONTEXT), int64(2))
    return graph.op("Concat", context, own, axis=2)


def _encode(graph: Graph, frames: str, weights: Mapping[str, Array]) -> str:
    """Frames [n, 576] to features [n, 128]."""
    padded = graph.op("Pad", frames, int64(0, 0, 0, REFLECTED), mode="reflect")
    hops = graph.op("Reshape", padded, int64(-1, STEPS + 1, HOP))
    first, second = (graph.op("Slice", hops, int64(at), int64(at + STEPS), int64(1)) for at in (0, 1))
    spectrum = graph.op("MatMul", graph.op("Concat", first, second, axis=2), weights["basis"])
    real, imaginary = graph.ops("Split", spectrum, int64(BINS, BINS), axis=2, outputs=2)
    power = graph.op("Add", graph.op("Mul", real, real), graph.op("Mul", imaginary, imaginary))
    value, steps = graph.op("Reshape", graph.op("Sqrt", power), int64(-1, STEPS * BINS)), STEPS
    for layer, stride in enumerate(STRIDES):
        matrix, bias, steps = as_product(weights[f"kernel_{layer}"], weights[f"bias_{layer}"], steps, stride)
        value = graph.op("Relu", graph.op("Gemm", value, matrix, bias))
    return value


def as_product(kernel: Array, bias: Array, steps: int, stride: int) -> tuple[Array, Array, int]:
    """A convolution [outputs, inputs, 3] over so many steps with one of padding on both sides, as a product: (matrix
    [steps x inputs, steps afterwards x outputs], bias [steps afterwards x outputs], steps afterwards)."""
    outputs, inputs, taps = kernel.shape
    after = (steps - 1) // stride + 1
    matrix = np.zeros((steps, inputs, after, outputs), np.float32)
    for to in range(after):
        for tap in range(taps):
            if 0 <= (step := to * stride + tap - 1) < steps:
                matrix[step, :, to] = kernel[:, :, tap].T
    return matrix.reshape(steps * inputs, after * outputs), np.tile(bias, after), after


def _read_weights(path: Path) -> dict[str, Array]:
    """The constants by our names; the exporter named the LSTM's only by numbers, so its node tells them."""
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    (lstm,) = [node for node in graph.node if node.op_type == "LSTM"]
    weights = {
        "basis": np.ascontiguousarray(stored["stft.forward_basis_buffer"][:, 0].T),
        "input": stored[lstm.input[1]],
        "recurrence": stored[lstm.input[2]],
        "bias": stored[lstm.input[3]],
        "head": stored["output.weight"].reshape(WIDTH, 1),
        "head_bias": stored["output.bias"],
    }
    for layer in range(len(STRIDES)):
        weights[f"kernel_{layer}"] = stored[f"encoder.{layer}.weight"]
        weights[f"bias_{layer}"] = stored[f"encoder.{layer}.bias"]
    return weights
