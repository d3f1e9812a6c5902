"""A causal model of random weights, made on the spot: graph, tokenizer and files of a real one, in 150 KB."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ortmesh.catalogue.recipes._gguf_tokenizer import CONTROL, write_tokenizer
from ortmesh.catalogue.recipes._graph import Array
from ortmesh.catalogue.recipes._llama import LlamaShape, LlamaWeights, Matrix, llama
from ortmesh.catalogue.recipes._nbits import rounded

MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("t h", "th e", "Ġ t", "Ġ a", "i n", "e r", "o n", "a n", "Ġt h", "Ġth e", "r e", "a t", "e n", "o r", "i s")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
FEED_FORWARD = 128


def vocabulary() -> list[str]:
    """The marks, all bytes as byte-level BPE writes them, and what the merges make."""
    return [*MARKS, *_letters(), *(merge.replace(" ", "") for merge in MERGES)]


def _letters() -> list[str]:
    """GPT-2's letter of each byte: printable ones are their own."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


SHAPE = LlamaShape(
    layers=2,
    heads=4,
    kv_heads=2,
    head_size=16,
    hidden=64,
    vocabulary=len(vocabulary()),
    positions=512,
    rope_base=10000.0,
    epsilon=1e-5,
)


def weights(seed: int = 0, scale: float = 0.2, kind: Callable[[Array], Matrix] = rounded) -> LlamaWeights:
    """Random ones in `SHAPE`, matrices of this kind; with a larger scale the next token is surer."""
    random = np.random.default_rng(seed)

    def normal(*size: int) -> Array:
        return (random.standard_normal(size) * scale).astype(np.float32)

    hidden, keys = SHAPE.hidden, SHAPE.kv_heads * SHAPE.head_size
    sizes = {"attn_q": (hidden, hidden), "attn_k": (keys, hidden), "attn_v": (keys, hidden)}
    sizes |= {"attn_output": (hidden, hidden), "ffn_down": (hidden, FEED_FORWARD)}
    sizes |= {"ffn_gate": (FEED_FORWARD, hidden), "ffn_up": (FEED_FORWARD, hidden)}
    matrices = {"token_embd.weight": kind(normal(SHAPE.vocabulary, hidden))}
    norms = {"output_norm.weight": 1 + normal(hidden)}
    for layer in range(SHAPE.layers):
        matrices |= {f"blk.{layer}.{name}.weight": kind(normal(*size)) for name, size in sizes.items()}
        norms |= {f"blk.{layer}.{name}.weight": 1 + normal(hidden) for name in ("attn_norm", "ffn_norm")}
    return LlamaWeights(matrices, norms)


def write_tiny_llama(folder: Path, seed: int = 0, kind: Callable[[Array], Matrix] = rounded) -> Path:
    """Writes the files of a model as a recipe does, into a folder that is there; returns it."""
    tokens = vocabulary()
    llama("tiny_llama", SHAPE, weights(seed, kind=kind)).save(folder / "model.onnx")
    kinds = [CONTROL if token in MARKS else 1 for token in tokens]
    write_tokenizer(tokens, MERGES, kinds, folder / "tokenizer.json")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    facts = {
        "context_length": SHAPE.positions,
        "layers": SHAPE.layers,
        "kv_heads": SHAPE.kv_heads,
        "head_size": SHAPE.head_size,
        "vocabulary": SHAPE.vocabulary,
        "bos_token_id": 1,
        "eos_token_ids": [2, 0],
        "pad_token_id": 2,
    }
    (folder / "generation.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def write_as_the_builder(folder: Path) -> Path:
    """Writes the same as onnxruntime-genai's builder leaves a model: its configuration, and the tokenizer's with the
    template, in the place of two files of ours."""
    write_tiny_llama(folder)
    for name in ("generation.json", "chat_template.jinja"):
        (folder / name).unlink()
    decoder = {"filename": "model.onnx", "head_size": SHAPE.head_size, "num_hidden_layers": SHAPE.layers}
    told = {"context_length": SHAPE.positions, "vocab_size": SHAPE.vocabulary, "eos_token_id": 2, "bos_token_id": 1}
    config = {"model": {**told, "decoder": decoder, "type": "llama"}, "search": {"max_length": SHAPE.positions}}
    (folder / "genai_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}), encoding="utf-8")
    return folder
