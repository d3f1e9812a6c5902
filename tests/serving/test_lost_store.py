"""A store whose folder goes away while it is served: what is loaded goes on, and the log says it once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ortmesh.front.call import Call
from ortmesh.serving import models as served
from ortmesh.serving.add import add
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter
from tests.serving import graphs


async def until(holds: Callable[[], object]) -> None:
    """Returns once something that follows from a change of the disk is so."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 (what is waited for has no event)
            await asyncio.sleep(0.02)


async def test_models_outlive_their_store_and_the_empty_folder_in_its_place(
    tmp_path: Path, call: Call, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is away leaves its mount's empty folder, and a replica that starts meanwhile makes a new one."""
    monkeypatch.setattr(served, "FOLLOW_AGAIN_SECONDS", 0.1)
    caplog.set_level(logging.INFO, served.__name__)
    store, away = Store(tmp_path / "store"), tmp_path / "away"
    add(graphs.double(tmp_path / "added"), "double", "nlp", store)

    def told(text: str) -> int:
        return sum(text in record.getMessage() for record in caplog.records)

    async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as models:
        await models.until_loaded()
        store.root.rename(away)
        await until(lambda: told("No such file or directory"))
        async with Models(store, "nlp", threads=1, meter=lambda *_: NoMeter()) as late:
            await until(lambda: told("an empty folder is in its place"))
            assert late.list() == []
        await asyncio.sleep(0.5)  # five more looks
        model = models.named("double", "", call)
        x = np.ones((1, 4), np.float32)
        np.testing.assert_array_equal((await model({"x": x}, call))["y"], x * 2)
        assert (told("No such file or directory"), told("an empty folder")) == (1, 1)
        store.root.rmdir()
        away.rename(store.root)
        await until(lambda: told("is followed again"))
        add(graphs.double(tmp_path / "more"), "more", "nlp", store)
        await until(lambda: [each.state for each in models.list()] == ["READY", "READY"])
