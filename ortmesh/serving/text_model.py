"""Text model: a user's graph of a causal language model, and the files that it needs beside it. Stage: store.

They lie beside the graph as onnxruntime-genai's builder leaves them, or as the task reads them:

    tokenizer.json                                   is taken
    chat_template.jinja, or tokenizer_config.json    becomes chat_template.jinja
    generation.json, or genai_config.json            becomes generation.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ortmesh.serving.cards import EngineSettings
from ortmesh.serving.faults import GraphRefused
from ortmesh.serving.graph import Graph
from ortmesh.serving.mistakes import mistakes_in_words

TASKS = ["generate", "count_tokens"]
IDS, MASK, LOGITS = "input_ids", "attention_mask", "logits"
PAST, FIRST_KEY = "past_key_values.", "past_key_values.0.key"
ATTENTION = "GroupQueryAttention"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
TEMPLATE = "chat_template.jinja"
GENERATION, GENAI_CONFIG = "generation.json", "genai_config.json"
SURROGATE = re.compile(r"[\ud800-\udfff]")
"""Which JSON can write, and UTF-8 can't."""
NEEDS_TOKENIZER = f"{TOKENIZER}, of Hugging Face's library tokenizers"
NEEDS_TEMPLATE = f"{TEMPLATE}, or {TOKENIZER_CONFIG} with a chat_template"
NEEDS_GENERATION = f"{GENERATION}, or {GENAI_CONFIG} of onnxruntime-genai's builder"


@dataclass(frozen=True, slots=True)
class TextFiles:
    """What goes into the store beside the graph."""

    texts: Mapping[str, str] = field(default_factory=dict)
    """By the file's name."""
    engine: EngineSettings | None = None
    """For the card; None for a graph that no engine runs."""
    refused: str = ""
    """Why the engine runs no such language model."""


class _Ignoring(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class _Decoder(_Ignoring):
    head_size: int | None = Field(default=None, ge=1)


class _Model(_Ignoring):
    context_length: int = Field(ge=1)
    vocab_size: int = Field(ge=1)
    eos_token_id: int | list[int]
    bos_token_id: int | None = None
    decoder: _Decoder = Field(default_factory=_Decoder)


class GenaiConfig(_Ignoring):
    """What is read of a `genai_config.json`."""

    model: _Model


def text_files(folder: Path, graph: Graph) -> TextFiles | None:
    """The files of a language model, from those beside its graph; None for another one.

    GraphRefused names what is missing or wrong of a graph that the engine runs.
    """
    if not {IDS, FIRST_KEY} <= {tensor.name for tensor in graph.inputs}:
        return None
    if why := _why_refused(graph):
        return TextFiles(refused=why)
    tokenizer, template, generation = _tokenizer(folder), _template(folder), _generation(folder)
    if tokenizer is None or template is None or generation is None:
        needed = {NEEDS_TOKENIZER: tokenizer, NEEDS_TEMPLATE: template, NEEDS_GENERATION: generation}
        missing = "; ".join(what for what, found in needed.items() if found is None)
        raise GraphRefused(f"a model that generates texts needs files that are not beside it: {missing}")
    texts = {TOKENIZER: tokenizer, TEMPLATE: template, GENERATION: json.dumps(generation, indent=2) + "\n"}
    return TextFiles(texts, _engine(graph, generation))


def _why_refused(graph: Graph) -> str:
    """What of a language model the engine does not run; "" for nothing."""
    others = [
        tensor.name for tensor in graph.inputs if tensor.name not in (IDS, MASK) and not tensor.name.startswith(PAST)
    ]
    if others:
        return f"it takes {', '.join(others)} beside {IDS}, {MASK} and {PAST}*"
    names = {tensor.name for tensor in (*graph.inputs, *graph.outputs)}
    if missing := sorted({MASK, LOGITS} - names):
        return f"it has no {', '.join(missing)}"
    return "" if ATTENTION in graph.operators else f"its attention is no com.microsoft.{ATTENTION}"


def _tokenizer(folder: Path) -> str | None:
    return _read(folder / TOKENIZER) if (folder / TOKENIZER).is_file() else None


def _template(folder: Path) -> str | None:
    """The template of conversations; None where there is none."""
    if (folder / TEMPLATE).is_file():
        return _read(folder / TEMPLATE)
    if not (folder / TOKENIZER_CONFIG).is_file():
        return None
    template = _json(folder / TOKENIZER_CONFIG).get("chat_template")
    if isinstance(template, list):  # several by their names
        defaults = [each for each in template if isinstance(each, dict) and each.get("name") == "default"]
        template = defaults[-1].get("template") if defaults else None
    if not isinstance(template, str):
        return None
    if SURROGATE.search(template):
        raise GraphRefused(f"{TOKENIZER_CONFIG}: its chat_template is no text: it has half of a surrogate pair")
    return template


def _generation(folder: Path) -> dict[str, Any] | None:
    """What `generation.json` says or would say; None where nothing tells."""
    if (folder / GENERATION).is_file():
        return _json(folder / GENERATION)
    if not (folder / GENAI_CONFIG).is_file():
        return None
    try:
        model = GenaiConfig.model_validate(_json(folder / GENAI_CONFIG)).model
    except ValidationError as error:
        raise GraphRefused(f"{GENAI_CONFIG}: {mistakes_in_words(error, GenaiConfig)}") from None
    ends = model.eos_token_id if isinstance(model.eos_token_id, list) else [model.eos_token_id]
    told = {
        "context_length": model.context_length,
        "vocabulary": model.vocab_size,
        "bos_token_id": model.bos_token_id,
        "eos_token_ids": ends,
        "head_size": model.decoder.head_size,
    }
    return {name: value for name, value in told.items() if value is not None}


def _engine(graph: Graph, generation: Mapping[str, Any]) -> EngineSettings:
    """Only what has to be said: a context shorter than usual, and the size of heads that the graph leaves open."""
    given: dict[str, Any] = {}
    usual = EngineSettings.model_fields["context"].default
    if isinstance(length := generation.get("context_length"), int) and length < usual:
        given["context"] = length
    (key,) = (tensor for tensor in graph.inputs if tensor.name == FIRST_KEY)
    if not key.shape or key.shape[-1] < 0:
        if not isinstance(size := generation.get("head_size"), int):
            raise GraphRefused(f"the graph leaves the size of heads open, and {GENERATION} does not tell head_size")
        given["head_size"] = size
    try:
        return EngineSettings.model_validate(given)
    except ValidationError as error:
        raise GraphRefused(f"{GENERATION}: {mistakes_in_words(error, EngineSettings)}") from None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise GraphRefused(f"{path.name} is no JSON: {error}") from None
    if not isinstance(content, dict):
        raise GraphRefused(f"{path.name}: expected a JSON object")
    return content


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise GraphRefused(f"{path.name} is no text in UTF-8: {error}") from None
