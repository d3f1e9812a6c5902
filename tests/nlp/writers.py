"""A store with a tiny model that writes, and what its callers do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ortmesh.serving.cards import Card
from ortmesh.serving.store import Store
from tests.nlp.tiny_llama import write_tiny_llama

NAME = "tiny-llama"


def writer(root: Path, **engine: Any) -> Store:
    """A store with the tiny model alone, its default for both tasks."""
    shelf = Store(root)
    settings = {"slots": 6, "context": 256, "tokens": 1024} | engine
    card = Card.model_validate(
        {
            "name": NAME,
            "family": "nlp",
            "tasks": ["generate", "count_tokens"],
            "default_for": ["generate", "count_tokens"],
            "files": dict.fromkeys(["model.onnx", "tokenizer.json", "chat_template.jinja", "generation.json"]),
            "runtime": {"engine": settings},
        }
    )
    with shelf.staging() as folder:
        write_tiny_llama(folder)
        shelf.install(card, folder)
    return shelf
