"""Moonshine's encoder and decoder, built from the weights in its package.

Architecture: three convolutions over the samples, then transformers whose positions turn 32 of each head's 36 numbers
(Jeffries et al. 2024, arxiv.org/abs/2410.15608; transformers' `modeling_moonshine.py`). All rows of a batch have
equally many samples, so that no mask is needed: a padded row would come out differently.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ortmesh.catalogue.recipes._graph import Array, Graph, Shape, float32, int64
from ortmesh.catalogue.recipes._ort_format import Weights, dequantized

LAYERS = 6
WIDTH = 288
HEADS = 8
HEAD = WIDTH // HEADS
TURNED = 32  # numbers of a head that its position turns, in pairs that stand together
TURN_BASE = 10_000.0
EPSILON = 1e-5
GATE = 1152  # width within the decoder's feed-forward layers
MASKED = -1e9
CROSS: Mapping[str, Shape] = {
    "cross_k": (LAYERS, "batch", HEADS, HEAD, "audio"),
    "cross_v": (LAYERS, "batch", HEADS, "audio", HEAD),
}


def build_encoder(weights: Weights, decoder: Weights) -> Graph:
    """`samples` [batch, samples] in [-1, 1] at 16 kHz → `cross_k` [layers, batch, heads, head, audio] and `cross_v`
    [layers, batch, heads, audio, head], what the decoder attends to; one position of audio is 24 ms."""
    graph = Graph("moonshine_encoder")
    parts = _Parts(graph, weights)
    graph.input("samples", np.float32, ["batch", "samples"])
    x = _listen(graph, weights)
    turns = parts.turns(int64(0), graph.op("Shape", x, start=1, end=2))
    for i in range(LAYERS):
        name = f"layers.{i}"
        normed = parts.norm(x, f"{name}.input_layernorm.weight")
        queries, keys, values = parts.turned(normed, f"{name}/self_attn", turns)
        context = parts.attend(queries, graph.op("Transpose", keys, perm=[0, 1, 3, 2]), values)
        x = graph.op("Add", x, graph.op("MatMul", context, weights.linears[f"{name}/self_attn/o_proj"]))
        normed = parts.norm(x, f"{name}.post_attention_layernorm.weight")
        wide = graph.op("Gelu", parts.linear(normed, f"{name}/mlp/fc1", f"{name}.mlp.fc1.bias"))
        x = graph.op("Add", x, parts.linear(wide, f"{name}/mlp/fc2", f"{name}.mlp.fc2.bias"))
    x = parts.norm(x, "layer_norm.weight")
    for output, projection, order in (("cross_k", "k_proj", [2, 0, 3, 4, 1]), ("cross_v", "v_proj", [2, 0, 3, 1, 4])):
        joined = [decoder.linears[f"model/decoder/layers.{i}/encoder_attn/{projection}"] for i in range(LAYERS)]
        every = graph.op("MatMul", x, np.concatenate(joined, axis=1))
        split = graph.op("Reshape", every, int64(0, 0, LAYERS, HEADS, HEAD))
        graph.output(output, graph.op("Transpose", split, perm=order), np.float32, CROSS[output])
    return graph


def build_decoder(weights: Weights, written: Array) -> Graph:
    """One step of greedy decoding. `ids` [batch, tokens]: what each row appends. `past_k`, `past_v` [layers, batch,
    heads, past, head]: the `new_k`, `new_v` of the step before (past is 0 at first). `cross_k`, `cross_v`: the
    encoder's. `written` [vocabulary] says which tokens a text may contain.

    → `token` [batch], the most probable next one; `new_k`, `new_v` [layers, batch, heads, past + tokens, head].
    """
    return _Decoder(weights, written).build()


class _Parts:
    """What encoder and decoder are made of."""

    def __init__(self, graph: Graph, weights: Weights) -> None:
        self.graph = graph
        self.weights = weights

    def norm(self, x: str, weight: str) -> str:
        return self.graph.op("LayerNormalization", x, self.weights.named(weight), axis=-1, epsilon=EPSILON)

    def linear(self, x: str, layer: str, bias: str) -> str:
        return self.graph.op("Add", self.graph.op("MatMul", x, self.weights.linears[layer]), self.weights.named(bias))

    def turns(self, start: str | Array, end: str) -> tuple[str, str]:
        """The cosines and sines [positions, head] from position `start` to `end`."""
        graph = self.graph
        rates = np.zeros(HEAD, np.float32)  # a rate of 0 turns nothing
        rates[:TURNED] = np.repeat(TURN_BASE ** (-np.arange(0, TURNED, 2) / TURNED), 2)
        first, last = (graph.op("Squeeze", value, int64(0)) for value in (start, end))
        positions = graph.op("Cast", graph.op("Range", first, last, np.array(1, np.int64)), to=1)
        angles = graph.op("Mul", graph.op("Unsqueeze", positions, int64(1)), rates[None])
        return graph.op("Cos", angles), graph.op("Sin", angles)

    def turned(self, x: str, attention: str, turns: tuple[str, str]) -> tuple[str, str, str]:
        """Queries, keys and values [batch, heads, tokens, head], the first two turned, queries scaled.

        A turn is x cos + y sin, where y has each pair's numbers swapped, one of them negated: a projection too.
        """
        graph = self.graph
        queries, keys, values = (self.weights.linears[f"{attention}/{part}_proj"] for part in "qkv")
        queries = queries / np.float32(np.sqrt(HEAD))
        joined = np.concatenate([queries, _quarter(queries), keys, _quarter(keys), values], axis=1)
        parts = graph.ops("Split", graph.op("MatMul", x, joined), axis=2, num_outputs=5, outputs=5)
        query, query_quarter, key, key_quarter, value = map(self.heads, parts)
        return self._turn(query, query_quarter, turns), self._turn(key, key_quarter, turns), value

    def heads(self, x: str) -> str:
        split = self.graph.op("Reshape", x, int64(0, 0, HEADS, HEAD))
        return self.graph.op("Transpose", split, perm=[0, 2, 1, 3])

    def attend(self, queries: str, keys: str, values: str, mask: str = "") -> str:
        """[batch, tokens, width]; keys are transposed."""
        graph = self.graph
        scores = graph.op("MatMul", queries, keys)
        if mask:
            scores = graph.op("Add", scores, mask)
        context = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), values)
        return graph.op("Reshape", graph.op("Transpose", context, perm=[0, 2, 1, 3]), int64(0, 0, WIDTH))

    def _turn(self, x: str, quarter: str, turns: tuple[str, str]) -> str:
        graph, (cosines, sines) = self.graph, turns
        return graph.op("Add", graph.op("Mul", x, cosines), graph.op("Mul", quarter, sines))


def _quarter(weight: Array) -> Array:
    """The projection [in, width] whose results are those of `weight` turned by a right angle, where they are turned."""
    heads = weight.reshape(WIDTH, HEADS, HEAD)
    turned = np.zeros_like(heads)
    turned[..., 0:TURNED:2] = -heads[..., 1:TURNED:2]
    turned[..., 1:TURNED:2] = heads[..., 0:TURNED:2]
    return turned.reshape(WIDTH, WIDTH)


def _listen(graph: Graph, weights: Weights) -> str:
    """Samples to [batch, audio, width]."""
    x = graph.op("Unsqueeze", "samples", int64(1))
    x = graph.op("Tanh", graph.op("Conv", x, weights.named("conv1.weight_add_tensor"), strides=[64]))
    flat = graph.op("Reshape", x, int64(0, 1, -1))  # one group: normalized over everything
    normed = graph.op(
        "InstanceNormalization", flat, *(np.full(1, value, np.float32) for value in (1, 0)), epsilon=EPSILON
    )
    x = graph.op("Reshape", normed, graph.op("Shape", x))
    scale, shift = (_after(weights, kind) for kind in ("onnx::Mul_", "onnx::Add_"))
    x = graph.op("Add", graph.op("Mul", x, scale), shift)
    for layer, stride in (("conv2", 3), ("conv3", 2)):
        kernel, bias = weights.named(f"{layer}.weight_add_tensor"), weights.named(f"{layer}.bias")
        x = graph.op("Gelu", graph.op("Conv", x, kernel, bias, strides=[stride]))
    return graph.op("Transpose", x, perm=[0, 2, 1])


def _after(weights: Weights, kind: str) -> Array:
    """The first normalization's scale and shift, which the exporter named only by numbers: [width, 1]."""
    (found,) = [
        value for name, value in weights.constants.items() if name.startswith(kind) and value.shape == (WIDTH, 1)
    ]
    return found


