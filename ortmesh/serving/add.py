"""add: an ONNX file of a user's becomes a version in the store, with a card to be edited. Stage: store."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ortmesh.serving.cards import CARD_FILE, IN_WORDS, Batching, Card, Runtime, TensorSpec
from ortmesh.serving.digests import sha256_of
from ortmesh.serving.faults import AlreadyInstalled, GraphRefused, StoreError, disk_errors
from ortmesh.serving.graph import Graph, GraphTensor, inspect, try_session
from ortmesh.serving.mistakes import mistakes_in_words
from ortmesh.serving.store import Store
from ortmesh.serving.text_model import TASKS, TextFiles, text_files

GRAPH_FILE = "model.onnx"


def add(file: Path, name: str, family: str, store: Store, version: str | None = None) -> Card:
    """Copies an ONNX file and the files of its weights into the store; returns the card that was written for it.

    A language model of the family nlp comes with the files that its tasks need. Without a version it gets the next free
    whole number. GraphRefused when the file can't be served, StoreError when the name or version can't be had.
    """
    graph = inspect(file)
    text = text_files(file.parent, graph) if family == "nlp" else None
    draft = _card(name, family, version or "1", graph, text or TextFiles())
    with store.lock(f"add-{name}"):
        card = draft.model_copy(update={"version": version or _next_version(store, name)})
        _must_fit(card, store)
        with store.staging() as folder:
            with disk_errors(store.root):
                files = _copy(file, graph.sidecars, folder) | _write(text.texts if text else {}, folder)
                card = card.model_copy(update={"files": files})
            try_session(folder / GRAPH_FILE)
            store.install(card, folder)
    return card


def _card(name: str, family: str, version: str, graph: Graph, text: TextFiles) -> Card:
    origin = f", written by {graph.producer}" if graph.producer else ""
    content: dict[str, Any] = {
        "name": name,
        "version": version,
        "family": family,
        "tasks": [],
        "description": f"A model with ONNX opset {graph.opset}{origin}.{_why_silent(text)}",
        "graph": GRAPH_FILE,
        "files": {},
        **_runs(graph, text),
        "precision": graph.precision,
        "license": {"weights": "unknown"},
    }
    try:
        return Card.model_validate(content)
    except ValidationError as error:
        raise StoreError(mistakes_in_words(error, Card, IN_WORDS)) from None


def _why_silent(text: TextFiles) -> str:
    """Of a language model that only its tensors reach: no task finds it, and somebody will wonder."""
    return f" A language model that generates no texts here: {text.refused}." if text.refused else ""


def _runs(graph: Graph, text: TextFiles) -> dict[str, Any]:
    """How it is run: by the engine, which has tensors of its own, or as it is."""
    if text.engine is not None:
        return {"tasks": TASKS, "runtime": Runtime(engine=text.engine)}
    specs = {"inputs": _specs(graph.inputs), "outputs": _specs(graph.outputs)}
    return specs if _stackable(graph) else {**specs, "batching": Batching(max_rows=1)}


def _specs(tensors: Iterable[GraphTensor]) -> dict[str, TensorSpec]:
    return {tensor.name: _spec(tensor) for tensor in tensors}


def _spec(tensor: GraphTensor) -> TensorSpec:
    if tensor.place.shared:
        return TensorSpec(batch_axis=None, shared=True)
    return TensorSpec(batch_axis=tensor.place.batch_axis)


def _stackable(graph: Graph) -> bool:
    inputs_fit = all(tensor.place.shared or tensor.place.batch_axis is not None for tensor in graph.inputs)
    return inputs_fit and all(tensor.place.batch_axis is not None for tensor in graph.outputs)


def _next_version(store: Store, name: str) -> str:
    numbers = [int(path.name) for path in (store.root / name).glob("*") if path.name.isdecimal()]
    return str(max(numbers, default=0) + 1)


def _must_fit(card: Card, store: Store) -> None:
    """A name belongs to one family, and a version never changes."""
    if store.has(card.name, card.version):
        raise AlreadyInstalled(f"{card.key} is in the store already")
    family = next((other.family for other, _ in store.cards() if other.name == card.name), card.family)
    if family != card.family:
        raise StoreError(f"{card.name} is a model of the family {family} already: choose another name")


def _copy(file: Path, sidecars: Iterable[str], folder: Path) -> dict[str, str]:
    """Copies the graph and its weights; their sums by their names in the store."""
    sources = {name: file.parent / name for name in sidecars}
    if taken := sources.keys() & {GRAPH_FILE, CARD_FILE}:
        raise GraphRefused(f"its weights lie in {', '.join(taken)}, a name that the store itself uses: save them anew")
    sources[GRAPH_FILE] = file
    for name, source in sources.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return {name: sha256_of(folder / name) for name in sources}


def _write(texts: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Writes the files of a language model; their sums by their names."""
    for name, content in texts.items():
        (folder / name).write_text(content, encoding="utf-8", newline="\n")
    return {name: sha256_of(folder / name) for name in texts}
