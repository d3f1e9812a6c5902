"""Whisper's decoder: one step of a beam search over several items at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ortmesh.catalogue.recipes._graph import Array, Graph, float32, int64
from ortmesh.catalogue.recipes._products import Blocks, blockwise, full
from ortmesh.catalogue.recipes._whisper import Layers, Sizes, read_sizes

Head: TypeAlias = Sequence[int]  # its layer and its number there

CANDIDATES = 12  # of each row: a search with five beams looks at the best ten
MASKED = -1e9


def build_decoder(weights: Mapping[str, Array], aligned: Sequence[Head], *, int8: bool = False) -> Graph:
    """One step: the best next tokens of every row; a row is one beam of one item.

    `ids` [rows, tokens]: what each row appends. `beam` [rows]: the row of the step before that each
    row continues. `past_k`, `past_v` [layers, was, heads, past, head]: that step's `new_k`, `new_v`
    (past is 0 at first). `cross_k_0`, `cross_v_0` and so on: the encoder's, layer by layer (of
    stacked ones ONNX Runtime would copy every layer in every step: a quarter of its time), item by
    item; rows of one item stand together, equally many for each. Cross-attention has no order, so
    they are its query positions and share one copy. `suppress` [masks, vocabulary], masks 1 or
    rows: added to the logits. `probe` [probes]: tokens whose log-probability is wanted whatever
    their rank.

    → `scores` (log-probabilities) and `tokens` [rows, 12], best first; `probe_scores`
    [rows, probes]; `new_k`, `new_v` [layers, rows, heads, past + tokens, head]; `attention` [items,
    aligned, rows of an item x tokens, audio]: where the heads `aligned` look, which follow what is
    said (8 heads of 5 beams are 80 KB at 10 s).

    With `int8` the weights have 8 bits, embeddings too: a step of five beams takes 4 ms instead of 12
    on two threads, with no more word errors.
    """
    return _Decoder(weights, aligned, int8).build()


class _Decoder:
    def __init__(self, weights: Mapping[str, Array], aligned: Sequence[Head], int8: bool) -> None:
        self.sizes = read_sizes(weights)
        self.aligned = aligned
        self.graph = Graph("whisper_decoder")
        self.layers = Layers(self.graph, weights, self.sizes, blockwise if int8 else full)
        self.embeddings = _embeddings(self.graph, self.layers.weight("decoder/embeddings/weight"), int8)
        self.looks: list[str] = []

    def build(self) -> Graph:
        graph, sizes = self.graph, self.sizes
        _inputs(graph, sizes)
        past = graph.op("Shape", "past_k", start=3, end=4)
        total = graph.op("Add", past, graph.op("Shape", "ids", start=1, end=2))
        x = self._embed(past, total)
        x, keys, values = self._layers(x, self._causal_mask(past, total))
        last = graph.op("Gather", self.layers.norm(x, "decoder/layer_norm"), _scalar(-1), axis=1)
        self._rank(self.embeddings.product(graph, last))
        shape = (sizes.decoder_layers, "rows", sizes.heads, "total", sizes.head_width)
        graph.output("new_k", self.layers.stack(keys), np.float32, shape)
        graph.output("new_v", self.layers.stack(values), np.float32, shape)
        looks = graph.op("Concat", *self.looks, axis=1)
        graph.output("attention", looks, np.float32, ["items", len(self.aligned), "queries", "audio"])
        return graph

    def _embed(self, past: str, total: str) -> str:
        graph = self.graph
        words = self.embeddings.rows(graph, "ids")
        table = self.layers.weight("decoder/position_encodings/encodings")
        return graph.op("Add", words, graph.op("Slice", table, past, total, int64(0)))

    def _causal_mask(self, past: str, total: str) -> str:
        """[tokens, total]: a token sees itself and those before it."""
        graph = self.graph
        start, end = (graph.op("Squeeze", value, int64(0)) for value in (past, total))
        rows = graph.op("Unsqueeze", graph.op("Range", start, end, _scalar(1)), int64(1))
        columns = graph.op("Unsqueeze", graph.op("Range", _scalar(0), end, _scalar(1)), int64(0))
        hidden = graph.op("Greater", columns, rows)
        return graph.op("Where", hidden, float32(MASKED), float32(0))

    def _layers(self, x: str, mask: str) -> tuple[str, list[str], list[str]]:
        graph = self.graph
        past_keys, past_values = (graph.op("Gather", p, "beam", axis=1) for p in ("past_k", "past_v"))
        keys, values = [], []
        for i in range(self.sizes.decoder_layers):
            name, layer = f"decoder/layer_{i}", _scalar(i)
            past = [graph.op("Gather", p, layer, axis=0) for p in (past_keys, past_values)]
            x, key, value = self._self_attention(x, name, past, mask)
            x = self._cross_attention(x, name, i)
            x = self.layers.feed_forward(x, f"{name}/ffn")
            keys.append(key)
            values.append(value)
        return x, keys, values

    def _self_attention(self, x: str, name: str, past: list[str], mask: str) -> tuple[str, str, str]:
        graph, layers, attention = self.graph, self.layers, f"{name}/self_attention"
        normed = layers.norm(x, f"{attention}/layer_norm")
        parts = layers.linears(normed, f"{attention}/linear_0", parts=3)
        queries, key, value = (layers.split_heads(part) for part in parts)
        key = graph.op("Concat", past[0], key, axis=2)
        value = graph.op("Concat", past[1], value, axis=2)
        transposed = graph.op("Transpose", key, perm=[0, 1, 3, 2])
        context = layers.attend(queries, transposed, value, mask)
        return graph.op("Add", x, layers.linear(context, f"{attention}/linear_1")), key, value

    def _cross_attention(self, x: str, name: str, layer: int) -> str:
        """Attend to the audio with all rows (and tokens) of an item as its query positions."""
        graph, layers, attention = self.graph, self.layers, f"{name}/attention"
        normed = self._regroup(layers.norm(x, f"{attention}/layer_norm"), "cross_k_0", 0)
        queries = layers.split_heads(layers.linear(normed, f"{attention}/linear_0"))
        keys, values = f"cross_k_{layer}", f"cross_v_{layer}"
        looks = layers.attention(queries, keys)
        if heads := [head for of, head in self.aligned if of == layer]:
            self.looks.append(graph.op("Gather", looks, int64(*heads), axis=1))
        context = layers.linear(layers.gather(looks, values), f"{attention}/linear_2")
        return graph.op("Add", x, self._regroup(context, "ids", 0))

    def _regroup(self, x: str, like: str, axis: int) -> str:
        """Reshape x so that its first axis is as long as that axis of `like`."""
        graph = self.graph
        first = graph.op("Shape", like, start=axis, end=axis + 1)
        shape = graph.op("Concat", first, int64(-1, self.sizes.width), axis=0)
        return graph.op("Reshape", x, shape)

    def _rank(self, logits: str) -> None:
        """Suppress, normalise and keep the best: 51,864 logits a row never leave the graph."""
        graph = self.graph
        allowed = graph.op("Add", logits, "suppress")
        scores = graph.op("LogSoftmax", allowed, axis=-1)
        best, tokens = graph.ops("TopK", scores, int64(CANDIDATES), outputs=2, axis=-1)
        graph.output("scores", best, np.float32, ["rows", CANDIDATES])
        graph.output("tokens", tokens, np.int64, ["rows", CANDIDATES])
        probed = graph.op("Gather", scores, "probe", axis=1)
        graph.output("probe_scores", probed, np.float32, ["rows", "probes"])


@dataclass(frozen=True)
class _Whole:
    """Embeddings in 32 bits, stored once."""

    weight: str

    def product(self, graph: Graph, x: str) -> str:
        return graph.op("Gemm", x, self.weight, transB=1)

    def rows(self, graph: Graph, ids: str) -> str:
        return graph.op("Gather", self.weight, ids, axis=0)


def _embeddings(graph: Graph, weight: Array, int8: bool) -> _Whole | Blocks:
    return Blocks.of(graph, weight) if int8 else _Whole(graph.constant(weight, "embeddings"))


def _inputs(graph: Graph, sizes: Sizes) -> None:
    layers, heads, head = sizes.decoder_layers, sizes.heads, sizes.head_width
    graph.input("ids", np.int64, ["rows", "tokens"])
    graph.input("beam", np.int64, ["rows"])
    graph.input("past_k", np.float32, [layers, "was", heads, "past", head])
    graph.input("past_v", np.float32, [layers, "was", heads, "past", head])
    for layer in range(layers):
        graph.input(f"cross_k_{layer}", np.float32, ["items", heads, head, "audio"])
        graph.input(f"cross_v_{layer}", np.float32, ["items", heads, "audio", head])
    graph.input("suppress", np.float32, ["masks", sizes.vocabulary])
    graph.input("probe", np.int64, ["probes"])


def _scalar(value: int) -> Array:
    return np.array(value, np.int64)
