"""The vision service's real models, loaded once for all tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from ortmesh.config import cpus
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def models(store: Store) -> AsyncIterator[Models]:
    """They live on the session's loop: a test that uses them runs there too (`pytestmark`)."""
    async with Models(store, "vision", threads=cpus(), meter=lambda *_: NoMeter()) as loaded:
        await loaded.until_loaded()
        assert all(model.state == "READY" for model in loaded.list()), [model.state_reason for model in loaded.list()]
        yield loaded
