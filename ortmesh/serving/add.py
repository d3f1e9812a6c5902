"""add: an ONNX file of a user's becomes a version in the store, with a card to be edited. Stage: store."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ortmesh.serving.cards import CARD_FILE, Batching, Card, TensorSpec
from ortmesh.serving.digests import sha256_of
from ortmesh.serving.faults import AlreadyInstalled, GraphRefused, StoreError, disk_errors
from ortmesh.serving.graph import Graph, GraphTensor, inspect, try_session
from ortmesh.serving.store import Store

GRAPH_FILE = "model.onnx"
EXPECTED = {
    "name": "expected 1 to 128 lower-case letters (a-z), digits, '.', '_' and '-', beginning with a letter or digit",
    "version": "expected 1 to 64 letters (A-Z, a-z), digits, '.', '_' and '-', beginning with a letter or digit",
}
"""The card's patterns of NAME and VERSION, in words."""


def add(file: Path, name: str, family: str, store: Store, version: str | None = None) -> Card:
    """Copies an ONNX file and the files of its weights into the store; returns the card that was written for it.

    Without a version it gets the next free whole number. GraphRefused when the file can't be served, StoreError
    when the name or version can't be had.
    """
    graph = inspect(file)
    draft = _card(name, family, version or "1", graph)
    with store.lock(f"add-{name}"):
        card = draft.model_copy(update={"version": version or _next_version(store, name)})
        _must_fit(card, store)
        with store.staging() as folder:
            with disk_errors(store.root):
                card = card.model_copy(update={"files": _copy(file, graph.sidecars, folder)})
            try_session(folder / GRAPH_FILE)
            store.install(card, folder)
    return card


def _card(name: str, family: str, version: str, graph: Graph) -> Card:
    origin = f", written by {graph.producer}" if graph.producer else ""
    content: dict[str, Any] = {
        "name": name,
        "version": version,
        "family": family,
        "tasks": [],
        "description": f"A model with ONNX opset {graph.opset}{origin}.",
        "graph": GRAPH_FILE,
        "files": {},
        "inputs": _specs(graph.inputs),
        "outputs": _specs(graph.outputs),
        "precision": graph.precision,
        "license": {"weights": "unknown"},
    }
    if not _stackable(graph):
        content["batching"] = Batching(max_rows=1)
    try:
        return Card.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise StoreError(f"{field} {first['input']!r}: {EXPECTED.get(field, first['msg'])}") from None


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
