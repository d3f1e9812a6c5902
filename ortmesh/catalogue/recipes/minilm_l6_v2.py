"""all-MiniLM-L6-v2, an English sentence encoder of 6 layers, from its safetensors weights.

Architecture: BERT (Devlin et al., arXiv:1810.04805) with MiniLM's sizes (Wang et al.,
arXiv:2002.10957); mean pooling and normalisation after sentence-transformers (arXiv:1908.10084).
Weights: huggingface.co/sentence-transformers/all-MiniLM-L6-v2.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto
from safetensors.numpy import load_file

from ortmesh.catalogue.recipes._graph import CONTRIB, Array, Graph, float32, int64

OUTPUTS: tuple[str, ...] = ("model.onnx", "tokenizer.json")

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"

LAYERS, HEADS, HIDDEN = 6, 12, 384
LAYER_NORM_EPSILON = 1e-12
POOL_EPSILON = 1e-9  # sentence-transformers' own; keeps a text without tokens from dividing by 0


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write `model.onnx` and `tokenizer.json`."""
    write(sources, out, np.float32)


def write(sources: Mapping[str, Path], out: Path, dtype: npt.DTypeLike) -> None:
    """Write both, with weights and hidden states of this type; inputs, pooling and outputs do not depend on it."""
    _MiniLM(load_file(sources[WEIGHTS]), np.dtype(dtype)).build().save(out / "model.onnx")
    _write_tokenizer(sources[TOKENIZER], out / "tokenizer.json")


class _MiniLM:
    """Writes the graph; hidden states are [batch, tokens, 384]."""

    def __init__(self, weights: Mapping[str, Array], dtype: np.dtype[Any]) -> None:
        self.weights = {name: weight.astype(dtype) for name, weight in weights.items()}
        self.exact = dtype == np.float32
        self.graph = Graph("minilm_l6_v2")

    def build(self) -> Graph:
        """`input_ids`, `attention_mask` [batch, tokens] → `embedding`, `last_hidden_state`."""
        graph = self.graph
        ids = graph.input("input_ids", np.int64, ["batch", "tokens"])
        mask = graph.input("attention_mask", np.int64, ["batch", "tokens"])
        attended = graph.op("Cast", mask, to=TensorProto.INT32)  # as com.microsoft.Attention wants
        x = self._embed(ids)
        for layer in range(LAYERS):
            x = self._layer(x, attended, f"encoder.layer.{layer}")
        if not self.exact:  # pooled and given as float32: a sum over 512 tokens leaves float16's digits
            x = graph.op("Cast", x, to=TensorProto.FLOAT)
        graph.output("embedding", self._pool(x, mask), np.float32, ["batch", HIDDEN])
        graph.output("last_hidden_state", x, np.float32, ["batch", "tokens", HIDDEN])
        return graph

    def _embed(self, ids: str) -> str:
        """Word, position and (always the first) segment embeddings, normalised."""
        graph, weights = self.graph, self.weights
        words = graph.op("Gather", weights["embeddings.word_embeddings.weight"], ids, axis=0)
        tokens = graph.op("Shape", ids, start=1, end=2)
        table = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
        places = graph.op("Slice", table, int64(0), tokens, int64(0))
        return self._layer_norm(graph.op("Add", words, places), "embeddings.LayerNorm")

    def _layer(self, x: str, attended: str, name: str) -> str:
        graph = self.graph
        context = self._attention(x, attended, f"{name}.attention.self")
        dense = self._linear(context, f"{name}.attention.output.dense")
        x = self._layer_norm(graph.op("Add", dense, x), f"{name}.attention.output.LayerNorm")
        wide = graph.op("Gelu", self._linear(x, f"{name}.intermediate.dense"))
        narrow = self._linear(wide, f"{name}.output.dense")
        return self._layer_norm(graph.op("Add", narrow, x), f"{name}.output.LayerNorm")

    def _attention(self, x: str, attended: str, name: str) -> str:
        """Self-attention as one operator of ONNX Runtime's; padding gets exactly no weight.

        On a CPU 3–10 % quicker than MatMul, Softmax, MatMul; SkipLayerNormalization was slower.
        """
        parts = ("query", "key", "value")
        weight = np.concatenate([self.weights[f"{name}.{part}.weight"].T for part in parts], axis=1)
        bias = np.concatenate([self.weights[f"{name}.{part}.bias"] for part in parts])
        return self.graph.op("Attention", x, weight, bias, attended, domain=CONTRIB, num_heads=HEADS)

    def _pool(self, x: str, mask: str) -> str:
        """The mean over attended tokens, at length 1: [batch, 384]."""
        graph = self.graph
        weights = graph.op("Unsqueeze", graph.op("Cast", mask, to=TensorProto.FLOAT), int64(2))
        total = graph.op("ReduceSum", graph.op("Mul", x, weights), int64(1), keepdims=0)
        count = graph.op("ReduceSum", weights, int64(1), keepdims=0)
        mean = graph.op("Div", total, graph.op("Max", count, float32(POOL_EPSILON)))
        return graph.op("LpNormalization", mean, axis=-1, p=2)

    def _linear(self, x: str, name: str) -> str:
        product = self.graph.op("MatMul", x, self.weights[f"{name}.weight"].T)
        return self.graph.op("Add", product, self.weights[f"{name}.bias"])

    def _layer_norm(self, x: str, name: str) -> str:
        gamma, beta = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return self.graph.op("LayerNormalization", x, gamma, beta, axis=-1, epsilon=LAYER_NORM_EPSILON)


def _write_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer without its padding and truncation to 128 tokens: callers choose both."""
    tokenizer = json.loads(source.read_text(encoding="utf-8"))
    tokenizer["padding"] = tokenizer["truncation"] = None
    text = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    target.write_text(text, encoding="utf-8", newline="\n")
