"""The graph of a Llama (Touvron et al., arXiv:2302.13971) as an engine steps through it, with ONNX Runtime's operators.

Names and shapes of inputs and outputs are those of onnxruntime-genai's model builder, so that an engine for the one
takes the other; but the logits are of each row's last token alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
from onnx import TensorProto

from ortmesh.catalogue.recipes._graph import CONTRIB, Array, Graph, int64
from ortmesh.catalogue.recipes._nbits import MIDDLE, NBits
from ortmesh.catalogue.recipes._nbits import joined as joined_nbits

Matrix: TypeAlias = NBits | Array
"""[outputs, inputs]: of 8 bits, multiplied with floats of 32, or as it is, f16, with floats of 16."""

ROUNDED = 4
"""MatMulNBits' accuracy_level that rounds activations to 8 bits, a scale a block of a row: twice as quick as floats."""


@dataclass(frozen=True)
class LlamaShape:
    """The sizes and constants of a Llama."""

    layers: int
    heads: int  # of the queries
    kv_heads: int  # of keys and values, each shared by heads / kv_heads queries
    head_size: int
    hidden: int
    vocabulary: int
    positions: int  # the longest text
    rope_base: float
    epsilon: float  # of the norms


@dataclass(frozen=True)
class LlamaWeights:
    """The weights of a Llama by GGUF's names, all matrices of one kind."""

    matrices: Mapping[str, Matrix]  # without `output.weight` the embedding is the head, too
    norms: Mapping[str, Array]  # f32 [hidden]

    def __post_init__(self) -> None:
        """ValueError where they are of several kinds: one graph multiplies with floats of one size."""
        if len({isinstance(matrix, NBits) for matrix in self.matrices.values()}) > 1:
            raise ValueError("expected matrices of one kind, not some of 8 bits and some of 16")


def llama(name: str, shape: LlamaShape, weights: LlamaWeights) -> Graph:
    """`input_ids` [batch, tokens], `attention_mask` [batch, total] → `logits` f32 [batch, 1, vocabulary].

    `past_key_values.N.key`, `.value` and `present.N.key`, `.value`: f32, or f16 where the matrices are, [batch,
    kv_heads, length, head_size]; one buffer may be bound as both and is then written in place. A row's length after the
    run is the sum of its mask; all have as many new tokens.
    """
    return _Llama(name, shape, weights).build()


