"""What tests of models share: a small model on a shelf, and waiting for what happens to it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from ortmesh.serving.cards import Card
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store

HANG_SECONDS = 60.0
"""What lasts so long will not end by itself, however busy the machine is."""
LOOK_SECONDS = 0.05
ONES = {"x": np.ones((1, 4), np.float32)}


def install(
    store: Store, folder: Path, name: str = "double", version: str = "1", *, replace: bool = False, **fields: object
) -> None:
    """Installs a copy of `folder/model.onnx` as a model of the nlp family."""
    with store.staging() as draft:
        shutil.copy(folder / "model.onnx", draft)
        card = Card.model_validate({"name": name, "version": version, "family": "nlp", **fields})
        store.install(card, draft, replace=replace)


async def until(models: Models, holds: Callable[[], bool], seconds: float = HANG_SECONDS) -> None:
    """Returns when `holds()`; looks after every change, and now and then: of threads that end nobody is told."""
    changed = asyncio.Event()
    unsubscribe = models.watch(changed.set)
    try:
        async with asyncio.timeout(seconds):
            while not holds():
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), LOOK_SECONDS)
                changed.clear()
    finally:
        unsubscribe()
