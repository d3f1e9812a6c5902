"""A Llama in plain NumPy, one text at a time without a cache: what the graph must compute."""

from __future__ import annotations

import numpy as np

from ortmesh.catalogue.recipes._graph import Array
from ortmesh.catalogue.recipes._llama import LlamaShape, LlamaWeights, Matrix
from ortmesh.catalogue.recipes._nbits import NBits


def logits(shape: LlamaShape, weights: LlamaWeights, ids: Array) -> Array:
    """f32 [tokens, vocabulary] of one text, ids [tokens]."""
    plain = {**weights.norms, **{name: _numbers(matrix) for name, matrix in weights.matrices.items()}}
    x = plain["token_embd.weight"][ids]
    for layer in range(shape.layers):
        name = f"blk.{layer}"
        x = x + _attention(shape, plain, name, _norm(x, plain[f"{name}.attn_norm.weight"], shape.epsilon))
        x = x + _feed_forward(plain, name, _norm(x, plain[f"{name}.ffn_norm.weight"], shape.epsilon))
    return np.asarray(_norm(x, plain["output_norm.weight"], shape.epsilon) @ plain["token_embd.weight"].T)


def _numbers(matrix: Matrix) -> Array:
    return matrix.numbers() if isinstance(matrix, NBits) else matrix.astype(np.float32)


def _norm(x: Array, weight: Array, epsilon: float) -> Array:
    return np.asarray(x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * weight)


def _attention(shape: LlamaShape, plain: dict[str, Array], name: str, x: Array) -> Array:
    heads = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
    q, k, v = (_heads(x @ plain[f"{name}.attn_{part}.weight"].T, count) for part, count in heads.items())
    q, k = _rotated(q, shape.rope_base), _rotated(k, shape.rope_base)
    k, v = (np.repeat(part, shape.heads // shape.kv_heads, axis=0) for part in (k, v))
    scores = q @ k.swapaxes(1, 2) / np.sqrt(shape.head_size)
    scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    context = shares / shares.sum(axis=-1, keepdims=True) @ v
    return np.asarray(context.swapaxes(0, 1).reshape(len(x), -1) @ plain[f"{name}.attn_output.weight"].T)


def _heads(x: Array, count: int) -> Array:
    """[heads, tokens, head_size]."""
    return x.reshape(len(x), count, -1).swapaxes(0, 1)


def _rotated(x: Array, base: float) -> Array:
    half = x.shape[2] // 2
    angles = np.outer(np.arange(x.shape[1]), base ** -(np.arange(half) / half))
    cosines, sines, first, second = np.cos(angles), np.sin(angles), x[..., :half], x[..., half:]
    return np.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=2)


def _feed_forward(plain: dict[str, Array], name: str, x: Array) -> Array:
    gate, up = (x @ plain[f"{name}.ffn_{part}.weight"].T for part in ("gate", "up"))
    return np.asarray((gate / (1 + np.exp(-gate)) * up) @ plain[f"{name}.ffn_down.weight"].T)