class _Llama:
    """Writes the graph; hidden states are [batch, tokens, hidden]."""

    def __init__(self, name: str, shape: LlamaShape, weights: LlamaWeights) -> None:
        self.graph = Graph(name)
        self.shape = shape
        self.weights = weights
        self.embedding = weights.matrices["token_embd.weight"]
        self.element = np.dtype(np.float32 if isinstance(self.embedding, NBits) else np.float16)
        self.table = self._constants("token_embd.weight", self.embedding)

    def build(self) -> Graph:
        graph, shape = self.graph, self.shape
        ids = graph.input("input_ids", np.int64, ["batch", "tokens"])
        mask = graph.input("attention_mask", np.int64, ["batch", "total"])
        graph.given("logits", np.float32, ["batch", 1, shape.vocabulary])
        ends = graph.op("Sub", graph.op("ReduceSum", mask, int64(1), keepdims=0), int64(1))
        total = graph.op("Cast", graph.op("Gather", graph.op("Shape", mask), np.array(1)), to=TensorProto.INT32)
        attended = (graph.op("Cast", ends, to=TensorProto.INT32), total, *self._rotations())
        x = y = self._half_embedding(ids)
        for layer in range(shape.layers):
            x, normed = self._norm(x, y, f"blk.{layer}.attn_norm.weight")
            y = self._attention(normed, attended, layer)
            if layer == shape.layers - 1:  # of the rest only the last token's is asked for
                x, y = (graph.op("Gather", value, int64(-1), axis=1) for value in (x, y))
            y = self._linear(y, f"blk.{layer}.attn_output.weight")
            x, normed = self._norm(x, y, f"blk.{layer}.ffn_norm.weight")
            y = self._feed_forward(normed, f"blk.{layer}")
        _, normed = self._norm(x, y, "output_norm.weight")
        self._head(normed)
        return graph

    def _rotations(self) -> tuple[str, str]:
        """Cosines and sines [positions, head_size / 2] of rotary embeddings (Su et al., arXiv:2104.09864)."""
        shape = self.shape
        speeds = shape.rope_base ** -(np.arange(0, shape.head_size, 2) / shape.head_size)
        angles = np.outer(np.arange(shape.positions), speeds)
        cosines, sines = np.cos(angles).astype(self.element), np.sin(angles).astype(self.element)
        return self.graph.constant(cosines, "cos_cache"), self.graph.constant(sines, "sin_cache")

    def _half_embedding(self, ids: str) -> str:
        """Half of it, exactly: the first norm adds two (ONNX Runtime's norm without a sum is in no checked opset).

        The rows are those of the very matrix that the head multiplies with, which is stored once.
        """
        graph, half = self.graph, np.array(0.5, self.element)
        if not isinstance(self.embedding, NBits):
            return graph.op("Mul", graph.op("Gather", *self.table, ids, axis=0), half)
        codes, scales = self.table
        numbers = graph.op("Cast", graph.op("Gather", codes, ids, axis=0), to=TensorProto.FLOAT)
        scale = graph.op("Mul", graph.op("Gather", scales, ids, axis=0), half)
        centred = graph.op("Sub", numbers, np.array(MIDDLE, np.float32))
        scaled = graph.op("Mul", centred, graph.op("Unsqueeze", scale, int64(3)))
        return graph.op("Reshape", scaled, int64(0, 0, self.shape.hidden))

    def _norm(self, x: str, y: str, name: str) -> tuple[str, str]:
        """The sum of both, and its root-mean-square norm."""
        weight, results = self.weights.norms[name].astype(self.element), (f"{name}.normed", "", "", f"{name}.sum")
        normed, _, _, total = self.graph.ops(
            "SkipSimplifiedLayerNormalization",
            *(x, y, weight),
            outputs=results,
            domain=CONTRIB,
            epsilon=self.shape.epsilon,
        )
        return total, normed

    def _attention(self, x: str, attended: tuple[str, ...], layer: int) -> str:
        """Causal attention over the cache and this run, positions included: one operator does it all."""
        graph, shape = self.graph, self.shape
        qkv = self._linear(x, *(f"blk.{layer}.attn_{part}.weight" for part in "qkv"))
        sides = ("key", "value")
        past = [
            graph.input(f"past_key_values.{layer}.{side}", self.element, self._cache("past_length")) for side in sides
        ]
        present = [f"present.{layer}.{side}" for side in sides]
        for name in present:
            graph.given(name, self.element, self._cache("length"))
        context, *_ = graph.ops(
            "GroupQueryAttention",
            *(qkv, "", "", *past, *attended),
            outputs=(f"blk.{layer}.context", *present),
            domain=CONTRIB,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            scale=shape.head_size**-0.5,
            do_rotary=1,
        )
        return context

    def _cache(self, length: str) -> list[int | str]:
        return ["batch", self.shape.kv_heads, length, self.shape.head_size]

    def _feed_forward(self, x: str, name: str) -> str:
        """SwiGLU (Shazeer, arXiv:2002.05202)."""
        graph = self.graph
        both = self._linear(x, f"{name}.ffn_gate.weight", f"{name}.ffn_up.weight")
        gate, up = graph.ops("Split", both, outputs=2, axis=-1, num_outputs=2)
        gate = graph.op("QuickGelu", gate, domain=CONTRIB, alpha=1.0)  # SiLU, with this alpha
        return self._linear(graph.op("Mul", gate, up), f"{name}.ffn_down.weight")

    def _head(self, x: str) -> None:
        own = self.weights.matrices.get("output.weight")
        weight = self.embedding if own is None else own
        constants = self.table if own is None else self._constants("output.weight", own)
        if isinstance(weight, NBits):
            self._product_of_codes(x, weight, constants, ["logits"])
            return
        graph = self.graph
        rows = graph.op("Gemm", graph.op("Squeeze", x, int64(1)), *constants, transB=1)
        numbers = graph.op("Cast", rows, to=TensorProto.FLOAT)
        graph.ops("Unsqueeze", numbers, int64(1), outputs=["logits"])

    def _linear(self, x: str, *names: str) -> str:
        """The product with the rows of these matrices, one after the other."""
        matrices, name = [self.weights.matrices[name] for name in names], "+".join(names)
        if isinstance(matrices[0], NBits):
            weight = joined_nbits(cast("list[NBits]", matrices))
            return self._product_of_codes(x, weight, self._constants(name, weight), 1)
        whole = np.concatenate(cast("list[Array]", matrices)).T
        return self.graph.op("MatMul", x, self.graph.constant(whole, name))

    def _product_of_codes(self, x: str, weight: NBits, constants: Sequence[str], outputs: int | Sequence[str]) -> str:
        (result,) = self.graph.ops(
            "MatMulNBits",
            *(x, *constants),
            outputs=outputs,
            domain=CONTRIB,
            K=weight.columns,
            N=weight.rows,
            bits=8,
            block_size=weight.block,
            accuracy_level=ROUNDED,
        )
        return result

    def _constants(self, name: str, weight: Matrix) -> tuple[str, ...]:
        graph = self.graph
        if not isinstance(weight, NBits):
            return (graph.constant(weight, name),)
        return graph.constant(weight.codes, f"{name}.codes"), graph.constant(weight.scales, f"{name}.scales")
