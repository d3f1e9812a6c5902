"""What tests of models share: a small model on a shelf, and waiting for what happens to it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ortmesh.serving.cards import Card
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store

ONES = {"x": np.ones((1, 4), np.float32)}


def install(
    store: Store, folder: Path, name: str = "double", version: str = "1", *, replace: bool = False, **fields: object
) -> None:
    """Installs a copy of `folder/model.onnx` as a model of the nlp family."""
    with store.staging() as draft:
        shutil.copy(folder / "model.onnx", draft)
        card = Card.model_validate({"name": name, "version": version, "family": "nlp", **fields})
        store.install(card, draft, replace=replace)


async def until(models: Models, holds: Callable[[], bool], seconds: float = 20) -> None:
    """Returns when `holds()`; looks after every change."""
    changed = asyncio.Event()
    unsubscribe = models.watch(changed.set)
    try:
        async with asyncio.timeout(seconds):
            while not holds():
                await changed.wait()
                changed.clear()
    finally:
        unsubscribe()