class _Decoder:
    def __init__(self, weights: Weights, written: Array) -> None:
        self.weights = weights
        self.bias = np.where(written, 0, MASKED).astype(np.float32)
        self.graph = Graph("moonshine_decoder")
        self.parts = _Parts(self.graph, weights)

    def build(self) -> Graph:
        graph, parts = self.graph, self.parts
        self._inputs()
        names = (f"model.decoder.embed_tokens.weight_merged_0_{part}" for part in ("quantized", "scale", "zero_point"))
        embeddings = graph.constant(dequantized(self.weights.constants, *names), "embeddings")
        past = graph.op("Shape", "past_k", start=3, end=4)
        total = graph.op("Add", past, graph.op("Shape", "ids", start=1, end=2))
        turns, mask = parts.turns(past, total), self._causal_mask(past, total)
        x, keys, values = graph.op("Gather", embeddings, "ids", axis=0), [], []
        for i in range(LAYERS):
            x, key, value = self._layer(x, i, turns, mask)
            keys.append(key)
            values.append(value)
        last = graph.op("Gather", parts.norm(x, "model.decoder.norm.weight"), np.array(-1, np.int64), axis=1)
        logits = graph.op("Gemm", last, embeddings, self.bias, transB=1)
        graph.output("token", graph.op("ArgMax", logits, axis=1, keepdims=0), np.int64, ["batch"])
        shape = (LAYERS, "batch", HEADS, "total", HEAD)
        graph.output("new_k", self._stack(keys), np.float32, shape)
        graph.output("new_v", self._stack(values), np.float32, shape)
        return graph

    def _layer(self, x: str, i: int, turns: tuple[str, str], mask: str) -> tuple[str, str, str]:
        graph, parts, linears = self.graph, self.parts, self.weights.linears
        path, name, layer = f"model/decoder/layers.{i}", f"model.decoder.layers.{i}", np.array(i, np.int64)
        normed = parts.norm(x, f"{name}.input_layernorm.weight")
        queries, key, value = parts.turned(normed, f"{path}/self_attn", turns)
        key = graph.op("Concat", graph.op("Gather", "past_k", layer, axis=0), key, axis=2)
        value = graph.op("Concat", graph.op("Gather", "past_v", layer, axis=0), value, axis=2)
        context = parts.attend(queries, graph.op("Transpose", key, perm=[0, 1, 3, 2]), value, mask)
        x = graph.op("Add", x, graph.op("MatMul", context, linears[f"{path}/self_attn/o_proj"]))
        normed = parts.norm(x, f"{name}.post_attention_layernorm.weight")
        scaled = linears[f"{path}/encoder_attn/q_proj"] / np.float32(np.sqrt(HEAD))
        cross = [graph.op("Gather", each, layer, axis=0) for each in ("cross_k", "cross_v")]
        context = parts.attend(parts.heads(graph.op("MatMul", normed, scaled)), *cross)
        x = graph.op("Add", x, graph.op("MatMul", context, linears[f"{path}/encoder_attn/o_proj"]))
        normed = parts.norm(x, f"{name}.final_layernorm.weight")
        wide, gate = graph.ops(
            "Split", parts.linear(normed, f"{path}/mlp/fc1", f"{name}.mlp.fc1.bias"), axis=2, num_outputs=2, outputs=2
        )
        active = graph.op("Mul", graph.op("Mul", gate, graph.op("Sigmoid", gate)), wide)
        return graph.op("Add", x, parts.linear(active, f"{path}/mlp/fc2", f"{name}.mlp.fc2.bias")), key, value

    def _causal_mask(self, past: str, total: str) -> str:
        """[tokens, total]: a token sees itself and those before it."""
        graph, one = self.graph, np.array(1, np.int64)
        start, end = (graph.op("Squeeze", value, int64(0)) for value in (past, total))
        rows = graph.op("Unsqueeze", graph.op("Range", start, end, one), int64(1))
        columns = graph.op("Unsqueeze", graph.op("Range", np.array(0, np.int64), end, one), int64(0))
        return graph.op("Where", graph.op("Greater", columns, rows), float32(MASKED), float32(0))

    def _stack(self, layers: Sequence[str]) -> str:
        graph = self.graph
        return graph.op("Concat", *(graph.op("Unsqueeze", each, int64(0)) for each in layers), axis=0)

    def _inputs(self) -> None:
        graph = self.graph
        graph.input("ids", np.int64, ["batch", "tokens"])
        for name in ("past_k", "past_v"):
            graph.input(name, np.float32, [LAYERS, "batch", HEADS, "past", HEAD])
        for name, shape in CROSS.items():
            graph.input(name, np.float32, shape)
