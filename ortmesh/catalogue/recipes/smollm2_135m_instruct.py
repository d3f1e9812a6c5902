"""SmolLM2-135M-Instruct, a small English model that answers (Allal et al., arXiv:2502.02737), from its GGUF of 4 bits.

Weights: huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ortmesh.catalogue.recipes._gguf import llama_shape, llama_weights, read_gguf
from ortmesh.catalogue.recipes._gguf_tokenizer import write_tokenizer
from ortmesh.catalogue.recipes._graph import Array
from ortmesh.catalogue.recipes._llama import LlamaShape, Matrix, llama
from ortmesh.catalogue.recipes._nbits import rounded

OUTPUTS: tuple[str, ...] = ("model.onnx", "tokenizer.json", "chat_template.jinja", "generation.json")

SOURCE = "SmolLM2-135M-Instruct.Q4_1.gguf"
END_OF_TEXT = 0
"""Ends a document, and so what follows a raw prompt; GGUF names the end of a turn only."""


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Write the graph, its tokenizer and template, and what an engine needs to know of them."""
    write(sources, out, rounded)


def write(sources: Mapping[str, Path], out: Path, kind: Callable[[Array], Matrix]) -> None:
    """The same with matrices of another kind."""
    source = read_gguf(sources[SOURCE])
    shape, facts = llama_shape(source), source.facts
    llama("smollm2_135m_instruct", shape, llama_weights(source, kind)).save(out / "model.onnx")
    tokens, merges, kinds = (facts[f"tokenizer.ggml.{part}"] for part in ("tokens", "merges", "token_type"))
    write_tokenizer(tokens, merges, kinds, out / "tokenizer.json")
    _write(out / "chat_template.jinja", facts["tokenizer.chat_template"])
    _write(out / "generation.json", json.dumps(_generation(shape, facts), indent=2) + "\n")


def _generation(shape: LlamaShape, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "context_length": shape.positions,
        "layers": shape.layers,
        "kv_heads": shape.kv_heads,
        "head_size": shape.head_size,
        "vocabulary": shape.vocabulary,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_ids": [facts["tokenizer.ggml.eos_token_id"], END_OF_TEXT],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
    }


def _write(target: Path, text: str) -> None:
    target.write_text(text, encoding="utf-8", newline="\n")
