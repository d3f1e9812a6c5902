"""GGUF files of Llamas: their facts, and their weights as matrices. The format: github.com/ggml-org/ggml."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, ReaderTensor, dequantize

from ortmesh.catalogue.recipes._graph import Array
from ortmesh.catalogue.recipes._llama import LlamaShape, LlamaWeights, Matrix
from ortmesh.catalogue.recipes._nbits import rounded


@dataclass(frozen=True)
class Gguf:
    """What a file holds."""

    facts: dict[str, Any]
    tensors: dict[str, ReaderTensor]

    def numbers(self, name: str) -> Array:
        """A tensor as f32, the last axis first in the file's own order of axes: [outputs, inputs]."""
        tensor = self.tensors[name]
        if tensor.tensor_type == GGMLQuantizationType.F32:
            return np.array(tensor.data)
        return np.asarray(dequantize(tensor.data, tensor.tensor_type), np.float32)


def read_gguf(path: Path) -> Gguf:
    """The facts and tensors of a file; tensors stay in it until they are asked for."""
    reader = GGUFReader(path)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    return Gguf(facts, {tensor.name: tensor for tensor in reader.tensors})


def llama_shape(source: Gguf) -> LlamaShape:
    """The sizes of a model; ValueError for one that is no Llama, or whose positions are stretched."""
    facts = source.facts
    if facts["general.architecture"] != "llama":
        raise ValueError(f"expected a llama, not {facts['general.architecture']}")
    if facts.get("llama.rope.scaling.type", "none") != "none":
        raise ValueError(f"expected plain positions, not {facts['llama.rope.scaling.type']}")
    heads, hidden = facts["llama.attention.head_count"], facts["llama.embedding_length"]
    return LlamaShape(
        layers=facts["llama.block_count"],
        heads=heads,
        kv_heads=facts["llama.attention.head_count_kv"],
        head_size=hidden // heads,
        hidden=hidden,
        vocabulary=len(facts["tokenizer.ggml.tokens"]),
        positions=facts["llama.context_length"],
        rope_base=facts["llama.rope.freq_base"],
        epsilon=facts["llama.attention.layer_norm_rms_epsilon"],
    )


def in_16_bits(numbers: Array) -> Array:
    """f32 as f16, the nearest. ValueError where that is infinite."""
    if np.abs(numbers).max(initial=0) > np.finfo(np.float16).max:
        raise ValueError(f"a weight of {np.abs(numbers).max():g} is too large for 16 bits")
    return numbers.astype(np.float16)


def llama_weights(source: Gguf, kind: Callable[[Array], Matrix] = rounded) -> LlamaWeights:
    """Matrices of this kind, of 8 bits by default or `in_16_bits`, and norms of 32 bits; ValueError where the file
    holds what the graph would leave out."""
    shape = llama_shape(source)
    unknown = source.tensors.keys() - _names(shape)
    if unknown:
        raise ValueError(f"no part of a plain llama: {', '.join(sorted(unknown))}")
    numbers = {name: source.numbers(name) for name in source.tensors}
    norms = {name: value for name, value in numbers.items() if value.ndim == 1}
    matrices = {name: kind(_in_order(name, value, shape)) for name, value in numbers.items() if value.ndim == 2}
    return LlamaWeights(matrices, norms)


def _names(shape: LlamaShape) -> set[str]:
    parts = [f"attn_{part}" for part in ("norm", "q", "k", "v", "output")]
    parts += [f"ffn_{part}" for part in ("norm", "gate", "up", "down")]
    layers = {f"blk.{layer}.{part}.weight" for layer in range(shape.layers) for part in parts}
    return layers | {"token_embd.weight", "output_norm.weight", "output.weight"}


def _in_order(name: str, matrix: Array, shape: LlamaShape) -> Array:
    """Rows as the graph has them: see `_half_apart`."""
    heads = {"attn_q.weight": shape.heads, "attn_k.weight": shape.kv_heads}.get(name.split(".", 2)[-1])
    return matrix if heads is None else matrix[_half_apart(heads, shape.head_size)]


def _half_apart(heads: int, head_size: int) -> Array:
    """Where each row stands in GGUF, which puts the two numbers that a position rotates side by side.

    The graph has them half a head apart, as the model was trained: in 1,000 tokens the operator is quicker so.
    """
    return np.arange(heads * head_size).reshape(heads, head_size // 2, 2).swapaxes(1, 2).reshape(-1)
