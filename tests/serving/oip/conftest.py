"""Models made of tiny graphs, and OIP's methods around them, loaded once for all tests here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from ortmesh.front.methods import Method
from ortmesh.front.pool import Pool
from ortmesh.serving import oip as oip_methods
from ortmesh.serving.models import Models
from ortmesh.serving.store import Store
from ortmesh.serving.types import NoMeter
from tests.serving.oip.calls import Caller
from tests.serving.oip.tiny import fill


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def models(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Models]:
    store = Store(tmp_path_factory.mktemp("models"))
    fill(store)
    async with Models(store, "nlp", threads=1, meter=lambda name, version: NoMeter()) as models:
        await models.until_loaded()
        yield models


@pytest.fixture(scope="session")
def methods(models: Models) -> dict[str, Method]:
    """The table's rows by their method's name."""
    return {method.path.rsplit("/", 1)[1]: method for method in oip_methods.methods(models, family="nlp")}


@pytest.fixture(scope="session")
def pool() -> Iterator[Pool]:
    pool = Pool(2, 64 * 1024 * 1024)
    yield pool
    pool.close()


@pytest.fixture(scope="session")
def ask(methods: dict[str, Method], pool: Pool) -> Caller:
    return Caller(methods, pool)
