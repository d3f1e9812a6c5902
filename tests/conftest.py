"""What tests share: the real models, pulled once into a store that outlives the run, and services around them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import hypothesis
import pytest

from ortmesh import catalogue
from ortmesh.config import StoreSettings, cpus
from ortmesh.front.call import Call
from ortmesh.front.pool import Pool
from ortmesh.serving.fetch import pull
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter

FamilyModels = Callable[..., AbstractAsyncContextManager[Models]]

hypothesis.settings.register_profile("ortmesh", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("ortmesh")


@pytest.fixture(scope="session")
def store() -> Store:
    """The default models, in the user's own store: pulled on the first run, cached for the later ones."""
    shared = Store(StoreSettings().models)
    for card in catalogue.cards():
        if not card.optional:
            pull(card, shared)
    return shared


@pytest.fixture(scope="session")
def family_models(store: Store) -> FamilyModels:
    """A family's models, loaded, or those of these names: `async with family_models("vision") as models`."""

    @asynccontextmanager
    async def loaded(family: str, *names: str) -> AsyncIterator[Models]:
        async with Models(store, family, threads=cpus(), meter=lambda *_: NoMeter(), only=names) as models:
            await models.until_loaded()
            assert all(model.state == "READY" for model in models.list()), [m.state_reason for m in models.list()]
            yield models

    return loaded


@pytest.fixture
def call() -> Iterator[Call]:
    """A call without a deadline, ended after the test."""
    pool = Pool(threads=2, max_bytes=1 << 30)
    made = Call("/test.Test/Test", pool=pool)
    yield made
    made.end()
    pool.close()


@pytest.fixture
def data() -> Path:
    """The small files that tests read."""
    return Path(__file__).parent / "data"


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that accepts connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield int(listener.getsockname()[1])
